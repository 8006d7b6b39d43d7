//! Every refusal of an SSH certificate, and that nothing else is refused.

use super::{CertRefusal, HostRole, SshVerifier};
use crate::parse_public_key;
use crate::ssh_key::certificate::CertType;
use crate::ssh_key::public::KeyData;
use crate::ssh_key::{Algorithm, Certificate, PrivateKey, PublicKey};
use crate::testing::{Cluster, Forged, at, cluster, host_spec, key_of, now, some_key, user_spec};
use crate::{
    CaKind, Cidr, KeyPair, SshCa, TrustedAuthority, parse_certificate, parse_certificate_line,
};
use proptest::prelude::*;
use shared_types::{Login, SystemRole};
use std::sync::LazyLock;

static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::new);

fn user(cert: &Certificate) -> Result<crate::Identity, CertRefusal> {
    SshVerifier::new(&CLUSTER.trusted, now()).user(cert, "root", None)
}

fn host(cert: &Certificate) -> Result<crate::HostIdentity, CertRefusal> {
    SshVerifier::new(&CLUSTER.trusted, now()).host(cert, "db", HostRole::Node)
}

fn user_key() -> KeyPair {
    key_of(&CLUSTER.user)
}

fn host_key() -> KeyPair {
    key_of(&CLUSTER.host)
}

#[test]
fn a_good_user() {
    let identity = user(&CLUSTER.user_cert(user_spec())).unwrap();
    assert_eq!(identity.user.as_str(), "joe");
    assert_eq!(
        identity.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(),
        ["access", "editor"]
    );
    assert_eq!(identity.logins.iter().map(Login::as_str).collect::<Vec<_>>(), ["root", "ubuntu"]);
    assert_eq!(identity.traits["team"], ["a", "b"]);
    assert_eq!(identity.cluster, cluster());
    assert_eq!(identity.login_ip, Some("192.0.2.7".parse().unwrap()));
    assert_eq!(identity.valid_until, at(3600));
    assert_eq!(identity.system_role, None);
    assert!(
        identity.permits.pty
            && identity.permits.port_forwarding
            && !identity.permits.agent_forwarding
    );
}

#[test]
fn a_good_host() {
    let cert = CLUSTER.host_cert(host_spec(SystemRole::Node, &["db", "10.0.0.1"]));
    let identity = host(&cert).unwrap();
    assert_eq!(
        (identity.role, identity.cluster, identity.valid_until),
        (SystemRole::Node, cluster(), at(3600))
    );
    assert_eq!(identity.principals, ["db", "10.0.0.1"]);
    let verifier = SshVerifier::new(&CLUSTER.trusted, now());
    assert!(verifier.host(&cert, "10.0.0.1", HostRole::Any).is_ok());
}

#[test]
fn a_host_without_end() {
    let mut spec = host_spec(SystemRole::Node, &["db"]);
    spec.ttl = None;
    let cert = CLUSTER.host_cert(spec);
    assert_eq!(cert.valid_before(), u64::MAX);
    let later = SshVerifier::new(&CLUSTER.trusted, at(100 * 365 * 86400));
    assert_eq!(
        later.host(&cert, "db", HostRole::Node).unwrap().valid_until,
        chrono::DateTime::<chrono::Utc>::MAX_UTC
    );
}

#[test]
fn other_authorities() {
    let stranger = KeyPair::generate().unwrap();
    assert_eq!(user(&Forged::user(&stranger).sign()), Err(CertRefusal::UnknownAuthority));
    assert_eq!(host(&Forged::host(&stranger).sign()).unwrap_err(), CertRefusal::UnknownAuthority);
    // The other authority of the same cluster, with the right type of certificate.
    assert_eq!(
        user(&Forged::user(&host_key()).sign()),
        Err(CertRefusal::WrongAuthority(CaKind::Host))
    );
    assert_eq!(
        host(&Forged::host(&user_key()).sign()).unwrap_err(),
        CertRefusal::WrongAuthority(CaKind::User)
    );
    // Controls: the same certificates by the right keys.
    assert!(user(&Forged::user(&user_key()).sign()).is_ok());
    assert!(host(&Forged::host(&host_key()).sign()).is_ok());
    // Nobody trusted at all.
    assert_eq!(
        SshVerifier::new(&[], now()).user(&Forged::user(&user_key()).sign(), "root", None),
        Err(CertRefusal::UnknownAuthority)
    );
}

#[test]
fn signed_by_the_key_of_a_certificate() {
    // A user's certified key signs a certificate of its own.
    let holder = KeyPair::generate().unwrap();
    let mut spec = user_spec();
    spec.public_key = holder.public().clone();
    assert!(user(&CLUSTER.user_cert(spec)).is_ok());
    assert_eq!(user(&Forged::user(&holder).sign()), Err(CertRefusal::UnknownAuthority));
}

/// A certificate blob whose signing key field holds `signing_key`, signed by `by` as if that were right.
fn with_signing_key(template: &Certificate, signing_key: &[u8], by: &KeyPair) -> Vec<u8> {
    use russh::keys::signature::Signer as _;
    let bytes = template.to_bytes().unwrap();
    let own = KeyPair::public(by).to_bytes().unwrap();
    let at = bytes.windows(own.len()).rposition(|window| window == own).unwrap();
    let mut blob = bytes[..at - 4].to_vec();
    blob.extend_from_slice(&u32::try_from(signing_key.len()).unwrap().to_be_bytes());
    blob.extend_from_slice(signing_key);
    let signature = by.private().try_sign(&blob).unwrap();
    let mut encoded = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), signature.as_bytes()] {
        encoded.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
        encoded.extend_from_slice(part);
    }
    blob.extend_from_slice(&u32::try_from(encoded.len()).unwrap().to_be_bytes());
    blob.extend_from_slice(&encoded);
    blob
}

#[test]
fn signed_by_a_certificate() {
    let by = user_key();
    let template = Forged::user(&by).sign();
    // Control: the helper makes certificates that are believed.
    let control = with_signing_key(&template, &by.public().to_bytes().unwrap(), &by);
    let verifier = SshVerifier::new(&CLUSTER.trusted, now());
    assert!(verifier.user_blob(&control, "root", None).is_ok());

    let authority_certificate =
        Forged { key: by.public().clone(), ..Forged::user(&KeyPair::generate().unwrap()) }.sign();
    let blob = with_signing_key(&template, &authority_certificate.to_bytes().unwrap(), &by);
    assert_eq!(verifier.user_blob(&blob, "root", None), Err(CertRefusal::SignedByCertificate));
    // And when it was decoded by someone else first.
    let decoded = Certificate::from_bytes(&blob).unwrap();
    assert!(matches!(decoded.signature_key(), KeyData::Certificate(_)));
    assert_eq!(verifier.user(&decoded, "root", None), Err(CertRefusal::SignedByCertificate));
    // Not even when the list of authorities names that certificate.
    let mut authorities = CLUSTER.trusted.clone();
    authorities.push(TrustedAuthority {
        kind: CaKind::User,
        cluster: cluster(),
        ssh_keys: vec![authority_certificate.to_openssh().unwrap()],
        tls_certs: Vec::new(),
    });
    assert!(
        authorities[2].check().is_err()
            && authorities[2].ssh_public_keys().is_empty()
            && authorities[2].authorized_line().is_empty()
    );
    assert_eq!(
        SshVerifier::new(&authorities, now()).user(&decoded, "root", None),
        Err(CertRefusal::SignedByCertificate)
    );
}

#[test]
fn certificates_nested_without_end_are_refused_unread() {
    let by = user_key();
    let template = Forged::user(&by).sign();
    let mut blob = by.public().to_bytes().unwrap();
    while blob.len() < crate::MAX_CERTIFICATE - 1000 {
        blob = with_signing_key(&template, &blob, &by);
    }
    assert_eq!(parse_certificate(&blob), Err(CertRefusal::SignedByCertificate));
    blob.resize(crate::MAX_CERTIFICATE + 1, 0);
    assert_eq!(parse_certificate(&blob), Err(CertRefusal::Malformed("too long")));
}

#[test]
fn types() {
    let user_cert = CLUSTER.user_cert(user_spec());
    let host_cert = CLUSTER.host_cert(host_spec(SystemRole::Node, &["root", "db"]));
    assert_eq!(user(&host_cert), Err(CertRefusal::WrongType { expected: "user", found: "host" }));
    assert_eq!(
        host(&user_cert).unwrap_err(),
        CertRefusal::WrongType { expected: "host", found: "user" }
    );
    // By the authority of the other kind, too.
    let by = user_key();
    let forged = Forged { cert_type: CertType::Host, ..Forged::user(&by) }.sign();
    assert_eq!(user(&forged), Err(CertRefusal::WrongType { expected: "user", found: "host" }));
}

#[test]
fn times() {
    let cert = CLUSTER.user_cert(user_spec());
    let check = |offset| {
        SshVerifier::new(&CLUSTER.trusted, at(offset)).user(&cert, "root", None).map(|_| ())
    };
    // Issued from a minute before, and taken a minute earlier still; the end is the end.
    assert_eq!(check(-121), Err(CertRefusal::NotYetValid));
    assert_eq!(check(-120), Ok(()));
    assert_eq!(check(0), Ok(()));
    assert_eq!(check(3599), Ok(()));
    assert_eq!(check(3600), Err(CertRefusal::Expired));
    assert_eq!(check(1_000_000), Err(CertRefusal::Expired));
    let host_cert = CLUSTER.host_cert(host_spec(SystemRole::Node, &["db"]));
    let check = |offset| {
        SshVerifier::new(&CLUSTER.trusted, at(offset))
            .host(&host_cert, "db", HostRole::Node)
            .map(|_| ())
    };
    assert_eq!(
        (check(-121), check(3600)),
        (Err(CertRefusal::NotYetValid), Err(CertRefusal::Expired))
    );
    // Before 1970 nothing is valid.
    let ancient = chrono::DateTime::from_timestamp(-1, 0).unwrap();
    assert_eq!(
        SshVerifier::new(&CLUSTER.trusted, ancient).user(&cert, "root", None),
        Err(CertRefusal::NotYetValid)
    );
}

#[test]
fn user_principals() {
    let verifier = SshVerifier::new(&CLUSTER.trusted, now());
    let cert = CLUSTER.user_cert(user_spec());
    assert!(verifier.user(&cert, "ubuntu", None).is_ok());
    for wrong in
        ["", "admin", "Root", "root ", "roo", "*", "root,ubuntu", "-teleport-internal-join"]
    {
        assert_eq!(
            verifier.user(&cert, wrong, None),
            Err(CertRefusal::Principal(wrong.to_owned())),
            "{wrong}"
        );
    }
    // A pattern is a plain name for users.
    let by = user_key();
    let cert = Forged { principals: &["*", "r?ot", ""], ..Forged::user(&by) }.sign();
    for wrong in ["root", "", "x"] {
        assert_eq!(
            verifier.user(&cert, wrong, None),
            Err(CertRefusal::Principal(wrong.to_owned())),
            "{wrong}"
        );
    }
    // Without logins nobody logs in.
    let mut spec = user_spec();
    spec.principals.clear();
    let cert = CLUSTER.user_cert(spec);
    assert_eq!(cert.valid_principals().len(), 2);
    for principal in cert.valid_principals() {
        assert_eq!(
            verifier.user(&cert, principal, None),
            Err(CertRefusal::Principal(principal.clone()))
        );
    }
}

#[test]
fn empty_principals() {
    let (by_user, by_host) = (user_key(), host_key());
    let user_cert = Forged { principals: &[], ..Forged::user(&by_user) }.sign();
    let host_cert = Forged { principals: &[], ..Forged::host(&by_host) }.sign();
    let text = user(&user_cert).unwrap_err().to_string();
    assert!(text.starts_with("need a valid principal for key SHA256:"), "{text}");
    assert!(matches!(host(&host_cert), Err(CertRefusal::EmptyPrincipals(_))));
}

#[test]
fn empty_key_id() {
    let by = user_key();
    let text = user(&Forged { key_id: "", ..Forged::user(&by) }.sign()).unwrap_err().to_string();
    assert!(text.starts_with("need a valid key for key SHA256:"), "{text}");
}

#[test]
fn critical_options() {
    let (by_user, by_host) = (user_key(), host_key());
    for name in ["force-command", "verify-required", "x", "no-touch-required", "source-addresses"] {
        let options = &[(name, "true")];
        let refused = CertRefusal::UnknownCriticalOption(name.to_owned());
        assert_eq!(
            user(&Forged { options, ..Forged::user(&by_user) }.sign()),
            Err(refused.clone())
        );
        assert_eq!(
            host(&Forged { options, ..Forged::host(&by_host) }.sign()).unwrap_err(),
            refused
        );
    }
    // A host may not even have the one that users may.
    let options = &[("source-address", "0.0.0.0/0")];
    let refused = CertRefusal::UnknownCriticalOption("source-address".to_owned());
    assert_eq!(host(&Forged { options, ..Forged::host(&by_host) }.sign()).unwrap_err(), refused);
}

#[test]
fn source_addresses() {
    let verifier = SshVerifier::new(&CLUSTER.trusted, now());
    let mut spec = user_spec();
    spec.source_addresses =
        vec!["10.0.0.0/8".parse().unwrap(), Cidr::single("192.0.2.7".parse().unwrap())];
    let cert = CLUSTER.user_cert(spec);
    assert_eq!(cert.critical_options().get("source-address").unwrap(), "10.0.0.0/8,192.0.2.7/32");
    for good in ["10.1.2.3", "192.0.2.7", "::ffff:10.1.2.3"] {
        assert!(verifier.user(&cert, "root", Some(good.parse().unwrap())).is_ok(), "{good}");
    }
    for bad in ["192.0.2.8", "11.0.0.1", "::1"] {
        assert_eq!(
            verifier.user(&cert, "root", Some(bad.parse().unwrap())),
            Err(CertRefusal::SourceAddress),
            "{bad}"
        );
    }
    assert_eq!(verifier.user(&cert, "root", None), Err(CertRefusal::SourceAddress));
    let by = user_key();
    for list in [
        "",
        ",",
        "10.0.0.0/8,",
        "x",
        "!10.0.0.0/8",
        "10.0.0.1/8",
        "10.0.0.0/8, 192.0.2.7",
        "10.0.0.0/99",
    ] {
        let cert = Forged { options: &[("source-address", list)], ..Forged::user(&by) }.sign();
        assert_eq!(
            verifier.user(&cert, "root", Some("10.0.0.1".parse().unwrap())),
            Err(CertRefusal::SourceAddress),
            "{list}"
        );
    }
}

#[test]
fn host_principals() {
    let verifier = SshVerifier::new(&CLUSTER.trusted, now());
    let cert =
        CLUSTER.host_cert(host_spec(SystemRole::Node, &["db.example.com", "*.web.example.com"]));
    for good in ["db.example.com", "a.web.example.com", "a.b.web.example.com"] {
        assert!(verifier.host(&cert, good, HostRole::Node).is_ok(), "{good}");
    }
    for bad in [
        "",
        "db",
        "DB.example.com",
        "db.example.com.",
        "web.example.com",
        "*.web.example.com",
        "db.example.com,x",
        "10.0.0.1",
    ] {
        assert_eq!(
            verifier.host(&cert, bad, HostRole::Node).unwrap_err(),
            CertRefusal::Principal(bad.to_owned()),
            "{bad}"
        );
    }
    let by = host_key();
    let cert = Forged { principals: &["*", "*.*", "?"], ..Forged::host(&by) }.sign();
    for name in ["db", "a.b", "x", "*"] {
        assert_eq!(
            verifier.host(&cert, name, HostRole::Node).unwrap_err(),
            CertRefusal::Principal(name.to_owned()),
            "{name}"
        );
    }
}

#[test]
fn host_roles() {
    let verifier = SshVerifier::new(&CLUSTER.trusted, now());
    let matrix = [
        (SystemRole::Node, [true, false, true]),
        (SystemRole::Proxy, [false, true, true]),
        (SystemRole::Auth, [false, false, false]),
        (SystemRole::Admin, [false, false, false]),
    ];
    for (role, expected) in matrix {
        let cert = CLUSTER.host_cert(host_spec(role, &["db"]));
        let found = [HostRole::Node, HostRole::Proxy, HostRole::Any]
            .map(|expect| verifier.host(&cert, "db", expect).is_ok());
        assert_eq!(found, expected, "{role}");
    }
    let by = host_key();
    for role in ["", "node", "Node ", "Node,Proxy", "Instance"] {
        let extensions = &[("x-teleport-authority", "example.com"), ("x-teleport-role", role)];
        let cert = Forged { extensions, ..Forged::host(&by) }.sign();
        let refused = verifier.host(&cert, "db", HostRole::Any).unwrap_err();
        assert_eq!(
            refused,
            CertRefusal::WrongRole { expected: "Node or Proxy", found: None },
            "{role}"
        );
    }
    let cert =
        Forged { extensions: &[("x-teleport-authority", "example.com")], ..Forged::host(&by) }
            .sign();
    assert!(matches!(
        verifier.host(&cert, "db", HostRole::Any),
        Err(CertRefusal::WrongRole { found: None, .. })
    ));
    let proxy = CLUSTER.host_cert(host_spec(SystemRole::Proxy, &["db"]));
    let text = verifier.host(&proxy, "db", HostRole::Node).unwrap_err().to_string();
    assert_eq!(text, "host certificate is for role Proxy, expected Node");
}

#[test]
fn host_cluster() {
    let by = host_key();
    for extensions in [
        &[("x-teleport-authority", "example.org"), ("x-teleport-role", "Node")][..],
        &[("x-teleport-authority", ""), ("x-teleport-role", "Node")],
        &[("x-teleport-role", "Node")],
    ] {
        assert_eq!(
            host(&Forged { extensions, ..Forged::host(&by) }.sign()).unwrap_err(),
            CertRefusal::WrongCluster
        );
    }
}

#[test]
fn unknown_extensions_are_ignored_and_bad_known_ones_refuse() {
    let by = user_key();
    let extensions = &[
        ("teleport-roles", r#"{"version":"v1","roles":["access"]}"#),
        ("zzz-unknown@example.com", "x"),
    ];
    let identity = user(&Forged { extensions, ..Forged::user(&by) }.sign()).unwrap();
    assert_eq!(identity.roles.len(), 1);
    assert_eq!(identity.cluster, cluster());
    for (name, value) in [
        ("teleport-roles", "x"),
        ("teleport-traits", "[]"),
        ("login-ip", "here"),
        ("teleport-roles", r#"{"version":"v1","roles":["a b"]}"#),
    ] {
        let cert = Forged { extensions: &[(name, value)], ..Forged::user(&by) }.sign();
        assert_eq!(user(&cert), Err(CertRefusal::Identity), "{name} {value}");
    }
    // A key id that is no user name.
    assert_eq!(
        user(&Forged { key_id: "joe;id", ..Forged::user(&by) }.sign()),
        Err(CertRefusal::Identity)
    );
    assert_eq!(
        user(&Forged { principals: &["root", "a b"], ..Forged::user(&by) }.sign()),
        Err(CertRefusal::Identity)
    );
}

#[test]
fn keys_of_other_kinds() {
    // 1024 bits of RSA.
    let weak = PublicKey::from_openssh(
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC+qLisfgbid1W6ttdnrJtfMajLx1Q3ftgrja96K2Z31o22pvjfmooGFX4WlP4VhSHTc2/r4Y8fqS83MsMjMmRDfnMHf8sqy5ZCURb6yXVw/KbzmPNAPbdzntO7aNwlsgTWChJEkG4k2t8TLwQWXrzAn18FjDpIX1jCL3IfNGfbgw==",
    )
    .unwrap();
    let by = user_key();
    assert_eq!(
        user(&Forged { key: weak.clone(), ..Forged::user(&by) }.sign()),
        Err(CertRefusal::UnsupportedKey("ssh-rsa".to_owned()))
    );
    let mut spec = user_spec();
    spec.public_key = weak;
    assert!(CLUSTER.user.ssh_ca().unwrap().sign_user(spec).is_err());
}

#[test]
fn ecdsa_authorities_and_keys() {
    for curve in [
        crate::ssh_key::EcdsaCurve::NistP256,
        crate::ssh_key::EcdsaCurve::NistP384,
        crate::ssh_key::EcdsaCurve::NistP521,
    ] {
        let make = || {
            KeyPair::new(PrivateKey::random(&mut rand::rng(), Algorithm::Ecdsa { curve }).unwrap())
                .unwrap()
        };
        let by = make();
        let trusted = TrustedAuthority {
            kind: CaKind::User,
            cluster: cluster(),
            ssh_keys: vec![by.public_openssh()],
            tls_certs: Vec::new(),
        };
        let mut spec = user_spec();
        spec.public_key = make().public().clone();
        let cert = SshCa::new(CaKind::User, by).sign_user(spec).unwrap();
        let blob = cert.to_bytes().unwrap();
        assert!(
            SshVerifier::new(&[trusted], now()).user_blob(&blob, "root", None).is_ok(),
            "{curve}"
        );
    }
}

#[test]
fn every_flipped_bit_and_every_truncation() {
    let by = user_key();
    let cert = Forged {
        extensions: &[("teleport-roles", r#"{"version":"v1","roles":["access"]}"#)],
        options: &[("source-address", "10.0.0.0/8")],
        ..Forged::user(&by)
    }
    .sign();
    let blob = cert.to_bytes().unwrap();
    let verifier = SshVerifier::new(&CLUSTER.trusted, now());
    let from = Some("10.0.0.1".parse().unwrap());
    assert!(verifier.user_blob(&blob, "root", from).is_ok());
    for length in 0..blob.len() {
        assert!(verifier.user_blob(&blob[..length], "root", from).is_err(), "cut at {length}");
    }
    for at in 0..blob.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut changed = blob.clone();
            changed[at] ^= bit;
            assert!(verifier.user_blob(&changed, "root", from).is_err(), "byte {at} bit {bit}");
        }
    }
    let mut longer = blob.clone();
    longer.push(0);
    assert_eq!(
        verifier.user_blob(&longer, "root", from),
        Err(CertRefusal::Malformed("bytes behind the end"))
    );
}

#[test]
fn flipped_signature_bytes() {
    let cert = CLUSTER.user_cert(user_spec());
    let blob = cert.to_bytes().unwrap();
    let verifier = SshVerifier::new(&CLUSTER.trusted, now());
    for at in blob.len() - 64..blob.len() {
        let mut changed = blob.clone();
        changed[at] ^= 0x10;
        assert_eq!(
            verifier.user_blob(&changed, "root", None),
            Err(CertRefusal::BadSignature),
            "byte {at}"
        );
    }
    // The right signature under the name of another algorithm.
    let at = blob.len() - 64 - 4 - 11;
    assert_eq!(&blob[at..at + 11], b"ssh-ed25519");
    let mut other = blob.clone();
    other[at..at + 11].copy_from_slice(b"ssh-ed25518");
    assert!(verifier.user_blob(&other, "root", None).is_err());
}

#[test]
fn bytes_hidden_behind_nested_fields() {
    // The decoder of the blob's outer fields ignores what stands behind a signature inside its own string.
    let blob = CLUSTER.user_cert(user_spec()).to_bytes().unwrap();
    let at = blob.len() - 64 - 4 - 11 - 4 - 4;
    let mut longer = blob.clone();
    let length = u32::from_be_bytes(longer[at..at + 4].try_into().unwrap());
    longer[at..at + 4].copy_from_slice(&(length + 1).to_be_bytes());
    longer.push(7);
    let refused =
        SshVerifier::new(&CLUSTER.trusted, now()).user_blob(&longer, "root", None).unwrap_err();
    assert!(matches!(refused, CertRefusal::Malformed(_)), "{refused}");
}

#[test]
fn lines() {
    let cert = CLUSTER.user_cert(user_spec());
    let line = cert.to_openssh().unwrap();
    assert_eq!(
        parse_certificate_line(&format!("{line} teleport:joe\n")).unwrap().comment(),
        "teleport:joe"
    );
    assert_eq!(
        parse_certificate_line(&line).unwrap().to_bytes().unwrap(),
        cert.to_bytes().unwrap()
    );
    let plain = some_key().to_openssh().unwrap();
    let refused = parse_certificate_line(&plain).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "remote host presented a public key, expected a host certificate"
    );
    assert_eq!(
        parse_certificate(&some_key().to_bytes().unwrap()),
        Err(CertRefusal::NotCertificate)
    );
    let renamed =
        line.replacen("ssh-ed25519-cert-v01@openssh.com", "ssh-rsa-cert-v01@openssh.com", 1);
    assert!(parse_certificate_line(&renamed).is_err());
    for bad in [
        "",
        "x",
        "ssh-ed25519-cert-v01@openssh.com",
        "ssh-ed25519-cert-v01@openssh.com !!",
        "ssh-ed25519-cert-v01@openssh.com AAAA",
    ] {
        assert!(parse_certificate_line(bad).is_err(), "{bad}");
    }
}

#[test]
fn public_keys_of_peers() {
    let plain = some_key().to_openssh().unwrap();
    assert!(parse_public_key(&format!("{plain} joe@laptop\n")).is_ok());
    let cert = CLUSTER.user_cert(user_spec());
    assert!(matches!(
        parse_public_key(&cert.to_openssh().unwrap()),
        Err(CertRefusal::UnsupportedKey(_))
    ));
    // A certificate under the name of a key, nested ones at that.
    use base64::Engine as _;
    let by = user_key();
    let template = Forged::user(&by).sign();
    let mut blob = by.public().to_bytes().unwrap();
    while blob.len() < 300_000 {
        blob = with_signing_key(&template, &blob, &by);
    }
    let nested = base64::engine::general_purpose::STANDARD.encode(&blob);
    assert_eq!(
        parse_public_key(&format!("ssh-ed25519 {nested}")),
        Err(CertRefusal::Malformed("too long"))
    );
    let single = base64::engine::general_purpose::STANDARD.encode(cert.to_bytes().unwrap());
    assert!(parse_public_key(&format!("ssh-ed25519 {single}")).is_err());
    let refused = parse_public_key("\x1b[2J-cert-v01@x AAAA").unwrap_err();
    assert_eq!(refused.to_string(), "unsupported key type: [2J-cert-v01@x");
    for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "x y z", "ssh-dss AAAAB3NzaC1kc3MAAAAA"] {
        assert!(parse_public_key(bad).is_err(), "{bad}");
    }
}

#[test]
fn several_keys_of_one_authority() {
    let mut trusted = CLUSTER.trusted.clone();
    let next = KeyPair::generate().unwrap();
    trusted[1].ssh_keys.push(next.public_openssh());
    assert!(
        SshVerifier::new(&trusted, now()).user(&Forged::user(&next).sign(), "root", None).is_ok()
    );
    assert!(
        SshVerifier::new(&trusted, now())
            .user(&CLUSTER.user_cert(user_spec()), "root", None)
            .is_ok()
    );
}

#[test]
fn another_clusters_authority_speaks_for_its_own_cluster() {
    let other = shared_types::ClusterName::new("leaf.org").unwrap();
    let leaf = crate::CertAuthority::generate(CaKind::Host, &other, now()).unwrap();
    let by = key_of(&leaf);
    let trusted = vec![leaf.trusted()];
    let claims_ours = Forged::host(&by).sign();
    assert_eq!(
        SshVerifier::new(&trusted, now()).host(&claims_ours, "db", HostRole::Node).unwrap_err(),
        CertRefusal::WrongCluster
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let verifier = SshVerifier::new(&CLUSTER.trusted, now());
        prop_assert!(verifier.user_blob(&bytes, "root", None).is_err());
        prop_assert!(verifier.host_blob(&bytes, "db", HostRole::Any).is_err());
        prop_assert!(parse_certificate_line(&String::from_utf8_lossy(&bytes)).is_err());
        prop_assert!(parse_public_key(&String::from_utf8_lossy(&bytes)).is_err());
    }

    #[test]
    fn changed_certificates_never_panic_and_are_never_believed(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        shorten: bool,
    ) {
        static BLOB: LazyLock<Vec<u8>> = LazyLock::new(|| CLUSTER.user_cert(user_spec()).to_bytes().unwrap());
        let mut changed = BLOB.clone();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        if shorten {
            changed.truncate(cut.index(BLOB.len()));
        }
        prop_assume!(changed != *BLOB);
        prop_assert!(SshVerifier::new(&CLUSTER.trusted, now()).user_blob(&changed, "root", None).is_err());
    }

    #[test]
    fn any_login_but_the_listed_ones_is_refused(login in "\\PC{0,12}") {
        prop_assume!(login != "root");
        static CERT: LazyLock<Certificate> = LazyLock::new(|| Forged::user(&user_key()).sign());
        prop_assert_eq!(SshVerifier::new(&CLUSTER.trusted, now()).user(&CERT, &login, None), Err(CertRefusal::Principal(login)));
    }

    #[test]
    fn only_inside_its_window(from in 0u64..5_000_000_000, length in 0u64..5_000_000_000, moment in 0i64..10_000_000_000) {
        let by = user_key();
        let cert = Forged { valid: (from, from + length), ..Forged::user(&by) };
        prop_assume!(length > 0);
        let verifier_now = chrono::DateTime::from_timestamp(moment, 0).unwrap();
        let taken = SshVerifier::new(&CLUSTER.trusted, verifier_now).user(&cert.sign(), "root", None).is_ok();
        let moment = u64::try_from(moment).unwrap();
        prop_assert_eq!(taken, moment + 60 >= from && moment < from + length);
    }
}
