//! Entry points for fuzzing; also run as tests. They panic when a promise is broken.

use std::sync::LazyLock;

use chrono::DateTime;
use shared_types::ClusterName;

use crate::ssh_key::certificate::CertType;
use crate::ssh_key::{Certificate, PublicKey};
use crate::verify::{HostRole, SshVerifier, TlsVerifier};
use crate::{
    CaKind, CertAuthority, TrustedAuthority, parse_certificate, parse_certificate_line,
    parse_public_key,
};

/// A moment for everything here.
const MOMENT: i64 = 1_790_000_000;

static CLUSTER: LazyLock<Option<ClusterName>> =
    LazyLock::new(|| ClusterName::new("example.com").ok());

static TLS: LazyLock<Option<TlsVerifier>> = LazyLock::new(|| {
    let now = DateTime::from_timestamp(MOMENT, 0)?;
    let authority = CertAuthority::generate(CaKind::Host, CLUSTER.as_ref()?, now).ok()?;
    Some(TlsVerifier::new(&[authority.trusted()]))
});

/// Any bytes as a certificate, SSH or X.509, and as a key's line: no panic, and nothing is believed that no authority
/// signed. So that the verifier is reached at all, an SSH certificate's own signer is then taken for an authority.
pub fn certificate(data: &[u8]) {
    let Some(now) = DateTime::from_timestamp(MOMENT, 0) else { return };
    let nobody = SshVerifier::new(&[], now);
    assert!(nobody.user_blob(data, "root", None).is_err());
    assert!(nobody.host_blob(data, "db", HostRole::Any).is_err());
    if let Some(tls) = TLS.as_ref() {
        assert!(tls.peer(data, now).is_err());
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(key) = parse_public_key(&text) {
        assert!(!key.algorithm().to_string().contains("-cert-"));
    }
    if let Ok(certificate) = parse_certificate_line(&text) {
        signed_by_itself(&certificate);
    }
    if let Ok(certificate) = parse_certificate(data) {
        assert_eq!(certificate.to_bytes().ok().as_deref(), Some(data), "read in another spelling");
        signed_by_itself(&certificate);
    }
}

/// What holds of a certificate that is believed.
fn signed_by_itself(certificate: &Certificate) {
    let signer = PublicKey::from(certificate.signature_key().clone());
    let (Ok(line), Some(cluster)) = (signer.to_openssh(), CLUSTER.as_ref()) else { return };
    let begin = i64::try_from(certificate.valid_after()).unwrap_or(i64::MAX).max(MOMENT);
    let Some(now) = DateTime::from_timestamp(begin, 0) else { return };
    let authority = |kind| TrustedAuthority {
        kind,
        cluster: cluster.clone(),
        ssh_keys: vec![line.clone()],
        tls_certs: Vec::new(),
    };
    let principal = certificate.valid_principals().first().cloned().unwrap_or_default();

    let users = [authority(CaKind::User)];
    let hosts = [authority(CaKind::Host)];
    let (users, hosts) = (SshVerifier::new(&users, now), SshVerifier::new(&hosts, now));
    let user = users.user(certificate, &principal, None);
    let host = hosts.host(certificate, &principal, HostRole::Any);
    assert!(
        hosts.user(certificate, &principal, None).is_err(),
        "a host authority vouched for a user"
    );
    assert!(
        users.host(certificate, &principal, HostRole::Any).is_err(),
        "a user authority vouched for a host"
    );
    assert!(user.is_err() || host.is_err(), "user and host in one");
    let recordings = [authority(CaKind::Recording)];
    if SshVerifier::new(&recordings, now).recorder(certificate).is_ok() {
        assert!(user.is_err() && host.is_err(), "a recorder, and a host or user");
    }
    if user.is_ok() || host.is_ok() {
        assert!(!principal.is_empty(), "believed without a principal");
        assert!(certificate.critical_options().is_empty(), "believed with a critical option");
        let kind = if user.is_ok() { CertType::User } else { CertType::Host };
        assert_eq!(certificate.cert_type(), kind);
        assert!(
            i64::try_from(certificate.valid_before()).unwrap_or(i64::MAX) > begin,
            "believed after its end"
        );
    }
}
