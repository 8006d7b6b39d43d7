//! What the proxy's SSH servers offer (design §7, Ciphers).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::{Algorithm, Certificate, EcdsaCurve, HashAlg};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac, server};

use super::ident::ClientIdent;

/// A host key with the certificate that is shown with it.
#[derive(Debug, Clone)]
pub struct HostIdentityKey {
    /// The private key; stays in memory.
    pub key: Arc<PrivateKey>,
    /// A host certificate of role Proxy over it.
    pub certificate: Certificate,
}

/// Data of one packet on a connection inside another. A packet of 32,768 bytes, which is what OpenSSH takes, would not
/// fit into one of the outer connection, and a few bytes of it would travel alone, with a packet and a system call of
/// their own at each hop. Room for length, padding, channel header and any of our MACs.
pub const INNER_PACKET: u32 = 32 * 1024 - 128;

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Failed authentications after which the connection ends.
    pub auth_attempts: usize,
    /// How often an idle client is asked whether it is still there.
    pub keepalive: Duration,
    /// How many questions may stay unanswered.
    pub keepalive_max: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { auth_attempts: 6, keepalive: Duration::from_secs(300), keepalive_max: 3 }
    }
}

const GCM: [cipher::Name; 2] = [cipher::AES_128_GCM, cipher::AES_256_GCM];
const MODERN: [cipher::Name; 6] = [
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// A cipher in `ssh_ciphers` that this server does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown cipher {name:?}, expected one of {expected}")]
pub struct CipherOverrideError {
    name: String,
    expected: String,
}

/// Checks the names of `ssh_ciphers`.
pub fn check_cipher_names(names: &[String]) -> Result<(), CipherOverrideError> {
    for name in names {
        if !MODERN.iter().any(|cipher| cipher.as_ref() == name) {
            let expected = MODERN.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
            return Err(CipherOverrideError { name: name.clone(), expected });
        }
    }
    Ok(())
}

/// The ciphers offered to a client. The client's order decides among them, and OpenSSH's puts the fast ones last.
pub fn ciphers_for(client: Option<&ClientIdent>, override_names: &[String]) -> Vec<cipher::Name> {
    if !override_names.is_empty() {
        return override_names
            .iter()
            .filter_map(|name| MODERN.iter().find(|cipher| cipher.as_ref() == name).copied())
            .collect();
    }
    if client.is_some_and(ClientIdent::has_gcm) { GCM.to_vec() } else { MODERN.to_vec() }
}

/// The configuration of the server on a listener.
pub fn server_config(
    identity: &HostIdentityKey,
    ciphers: Vec<cipher::Name>,
    limits: &ServerLimits,
) -> Arc<server::Config> {
    Arc::new(shown(identity, ciphers, limits))
}

/// The configuration of a server behind the listener, whose packets have to fit into packets.
pub fn inner_server_config(
    identity: &HostIdentityKey,
    ciphers: Vec<cipher::Name>,
    limits: &ServerLimits,
) -> Arc<server::Config> {
    let config = shown(identity, ciphers, limits);
    Arc::new(server::Config { maximum_packet_size: INNER_PACKET, ..config })
}

fn shown(
    identity: &HostIdentityKey,
    ciphers: Vec<cipher::Name>,
    limits: &ServerLimits,
) -> server::Config {
    let certificates = vec![identity.certificate.clone()];
    config(PrivateKey::clone(&identity.key), certificates, ciphers, limits)
}

/// The configuration of a server on a user's own machine, for clients that know no certificates: a key of its own, and
/// passwords, of which a wrong one takes its time.
pub fn local_server_config(key: PrivateKey) -> Arc<server::Config> {
    let limits = ServerLimits { auth_attempts: 3, ..ServerLimits::default() };
    Arc::new(server::Config {
        methods: MethodSet::from(&[MethodKind::Password][..]),
        auth_rejection_time: Duration::from_secs(1),
        ..config(key, Vec::new(), MODERN.to_vec(), &limits)
    })
}

fn config(
    key: PrivateKey,
    certificates: Vec<Certificate>,
    ciphers: Vec<cipher::Name>,
    limits: &ServerLimits,
) -> server::Config {
    let preferred = Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]),
        // Host key algorithms of ours, and the signature algorithms users may prove their keys with.
        key: Cow::Owned(vec![
            Algorithm::Ed25519,
            Algorithm::SkEd25519,
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            Algorithm::SkEcdsaSha2NistP256,
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ]),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Owned(ciphers),
        mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM]),
        compression: Cow::Borrowed(&[compression::NONE]),
    };
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Gatehouse")),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // Nothing to guess: a rejected public key tells an attacker nothing by its timing.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        certificates,
        preferred,
        max_auth_attempts: limits.auth_attempts,
        inactivity_timeout: None,
        keepalive_interval: Some(limits.keepalive),
        keepalive_max: limits.keepalive_max,
        nodelay: true,
        ..server::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[cipher::Name]) -> Vec<&str> {
        list.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn openssh_with_gcm_is_offered_only_gcm() {
        let client = ClientIdent::parse("SSH-2.0-OpenSSH_9.2p1");
        assert_eq!(
            names(&ciphers_for(Some(&client), &[])),
            ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
        );
    }

    #[test]
    fn everybody_else_gets_the_modern_list() {
        for client in [
            None,
            Some(ClientIdent::parse("SSH-2.0-dropbear_2022.83")),
            Some(ClientIdent::parse("SSH-2.0-OpenSSH_6.1")),
        ] {
            let list = ciphers_for(client.as_ref(), &[]);
            assert!(names(&list).contains(&"chacha20-poly1305@openssh.com"), "{client:?}");
            assert!(names(&list).contains(&"aes256-ctr"), "{client:?}");
        }
    }

    #[test]
    fn the_configured_list_overrides_both() {
        let wanted = vec!["aes256-ctr".to_owned()];
        let client = ClientIdent::parse("SSH-2.0-OpenSSH_9.2p1");
        assert_eq!(names(&ciphers_for(Some(&client), &wanted)), ["aes256-ctr"]);
        assert_eq!(names(&ciphers_for(None, &wanted)), ["aes256-ctr"]);
        assert!(check_cipher_names(&wanted).is_ok());
        let err = check_cipher_names(&["3des-cbc".to_owned()]).unwrap_err();
        assert!(
            err.to_string().starts_with("unknown cipher \"3des-cbc\", expected one of chacha20"),
            "{err}"
        );
    }
}
