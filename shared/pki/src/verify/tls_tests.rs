//! Every refusal of a TLS certificate, and whole handshakes.

use super::{CertRefusal, ClientVerifier, ServerVerifier, TlsVerifier, tls_peer};
use crate::testing::{Cluster, HOUR, at, cluster, host_tls, now, tls_identity};
use crate::{CaKind, CertAuthority, TlsCert, TlsKey, TrustedAuthority};
use proptest::prelude::*;
use rustls::server::danger::ClientCertVerifier as _;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName};
use shared_types::{ClusterName, RoleName, SystemRole, UserName};
use std::sync::{Arc, LazyLock};

static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::new);
static VERIFIER: LazyLock<TlsVerifier> = LazyLock::new(|| TlsVerifier::new(&CLUSTER.trusted));

fn client_cert(key: &TlsKey) -> TlsCert {
    CLUSTER.user.tls_ca().unwrap().sign_client(&tls_identity(), &key.public(), now(), HOUR).unwrap()
}

fn server_cert(role: SystemRole, key: &TlsKey) -> TlsCert {
    CLUSTER
        .host
        .tls_ca()
        .unwrap()
        .sign_server(&host_tls(role), &key.public(), now(), Some(HOUR))
        .unwrap()
}

fn key() -> TlsKey {
    TlsKey::generate().unwrap()
}

#[test]
fn a_user() {
    let identity = tls_peer(client_cert(&key()).der(), &CLUSTER.trusted, now()).unwrap();
    let wanted = tls_identity();
    assert_eq!(
        (identity.user, identity.roles, identity.logins),
        (wanted.user, wanted.roles, wanted.logins)
    );
    assert_eq!(
        (identity.traits, identity.cluster, identity.login_ip),
        (wanted.traits, wanted.cluster, wanted.login_ip)
    );
    assert_eq!(
        (identity.valid_until, identity.system_role, identity.host_id),
        (at(3600), None, None)
    );
}

#[test]
fn a_service() {
    let spec = host_tls(SystemRole::Proxy);
    let cert =
        CLUSTER.host.tls_ca().unwrap().sign_server(&spec, &key().public(), now(), None).unwrap();
    let identity = tls_peer(cert.der(), &CLUSTER.trusted, now()).unwrap();
    assert_eq!(
        (identity.system_role, identity.host_id),
        (Some(SystemRole::Proxy), Some(spec.host_id))
    );
    assert_eq!(identity.user.as_str(), format!("{}.example.com", spec.host_id));
    assert!(identity.roles.is_empty() && identity.logins.is_empty());
    assert!(identity.valid_until > at(9 * 365 * 86400));
}

#[test]
fn a_user_with_a_role_named_like_a_service_is_no_service() {
    let mut wanted = tls_identity();
    wanted.roles = vec![RoleName::new("Auth").unwrap()];
    wanted.user = UserName::new(format!("{}.example.com", uuid::Uuid::new_v4())).unwrap();
    let key = key();
    let cert =
        CLUSTER.user.tls_ca().unwrap().sign_client(&wanted, &key.public(), now(), HOUR).unwrap();
    let identity = tls_peer(cert.der(), &CLUSTER.trusted, now()).unwrap();
    assert_eq!((identity.system_role, identity.host_id, identity.roles.len()), (None, None, 1));
    // Nor does it serve as one.
    let leaf = CertificateDer::from(cert.der().to_vec());
    let all = SystemRole::ALL;
    assert!(ServerVerifier::new(&CLUSTER.trusted, &all).peer(&leaf, &[], now()).is_err());
    // And not even if the authority's kind was mixed up, since the certificate is for clients only.
    let mixed: Vec<TrustedAuthority> = CLUSTER
        .trusted
        .iter()
        .cloned()
        .map(|trusted| TrustedAuthority { kind: CaKind::Host, ..trusted })
        .collect();
    assert!(matches!(
        ServerVerifier::new(&mixed, &all).peer(&leaf, &[], now()),
        Err(CertRefusal::Malformed(_))
    ));
}

#[test]
fn an_authority_of_one_kind_does_not_sign_for_the_other() {
    // The keys of each authority used as if it were the other.
    let turned = |authority: &CertAuthority, kind| {
        let ca = authority.tls_ca().unwrap();
        crate::TlsCa::from_pem(kind, &ca.cert_pem(), &ca.key().to_pem()).unwrap()
    };
    let server = turned(&CLUSTER.user, CaKind::Host)
        .sign_server(&host_tls(SystemRole::Auth), &key().public(), now(), None)
        .unwrap();
    let leaf = CertificateDer::from(server.der().to_vec());
    let verifier = ServerVerifier::new(&CLUSTER.trusted, &SystemRole::ALL);
    assert_eq!(verifier.peer(&leaf, &[], now()), Err(CertRefusal::UnknownAuthority));
    // As a client it is a user, whatever its subject says.
    assert_eq!(VERIFIER.peer(&leaf, now()).unwrap().system_role, None);
    // A user's certificate by the host CA names no service.
    let client = turned(&CLUSTER.host, CaKind::User)
        .sign_client(&tls_identity(), &key().public(), now(), HOUR)
        .unwrap();
    assert_eq!(VERIFIER.peer(client.der(), now()), Err(CertRefusal::Identity));
}

#[test]
fn times() {
    let cert = client_cert(&key());
    let check = |offset| VERIFIER.peer(cert.der(), at(offset)).map(|_| ());
    assert_eq!(check(-121), Err(CertRefusal::NotYetValid));
    assert_eq!(check(-120), Ok(()));
    assert_eq!(check(3599), Ok(()));
    assert_eq!(check(3601), Err(CertRefusal::Expired));
}

#[test]
fn other_authorities() {
    let stranger = CertAuthority::generate(CaKind::User, &cluster(), now()).unwrap();
    let cert = stranger
        .tls_ca()
        .unwrap()
        .sign_client(&tls_identity(), &key().public(), now(), HOUR)
        .unwrap();
    assert_eq!(VERIFIER.peer(cert.der(), now()), Err(CertRefusal::UnknownAuthority));
    assert_eq!(tls_peer(client_cert(&key()).der(), &[], now()), Err(CertRefusal::UnknownAuthority));
    // Authorities of other kinds vouch for nobody here.
    let other: Vec<_> = CLUSTER
        .trusted
        .iter()
        .cloned()
        .map(|trusted| TrustedAuthority { kind: CaKind::Db, ..trusted })
        .collect();
    assert_eq!(
        tls_peer(client_cert(&key()).der(), &other, now()),
        Err(CertRefusal::UnknownAuthority)
    );
    // A self-signed authority is no peer, and neither is an authority of ours.
    assert!(VERIFIER.peer(stranger.tls_ca().unwrap().cert_der(), now()).is_err());
    assert!(VERIFIER.peer(CLUSTER.user.tls_ca().unwrap().cert_der(), now()).is_err());
}

#[test]
fn a_leaf_signs_nothing() {
    // A user's key as an authority: the certificate in the middle may not sign.
    let holder = key();
    let mut simple = tls_identity();
    simple.roles.truncate(1);
    simple.logins.truncate(1);
    let middle =
        CLUSTER.user.tls_ca().unwrap().sign_client(&simple, &holder.public(), now(), HOUR).unwrap();
    assert!(crate::TlsCa::from_pem(CaKind::User, &middle.pem(), &holder.to_pem()).is_err());
    let rogue = crate::TlsCa::unchecked(CaKind::User, holder, middle.der().to_vec());
    // rcgen copies the issuer's name through a form that keeps one value per attribute, so the name is a simple one.
    let cert = rogue.sign_client(&tls_identity(), &key().public(), now(), HOUR).unwrap();
    let verifier = ClientVerifier::new(&CLUSTER.trusted);
    let (leaf, middle) =
        (CertificateDer::from(cert.der().to_vec()), CertificateDer::from(middle.der().to_vec()));
    let moment = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        crate::testing::NOW.unsigned_abs(),
    ));
    assert!(verifier.verify_client_cert(&middle, &[], moment).is_ok());
    assert!(verifier.verify_client_cert(&leaf, &[middle], moment).is_err());
}

#[test]
fn the_cluster_in_the_subject_is_the_authoritys() {
    let mut wanted = tls_identity();
    wanted.cluster = ClusterName::new("example.org").unwrap();
    let cert =
        CLUSTER.user.tls_ca().unwrap().sign_client(&wanted, &key().public(), now(), HOUR).unwrap();
    assert_eq!(VERIFIER.peer(cert.der(), now()), Err(CertRefusal::WrongCluster));
}

#[test]
fn every_flipped_byte_and_every_truncation() {
    let cert = client_cert(&key());
    for length in 0..cert.der().len() {
        assert!(VERIFIER.peer(&cert.der()[..length], now()).is_err(), "cut at {length}");
    }
    for at in 0..cert.der().len() {
        let mut changed = cert.der().to_vec();
        changed[at] ^= 0x04;
        assert!(VERIFIER.peer(&changed, now()).is_err(), "byte {at}");
    }
    let last = cert.der().len() - 1;
    let mut changed = cert.der().to_vec();
    changed[last] ^= 1;
    assert_eq!(VERIFIER.peer(&changed, now()), Err(CertRefusal::BadSignature));
}

#[test]
fn servers() {
    let leaf = |cert: &TlsCert| CertificateDer::from(cert.der().to_vec());
    let auth = leaf(&server_cert(SystemRole::Auth, &key()));
    let wanted = ServerVerifier::new(&CLUSTER.trusted, &[SystemRole::Auth]);
    assert_eq!(wanted.peer(&auth, &[], now()).unwrap().system_role, Some(SystemRole::Auth));
    for role in [SystemRole::Proxy, SystemRole::Node, SystemRole::Admin] {
        let refused = wanted.peer(&leaf(&server_cert(role, &key())), &[], now());
        assert_eq!(refused, Err(CertRefusal::WrongRole { expected: "Auth", found: Some(role) }));
    }
    assert!(
        ServerVerifier::new(&CLUSTER.trusted, &[SystemRole::Auth, SystemRole::Proxy])
            .peer(&auth, &[], now())
            .is_ok()
    );
    assert_eq!(wanted.peer(&auth, &[], at(3601)), Err(CertRefusal::Expired));
    assert_eq!(wanted.peer(&auth, &[], at(-121)), Err(CertRefusal::NotYetValid));
    // Only the user CA is trusted: its kind does not vouch for servers.
    assert_eq!(
        ServerVerifier::new(&CLUSTER.trusted[1..], &[SystemRole::Auth]).peer(&auth, &[], now()),
        Err(CertRefusal::UnknownAuthority)
    );
    // A web certificate of anyone.
    let web = crate::web::self_signed(&["auth.example.com".to_owned()], now(), HOUR).unwrap();
    use rustls_pki_types::pem::PemObject as _;
    let web = CertificateDer::from_pem_slice(web.cert_pem.as_bytes()).unwrap();
    assert_eq!(wanted.peer(&web, &[], now()), Err(CertRefusal::UnknownAuthority));
}

#[test]
fn servers_by_pin() {
    let ca = CLUSTER.host.tls_ca().unwrap();
    let auth = CertificateDer::from(server_cert(SystemRole::Auth, &key()).der().to_vec());
    let authority = CertificateDer::from(ca.cert_der().to_vec());
    let pinned = ServerVerifier::with_pins(&[ca.pin().unwrap()], &[SystemRole::Auth]);
    assert!(pinned.peer(&auth, std::slice::from_ref(&authority), now()).is_ok());
    assert_eq!(pinned.peer(&auth, &[], now()), Err(CertRefusal::UnknownAuthority));
    let stranger = CertAuthority::generate(CaKind::Host, &cluster(), now()).unwrap();
    let stranger = stranger.tls_ca().unwrap();
    let other =
        stranger.sign_server(&host_tls(SystemRole::Auth), &key().public(), now(), None).unwrap();
    let other = CertificateDer::from(other.der().to_vec());
    let theirs = CertificateDer::from(stranger.cert_der().to_vec());
    // Their chain, with and without our authority's certificate thrown in.
    assert_eq!(
        pinned.peer(&other, std::slice::from_ref(&theirs), now()),
        Err(CertRefusal::UnknownAuthority)
    );
    assert_eq!(
        pinned.peer(&other, &[theirs, authority.clone()], now()),
        Err(CertRefusal::UnknownAuthority)
    );
    let wrong = ServerVerifier::with_pins(&[stranger.pin().unwrap()], &[SystemRole::Auth]);
    assert_eq!(wrong.peer(&auth, &[authority], now()), Err(CertRefusal::UnknownAuthority));
    // The pin of the user CA does not turn users into servers.
    let user_ca = CLUSTER.user.tls_ca().unwrap();
    let by_user = ServerVerifier::with_pins(&[user_ca.pin().unwrap()], &SystemRole::ALL);
    let leaf = CertificateDer::from(client_cert(&key()).der().to_vec());
    assert!(
        by_user.peer(&leaf, &[CertificateDer::from(user_ca.cert_der().to_vec())], now()).is_err()
    );
}

/// Runs a handshake in memory with certificates that are valid at the real time; the error is the first side's.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
) -> Result<ServerConnection, rustls::Error> {
    let name = ServerName::try_from("anything.invalid").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(server)
}

#[test]
fn handshakes() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let today = chrono::Utc::now();
    let server_key = key();
    let signed = CLUSTER
        .host
        .tls_ca()
        .unwrap()
        .sign_server(&host_tls(SystemRole::Auth), &server_key.public(), today, Some(HOUR))
        .unwrap();
    let server = || {
        ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(ClientVerifier::new(&CLUSTER.trusted))
            .with_single_cert(
                vec![CertificateDer::from(signed.der().to_vec())],
                server_key.to_rustls(),
            )
            .unwrap()
    };
    let client = |roles: &[SystemRole]| {
        ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(ServerVerifier::new(&CLUSTER.trusted, roles))
    };
    // Without a certificate there is a connection and no identity.
    let anonymous = handshake(client(&[SystemRole::Auth]).with_no_client_auth(), server()).unwrap();
    assert!(anonymous.peer_certificates().is_none());
    // With one of the user CA, and of the host CA.
    let user_key = key();
    let user = CLUSTER
        .user
        .tls_ca()
        .unwrap()
        .sign_client(&tls_identity(), &user_key.public(), today, HOUR)
        .unwrap();
    let proxy = CLUSTER
        .host
        .tls_ca()
        .unwrap()
        .sign_server(&host_tls(SystemRole::Proxy), &user_key.public(), today, Some(HOUR))
        .unwrap();
    for (cert, role) in [(&user, None), (&proxy, Some(SystemRole::Proxy))] {
        let chain = vec![CertificateDer::from(cert.der().to_vec())];
        let config =
            client(&[SystemRole::Auth]).with_client_auth_cert(chain, user_key.to_rustls()).unwrap();
        let server = handshake(config, server()).unwrap();
        let shown = server.peer_certificates().unwrap();
        assert_eq!(VERIFIER.peer(&shown[0], today).unwrap().system_role, role);
    }
    // A server in the wrong role, and a client of another cluster.
    assert!(handshake(client(&[SystemRole::Proxy]).with_no_client_auth(), server()).is_err());
    let stranger = CertAuthority::generate(CaKind::User, &cluster(), today).unwrap();
    let cert = stranger
        .tls_ca()
        .unwrap()
        .sign_client(&tls_identity(), &user_key.public(), today, HOUR)
        .unwrap();
    let config = client(&[SystemRole::Auth])
        .with_client_auth_cert(
            vec![CertificateDer::from(cert.der().to_vec())],
            user_key.to_rustls(),
        )
        .unwrap();
    assert!(handshake(config, server()).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(VERIFIER.peer(&bytes, now()).is_err());
        let leaf = CertificateDer::from(bytes.clone());
        prop_assert!(ServerVerifier::new(&CLUSTER.trusted, &SystemRole::ALL).peer(&leaf, std::slice::from_ref(&leaf), now()).is_err());
        let _ = crate::Identity::from_tls_cert(&bytes);
        let _ = crate::Identity::from_host_tls_cert(&bytes);
        let _ = crate::ca_pin(&bytes);
        let _ = crate::TlsPublicKey::from_der(&bytes);
    }

    #[test]
    fn changed_certificates_never_panic_and_are_never_believed(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        static CERT: LazyLock<TlsCert> = LazyLock::new(|| client_cert(&key()));
        let mut changed = CERT.der().to_vec();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        let _ = crate::Identity::from_tls_cert(&changed);
        prop_assume!(changed != CERT.der());
        prop_assert!(VERIFIER.peer(&changed, now()).is_err());
    }
}
