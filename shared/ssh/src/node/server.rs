//! The server of a node: how clients get in, and what becomes of their requests.

use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::Certificate;
use russh::server::{
    self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, Pty};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::channels::Channels;
use super::service::NodeService;
use super::table;
use crate::relay::table::Treatment;
use crate::relay::{Program, Size, unknown_channel_type};
use crate::server::Login;
use crate::server::login::{Door, Misbehaved};
use crate::server::serve::serve;

/// What ends a client's connection.
#[derive(Debug, thiserror::Error)]
enum NodeError {
    #[error(transparent)]
    Misbehaved(#[from] Misbehaved),
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

/// Answers one client.
struct Node<S: NodeService> {
    door: Door,
    channels: Arc<Channels<S>>,
    admitted: watch::Sender<bool>,
}

/// Serves one client to its end, its programs included, and tells what happened at the door. `config` comes from
/// [`crate::server::server_config`]; `patience` is the time a client has to get in.
pub async fn serve_node<S, T>(
    service: Arc<S>,
    stream: T,
    config: Arc<server::Config>,
    patience: Duration,
    stop: CancellationToken,
) -> Login
where
    S: NodeService,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (door, stop) = (Door::default(), stop.child_token());
    let (admitted, is_admitted) = watch::channel(false);
    let channels = Arc::new(Channels::new(service, stop.clone()));
    let handler = Node { door: door.clone(), channels: Arc::clone(&channels), admitted };
    serve(channels.as_ref(), handler, stream, config, (is_admitted, patience), stop).await;
    door.report()
}

impl<S: NodeService> Node<S> {
    async fn start(
        &self,
        channel: ChannelId,
        program: Program,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), NodeError> {
        let started = match self.channels.session(channel) {
            Some(channel) => channel.start(program, command).await,
            None => false,
        };
        answer(session, channel, started)
    }
}

fn answer(session: &mut Session, channel: ChannelId, yes: bool) -> Result<(), NodeError> {
    if yes {
        session.channel_success(channel)?
    } else {
        session.channel_failure(channel)?
    }
    Ok(())
}

impl<S: NodeService> server::Handler for Node<S> {
    type Error = NodeError;

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
        match self.door.certificate(self.channels.service.as_ref(), user, certificate).await? {
            Ok(identity) => {
                self.channels.admitted(identity, user);
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
        let opening = Arc::clone(&self.channels).open_session(channel, reply, session.handle());
        self.channels.tasks.spawn(opening);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let to = (host_to_connect.to_owned(), port_to_connect);
        self.channels.tasks.spawn(Arc::clone(&self.channels).forward(channel, reply, to));
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
        let (size, pixels) = (Size { columns, rows }, (pix_width, pix_height));
        let granted = self
            .channels
            .session(channel)
            .is_some_and(|channel| channel.pty(term, size, pixels, modes));
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
        let taken = self.channels.session(channel).is_some_and(|channel| channel.env(name, value));
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
        if table::treatment(table::SUBSYSTEMS, name) == Treatment::Refused {
            return answer(session, channel, false);
        }
        self.start(channel, Program::Subsystem(name.to_owned()), &[], session).await
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let allowed = self
            .channels
            .user()
            .is_some_and(|(identity, _)| self.channels.service.may_forward_agent(&identity));
        if allowed && let Some(channel) = self.channels.session(channel) {
            channel.forward_agent();
        }
        Ok(true)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        match self.channels.listen(address, *port, session.handle()).await {
            Some(bound) => {
                *port = bound.into();
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.channels.unlisten(address, port))
    }
}
