//! The listener's server, met by a real SSH client.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::keys::PublicKeyOrCertificate;
use russh::keys::ssh_key::Certificate;
use russh::{Channel, ChannelMsg, client};
use shared_types::SystemRole;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::relay::test_support::Cluster;

const DEADLINE: Duration = Duration::from_secs(30);

struct Echo(Cluster);

#[async_trait]
impl AuthGate for Echo {
    type Identity = ();

    async fn admit(&self, login: &str, _certificate: &Certificate) -> Result<(), String> {
        if login == "root" {
            Ok(())
        } else {
            Err(format!("login {login} is not in the certificate"))
        }
    }
}

#[async_trait]
impl OuterService for Echo {
    async fn subsystem(
        &self,
        session: OuterSession<()>,
        subsystem: Result<Subsystem, RequestError>,
        reply: SubsystemReply,
    ) {
        match subsystem {
            Ok(Subsystem::ProxySites) => reply.finish(Bytes::from_static(b"[]")).await,
            Ok(Subsystem::Proxy(request)) if request.host.as_str() == "agent" => {
                match session.agent.open().await {
                    Ok(mut agent) => {
                        agent.write_all(b"who?").await.unwrap();
                        let mut answer = [0; 2];
                        agent.read_exact(&mut answer).await.unwrap();
                        reply.finish(Bytes::copy_from_slice(&answer)).await;
                    }
                    Err(text) => reply.fail(&text).await,
                }
            }
            Ok(Subsystem::Proxy(_)) => {
                let (mut reading, mut writing) = tokio::io::split(reply.accept().await);
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
            }
            Err(err) => reply.fail(&err.to_string()).await,
        }
    }
}

/// A client with an agent that answers `me`.
struct WithAgent;

impl client::Handler for WithAgent {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(matches!(key, PublicKeyOrCertificate::Certificate(_)))
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        tokio::spawn(async move {
            let mut stream = channel.into_stream();
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(b"me").await.unwrap();
        });
        Ok(())
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("the deadline has passed")
}

async fn connect(login: &str) -> (client::Handle<WithAgent>, tokio::task::JoinHandle<Login>, bool) {
    let service = Arc::new(Echo(Cluster::new()));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let host = service.0.host("proxy", SystemRole::Proxy);
    let config = server_config(&host, ciphers_for(None, &[]), &ServerLimits::default());
    let (key, certificate) = service.0.user("joe");
    let server =
        tokio::spawn(serve_outer(service, far, config, DEADLINE, CancellationToken::new()));
    let host_key_certificates = std::borrow::Cow::Owned(vec![russh::keys::Algorithm::Ed25519]);
    let preferred = russh::Preferred { host_key_certificates, ..russh::Preferred::default() };
    let config = client::Config { preferred, ..client::Config::default() };
    let mut handle = client::connect_stream(Arc::new(config), near, WithAgent).await.unwrap();
    let key = Arc::new(key.private().clone());
    let admitted =
        handle.authenticate_openssh_cert(login, key, certificate).await.unwrap().success();
    (handle, server, admitted)
}

#[derive(Debug, Default)]
struct Heard {
    out: Vec<u8>,
    err: String,
    status: Option<u32>,
    answers: Vec<bool>,
}

async fn listen(channel: &mut Channel<client::Msg>) -> Heard {
    let mut heard = Heard::default();
    within(async {
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => heard.out.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => {
                    heard.err.push_str(&String::from_utf8_lossy(&data))
                }
                ChannelMsg::ExitStatus { exit_status } => heard.status = Some(exit_status),
                ChannelMsg::Success => heard.answers.push(true),
                ChannelMsg::Failure => heard.answers.push(false),
                _ => {}
            }
        }
    })
    .await;
    heard
}

async fn subsystem(handle: &client::Handle<WithAgent>, name: &str, agent: bool) -> Heard {
    let mut channel = within(handle.channel_open_session()).await.unwrap();
    if agent {
        channel.agent_forward(false).await.unwrap();
    }
    channel.request_subsystem(true, name).await.unwrap();
    listen(&mut channel).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subsystems_answer_and_refusals_say_why_before_they_close() {
    let (handle, _server, admitted) = connect("root").await;
    assert!(admitted);
    let sites = subsystem(&handle, "proxysites", false).await;
    assert_eq!(
        (sites.out.as_slice(), sites.status, sites.answers),
        (&b"[]"[..], Some(0), vec![true])
    );
    let bad = subsystem(&handle, "proxy:web", false).await;
    assert_eq!(
        bad.err,
        "invalid format for proxy request: \"proxy:web\", expected 'proxy:host:port@cluster'\r\n"
    );
    assert_eq!((bad.status, bad.answers), (Some(1), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_there_only_when_it_was_offered() {
    let (handle, _server, _) = connect("root").await;
    let without = subsystem(&handle, "proxy:agent:22", false).await;
    assert_eq!(without.err, "agent forwarding has not been requested\r\n");
    let with = subsystem(&handle, "proxy:agent:22", true).await;
    assert_eq!(with.out, b"me");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxied_channel_is_a_byte_pipe() {
    let (handle, server, _) = connect("root").await;
    let mut channel = within(handle.channel_open_session()).await.unwrap();
    channel.request_subsystem(true, "proxy:web-1:22").await.unwrap();
    channel.data_bytes(Bytes::from_static(b"SSH-2.0-x")).await.unwrap();
    channel.eof().await.unwrap();
    assert_eq!(listen(&mut channel).await.out, b"SSH-2.0-x");
    drop(channel);
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    assert!(within(server).await.unwrap().admitted);
}

#[tokio::test]
async fn the_listener_offers_no_shell_and_no_forwarding() {
    let (handle, _server, _) = connect("root").await;
    let mut channel = within(handle.channel_open_session()).await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel.exec(true, "id").await.unwrap();
    for _ in 0..3 {
        assert!(matches!(within(channel.wait()).await, Some(ChannelMsg::Failure)));
    }
    assert!(
        within(handle.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1)).await.is_err()
    );
    assert!(within(handle.tcpip_forward("127.0.0.1", 0)).await.is_err());
}

#[tokio::test]
async fn who_is_not_admitted_opens_nothing() {
    let (handle, server, admitted) = connect("admin").await;
    assert!(!admitted);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), handle.channel_open_session())
            .await
            .map_or(true, |opened| opened.is_err())
    );
    drop(handle);
    let login = within(server).await.unwrap();
    assert_eq!(login.user.as_deref(), Some("admin"));
    assert_eq!(login.failure.as_deref(), Some("login admin is not in the certificate"));
}
