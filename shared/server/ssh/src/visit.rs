//! One client on this host: who it is, what it may do, and when that ends.
//!
//! What must stay true: every session and every forwarded connection is decided anew; what is written down is durable
//! before anything starts; somebody who may do nothing gets as far as being told so in words, and no further.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use server_core::access::{AccessRefused, Reach, SshRequest, authorize_ssh, check_ssh, check_user};
use server_core::ssh::events::{self, Party, PortStep};
use server_core::ssh::ledger;
use server_core::ssh::limits::{Connection, OneMore, Sessions};
use server_core::ssh::options::options;
use server_core::ssh::tap::{PortTap, Recording, SessionTap};
use server_core::ssh::{Ends, watch};
use server_core::tunnel::ArrivedBy;
use server_core::{ClusterState, EventSink as _};
use shared_authz::MergedOptions;
use shared_pki::Identity;
use shared_pki::ssh_key::Certificate;
use shared_pki::verify::SshVerifier;
use shared_ssh::node::{NodeService, NodeSession, Refusal};
use shared_ssh::relay::{ForwardTap, Tap};
use shared_ssh::server::AuthGate;
use shared_types::{Login, RecordingMode, SessionId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use crate::forward;
use crate::quiet::Quiet;
use crate::service::SshService;
use crate::session::Session;

/// How long somebody who may do nothing may stay connected.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What a client reads whose port is not forwarded.
const NOT_FORWARDED: &str = "port forwarding not permitted";
/// What a client reads when nothing can be written down.
const NO_AUDIT: &str = "the audit log cannot be written";

/// One client.
pub(crate) struct Visit {
    pub(crate) service: Arc<SshService>,
    pub(crate) ends: Ends,
    via: ArrivedBy,
    /// Given back once somebody is in.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    /// Counted among the user's connections.
    counted: Mutex<Option<Connection>>,
    /// As whom the client got in.
    login: OnceLock<String>,
    /// Whether something was granted, which can be revoked then.
    granted: AtomicBool,
    /// Why whoever got in may do nothing.
    turned_away: OnceLock<String>,
    /// Session channels that are open.
    sessions: Sessions,
}

/// A direction in which connections are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Local,
    Remote,
}

impl Visit {
    pub(crate) fn new(
        service: Arc<SshService>,
        ends: Ends,
        via: ArrivedBy,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            service,
            ends,
            via,
            place: Mutex::new(Some(place)),
            counted: Mutex::default(),
            login: OnceLock::new(),
            granted: AtomicBool::new(false),
            turned_away: OnceLock::new(),
            sessions: Sessions::default(),
        }
    }

    fn options(&self, identity: &Identity) -> MergedOptions {
        options(&self.service.authority.state(), identity)
    }

    /// What events about this client say.
    fn party(&self, identity: &Identity, login: &str) -> Party {
        let settings = &self.service.settings;
        let (hostname, labels) = (settings.hostname.as_ref(), self.service.labels.all());
        let addr = settings.local.to_string();
        Party {
            user: events::user(identity, login),
            server: events::node(settings.host_id, hostname, &labels, &addr),
            connection: events::connection(self.ends),
        }
    }

    fn one_more<'a>(&'a self, identity: &'a Identity, login: &str) -> OneMore<'a> {
        OneMore {
            options: self.options(identity),
            user: &identity.user,
            party: self.party(identity, login),
            events: self.service.events.as_ref(),
        }
    }

    fn recording(&self, identity: &Identity, mode: RecordingMode) -> Recording {
        let (service, options) = (&self.service, self.options(identity));
        let mut transfers = ledger::policy(&options);
        transfers.upload &= service.settings.file_copy;
        transfers.download &= service.settings.file_copy;
        Recording {
            authority: Arc::clone(&service.authority),
            events: Arc::clone(&service.events),
            recordings: Arc::clone(&service.recordings),
            sessions: Arc::clone(&service.sessions),
            cluster: service.authority.state().cluster.clone(),
            recorder: service.settings.host_id,
            signer: service.signer.shared(),
            mode,
            sync_wait: service.settings.recording_wait,
            strictness: options.record_session_ssh,
            transfers,
            exec_bucket: service.settings.exec_bucket,
        }
    }

    /// Decides one more access. A client that came by itself is told of in the audit log first; for others the proxy
    /// has done so.
    async fn authorize(&self, identity: &Identity, login: &str) -> Result<Login, Refusal> {
        if let Some(why) = self.turned_away.get() {
            return Err(Refusal::Prohibited(why.clone()));
        }
        let denied = || Refusal::Prohibited("access denied".to_owned());
        let wanted: Login = login.parse().map_err(|_| denied())?;
        let (state, party) = (self.service.authority.state(), self.party(identity, login));
        let labels = self.service.labels.all();
        let asked = self.request(identity, &wanted, &labels);
        let decided = match self.via {
            ArrivedBy::Direct => {
                let sink = self.service.events.as_ref();
                let allowed = party.connecting();
                authorize_ssh(&state, sink, asked, allowed, |why| party.refused(why))
                    .await
                    .map(|granted| drop(granted.redeem()))
            }
            ArrivedBy::Tunnel | ArrivedBy::Proxy | ArrivedBy::Local => {
                let checked = match identity.valid_until <= Utc::now() {
                    true => Err(AccessRefused::Expired),
                    false => check_ssh(&state, &asked).map(drop),
                };
                if let Err(refusal) = &checked {
                    self.service.emit(vec![party.refused(&refusal.to_string())]).await;
                }
                checked
            }
        };
        match decided {
            Ok(()) => {
                self.granted.store(true, Ordering::Release);
                Ok(wanted)
            }
            Err(refusal) => Err(Refusal::Prohibited(self.refused(identity, &wanted, &refusal))),
        }
    }

    fn request<'a>(
        &'a self,
        identity: &'a Identity,
        login: &'a Login,
        labels: &'a shared_types::Labels,
    ) -> SshRequest<'a> {
        SshRequest {
            identity,
            login,
            host: &self.service.settings.hostname,
            reach: Reach::Node(self.service.settings.host_id),
            labels,
            protected: false,
            via: self.service.via(),
        }
    }

    /// What the client reads of a refusal.
    fn refused(&self, identity: &Identity, login: &Login, refusal: &AccessRefused) -> String {
        let (user, host) = (&identity.user, &self.service.settings.hostname);
        tracing::info!(%user, %login, peer = %self.ends.peer, why = %refusal, "access refused");
        match refusal {
            AccessRefused::NotDurable(_) => refusal.peer_text().into_owned(),
            refusal if refusal.is_of_the_user() => refusal.peer_text().into_owned(),
            _ => format!(
                "user {user}@{} is not authorized to login as {login}@{host}: {}",
                identity.cluster,
                refusal.peer_text(),
            ),
        }
    }

    /// Why an access would not be granted again, as the user may read it.
    fn revoked(&self, identity: &Identity, login: &str, state: &ClusterState) -> Option<String> {
        let labels = self.service.labels.all();
        let checked = match login.parse::<Login>() {
            Ok(login) if self.granted.load(Ordering::Acquire) => {
                check_ssh(state, &self.request(identity, &login, &labels)).map(drop)
            }
            _ => check_user(state, identity, Some(login), self.service.via()),
        };
        let refusal = checked.err()?;
        Some(match refusal.is_of_the_user() {
            true => refusal.peer_text().into_owned(),
            false => "access was revoked".to_owned(),
        })
    }

    /// Decides a forwarded connection, and writes it down.
    async fn may_forward(
        &self,
        identity: &Identity,
        login: &str,
        addr: String,
        direction: Direction,
    ) -> Result<Arc<dyn ForwardTap>, Refusal> {
        self.authorize(identity, login).await?;
        let options = self.options(identity);
        let of_roles = match direction {
            Direction::Local => options.port_forwarding,
            Direction::Remote => options.remote_port_forwarding,
        };
        let allowed =
            of_roles && identity.permits.port_forwarding && self.service.settings.port_forwarding;
        let party = self.party(identity, login);
        if !allowed {
            self.service.emit(vec![party.port(&addr, PortStep::Failed(NOT_FORWARDED))]).await;
            return Err(Refusal::Prohibited(NOT_FORWARDED.to_owned()));
        }
        let Some(mode) = self.service.mode(self.via) else { return Ok(Arc::new(Quiet)) };
        let begun = vec![party.port(&addr, PortStep::Begin)];
        if self.service.events.emit(begun).await.is_err() {
            return Err(Refusal::Failed(NO_AUDIT.to_owned()));
        }
        let recording = self.recording(identity, mode);
        Ok(Arc::new(PortTap { addr, party, recording }))
    }

    /// Notes why whoever got in may do nothing.
    async fn turn_away(&self, identity: &Identity, login: &str) -> Option<String> {
        let state = self.service.authority.state();
        if let Err(refusal) = check_user(&state, identity, Some(login), self.service.via()) {
            let why = refusal.to_string();
            tracing::info!(peer = %self.ends.peer, user = %identity.user, login, %why, "access refused");
            if self.service.tells_of(self.ends.peer) {
                let host_id = self.service.settings.host_id;
                let event = events::shut_out(identity, login, &why, self.ends, host_id);
                self.service.emit(vec![event]).await;
            }
            return Some(refusal.peer_text().into_owned());
        }
        match self.one_more(identity, login).connection(&self.service.users).await {
            Ok(counted) => {
                *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
                None
            }
            Err(text) => Some(text),
        }
    }
}

#[async_trait]
impl AuthGate for Visit {
    type Identity = Arc<Identity>;

    async fn admit(&self, login: &str, certificate: &Certificate) -> Result<Arc<Identity>, String> {
        let state = self.service.authority.state();
        let identity = SshVerifier::new(&state.authorities, Utc::now())
            .user(certificate, login, Some(self.ends.peer.ip()))
            .map_err(|refusal| refusal.to_string())?;
        if identity.cluster != state.cluster {
            return Err(format!("certificate is of cluster {}", identity.cluster));
        }
        let _ = self.login.set(login.to_owned());
        match self.turn_away(&identity, login).await {
            None => drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take()),
            Some(why) => drop(self.turned_away.set(why)),
        }
        Ok(Arc::new(identity))
    }
}

#[async_trait]
impl NodeService for Visit {
    async fn session(
        &self,
        identity: &Arc<Identity>,
        login: &str,
    ) -> Result<Arc<dyn NodeSession>, Refusal> {
        let wanted = self.authorize(identity, login).await?;
        let place = self
            .one_more(identity, login)
            .session(&self.sessions)
            .await
            .map_err(Refusal::Prohibited)?;
        let (tap, sid): (Arc<dyn Tap>, SessionId) = match self.service.mode(self.via) {
            None => (Arc::new(Quiet), SessionId::random()),
            Some(mode) => {
                let (party, recording) =
                    (self.party(identity, login), self.recording(identity, mode));
                let tap = match mode.is_sync() {
                    true => {
                        SessionTap::announced(party, recording).await.map_err(Refusal::Failed)?
                    }
                    false => SessionTap::new(party, recording),
                };
                let sid = tap.sid();
                (Arc::new(tap), sid)
            }
        };
        Ok(Arc::new(Session {
            service: Arc::clone(&self.service),
            identity: Arc::clone(identity),
            login: wanted,
            client: self.ends.peer,
            sid,
            tap,
            _place: place,
        }))
    }

    async fn connect(
        &self,
        identity: &Arc<Identity>,
        login: &str,
        (host, port): (&str, u16),
    ) -> Result<(TcpStream, Arc<dyn ForwardTap>), Refusal> {
        let addr = format!("{host}:{port}");
        let tap = self.may_forward(identity, login, addr, Direction::Local).await?;
        match forward::connect(host, port, self.service.settings.timeouts.dial).await {
            Ok(stream) => Ok((stream, tap)),
            Err(err) => {
                let text = format!("connect to {host}:{port}: {err}");
                tap.end(0, 0, Some(text.clone())).await;
                Err(Refusal::Failed(text))
            }
        }
    }

    async fn listen(
        &self,
        identity: &Arc<Identity>,
        login: &str,
        (address, port): (&str, u16),
    ) -> Result<(TcpListener, Arc<dyn ForwardTap>), Refusal> {
        let wanted = forward::loopback(address, port);
        let tap = self.may_forward(identity, login, wanted.to_string(), Direction::Remote).await?;
        match forward::listen(wanted, login).await {
            Ok(listener) => Ok((listener, tap)),
            Err(err) => {
                let text = format!("listen on {wanted}: {err}");
                tap.end(0, 0, Some(text.clone())).await;
                Err(Refusal::Failed(text))
            }
        }
    }

    fn may_forward_agent(&self, identity: &Arc<Identity>) -> bool {
        identity.permits.agent_forwarding && self.options(identity).forward_agent
    }

    async fn ended(
        &self,
        identity: &Arc<Identity>,
        traffic: &(dyn Fn() -> u64 + Send + Sync),
    ) -> String {
        if let Some(why) = self.turned_away.get() {
            tokio::time::sleep(LAST_WORDS).await;
            return why.clone();
        }
        let login = self.login.get().cloned().unwrap_or_default();
        let why = watch::ended(watch::Access {
            authority: self.service.authority.as_ref(),
            identity,
            revoked: &|state| self.revoked(identity, &login, state),
            traffic: Some(traffic),
        })
        .await;
        // The tap of a session tells of its end; without one nobody would.
        if self.sessions.is_empty() && self.service.mode(self.via).is_some() {
            self.service.emit(vec![self.party(identity, &login).disconnected(&why)]).await;
        }
        why
    }
}
