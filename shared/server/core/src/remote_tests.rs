use std::convert::Infallible;
use std::sync::Mutex;

use chrono::Utc;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use shared_api::{ApiError, ClientConfig, EmitRequest, Route, limits, paths};
use shared_pki::{CaKind, CertAuthority, HostTlsSpec, TlsKey};
use shared_types::{HostId, SystemRole};

use super::*;
use crate::authority::EventSink;
use crate::testing::{event, state};

const PROXY: SystemRole = SystemRole::Proxy;

/// An auth service that holds state requests, and remembers events.
struct Auth {
    state: watch::Sender<ClusterState>,
    batches: Mutex<Vec<usize>>,
    refuse: Mutex<Option<ApiError>>,
}

impl Auth {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let reply = |status, value: Vec<u8>| {
            Ok(Response::builder().status(status).body(Full::from(value)).unwrap())
        };
        match request.uri().path() {
            paths::CLUSTER_STATE => {
                if let Some(err) = self.refuse.lock().unwrap().clone() {
                    return reply(err.kind.status(), serde_json::to_vec(&err.body()).unwrap());
                }
                let after = request
                    .uri()
                    .query()
                    .and_then(|query| query.strip_prefix("after=")?.parse::<u64>().ok());
                let mut states = self.state.subscribe();
                let state =
                    states.wait_for(|state| Some(state.revision) != after).await.unwrap().clone();
                reply(StatusCode::OK, serde_json::to_vec(&state).unwrap())
            }
            paths::EVENTS => {
                if let Some(err) = self.refuse.lock().unwrap().clone() {
                    return reply(err.kind.status(), serde_json::to_vec(&err.body()).unwrap());
                }
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let events =
                    serde_json::from_slice::<EmitRequest>(&body).unwrap().decode().unwrap();
                self.batches.lock().unwrap().push(events.len());
                reply(StatusCode::OK, Vec::new())
            }
            _ => reply(StatusCode::NOT_FOUND, Vec::new()),
        }
    }
}

async fn serve(
    auth: &Arc<Auth>,
    tls: Arc<rustls::ServerConfig>,
    addr: &str,
) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    let (addr, auth) = (listener.local_addr().unwrap().to_string(), Arc::clone(auth));
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, auth) = (Arc::clone(&tls), Arc::clone(&auth));
            connections.spawn(async move {
                let Ok(stream) =
                    shared_transport::tls::accept(tls, stream, Duration::from_secs(10)).await
                else {
                    return;
                };
                let service =
                    hyper::service::service_fn(move |request| Arc::clone(&auth).answer(request));
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (addr, task)
}

#[tokio::test]
async fn state_follows_outlives_the_auth_service_and_is_taken_up_again() {
    shared_transport::install_crypto();
    let ca =
        CertAuthority::generate(CaKind::Host, &"example.com".parse().unwrap(), Utc::now()).unwrap();
    let key = TlsKey::generate().unwrap();
    let spec = HostTlsSpec {
        host_id: HostId::random(),
        role: SystemRole::Auth,
        cluster: "example.com".parse().unwrap(),
        names: Vec::new(),
    };
    let cert = ca.tls_ca().unwrap().sign_server(&spec, &key.public(), Utc::now(), None).unwrap();
    let certs = shared_transport::tls::certs_from_pem(cert.pem().as_bytes()).unwrap();
    let tls = Arc::new(
        shared_transport::tls::server_config(certs, key.to_rustls(), None, &[b"h2"]).unwrap(),
    );
    let auth = Arc::new(Auth {
        state: watch::Sender::new(state()),
        batches: Mutex::default(),
        refuse: Mutex::default(),
    });
    let (addr, running) = serve(&auth, Arc::clone(&tls), "127.0.0.1:0").await;

    let config = ClientConfig::new(Route::Direct { addr: addr.clone() }, vec![ca.trusted()], None);
    let folder = tempfile::tempdir().unwrap();
    let (host, kept) = (HostId::random(), KeptState::new(folder.path(), PROXY));
    let client = Client::new(config).unwrap();
    let never = CancellationToken::new();
    let remote =
        RemoteAuthority::connect(client.clone(), host, PROXY, kept.clone(), &never).await.unwrap();
    assert_eq!(remote.state().revision, 1);

    let mut seen = remote.watch();
    let change = |revision: u64| auth.state.send_modify(|state| state.revision = revision);
    let limit = Duration::from_secs(30);
    change(2);
    tokio::time::timeout(limit, seen.wait_for(|state| state.revision == 2)).await.unwrap().unwrap();

    // Too many events for one request go as several.
    let many: Vec<_> = (0..limits::MAX_EVENTS + 3).map(|n| event(&n.to_string())).collect();
    EventSink::emit(&remote, many).await.unwrap();
    assert_eq!(*auth.batches.lock().unwrap(), [limits::MAX_EVENTS, 3]);
    // Only a wrong batch is refused for good; a proxy that may not send keeps its events.
    for (err, refused) in [
        (ApiError::bad_request("no"), true),
        (ApiError::denied("no"), false),
        (ApiError::internal("no"), false),
    ] {
        *auth.refuse.lock().unwrap() = Some(err);
        let told = EventSink::emit(&remote, vec![event("x")]).await.unwrap_err();
        assert_eq!(matches!(told, EmitError::Refused(_)), refused, "{told}");
    }
    *auth.refuse.lock().unwrap() = None;

    running.abort();
    let _ = running.await;
    let deadline = tokio::time::Instant::now() + limit;
    while !matches!(
        EventSink::emit(&remote, vec![event("y")]).await,
        Err(EmitError::Unavailable(_))
    ) {
        assert!(tokio::time::Instant::now() < deadline);
    }
    assert_eq!(remote.state().revision, 2, "the last state stands");
    // A start while it is away: with what was kept, and not without.
    let hour_ago = Utc::now() - chrono::TimeDelta::hours(1);
    kept.save(&remote.state(), hour_ago).unwrap();
    let start = RemoteAuthority::connect(client.clone(), host, PROXY, kept, &never).await.unwrap();
    assert_eq!(start.state().revision, 2);
    assert_eq!(start.confirmed().timestamp(), hour_ago.timestamp(), "as old as it was kept");
    assert!(remote.confirmed() > hour_ago);
    drop(start);
    let nothing = KeptState::new(&folder.path().join("none"), PROXY);
    assert!(RemoteAuthority::connect(client, host, PROXY, nothing, &never).await.is_err());

    // A restarted service counts from the start: any other revision is news.
    change(1);
    let _running = serve(&auth, tls, &addr).await;
    tokio::time::timeout(limit, seen.wait_for(|state| state.revision == 1)).await.unwrap().unwrap();

    // A service that answers that this host is locked: nothing goes through it, until it answers again.
    *auth.refuse.lock().unwrap() = Some(ApiError::locked("no"));
    change(3);
    let subject = LockSubject { server: Some(host), ..LockSubject::default() };
    let locked = |state: &Arc<ClusterState>| state.lock_on(&subject, Utc::now()).is_some();
    tokio::time::timeout(limit, seen.wait_for(locked)).await.unwrap().unwrap();
    *auth.refuse.lock().unwrap() = None;
    let free = seen.wait_for(|state| !locked(state) && state.revision == 3);
    tokio::time::timeout(limit, free).await.unwrap().unwrap();
}
