//! A login through a proxy that answers in auth's place. Its web certificate is one that `tsh` believes; everything
//! a hostile proxy can show of the cluster is tried.

use std::convert::Infallible;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use chrono::Utc;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use shared_api::{AuthoritiesReply, ClientIdentity};
use shared_pki::{CaKind, CertAuthority, HostTlsSpec, TlsKey, web};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::{Home, Scratch, run};
use shared_transport::{Rewind, alpn, client_hello, tls};
use shared_types::{ClusterName, HostId, SystemRole};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::io::InspectReader;

use super::proxy::{Stolen, options, runtime};
use crate::support::Stage;

const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER: &str = "example.test";

/// What a hostile proxy shows to somebody who wants to speak to auth.
#[derive(Clone)]
struct Disguise {
    name: &'static str,
    /// The authorities it says the cluster has.
    claims: AuthoritiesReply,
    /// The certificate it speaks TLS with under auth's ALPN name.
    shows: ClientIdentity,
}

/// What came to it.
#[derive(Default)]
struct Seen {
    /// Every byte, decrypted.
    plain: Vec<u8>,
    paths: Vec<String>,
}

/// A server that pings like a proxy and answers like auth.
struct FakeDoor {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

fn identity(web: &web::WebCert) -> ClientIdentity {
    ClientIdentity { cert_pem: web.cert_pem.clone(), key_pem: web.key_pem.clone() }
}

fn tls_config(shows: &ClientIdentity, names: &[&[u8]]) -> Result<Arc<rustls::ServerConfig>> {
    let certs = tls::certs_from_pem(shows.cert_pem.as_bytes())?;
    let key = tls::key_from_pem(shows.key_pem.as_bytes())?;
    Ok(Arc::new(tls::server_config(certs, key, None, names)?))
}

impl FakeDoor {
    fn open(runtime: &Runtime, web: &web::WebCert, disguise: &Disguise) -> Result<Self> {
        let cluster: ClusterName = CLUSTER.parse()?;
        let auth_name = alpn::auth(Some(&cluster));
        let auth = tls_config(&disguise.shows, &[&auth_name, alpn::AUTH_PREFIX.as_bytes()])?;
        let web = tls_config(&identity(web), &[alpn::HTTP1])?;
        let claims = serde_json::to_vec(&disguise.claims)?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let all = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (auth, web) = (Arc::clone(&auth), Arc::clone(&web));
                let (claims, seen) = (claims.clone(), Arc::clone(&all));
                tokio::spawn(async move {
                    // Clients that turn away are what the test is about.
                    converse(stream, auth, web, claims, seen).await.ok();
                });
            }
        });
        Ok(Self { port, seen })
    }

    fn saw(&self, text: &str) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.plain.windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn was_asked(&self, path: &str) -> bool {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .paths
            .iter()
            .any(|asked| asked == path)
    }
}

async fn converse(
    stream: TcpStream,
    auth: Arc<rustls::ServerConfig>,
    web: Arc<rustls::ServerConfig>,
    claims: Vec<u8>,
    seen: Arc<Mutex<Seen>>,
) -> Result<()> {
    let mut stream = Rewind::new(stream);
    let hello = client_hello(&mut stream, PATIENCE).await?;
    let for_auth = hello.alpn.iter().any(|name| alpn::auth_cluster(name).is_some());
    let stream = tls::accept(if for_auth { auth } else { web }, stream, PATIENCE).await?;
    let bytes = Arc::clone(&seen);
    let stream = InspectReader::new(stream, move |read: &[u8]| {
        bytes.lock().unwrap_or_else(PoisonError::into_inner).plain.extend_from_slice(read);
    });
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (claims, seen) = (claims.clone(), Arc::clone(&seen));
        async move { Ok::<_, Infallible>(answer(request, claims, &seen).await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    let served = builder.serve_connection(TokioIo::new(stream), service).await;
    served.map_err(|error| anyhow::anyhow!("{error}"))
}

async fn answer(
    request: Request<Incoming>,
    claims: Vec<u8>,
    seen: &Mutex<Seen>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    // All of it is taken in before anything is answered.
    request.into_body().collect().await.ok();
    seen.lock().unwrap_or_else(PoisonError::into_inner).paths.push(path.clone());
    let (status, body) = match path.as_str() {
        "/webapi/ping" => {
            let ping = serde_json::json!({
                "cluster_name": CLUSTER,
                "server_version": "0.1.0",
                "proxy": { "ssh": { "listen_addr": "127.0.0.1:3023" }, "tls_routing_enabled": false },
            });
            (200, ping.to_string().into_bytes())
        }
        "/v1/authorities" => (200, claims),
        _ => (403, br#"{"error":{"message":"access denied","kind":"denied"}}"#.to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// Everything a proxy can dress up in, and what `tsh` says with the true pin.
struct Wardrobe {
    web: web::WebCert,
    own_pin: String,
    disguises: Vec<(Disguise, &'static str)>,
}

impl Wardrobe {
    fn fill(stolen: &Stolen) -> Result<Self> {
        let cluster: ClusterName = CLUSTER.parse()?;
        let web =
            web::self_signed(&["localhost".to_owned()], Utc::now(), Duration::from_secs(3600))?;
        let own = CertAuthority::generate(CaKind::Host, &cluster, Utc::now())?;
        let key = TlsKey::generate()?;
        let spec = HostTlsSpec {
            host_id: HostId::random(),
            role: SystemRole::Auth,
            cluster: cluster.clone(),
            names: vec!["localhost".into()],
        };
        let own_auth = own.tls_ca()?.sign_server(&spec, &key.public(), Utc::now(), None)?;
        let own_auth = ClientIdentity { cert_pem: own_auth.pem(), key_pem: key.to_pem() };
        let own_pin = own.trusted().pins().first().context("no pin")?.to_string();
        let claims_own = AuthoritiesReply { cluster, authorities: vec![own.trusted()] };
        let claims_both = AuthoritiesReply {
            authorities: [stolen.authorities.authorities.clone(), vec![own.trusted()]].concat(),
            ..claims_own.clone()
        };
        let truth = || stolen.authorities.clone();
        let refused = "secure connection to auth service";
        let disguises = vec![
            (
                Disguise {
                    name: "an authority of its own",
                    claims: claims_own,
                    shows: own_auth.clone(),
                },
                "does not match the given CA pin",
            ),
            (
                Disguise { name: "two authorities", claims: claims_both, shows: own_auth.clone() },
                refused,
            ),
            (
                Disguise {
                    name: "another authority's auth certificate",
                    claims: truth(),
                    shows: own_auth,
                },
                refused,
            ),
            (
                Disguise { name: "its web certificate", claims: truth(), shows: identity(&web) },
                refused,
            ),
            (
                Disguise {
                    name: "its own certificate of role Proxy",
                    claims: truth(),
                    shows: stolen.tls.clone(),
                },
                refused,
            ),
        ];
        Ok(Self { web, own_pin, disguises })
    }

    /// `tsh login` to a door, with the web certificate believed as any other of the web.
    fn login(&self, scratch: &Scratch, home: &Home, door: &FakeDoor) -> Result<Command> {
        let roots = scratch.write("web-roots.pem", &self.web.cert_pem)?;
        let mut login = home.tsh();
        login.env("SSL_CERT_FILE", roots).args(["login", "--force", "--user", &home.user]);
        login.arg("--proxy").arg(format!("localhost:{}", door.port));
        Ok(login)
    }
}

#[test]
fn a_proxy_that_is_not_auth_gets_neither_password_nor_certificate() -> Result<()> {
    let runtime = runtime()?;
    let stage = Stage::with("hlogin", &options("proxy"), "")?;
    let stolen = Stolen::join(&runtime, &stage.cluster)?;
    let wardrobe = Wardrobe::fill(&stolen)?;
    let pin = stage.cluster.ca_pin()?;
    let certificate = std::fs::read(stage.joe.ssh_certificate())?;
    let fresh = stage.cluster.home("fresh")?;

    for (disguise, said) in &wardrobe.disguises {
        let name = disguise.name;
        let door = FakeDoor::open(&runtime, &wardrobe.web, disguise)?;
        let mut pinned = wardrobe.login(&stage.scratch, &fresh, &door)?;
        let refused = run(pinned.arg("--ca-pin").arg(&pin), format!("{PASSWORD}\n"), 60)?;
        assert_ne!(refused.code, 0, "{name}");
        assert!(refused.stderr.contains(said), "{name}: {}", refused.stderr);
        assert!(
            door.was_asked("/webapi/ping"),
            "{name}: the web certificate was not believed: {}",
            refused.stderr
        );
        assert!(!door.saw(PASSWORD) && !door.was_asked("/v1/login"), "{name} got the password");

        // Without a pin and without anyone to ask.
        let mut unpinned = wardrobe.login(&stage.scratch, &fresh, &door)?;
        let refused = run(&mut unpinned, format!("{PASSWORD}\n"), 60)?;
        assert_ne!(refused.code, 0, "{name}");
        assert!(
            !door.saw(PASSWORD) && !door.was_asked("/v1/login"),
            "{name} got the password of a first login"
        );
        assert!(!fresh.ssh_key().exists() && !fresh.ssh_certificate().exists(), "{name}");

        // The authority is known from an earlier login.
        let door = FakeDoor::open(&runtime, &wardrobe.web, disguise)?;
        let mut known = wardrobe.login(&stage.scratch, &stage.joe, &door)?;
        let refused = run(&mut known, format!("{PASSWORD}\n"), 60)?;
        assert_ne!(refused.code, 0, "{name}");
        assert!(
            refused.stderr.contains("secure connection to auth service"),
            "{name}: {}",
            refused.stderr
        );
        assert!(door.was_asked("/webapi/ping"), "{name}: {}", refused.stderr);
        assert!(
            !door.saw(PASSWORD) && !door.was_asked("/v1/login"),
            "{name} got the password of a second login"
        );
        assert_eq!(std::fs::read(stage.joe.ssh_certificate())?, certificate, "{name}");
    }
    // What was there before still works.
    let _done = run(&mut stage.tsh_ssh(&[], &["true"]), "", 60)?.ok();
    Ok(())
}

/// The control run: whoever has the pinned authority is auth, and the door would see what it is sent.
#[test]
fn whoever_has_the_pinned_authority_gets_the_password() -> Result<()> {
    let runtime = runtime()?;
    let stage = Stage::with("hpinned", &options("proxy"), "")?;
    let stolen = Stolen::join(&runtime, &stage.cluster)?;
    let wardrobe = Wardrobe::fill(&stolen)?;
    let (own, _) = wardrobe.disguises.first().context("no disguise")?;
    let door = FakeDoor::open(&runtime, &wardrobe.web, own)?;
    let fresh = stage.cluster.home("fresh")?;
    let mut login = wardrobe.login(&stage.scratch, &fresh, &door)?;
    let refused = run(login.arg("--ca-pin").arg(&wardrobe.own_pin), format!("{PASSWORD}\n"), 60)?;
    assert_ne!(refused.code, 0);
    assert!(door.was_asked("/v1/login"), "{}", refused.stderr);
    assert!(door.saw(PASSWORD));
    Ok(())
}
