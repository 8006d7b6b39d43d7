//! What users ask the proxy for, once they are in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use server_core::access::check_user;
use server_core::ssh::Ends;
use shared_api::ClusterState;
use shared_pki::Identity;
use shared_pki::ssh_key::Certificate;
use shared_pki::verify::SshVerifier;
use shared_ssh::russh::cipher;
use shared_ssh::server::{
    AuthGate, OuterService, OuterSession, ProxyRequest, RequestError, Subsystem, SubsystemReply,
};
use shared_types::{Node, RecordingMode};
use tokio_util::sync::CancellationToken;

use super::SshProxy;
use super::network;
use super::route::{self, Route, Routes};
use super::visit::Visit;
use crate::startups::Place;

/// How long somebody who is locked out may stay connected.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// The port of a target whose user named none.
const DEFAULT_PORT: u16 = 3022;

/// One connection on the listener.
pub(super) struct Door {
    pub(super) proxy: Arc<SshProxy>,
    pub(super) ends: Ends,
    pub(super) ciphers: Vec<cipher::Name>,
    stop: CancellationToken,
    /// Given back once somebody is in.
    place: Mutex<Option<Place>>,
    /// The certificate that got the user in.
    shown: Mutex<Option<Arc<Certificate>>>,
}

impl Door {
    pub(super) fn new(
        proxy: Arc<SshProxy>,
        ends: Ends,
        ciphers: Vec<cipher::Name>,
        place: Place,
        stop: CancellationToken,
    ) -> Self {
        let place = Mutex::new(Some(place));
        Self { proxy, ends, ciphers, stop, place, shown: Mutex::default() }
    }

    /// The certificate that got the user in.
    pub(super) fn shown(&self) -> Option<Arc<Certificate>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl AuthGate for Door {
    type Identity = Arc<Identity>;

    async fn admit(&self, login: &str, certificate: &Certificate) -> Result<Arc<Identity>, String> {
        let state = self.proxy.authority.state();
        let identity = SshVerifier::new(&state.authorities, Utc::now())
            .user(certificate, login, Some(self.ends.peer.ip()))
            .map_err(|refusal| refusal.to_string())?;
        if identity.cluster != state.cluster {
            return Err(format!("certificate is of cluster {}", identity.cluster));
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(certificate.clone()));
        // Who is locked out gets as far as being told so in words, and no further.
        match check_user(&state, &identity, None, self.proxy.via()) {
            Ok(()) => drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take()),
            Err(_) => self.end_soon(),
        }
        Ok(Arc::new(identity))
    }
}

#[async_trait]
impl OuterService for Door {
    async fn subsystem(
        &self,
        session: OuterSession<Arc<Identity>>,
        subsystem: Result<Subsystem, RequestError>,
        reply: SubsystemReply,
    ) {
        if let Err(text) = self.check(&session).await {
            reply.fail(&text).await;
            return self.end_soon();
        }
        match subsystem {
            Ok(Subsystem::Proxy(request)) => self.proxy_to(session, request, reply).await,
            Ok(Subsystem::ProxySites) => {
                let cluster = self.proxy.authority.state().cluster.to_string();
                let sites = serde_json::json!([{ "name": cluster, "status": "online", "lastconnected": Utc::now().to_rfc3339() }]);
                reply.finish(Bytes::from(format!("{sites}\n"))).await;
            }
            Err(err) => reply.fail(&err.to_string()).await,
        }
    }
}

impl Door {
    /// Refuses who may do nothing at all. The error is a text for the client; the event is emitted.
    async fn check(&self, session: &OuterSession<Arc<Identity>>) -> Result<(), String> {
        let (state, via) = (self.proxy.authority.state(), self.proxy.via());
        let Err(refusal) = check_user(&state, &session.identity, Some(&session.login), via) else {
            return Ok(());
        };
        self.proxy.shut_out(self.ends, &session.identity, &session.login, &refusal).await;
        Err(refusal.peer_text().into_owned())
    }

    /// Ends the connection, once what was said has had the time to arrive.
    fn end_soon(&self) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            if stop.run_until_cancelled(tokio::time::sleep(LAST_WORDS)).await.is_some() {
                stop.cancel();
            }
        });
    }

    async fn proxy_to(
        &self,
        session: OuterSession<Arc<Identity>>,
        request: ProxyRequest,
        reply: SubsystemReply,
    ) {
        let state = self.proxy.authority.state();
        if let Some(cluster) = request.cluster.as_ref().filter(|cluster| **cluster != state.cluster)
        {
            return reply.fail(&format!("cluster {cluster} is not known here")).await;
        }
        let port = request.port.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT);
        let login = session.login.clone();
        let routed = self.route(&state, &session.identity, &request);
        let (node, refusal) = match routed {
            Ok(Route::Node(node)) => (Some(node), None),
            Ok(Route::Unregistered) => (None, None),
            Err(text) => (None, Some(text)),
        };
        let mode = recorded_at(state.recording.spec.mode, node.as_deref());
        let visit = Visit::new(self, session, request.host, port, node, mode);
        if let Some(text) = refusal {
            visit.rejected(&text).await;
            return reply.fail(&text).await;
        }
        let _counted = match visit.one_more(&login, None).connection(&self.proxy.users).await {
            Ok(counted) => counted,
            Err(text) => return reply.fail(&text).await,
        };
        // A node that the user may not see is refused above; a host that does not exist has to look the same.
        if visit.node.is_none()
            && mode != RecordingMode::Off
            && !network::exists(visit.host().as_ref(), port).await
        {
            let text = route::offline(visit.host());
            visit.rejected(&text).await;
            return reply.fail(&text).await;
        }
        let openssh = visit.node.as_deref().is_some_and(Node::is_openssh);
        match mode {
            // The user has no certificate that such a server takes, so the proxy logs in for the user in each mode.
            RecordingMode::Off if openssh => visit.record(reply, self.stop.child_token()).await,
            RecordingMode::Off => visit.pipe(reply, self.stop.child_token()).await,
            RecordingMode::Node | RecordingMode::NodeSync if visit.node.is_some() => {
                visit.pipe(reply, self.stop.child_token()).await
            }
            RecordingMode::Proxy | RecordingMode::ProxySync => {
                visit.record(reply, self.stop.child_token()).await
            }
            RecordingMode::Node | RecordingMode::NodeSync => {
                let remedy =
                    if mode.is_sync() { RecordingMode::ProxySync } else { RecordingMode::Proxy };
                let text = format!(
                    "sessions are recorded at the node in this cluster (session_recording: \"{mode}\"), and {} is a plain SSH \
                     server that cannot record itself; set session_recording: \"{remedy}\" in teleport.yaml, or with tctl create",
                    visit.host(),
                );
                visit.rejected(&text).await;
                reply.fail(&text).await;
            }
        }
    }

    fn route(
        &self,
        state: &ClusterState,
        identity: &Identity,
        request: &ProxyRequest,
    ) -> Result<Route, String> {
        let view = self.proxy.authority.nodes();
        let connected = |host| self.proxy.tunnels.since(host);
        let routes = Routes { state, view: &view, identity, connected: &connected };
        routes.find(&request.host, request.port)
    }
}

/// Where a session on `node` is recorded: a plain sshd that is registered cannot record itself.
fn recorded_at(mode: RecordingMode, node: Option<&Node>) -> RecordingMode {
    match (mode, node.is_some_and(Node::is_openssh)) {
        (RecordingMode::Node, true) => RecordingMode::Proxy,
        (RecordingMode::NodeSync, true) => RecordingMode::ProxySync,
        (mode, _) => mode,
    }
}
