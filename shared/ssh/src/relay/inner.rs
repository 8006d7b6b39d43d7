//! The server a client meets behind the `proxy:` subsystem, in the name of the target.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::keys::ssh_key::Certificate;
use russh::server::{
    self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, Pty};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::tap::{ForwardTap, Program, Size, Tap};
use super::unknown_channel_type;
use crate::server::login::{Door, Misbehaved};
use crate::server::serve::serve;
use crate::server::{AuthGate, Login};
use crate::target::Target;

/// What the proxy decides for one client behind one `proxy:` request.
#[async_trait]
pub trait InnerService: AuthGate {
    /// An authenticated connection to the target for `login`, authorised anew. The error is a text for the client.
    async fn connect(&self, identity: &Self::Identity, login: &str) -> Result<Arc<Target>, String>;

    /// A place for one more session channel, given back when it is dropped. The error is a text for the client.
    async fn session(
        &self,
        identity: &Self::Identity,
        login: &str,
    ) -> Result<Box<dyn Send>, String>;

    /// The tap of a session channel that is told of before its target is dialled, where sessions have to be. The error
    /// is a text for the client, and nothing is dialled.
    async fn announce(
        &self,
        _identity: &Self::Identity,
        _login: &str,
    ) -> Result<Option<Arc<dyn Tap>>, String> {
        Ok(None)
    }

    /// The tap of a new session channel on `target`, where none was announced.
    async fn tap(
        &self,
        identity: &Self::Identity,
        login: &str,
        target: &Arc<Target>,
    ) -> Arc<dyn Tap>;

    /// Whether `login` may have a connection forwarded; recorded when this returns.
    async fn forward(
        &self,
        identity: &Self::Identity,
        login: &str,
        to: (&str, u32),
    ) -> Result<Arc<dyn ForwardTap>, String>;

    /// Whether the target may be offered the client's agent.
    fn may_forward_agent(&self, identity: &Self::Identity) -> bool;

    /// Pends until everything this user does must end, and says why: a lock, a role change, an expired certificate, or
    /// `traffic`, the bytes that were delivered on open channels, that does not change any more.
    async fn ended(
        &self,
        identity: &Self::Identity,
        traffic: &(dyn Fn() -> u64 + Send + Sync),
    ) -> String;
}

/// What ends an inner connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InnerError {
    #[error(transparent)]
    Misbehaved(#[from] Misbehaved),
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

/// Answers one client in the name of the target.
struct Inner<S: InnerService> {
    door: Door,
    shared: Arc<Shared<S>>,
    admitted: watch::Sender<bool>,
}

/// Serves one client to its end, relays included, and tells what happened at the door.
pub async fn serve_inner<S, T>(
    service: Arc<S>,
    stream: T,
    config: Arc<server::Config>,
    patience: Duration,
    stop: CancellationToken,
) -> Login
where
    S: InnerService,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let door = Door::default();
    let stop = stop.child_token();
    let (admitted, is_admitted) = watch::channel(false);
    let shared = Arc::new(Shared::new(service, stop.clone()));
    let handler = Inner { door: door.clone(), shared: Arc::clone(&shared), admitted };
    serve(shared.as_ref(), handler, stream, config, (is_admitted, patience), stop).await;
    shared.end_forwards().await;
    door.report()
}

impl<S: InnerService> Inner<S> {
    async fn start(
        &self,
        channel: ChannelId,
        program: Program,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), InnerError> {
        let started = match self.shared.session(channel) {
            Some(relay) => relay.start(program, command).await,
            None => false,
        };
        answer(session, channel, started)
    }
}

fn answer(session: &mut Session, channel: ChannelId, yes: bool) -> Result<(), InnerError> {
    if yes {
        session.channel_success(channel)?
    } else {
        session.channel_failure(channel)?
    }
    Ok(())
}

impl<S: InnerService> server::Handler for Inner<S> {
    type Error = InnerError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.door.none(user)?)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        _offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.door.offered(user)?)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.door.plain_key(user)?)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        match self.door.certificate(self.shared.service.as_ref(), user, certificate).await? {
            Ok(identity) => {
                self.shared.admitted(identity, user);
                self.admitted.send_replace(true);
                Ok(Auth::Accept)
            }
            Err(rejection) => Ok(rejection),
        }
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        match self.door.password(self.shared.service.as_ref(), user, password).await? {
            Ok(identity) => {
                self.shared.admitted(identity, user);
                self.admitted.send_replace(true);
                Ok(Auth::Accept)
            }
            Err(rejection) => Ok(rejection),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.shared.tasks.spawn(Arc::clone(&self.shared).open_session(
            channel,
            reply,
            session.handle(),
        ));
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let to = (host_to_connect.to_owned(), port_to_connect);
        let from = (originator_address.to_owned(), originator_port);
        self.shared.tasks.spawn(Arc::clone(&self.shared).forward(channel, reply, to, from));
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(unknown_channel_type("x11")).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(unknown_channel_type("forwarded-tcpip")).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(unknown_channel_type("direct-streamlocal@openssh.com")).await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        pix_width: u32,
        pix_height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let granted = match self.shared.session(channel) {
            Some(relay) => {
                relay.pty(term, Size { columns, rows }, (pix_width, pix_height), modes).await
            }
            None => false,
        };
        answer(session, channel, granted)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        answer(session, channel, false)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let taken = match self.shared.session(channel) {
            Some(relay) => relay.env(name, value).await,
            None => false,
        };
        answer(session, channel, taken)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, Program::Shell, &[], session).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let shown = String::from_utf8_lossy(command).into_owned();
        self.start(channel, Program::Exec(shown), command, session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, Program::Subsystem(name.to_owned()), &[], session).await
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let allowed = self
            .shared
            .user()
            .is_some_and(|(identity, _)| self.shared.service.may_forward_agent(&identity));
        if allowed && let Some(relay) = self.shared.session(channel) {
            relay.forward_agent().await;
        }
        Ok(true)
    }
}
