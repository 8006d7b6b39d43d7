//! A server of the tests' own behind TLS, with a certificate of the cluster's database authority: for databases that
//! misbehave.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::cluster::Cluster;

/// A client of it.
pub type Tls = StreamOwned<ServerConnection, TcpStream>;

/// Such a server. It runs until the tests end.
#[derive(Debug)]
pub struct TlsServer {
    /// Its port on loopback.
    pub port: u16,
}

impl TlsServer {
    /// Starts one on `localhost`; each client gets a thread with `serve`, whose end or error is the connection's.
    pub fn start(
        cluster: &Cluster,
        folder: &Path,
        serve: impl Fn(Tls) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let out = folder.join("tls-server");
        let out_flag = format!("--out={}", out.display());
        let _signed =
            cluster.tctl_ok(["auth", "sign", "--format=db", "--host=localhost", &out_flag])?;
        let certificates = CertificateDer::pem_file_iter(out.with_extension("crt"))?
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(out.with_extension("key"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        let (config, serve) = (Arc::new(config), Arc::new(serve));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, serve) = (Arc::clone(&config), Arc::clone(&serve));
                std::thread::spawn(move || {
                    let Ok(connection) = ServerConnection::new(config) else { return };
                    // Whoever is let down goes away, which is an error here.
                    drop(serve(StreamOwned::new(connection, stream)));
                });
            }
        });
        Ok(Self { port })
    }

    /// `localhost:PORT`.
    pub fn uri(&self) -> String {
        format!("localhost:{}", self.port)
    }
}
