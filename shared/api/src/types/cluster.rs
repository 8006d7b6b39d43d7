//! What a service needs to know of the cluster to decide on its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared_pki::TrustedAuthority;
use shared_types::resource::{
    ClusterAuthPreference, ClusterNetworkingConfig, Role, SessionRecordingConfig,
};
use shared_types::{ClusterName, RoleName};

/// `GET /v1/cluster-state`: no secrets, everything a proxy checks certificates and roles by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterState {
    /// Grows with every change.
    pub revision: u64,
    /// The cluster.
    pub cluster: ClusterName,
    /// Public halves of all authorities.
    pub authorities: Vec<TrustedAuthority>,
    /// All roles.
    pub roles: BTreeMap<RoleName, Role>,
    /// Where sessions are recorded.
    pub recording: SessionRecordingConfig,
    /// Time-outs and routing.
    pub networking: ClusterNetworkingConfig,
    /// How users log in.
    pub auth_preference: ClusterAuthPreference,
}

/// `?after=` of the cluster state.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct StateQuery {
    /// The revision in hand; answered at once where unset or different, otherwise at the next change or after a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}
