//! TLS set-ups. Who may be trusted is decided by the verifier that is passed in; here are the ways to the web's roots,
//! and to none at all where a user asked for that in so many words.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ResolvesServerCert;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Why a TLS set-up or handshake did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate does not do.
    #[error("set up TLS")]
    Config(#[source] rustls::Error),
    /// The system has no root certificates.
    #[error("no root certificates on this system")]
    NoRoots,
    /// A file cannot be read.
    #[error("read {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Text that should be PEM is not.
    #[error("{what} is not valid PEM")]
    Pem {
        /// What it was to be.
        what: &'static str,
    },
    /// The server's name is no DNS name or address.
    #[error("{0:?} is not a server name")]
    ServerName(String),
    /// The peers did not agree, or a certificate was refused.
    #[error("TLS handshake")]
    Handshake(#[source] io::Error),
    /// It took too long.
    #[error("TLS handshake: no answer in {} s", .0.as_secs())]
    TimedOut(Duration),
}

fn provider() -> Arc<CryptoProvider> {
    match CryptoProvider::get_default() {
        Some(provider) => Arc::clone(provider),
        None => Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    }
}

/// Certificates of a PEM text, at least one.
pub fn certs_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = || TlsError::Pem { what: "certificate" };
    let certs =
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
    if certs.is_empty() { Err(bad()) } else { Ok(certs) }
}

/// The private key of a PEM text.
pub fn key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::Pem { what: "private key" })
}

/// A certificate chain and its key from two files, as `https_keypairs` names them.
pub fn load_keypair(
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|source| TlsError::File { path: path.display().to_string(), source })
    };
    Ok((certs_from_pem(&read(cert)?)?, key_from_pem(&read(key)?)?))
}

/// A certificate chain and its key, fit to be shown.
pub fn certified_key(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(certs, key, &provider()).map_err(TlsError::Config)
}

/// A server that shows `certs`; `clients` decides about client certificates, none are asked for without it.
pub fn server_config(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let key = SingleCertAndKey::from(certified_key(certs, key)?);
    server_config_by(Arc::new(key), clients, alpn)
}

/// The same for a server that chooses what it shows at each handshake.
pub fn server_config_by(
    shown: Arc<dyn ResolvesServerCert>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(shown);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// A client whose `servers` decides whom it trusts, with a certificate of its own where it has one.
pub fn client_config(
    servers: Arc<dyn ServerCertVerifier>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(servers);
    match identity {
        Some((certs, key)) => builder.with_client_auth_cert(certs, key).map_err(TlsError::Config),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Those whom the system trusts on the web. Reading them takes milliseconds; call it where a blocking read does not
/// matter, and keep the result.
pub fn system_roots() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// A client of the web: the system's roots and those in `extra`, the name checked.
/// Reading the roots takes milliseconds; call it where a blocking read does not matter, and keep the result.
pub fn web_client_config(extra: &[CertificateDer<'static>]) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system_roots());
    roots.add_parsable_certificates(extra.iter().cloned());
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A client that believes any server: what `--insecure` asks for, and the first look at a cluster whose CA is then
/// compared with a pin. Nothing secret may be sent over it.
pub fn accept_any_certificate() -> ClientConfig {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("the provider supports the default protocol versions");
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny { algorithms }))
        .with_no_client_auth()
}

/// Believes any certificate whose key the peer has.
#[derive(Debug)]
struct AcceptAny {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Asks clients for a certificate, and takes whichever they hold the key of, or none. Whoever uses it has to verify what
/// was shown after the handshake: then a refusal can be said in the client's own protocol, where an alert of TLS only
/// says `unknown_ca`, if the client shows it at all.
pub fn danger_any_client_certificate() -> Arc<dyn ClientCertVerifier> {
    Arc::new(AnyClient { algorithms: provider().signature_verification_algorithms })
}

/// Believes that a client holds its key, and nothing else.
#[derive(Debug)]
struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The client's handshake, within `limit`.
pub async fn connect<S>(
    config: Arc<ClientConfig>,
    server: &str,
    stream: S,
    limit: Duration,
) -> Result<client::TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(server.to_owned())
        .map_err(|_| TlsError::ServerName(server.to_owned()))?;
    match tokio::time::timeout(limit, TlsConnector::from(config).connect(name, stream)).await {
        Ok(done) => done.map_err(TlsError::Handshake),
        Err(_) => Err(TlsError::TimedOut(limit)),
    }
}

/// The server's handshake, within `limit`.
pub async fn accept<S>(
    config: Arc<ServerConfig>,
    stream: S,
    limit: Duration,
) -> Result<server::TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match tokio::time::timeout(limit, TlsAcceptor::from(config).accept(stream)).await {
        Ok(done) => done.map_err(TlsError::Handshake),
        Err(_) => Err(TlsError::TimedOut(limit)),
    }
}
