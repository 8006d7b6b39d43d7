use super::*;
use crate::subject::Subject;
use crate::testing::{Cluster, HOUR, at, cluster, host_tls, now, tls_identity};

#[test]
fn subjects_as_documented() {
    let (authorities, key) = (Cluster::new(), TlsKey::generate().unwrap());
    let user = authorities
        .user
        .tls_ca()
        .unwrap()
        .sign_client(&tls_identity(), &key.public(), now(), HOUR)
        .unwrap();
    let (rest, read) = x509_parser::parse_x509_certificate(user.der()).unwrap();
    assert!(rest.is_empty());
    let subject = Subject::read(&read).unwrap();
    let all = |attribute| subject.all(attribute).collect::<Vec<_>>();
    assert_eq!(all(subject::COMMON_NAME), ["joe"]);
    assert_eq!(all(subject::ORGANIZATION), ["access", "editor"]);
    assert_eq!(all(subject::LOCALITY), ["root", "ubuntu"]);
    assert_eq!(all(subject::STREET), ["example.com"]);
    assert_eq!(all(subject::POSTAL_CODE), [r#"{"team":["ä \"b\""]}"#]);
    assert_eq!(
        (all(subject::CLUSTER), all(subject::LOGIN_IP), all(subject::USER_TYPE)),
        (vec!["example.com"], vec!["2001:db8::7"], vec!["local"])
    );
    assert_eq!(
        (read.validity().not_before.timestamp(), read.validity().not_after.timestamp()),
        (at(-60).timestamp(), at(3600).timestamp())
    );
    assert!(!read.is_ca());

    let host = authorities
        .host
        .tls_ca()
        .unwrap()
        .sign_server(&host_tls(SystemRole::Auth), &key.public(), now(), None)
        .unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(host.der()).unwrap();
    assert_eq!(
        Subject::read(&read).unwrap().all(subject::ORGANIZATION).collect::<Vec<_>>(),
        ["Auth"]
    );
    let names = format!("{:?}", read.subject_alternative_name().unwrap().unwrap().value);
    for name in ["teleport.cluster.local", "*.teleport.cluster.local", "proxy.example.com"] {
        assert!(names.contains(&format!("DNSName(\"{name}\")")), "{names}");
    }
    assert_ne!(
        read.raw_serial(),
        x509_parser::parse_x509_certificate(user.der()).unwrap().1.raw_serial()
    );
}

#[test]
fn an_attribute_that_stands_twice_is_not_read() {
    let ca = TlsCa::generate(CaKind::User, &cluster(), now()).unwrap();
    let mut subject = SubjectBuilder::default();
    for user in ["joe", "root"] {
        subject.push(subject::COMMON_NAME, user);
    }
    subject.push(subject::CLUSTER, "example.com");
    let mut params = CertificateParams::default();
    set_validity(&mut params, now(), HOUR).unwrap();
    let cert =
        ca.sign_leaf(params, &subject.finish(), &TlsKey::generate().unwrap().public()).unwrap();
    assert!(matches!(
        crate::Identity::from_tls_cert(cert.der()),
        Err(PkiError::Identity("user name"))
    ));
}

#[test]
fn refusals() {
    let (authorities, key) = (Cluster::new(), TlsKey::generate().unwrap());
    let (user, host) = (authorities.user.tls_ca().unwrap(), authorities.host.tls_ca().unwrap());
    assert!(matches!(
        host.sign_client(&tls_identity(), &key.public(), now(), HOUR),
        Err(PkiError::WrongAuthority(CaKind::Host, _))
    ));
    assert!(matches!(
        user.sign_server(&host_tls(SystemRole::Auth), &key.public(), now(), None),
        Err(PkiError::WrongAuthority(CaKind::User, _))
    ));
    assert!(matches!(
        user.sign_client(&tls_identity(), &key.public(), now(), Duration::ZERO),
        Err(PkiError::Lifetime)
    ));
    assert!(matches!(
        user.sign_client(&tls_identity(), &key.public(), now(), Duration::MAX),
        Err(PkiError::Lifetime)
    ));
    for name in ["", "a b", "a\nb", "-x", "ä"] {
        let spec = HostTlsSpec { names: vec![name.to_owned()], ..host_tls(SystemRole::Proxy) };
        assert!(
            matches!(host.sign_server(&spec, &key.public(), now(), None), Err(PkiError::Name(_))),
            "{name}"
        );
    }
    assert!(matches!(
        TlsCa::from_pem(CaKind::Host, &host.cert_pem(), &user.key().to_pem()),
        Err(PkiError::KeyMismatch)
    ));
}
