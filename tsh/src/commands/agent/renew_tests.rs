use shared_pki::{CaKind, CertAuthority, KeyPair, TlsKey, UserCertSpec};

use super::*;

struct Home {
    folder: tempfile::TempDir,
    profile: Profile,
    user_ca: CertAuthority,
    host_ca: CertAuthority,
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

impl Home {
    fn new() -> Self {
        let cluster = "main".parse().unwrap();
        let profile = Profile::new(
            "proxy.example.com:3080".into(),
            "proxy.example.com:3023".into(),
            "joe".parse().unwrap(),
            "main".parse().unwrap(),
            false,
        );
        Self {
            folder: tempfile::tempdir().unwrap(),
            profile,
            user_ca: CertAuthority::generate(CaKind::User, &cluster, now()).unwrap(),
            host_ca: CertAuthority::generate(CaKind::Host, &cluster, now()).unwrap(),
        }
    }

    fn dir(&self) -> ProfileDir {
        ProfileDir::at(self.folder.path())
    }

    /// Writes a login as `tsh login` does; gives the certificate's line.
    fn login(&self, at: DateTime<Utc>, seconds: u64) -> StoredLogin {
        let (dir, profile) = (self.dir(), &self.profile);
        let key = KeyPair::generate().unwrap();
        self.write(&dir.ssh_key_path(profile), &key.to_openssh_private_pem().unwrap());
        self.certify(&key, at, seconds);
        let tls = TlsKey::generate().unwrap().to_pem();
        self.write(&dir.tls_key_path(profile), &tls);
        self.write(&dir.tls_cert_path(profile), "none is read here\n");
        let host = self.host_ca.trusted();
        self.write(&dir.cas_path(profile), &host.tls_certs.concat());
        dir.set_known_hosts(profile, &[host.known_hosts_line(None)]).unwrap();
        dir.save(profile).unwrap();
        StoredLogin::load(&dir, profile).unwrap().unwrap()
    }

    fn certify(&self, key: &KeyPair, at: DateTime<Utc>, seconds: u64) {
        let spec = UserCertSpec::new(
            key.public().clone(),
            self.profile.user.clone(),
            vec!["root".parse().unwrap()],
            self.profile.cluster.clone(),
            at,
            Duration::from_secs(seconds),
        );
        let certificate = self.user_ca.ssh_ca().unwrap().sign_user(spec).unwrap();
        let line = certificate.to_openssh().unwrap();
        self.write(&self.dir().ssh_cert_path(&self.profile), &line);
    }

    fn write(&self, path: &std::path::Path, text: &str) {
        self.dir().write_secret(path, text.as_bytes()).unwrap();
    }
}

#[test]
fn a_new_login_is_seen_once() {
    let home = Home::new();
    let first = home.login(now(), 3600);
    let dir = home.dir();
    let mut renewal = Renewal::new(&dir, home.profile.clone(), &first);
    assert!(matches!(renewal.look(now()), Change::None));
    let second = home.login(now(), 7200);
    let Change::Login(taken) = renewal.look(now()) else { panic!("not seen") };
    assert_eq!(taken.key.blob(), second.ssh_cert.to_bytes().unwrap());
    assert_eq!(taken.authorities.len(), 1);
    assert!(matches!(renewal.look(now()), Change::None));
}

#[test]
fn a_half_written_login_waits_for_its_other_half() {
    let home = Home::new();
    let first = home.login(now(), 3600);
    let dir = home.dir();
    let mut renewal = Renewal::new(&dir, home.profile.clone(), &first);
    let key = KeyPair::generate().unwrap();
    home.write(&dir.ssh_key_path(&home.profile), &key.to_openssh_private_pem().unwrap());
    assert!(matches!(renewal.look(now()), Change::None));
    home.certify(&key, now(), 7200);
    assert!(matches!(renewal.look(now()), Change::Login(_)));
}

#[test]
fn what_ends_is_forgotten_once_and_the_next_login_taken_up() {
    let home = Home::new();
    let first = home.login(now(), 3600);
    let dir = home.dir();
    let mut renewal = Renewal::new(&dir, home.profile.clone(), &first);
    let later = now() + TimeDelta::seconds(3601);
    assert!(matches!(renewal.look(later - TimeDelta::seconds(30)), Change::None));
    assert!(matches!(renewal.look(later), Change::Ended));
    assert!(matches!(renewal.look(later), Change::None));
    home.login(later, 3600);
    assert!(matches!(renewal.look(later), Change::Login(_)));
    dir.remove(&home.profile).unwrap();
    assert!(matches!(renewal.look(later), Change::LoggedOut));
    assert!(matches!(renewal.look(later), Change::None));
    home.login(later, 3600);
    assert!(matches!(renewal.look(later), Change::Login(_)));
}
