//! What a user's roles and the cluster say of running sessions, as they are now.

use std::time::Duration;

use shared_api::ClusterState;
use shared_authz::MergedOptions;
use shared_pki::Identity;

use crate::access::roles;

/// The options of a user's roles, as they are now.
pub fn options(state: &ClusterState, identity: &Identity) -> MergedOptions {
    roles(state, identity).options().clone()
}

/// Whether sessions end with the certificate.
pub fn ends_with_certificate(state: &ClusterState, identity: &Identity) -> bool {
    options(state, identity)
        .disconnect_expired_cert
        .unwrap_or(state.auth_preference.spec.disconnect_expired_cert)
}

/// After how long without traffic a connection ends: the shortest of the roles' and the cluster's.
pub fn idle_timeout(state: &ClusterState, identity: &Identity) -> Option<Duration> {
    let cluster = state.networking.spec.client_idle_timeout;
    let cluster = (!cluster.is_zero()).then(|| cluster.as_std());
    [options(state, identity).client_idle_timeout, cluster].into_iter().flatten().min()
}
