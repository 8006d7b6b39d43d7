//! The client against a small HTTP/2 server with real certificates.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chrono::Utc;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use shared_pki::verify::ClientVerifier;
use shared_pki::{CaKind, CertAuthority, HostTlsSpec, Identity, TlsIdentity, TlsKey};
use shared_transport::tls;
use shared_types::{HostId, SystemRole};
use tokio::net::TcpListener;

use super::conn::{Body, full};
use super::*;
use crate::{ApiError, AuthoritiesReply, ErrorKind, LoginRequest, NodesQuery, Secret, paths};

fn cluster() -> ClusterName {
    "example.com".parse().unwrap()
}

/// The authorities of one cluster.
struct Cluster {
    host: CertAuthority,
    user: CertAuthority,
}

impl Cluster {
    fn new() -> Self {
        shared_transport::install_crypto();
        let make = |kind| CertAuthority::generate(kind, &cluster(), Utc::now()).unwrap();
        Self { host: make(CaKind::Host), user: make(CaKind::User) }
    }

    fn trusted(&self) -> Vec<TrustedAuthority> {
        vec![self.host.trusted(), self.user.trusted()]
    }

    fn pin(&self) -> String {
        self.host.tls_ca().unwrap().pin().unwrap().to_string()
    }

    fn server(&self, role: SystemRole) -> rustls::ServerConfig {
        let key = TlsKey::generate().unwrap();
        let spec =
            HostTlsSpec { host_id: HostId::random(), role, cluster: cluster(), names: Vec::new() };
        let cert = self
            .host
            .tls_ca()
            .unwrap()
            .sign_server(&spec, &key.public(), Utc::now(), None)
            .unwrap();
        let certs = tls::certs_from_pem(cert.pem().as_bytes()).unwrap();
        let clients = ClientVerifier::new(&self.trusted());
        tls::server_config(certs, key.to_rustls(), Some(clients), &[b"h2"]).unwrap()
    }

    fn joe(&self) -> ClientIdentity {
        let key = TlsKey::generate().unwrap();
        let identity = TlsIdentity {
            user: "joe".parse().unwrap(),
            roles: vec!["access".parse().unwrap()],
            logins: Vec::new(),
            traits: Default::default(),
            cluster: cluster(),
            usage: Vec::new(),
            login_ip: None,
            pinned_ip: None,
            database: None,
        };
        let cert = self
            .user
            .tls_ca()
            .unwrap()
            .sign_client(&identity, &key.public(), Utc::now(), Duration::from_secs(600))
            .unwrap();
        ClientIdentity { cert_pem: cert.pem(), key_pem: key.to_pem() }
    }
}

/// A server; dropping it closes its connections.
struct Server {
    addr: String,
    requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn server(config: rustls::ServerConfig, authorities: Vec<TrustedAuthority>) -> Server {
    server_at("127.0.0.1:0", config, authorities).await
}

async fn server_at(
    addr: &str,
    config: rustls::ServerConfig,
    authorities: Vec<TrustedAuthority>,
) -> Server {
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let (config, counted) = (Arc::new(config), Arc::clone(&requests));
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (config, counted, authorities) =
                (Arc::clone(&config), Arc::clone(&counted), authorities.clone());
            connections.spawn(async move {
                let Ok(stream) = tls::accept(config, stream, Duration::from_secs(10)).await else {
                    return;
                };
                let who = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|certs| certs.first())
                    .map(|der| Identity::from_tls_cert(der).unwrap().user.to_string());
                let service = service_fn(|request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    answer(request, who.clone(), authorities.clone())
                });
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Server { addr, requests, task }
}

async fn answer(
    request: Request<Incoming>,
    who: Option<String>,
    authorities: Vec<TrustedAuthority>,
) -> Result<Response<Body>, Infallible> {
    let json = |status: StatusCode, value: serde_json::Value| {
        Response::builder().status(status).body(full(value.to_string())).unwrap()
    };
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        paths::AUTHORITIES => {
            let reply = AuthoritiesReply { cluster: cluster(), authorities };
            json(StatusCode::OK, serde_json::to_value(reply).unwrap())
        }
        paths::SESSION_RECORDING => json(
            StatusCode::OK,
            serde_json::json!({ "mode": "proxy", "proxy_checks_host_keys": who.as_deref() == Some("joe") }),
        ),
        paths::LOGIN => json(
            StatusCode::UNAUTHORIZED,
            serde_json::to_value(ApiError::unauthenticated("invalid username or password").body())
                .unwrap(),
        ),
        paths::STATUS => {
            std::future::pending::<()>().await;
            unreachable!()
        }
        paths::ME => json(StatusCode::OK, serde_json::json!({ "surprise": true })),
        paths::NODES => Response::new(full(vec![b' '; crate::limits::MAX_REPLY + 1])),
        _ if path.starts_with("/v1/uploads/") => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let right = body.len() == 3_000_000 && body.iter().all(|byte| *byte == 7);
            json(
                if right { StatusCode::OK } else { StatusCode::BAD_REQUEST },
                serde_json::Value::Null,
            )
        }
        // A recording: the session's first digit says how it goes.
        _ if path.starts_with("/v1/recordings/1") => {
            let pieces = (0..64).map(|n| Ok(Frame::data(Bytes::from(vec![n; 50_000]))));
            Response::new(StreamBody::new(futures::stream::iter(pieces)).boxed_unsync())
        }
        _ if path.starts_with("/v1/recordings/2") => {
            let pieces =
                [Ok(Frame::data(Bytes::from_static(b"some"))), Err(std::io::Error::other("gone"))];
            Response::new(StreamBody::new(futures::stream::iter(pieces)).boxed_unsync())
        }
        _ if path.starts_with("/v1/recordings/3") => {
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"some")))]);
            Response::new(
                StreamBody::new(futures::StreamExt::chain(first, futures::stream::pending()))
                    .boxed_unsync(),
            )
        }
        _ => json(
            StatusCode::NOT_FOUND,
            serde_json::to_value(ApiError::not_found("not found").body()).unwrap(),
        ),
    })
}

fn client(addr: &str, cluster: &Cluster, identity: Option<ClientIdentity>) -> Client {
    let timeouts = Timeouts {
        request: Duration::from_secs(3),
        connect: Duration::from_secs(5),
        query: Duration::from_secs(3),
        idle: Duration::from_millis(300),
    };
    let config = ClientConfig {
        timeouts,
        ..ClientConfig::new(Route::Direct { addr: addr.to_owned() }, cluster.trusted(), identity)
    };
    Client::new(config).unwrap()
}

#[tokio::test]
async fn calls_with_and_without_a_certificate_and_errors_as_told() {
    let cluster = Cluster::new();
    let server = server(cluster.server(SystemRole::Auth), cluster.trusted()).await;
    let anonymous = client(&server.addr, &cluster, None);
    assert!(!anonymous.session_recording().await.unwrap().proxy_checks_host_keys);
    let joe = client(&server.addr, &cluster, Some(cluster.joe()));
    assert!(
        joe.session_recording().await.unwrap().proxy_checks_host_keys,
        "the certificate says who it is"
    );
    let err = anonymous
        .recording(&"91111111-1111-4111-8111-111111111111".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!((err.kind(), err.to_string().as_str()), (ErrorKind::NotFound, "not found"));
    // A replaced identity counts from the next call.
    anonymous.replace(&cluster.trusted(), Some(&cluster.joe())).await.unwrap();
    assert!(anonymous.session_recording().await.unwrap().proxy_checks_host_keys);
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_is_not_auth() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let login = LoginRequest {
        user: "joe".parse().unwrap(),
        password: Secret::new("hunter2"),
        ssh_public_key: String::new(),
        tls_public_key: String::new(),
        ttl_seconds: None,
    };
    let web = shared_pki::web::self_signed(
        &["teleport.cluster.local".to_owned(), "proxy.example.com".to_owned()],
        Utc::now(),
        Duration::from_secs(600),
    )
    .unwrap();
    let web = tls::server_config(
        tls::certs_from_pem(web.cert_pem.as_bytes()).unwrap(),
        tls::key_from_pem(web.key_pem.as_bytes()).unwrap(),
        None,
        &[b"h2"],
    )
    .unwrap();
    for (what, config) in [
        ("another role", ours.server(SystemRole::Proxy)),
        ("another CA", theirs.server(SystemRole::Auth)),
        ("a web certificate", web),
    ] {
        let server = server(config, ours.trusted()).await;
        let err = client(&server.addr, &ours, Some(ours.joe())).login(&login).await.unwrap_err();
        assert!(matches!(err, ClientError::Tls { .. }), "{what}: {err}");
        assert_eq!(err.kind(), ErrorKind::Unauthenticated, "{what}");
        assert!(err.hint().is_some(), "{what}");
        assert_eq!(server.requests.load(Ordering::SeqCst), 0, "{what}");
    }
    let server = server(ours.server(SystemRole::Auth), ours.trusted()).await;
    let err = client(&server.addr, &ours, None).login(&login).await.unwrap_err();
    assert_eq!(err.to_string(), "invalid username or password");
}

#[tokio::test]
async fn a_new_connection_after_the_server_came_back() {
    let cluster = Cluster::new();
    let first = server(cluster.server(SystemRole::Auth), cluster.trusted()).await;
    let addr = first.addr.clone();
    let client = client(&addr, &cluster, None);
    client.session_recording().await.unwrap();
    client.session_recording().await.unwrap();
    drop(first);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let err = loop {
        match client.session_recording().await {
            Err(err) => break err,
            Ok(_) => assert!(tokio::time::Instant::now() < deadline),
        }
    };
    assert!(err.is_transient(), "{err}");
    let _again = server_at(&addr, cluster.server(SystemRole::Auth), cluster.trusted()).await;
    while client.session_recording().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn waits_and_sizes_have_limits() {
    let cluster = Cluster::new();
    let server = server(cluster.server(SystemRole::Auth), cluster.trusted()).await;
    let client = client(&server.addr, &cluster, None);
    assert!(matches!(client.status().await, Err(ClientError::TimedOut { .. })));
    assert!(matches!(client.me().await, Err(ClientError::Reply { .. })));
    assert!(matches!(client.nodes(&NodesQuery::default()).await, Err(ClientError::TooLong { .. })));
    // A listener that never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ClientConfig {
        timeouts: Timeouts { connect: Duration::from_millis(200), ..Timeouts::default() },
        ..ClientConfig::new(
            Route::Direct { addr: silent.local_addr().unwrap().to_string() },
            cluster.trusted(),
            None,
        )
    };
    let err = Client::new(config).unwrap().status().await.unwrap_err();
    assert!(matches!(&err, ClientError::Tls { source: tls::TlsError::TimedOut(_), .. }), "{err}");
    assert!(err.is_transient());
}

#[tokio::test]
async fn bulk_goes_both_ways_and_a_break_is_no_end() {
    let cluster = Cluster::new();
    let server = server(cluster.server(SystemRole::Auth), cluster.trusted()).await;
    let client = client(&server.addr, &cluster, None);
    let sid = |first: char| format!("{first}1111111-1111-4111-8111-111111111111").parse().unwrap();

    let mut out = Vec::new();
    assert_eq!(
        client.recording(&sid('1')).await.unwrap().write_to(&mut out).await.unwrap(),
        3_200_000
    );
    assert_eq!(out, (0..64_u8).flat_map(|n| vec![n; 50_000]).collect::<Vec<_>>());

    let cut = async {
        let mut stream = client.recording(&sid('2')).await?;
        while stream.next().await?.is_some() {}
        Ok::<_, ClientError>(())
    };
    assert!(cut.await.is_err(), "a stream that was reset did not end");

    let mut stuck = client.recording(&sid('3')).await.unwrap();
    assert_eq!(stuck.next().await.unwrap().unwrap(), b"some"[..]);
    assert!(matches!(stuck.next().await, Err(ClientError::TimedOut { .. })));

    client
        .upload_part(uuid::Uuid::new_v4(), &sid('1'), 1, Bytes::from(vec![7; 3_000_000]))
        .await
        .unwrap();
    let err = client
        .upload_part(uuid::Uuid::new_v4(), &sid('1'), 1, Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    assert_eq!(err.kind(), ErrorKind::BadRequest);
}

#[tokio::test]
async fn first_use_takes_only_what_was_confirmed() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let honest = server(ours.server(SystemRole::Auth), ours.trusted()).await;
    let timeouts = Timeouts { connect: Duration::from_secs(5), ..Timeouts::default() };
    let route = |server: &Server| Route::Proxy { addr: server.addr.clone(), cluster: None };

    let got = fetch_authorities(
        &route(&honest),
        timeouts,
        Confirm::Pins(&[ours.pin().to_uppercase().replace("SHA256", "sha256")]),
    )
    .await
    .unwrap();
    assert_eq!(got.authorities, ours.trusted());
    let err = fetch_authorities(&route(&honest), timeouts, Confirm::Pins(&[theirs.pin()]))
        .await
        .unwrap_err();
    assert!(matches!(&err, ClientError::PinMismatch { found } if *found == [ours.pin()]), "{err}");
    let err = fetch_authorities(&route(&honest), timeouts, Confirm::Pins(&["md5:1".to_owned()]))
        .await
        .unwrap_err();
    assert!(matches!(err, ClientError::BadPin));

    let mut asked = Vec::new();
    let mut ask = |ca: &UnverifiedCa| {
        asked.push(ca.pins.clone());
        asked.len() > 1
    };
    assert!(matches!(
        fetch_authorities(&route(&honest), timeouts, Confirm::Ask(&mut ask)).await,
        Err(ClientError::NotAccepted)
    ));
    fetch_authorities(&route(&honest), timeouts, Confirm::Ask(&mut ask)).await.unwrap();
    assert_eq!(asked, [[ours.pin()], [ours.pin()]]);

    // Somebody who shows the right host CA, which is public, and a user CA of their own.
    let mixed = vec![ours.host.trusted(), theirs.user.trusted()];
    let thief = server(theirs.server(SystemRole::Auth), mixed).await;
    let err = fetch_authorities(&route(&thief), timeouts, Confirm::Pins(&[ours.pin()]))
        .await
        .unwrap_err();
    assert!(matches!(err, ClientError::Tls { .. }), "{err}");
}
