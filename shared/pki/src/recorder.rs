//! Keys that vouch for recordings.
//!
//! A recorder signs with a key it keeps in memory, which the recording authority certifies for a few days. The
//! certificate is an SSH host certificate with a critical option that no SSH program knows: nothing takes it for
//! anything else. What is signed is an SSH signature (OpenSSH PROTOCOL.sshsig) with a namespace of its own, so that it
//! is never a signature of something else; of that signature only the 64 bytes of Ed25519 are kept.

use crate::extension::{RECORDER, X_TELEPORT_AUTHORITY, X_TELEPORT_ROLE};
use crate::ssh_ca::add_principals;
use crate::{CaKind, KeyPair, PkiError, SshCa, ssh_key};
use chrono::{DateTime, Utc};
use shared_types::{ClusterName, HostId, SystemRole};
use ssh_key::certificate::CertType;
use ssh_key::{Algorithm, Certificate, HashAlg, PublicKey, Signature, SshSig};
use std::time::Duration;

/// Bytes of an Ed25519 signature.
pub const SIGNATURE: usize = 64;

/// What a recorder's certificate shall say.
#[derive(Debug, Clone)]
pub struct RecorderCertSpec {
    /// The recorder's Ed25519 key.
    pub public_key: PublicKey,
    /// The host that records.
    pub host_id: HostId,
    /// What the host is: a proxy or a node.
    pub role: SystemRole,
    /// The cluster that signs.
    pub cluster: ClusterName,
    /// The time of issue.
    pub now: DateTime<Utc>,
    /// How long from now.
    pub ttl: Duration,
}

impl SshCa {
    /// Signs a recorder's certificate; only the recording CA does.
    pub fn sign_recorder(&self, spec: RecorderCertSpec) -> Result<Certificate, PkiError> {
        if self.kind() != CaKind::Recording {
            return Err(PkiError::WrongAuthority(self.kind(), "recorder"));
        }
        if spec.public_key.algorithm() != Algorithm::Ed25519 {
            return Err(PkiError::UnsupportedKey(spec.public_key.algorithm().to_string()));
        }
        let (key, now) = (&spec.public_key, spec.now);
        let mut cert = self.begin(key, now, Some(spec.ttl), CertType::Host, RECORDER)?;
        add_principals(&mut cert, &[recorder_principal(spec.host_id, &spec.cluster)])?;
        cert.critical_option(RECORDER, "").map_err(PkiError::SshSign)?;
        cert.extension(X_TELEPORT_AUTHORITY, spec.cluster.as_str()).map_err(PkiError::SshSign)?;
        cert.extension(X_TELEPORT_ROLE, spec.role.as_str()).map_err(PkiError::SshSign)?;
        cert.sign(self.key().private()).map_err(PkiError::SshSign)
    }

    /// Signs what a recording is, in a namespace; only the recording CA does.
    pub fn sign_recording(
        &self,
        namespace: &str,
        message: &[u8],
    ) -> Result<[u8; SIGNATURE], PkiError> {
        if self.kind() != CaKind::Recording {
            return Err(PkiError::WrongAuthority(self.kind(), "recording"));
        }
        self.key().sign_detached(namespace, message)
    }
}

/// `HOSTID.CLUSTER`.
pub(crate) fn recorder_principal(host_id: HostId, cluster: &ClusterName) -> String {
    format!("{host_id}.{cluster}")
}

/// A recorder's key and its certificate.
#[derive(Debug)]
pub struct CheckpointKey {
    key: KeyPair,
    certificate: Vec<u8>,
    valid_after: u64,
    valid_before: u64,
}

impl CheckpointKey {
    /// Puts a key and its certificate together.
    pub fn new(key: KeyPair, certificate: &Certificate) -> Result<Self, PkiError> {
        if certificate.public_key() != key.public().key_data() {
            return Err(PkiError::KeyMismatch);
        }
        Ok(Self {
            key,
            certificate: certificate.to_bytes().map_err(PkiError::SshSign)?,
            valid_after: certificate.valid_after(),
            valid_before: certificate.valid_before(),
        })
    }

    /// The certificate as OpenSSH writes it, without base64.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Whether the certificate holds at `second` of the Unix time.
    pub fn holds_at(&self, second: u64) -> bool {
        (self.valid_after..self.valid_before).contains(&second)
    }

    /// Signs in a namespace.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<[u8; SIGNATURE], PkiError> {
        self.key.sign_detached(namespace, message)
    }
}

impl KeyPair {
    /// Signs in a namespace; gives the bytes of the Ed25519 signature.
    fn sign_detached(&self, namespace: &str, message: &[u8]) -> Result<[u8; SIGNATURE], PkiError> {
        let signed =
            self.private().sign(namespace, HashAlg::Sha512, message).map_err(PkiError::SshSign)?;
        signed
            .signature_bytes()
            .try_into()
            .map_err(|_| PkiError::UnsupportedKey(self.public().algorithm().to_string()))
    }
}

/// Whether `key` made this signature in this namespace; never for a key that is not Ed25519.
pub fn verify_detached(key: &PublicKey, namespace: &str, message: &[u8], signature: &[u8]) -> bool {
    if key.algorithm() != Algorithm::Ed25519 {
        return false;
    }
    let signature = Signature::new(Algorithm::Ed25519, signature)
        .and_then(|raw| SshSig::new(key.key_data().clone(), namespace, HashAlg::Sha512, raw));
    signature.is_ok_and(|signature| key.verify(namespace, message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{HOUR, NOW, at, cluster, now, some_key};
    use crate::verify::{CertRefusal, HostRole, SshVerifier};
    use crate::{CertAuthority, TrustedAuthority};

    fn spec(key: &KeyPair) -> RecorderCertSpec {
        RecorderCertSpec {
            public_key: key.public().clone(),
            host_id: HostId::random(),
            role: SystemRole::Proxy,
            cluster: cluster(),
            now: now(),
            ttl: HOUR,
        }
    }

    fn authority() -> CertAuthority {
        CertAuthority::generate(CaKind::Recording, &cluster(), now()).unwrap()
    }

    #[test]
    fn a_recorder_signs_and_is_known_by_its_certificate() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        let wish = spec(&key);
        let cert = authority.ssh_ca().unwrap().sign_recorder(wish.clone()).unwrap();
        let trusted = [authority.trusted()];
        let known = SshVerifier::new(&trusted, now()).recorder(&cert).unwrap();
        assert_eq!((known.host_id, known.role), (wish.host_id, SystemRole::Proxy));
        let signer = CheckpointKey::new(key, &cert).unwrap();
        let signature = signer.sign("test", b"head").unwrap();
        assert!(known.signed("test", b"head", &signature));
        assert!(!known.signed("other", b"head", &signature));
        assert!(!known.signed("test", b"heaD", &signature));
        assert!(!known.signed("test", b"head", &signature[1..]));
        let now = NOW.unsigned_abs();
        assert!(signer.holds_at(now) && known.held_at(now));
        assert!(!signer.holds_at(now + 3600) && !known.held_at(now + 3600));
        assert!(!signer.holds_at(now - 61) && !known.held_at(now - 61));
        assert!(matches!(
            CheckpointKey::new(KeyPair::generate().unwrap(), &cert),
            Err(PkiError::KeyMismatch)
        ));
    }

    #[test]
    fn nothing_takes_it_for_a_host_or_a_user() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        let wish = spec(&key);
        let cert = authority.ssh_ca().unwrap().sign_recorder(wish.clone()).unwrap();
        let principal = recorder_principal(wish.host_id, &wish.cluster);
        // Not even where the authority is taken for another one by mistake.
        for kind in [CaKind::Host, CaKind::User] {
            let trusted = [TrustedAuthority { kind, ..authority.trusted() }];
            let verifier = SshVerifier::new(&trusted, now());
            assert!(verifier.host(&cert, &principal, HostRole::Any).is_err());
            assert!(verifier.user(&cert, &principal, None).is_err());
            assert!(verifier.recorder(&cert).is_err());
        }
    }

    #[test]
    fn refusals() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        let ca = authority.ssh_ca().unwrap();
        let trusted = [authority.trusted()];
        let cert = ca.sign_recorder(spec(&key)).unwrap();
        let refused = |cert: &Certificate, moment| {
            SshVerifier::new(&trusted, moment).recorder(cert).unwrap_err()
        };
        assert_eq!(refused(&cert, at(3600)), CertRefusal::Expired);
        assert_eq!(refused(&cert, at(-300)), CertRefusal::NotYetValid);
        for role in SystemRole::ALL.into_iter().filter(|role| role.joins()) {
            let cert = ca.sign_recorder(RecorderCertSpec { role, ..spec(&key) }).unwrap();
            assert_eq!(SshVerifier::new(&trusted, now()).recorder(&cert).unwrap().role, role);
        }
        for role in [SystemRole::Auth, SystemRole::Admin] {
            let cert = ca.sign_recorder(RecorderCertSpec { role, ..spec(&key) }).unwrap();
            assert!(matches!(refused(&cert, now()), CertRefusal::WrongRole { .. }));
        }
        let elsewhere = RecorderCertSpec { cluster: "other.com".parse().unwrap(), ..spec(&key) };
        assert_eq!(
            refused(&ca.sign_recorder(elsewhere).unwrap(), now()),
            CertRefusal::WrongCluster
        );
        let stranger = CertAuthority::generate(CaKind::Recording, &cluster(), now()).unwrap();
        let cert = stranger.ssh_ca().unwrap().sign_recorder(spec(&key)).unwrap();
        assert_eq!(refused(&cert, now()), CertRefusal::UnknownAuthority);
        let host = CertAuthority::generate(CaKind::Host, &cluster(), now()).unwrap();
        assert!(matches!(
            host.ssh_ca().unwrap().sign_recorder(spec(&key)),
            Err(PkiError::WrongAuthority(CaKind::Host, "recorder"))
        ));
        // A host certificate of the recording authority is no recorder's either.
        let plain = crate::testing::Forged::host(&crate::testing::key_of(&authority)).sign();
        assert!(SshVerifier::new(&trusted, now()).recorder(&plain).is_err());
        assert!(host.ssh_ca().unwrap().sign_recording("test", b"").is_err());
        let signature = ca.sign_recording("test", b"text").unwrap();
        assert!(verify_detached(ca.public(), "test", b"text", &signature));
        assert!(!verify_detached(&some_key(), "test", b"", &[0; SIGNATURE]));
    }
}
