//! The auth service across the network: [`Authority`] over the API, with the cluster's state in hand.
//!
//! The state is kept current by a request the auth service holds until something changed. While it is away, the last
//! state stands: sessions go on and new ones are decided by it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shared_api::{
    Client, ClientError, ClusterState, CompleteUpload, ErrorKind, ProxyHostCertRequest, pack_event,
};
use shared_events::AuditEvent;
use shared_types::SessionId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::authority::{Authority, AuthorityError, EmitError};
use crate::backoff::Backoff;
use crate::batches::Batches;

/// An auth service in another process.
pub struct RemoteAuthority {
    client: Client,
    state: watch::Receiver<Arc<ClusterState>>,
    stop: CancellationToken,
}

impl RemoteAuthority {
    /// Fetches the state once, and then keeps it current until `shutdown`, or until this is dropped.
    pub async fn connect(
        client: Client,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, ClientError> {
        let first = client.cluster_state(None).await?;
        let (sender, state) = watch::channel(Arc::new(first));
        let stop = shutdown.child_token();
        let (poller, ended) = (client.clone(), stop.clone());
        tokio::spawn(async move {
            let _ = ended.run_until_cancelled(follow(poller, sender)).await;
        });
        Ok(Arc::new(Self { client, state, stop }))
    }

    /// The client below, for what only a service itself asks for.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for RemoteAuthority {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn follow(client: Client, state: watch::Sender<Arc<ClusterState>>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    let mut away = false;
    loop {
        let after = state.borrow().revision;
        match client.cluster_state(Some(after)).await {
            Ok(next) => {
                if std::mem::take(&mut away) {
                    tracing::info!("auth service is back");
                }
                backoff.reset();
                if next.cluster != state.borrow().cluster {
                    tracing::error!(cluster = %next.cluster, "auth service answers for another cluster, its state is ignored");
                    tokio::time::sleep(backoff.next()).await;
                } else if next.revision == after {
                    // Held and answered without news; a service that does not hold must not be asked in a loop.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                } else {
                    state.send_replace(Arc::new(next));
                }
            }
            Err(err) => {
                let wait = backoff.next();
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(
                        error = &err as &dyn std::error::Error,
                        "auth service is away, the last known state stands"
                    );
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// An answer is an answer; everything else is the service being away.
fn authority_error(err: ClientError) -> AuthorityError {
    match err {
        ClientError::Api(err) => err.into(),
        other if other.is_transient() => AuthorityError::Unavailable(other.to_string()),
        other => {
            AuthorityError::Refused(shared_api::ApiError::new(other.kind(), other.to_string()))
        }
    }
}

/// A batch is refused only when the service says that it is wrong. A proxy whose certificate ended or whose role is
/// missing keeps its events.
fn emit_error(err: ClientError) -> EmitError {
    match err {
        ClientError::Api(err) if err.kind == ErrorKind::BadRequest => {
            EmitError::Refused(err.message)
        }
        other => EmitError::Unavailable(other.to_string()),
    }
}

#[async_trait]
impl Authority for RemoteAuthority {
    fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state.borrow())
    }

    fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.clone()
    }

    async fn sign_proxy_host(
        &self,
        principals: Vec<String>,
        public_key: &str,
    ) -> Result<String, AuthorityError> {
        let request = ProxyHostCertRequest { principals, public_key: public_key.to_owned() };
        Ok(self.client.sign_proxy_host(&request).await.map_err(authority_error)?.certificate)
    }

    async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError> {
        let mut batches = Batches::default();
        for event in events {
            let packed = pack_event(&event).len();
            batches.add(event, packed);
        }
        for batch in batches.into_batches() {
            self.client.emit(&batch).await.map_err(emit_error)?;
        }
        Ok(())
    }

    async fn upload_part(
        &self,
        upload: Uuid,
        session: &SessionId,
        part: u64,
        bytes: Bytes,
    ) -> Result<(), AuthorityError> {
        self.client.upload_part(upload, session, part, bytes).await.map_err(authority_error)
    }

    async fn complete_upload(
        &self,
        upload: Uuid,
        session: &SessionId,
        complete: CompleteUpload,
    ) -> Result<(), AuthorityError> {
        self.client.complete_upload(upload, session, &complete).await.map_err(authority_error)
    }

    async fn export(&self, kind: Option<&str>) -> Result<String, AuthorityError> {
        self.client.export_authority(kind).await.map_err(authority_error)
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
