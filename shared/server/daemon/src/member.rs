//! How a service of this process stands to the auth service: beside it, or joined.

use std::sync::Arc;
use std::time::Duration;

use server_auth::LocalAuthority;
use server_core::host::HostKeys;
use server_core::{Authority, KeptState, RemoteAuthority};
use shared_api::Client;
use shared_types::{HostId, SystemRole};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::auth_service::RunningAuth;
use crate::data_dir::DataDir;
use crate::host_identity::Joiner;
use crate::services::RunError;

/// How long to wait before asking an auth service that is away again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the certificates of a service beside the auth service are made anew.
const RENEW: Duration = Duration::from_secs(24 * 3600);

/// A service's way to the auth service, and the keys it shows.
pub(crate) struct Membership {
    /// The auth service, as the service's role sees it.
    pub(crate) authority: Arc<dyn Authority>,
    /// Keys and certificates of the service.
    pub(crate) keys: watch::Receiver<Arc<HostKeys>>,
    /// The client of one that is not in this process.
    pub(crate) client: Option<Client>,
}

impl Membership {
    /// Beside the auth service. `names` are further names of this host. Certificates are renewed until `stop`.
    pub(crate) fn local(
        auth: &RunningAuth,
        role: SystemRole,
        host_id: HostId,
        names: Vec<String>,
        stop: &CancellationToken,
    ) -> Result<Self, RunError> {
        let service = &auth.service;
        let authority = match role {
            SystemRole::Proxy => LocalAuthority::for_proxy(Arc::clone(service)),
            SystemRole::Db => LocalAuthority::for_db(Arc::clone(service)),
            _ => LocalAuthority::for_node(Arc::clone(service)),
        };
        let authority = authority.map_err(RunError::AuthApi)?;
        let first = service.host_keys(role, host_id, &names).map_err(RunError::AuthApi)?;
        let (renewed, keys) = watch::channel(Arc::new(first));
        let (service, stop) = (Arc::clone(service), stop.clone());
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_some() {
                match service.host_keys(role, host_id, &names) {
                    Ok(keys) => drop(renewed.send_replace(Arc::new(keys))),
                    Err(error) => {
                        tracing::warn!(%error, %role, "could not renew certificates, those in hand stay");
                    }
                }
            }
        });
        Ok(Self { authority, keys, client: None })
    }

    /// Joins, or takes the identity of an earlier start, and follows the cluster's state. Waits for an auth service that
    /// is away, unless a state was kept. Certificates are renewed until `stop`.
    pub(crate) async fn joined(
        joiner: Joiner,
        dir: &DataDir,
        stop: &CancellationToken,
    ) -> Result<Self, RunError> {
        let (role, host_id) = (joiner.role, joiner.host_id);
        let member = joiner.member().await?;
        let client = member.client();
        let mut away = false;
        // The state is still asked for while sessions end; dropping the authority ends it.
        let never = CancellationToken::new();
        let authority = loop {
            let (client, kept) = (client.clone(), KeptState::new(dir.path(), role));
            match RemoteAuthority::connect(client, host_id, role, kept, &never).await {
                Ok(authority) => break authority,
                Err(error) if error.is_transient() => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "auth service cannot be reached, trying on");
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(RunError::State(error)),
            }
        };
        member.keep_renewed(stop).await;
        Ok(Self { authority, keys: member.keys(), client: Some(client.clone()) })
    }
}
