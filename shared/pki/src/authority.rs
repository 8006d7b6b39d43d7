//! The authorities of a cluster: with private keys in the auth service, without them everywhere else.

use crate::verify::CertRefusal;
use crate::{CaPin, KeyPair, PkiError, SshCa, TlsCa, parse_public_key, ssh_key};
use chrono::{DateTime, Utc};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared_types::{ClusterName, HostName};
use ssh_key::PublicKey;
use ssh_key::public::KeyData;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What an authority vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CaKind {
    /// Services of the cluster and SSH servers.
    Host,
    /// Users.
    User,
    /// Database servers.
    Db,
    /// The cluster towards databases.
    DbClient,
    /// The proxy towards SSH servers without an agent.
    Openssh,
    /// Tokens for applications.
    Jwt,
    /// Checkpoints in recordings.
    Recording,
}

impl CaKind {
    /// The name as commands and resources write it.
    pub fn as_str(self) -> &'static str {
        match self {
            CaKind::Host => "host",
            CaKind::User => "user",
            CaKind::Db => "db",
            CaKind::DbClient => "db_client",
            CaKind::Openssh => "openssh",
            CaKind::Jwt => "jwt",
            CaKind::Recording => "recording",
        }
    }
}

impl std::fmt::Display for CaKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for CaKind {
    type Err = UnknownCaKind;
    fn from_str(text: &str) -> Result<Self, UnknownCaKind> {
        let all = [
            CaKind::Host,
            CaKind::User,
            CaKind::Db,
            CaKind::DbClient,
            CaKind::Openssh,
            CaKind::Jwt,
            CaKind::Recording,
        ];
        all.into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownCaKind(text.chars().take(64).collect()))
    }
}

/// The text names no kind of authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} authority type is not supported")]
pub struct UnknownCaKind(String);

/// An authority of one kind with its private keys. The first key of each list signs; further ones are trusted only.
///
/// Its serde form holds the private keys: it goes into the auth service's store or a file of mode 0600, nowhere else.
#[derive(Debug)]
pub struct CertAuthority {
    kind: CaKind,
    cluster: ClusterName,
    ssh: Vec<KeyPair>,
    tls: Vec<TlsCa>,
}

impl CertAuthority {
    /// Makes a new authority with one SSH key and one TLS key.
    pub fn generate(
        kind: CaKind,
        cluster: &ClusterName,
        now: DateTime<Utc>,
    ) -> Result<Self, PkiError> {
        Ok(Self {
            kind,
            cluster: cluster.clone(),
            ssh: vec![KeyPair::generate()?],
            tls: vec![TlsCa::generate(kind, cluster, now)?],
        })
    }

    /// What it vouches for.
    pub fn kind(&self) -> CaKind {
        self.kind
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The SSH half that signs.
    pub fn ssh_ca(&self) -> Result<SshCa, PkiError> {
        let key = self.ssh.first().ok_or(PkiError::NoKey(self.kind, "SSH"))?;
        Ok(SshCa::new(self.kind, key.clone()))
    }

    /// The TLS half that signs.
    pub fn tls_ca(&self) -> Result<&TlsCa, PkiError> {
        self.tls.first().ok_or(PkiError::NoKey(self.kind, "TLS"))
    }

    /// What others trust of it.
    pub fn trusted(&self) -> TrustedAuthority {
        TrustedAuthority {
            kind: self.kind,
            cluster: self.cluster.clone(),
            ssh_keys: self.ssh.iter().map(KeyPair::public_openssh).collect(),
            tls_certs: self.tls.iter().map(TlsCa::cert_pem).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAuthority {
    kind: CaKind,
    cluster: ClusterName,
    ssh: Vec<StoredSshKey>,
    tls: Vec<StoredTlsKey>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct StoredSshKey {
    private_key: String,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct StoredTlsKey {
    certificate: String,
    private_key: String,
}

impl Serialize for CertAuthority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ssh = self
            .ssh
            .iter()
            .map(|key| Ok(StoredSshKey { private_key: key.to_openssh_private_pem()?.to_string() }))
            .collect::<Result<_, PkiError>>()
            .map_err(serde::ser::Error::custom)?;
        let tls = self
            .tls
            .iter()
            .map(|ca| StoredTlsKey {
                certificate: ca.cert_pem(),
                private_key: ca.key().to_pem().to_string(),
            })
            .collect();
        StoredAuthority { kind: self.kind, cluster: self.cluster.clone(), ssh, tls }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CertAuthority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredAuthority::deserialize(deserializer)?;
        let read = || -> Result<Self, PkiError> {
            Ok(Self {
                kind: stored.kind,
                cluster: stored.cluster.clone(),
                ssh: stored
                    .ssh
                    .iter()
                    .map(|key| KeyPair::from_openssh_pem(&key.private_key))
                    .collect::<Result<_, _>>()?,
                tls: stored
                    .tls
                    .iter()
                    .map(|key| TlsCa::from_pem(stored.kind, &key.certificate, &key.private_key))
                    .collect::<Result<_, _>>()?,
            })
        };
        read().map_err(serde::de::Error::custom)
    }
}

/// The public half of an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedAuthority {
    /// What it vouches for.
    pub kind: CaKind,
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// Public keys, `TYPE BASE64`.
    pub ssh_keys: Vec<String>,
    /// TLS certificates in PEM.
    pub tls_certs: Vec<String>,
}

impl TrustedAuthority {
    /// The public keys that may sign. A line that is no plain key of a kind we trust is left out, so a certificate
    /// never becomes an authority.
    pub fn ssh_public_keys(&self) -> Vec<PublicKey> {
        self.ssh_keys.iter().filter_map(|line| authority_key(line).ok()).collect()
    }

    /// The TLS certificates in DER; what is not readable is left out.
    pub fn tls_cert_ders(&self) -> Vec<CertificateDer<'static>> {
        self.tls_certs
            .iter()
            .flat_map(|pem| {
                CertificateDer::pem_slice_iter(pem.as_bytes())
                    .filter_map(Result::ok)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Checks what came from a peer or a store: every key and certificate has to be readable.
    pub fn check(&self) -> Result<(), PkiError> {
        for line in &self.ssh_keys {
            authority_key(line).map_err(|_| PkiError::PublicKey)?;
        }
        for pem in &self.tls_certs {
            let der =
                CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::X509Read)?;
            CaPin::of(&der)?;
        }
        Ok(())
    }

    /// `cert-authority KEYTYPE BASE64 clustername=K&type=user`, one line per key, as `TrustedUserCAKeys` takes it once
    /// the first word is removed. Without a last newline.
    pub fn authorized_line(&self) -> String {
        let lines: Vec<String> = self
            .plain_keys()
            .map(|key| {
                format!("cert-authority {key} clustername={}&type={}", self.cluster, self.kind)
            })
            .collect();
        lines.join("\n")
    }

    /// `@cert-authority [P,]K,*.K KEYTYPE BASE64 type=host`, one line per key, as a `known_hosts` file takes it.
    /// Without a last newline.
    pub fn known_hosts_line(&self, proxy: Option<&HostName>) -> String {
        let cluster = &self.cluster;
        let hosts = match proxy {
            Some(proxy) if proxy.as_str() != cluster.as_str() => {
                format!("{proxy},{cluster},*.{cluster}")
            }
            _ => format!("{cluster},*.{cluster}"),
        };
        let lines: Vec<String> = self
            .plain_keys()
            .map(|key| format!("@cert-authority {hosts} {key} type={}", self.kind))
            .collect();
        lines.join("\n")
    }

    /// Reads what [`Self::authorized_line`] wrote: the keys of one authority of this kind, of one cluster. Lines that
    /// are empty or comments do not count.
    pub fn from_authorized_lines(kind: CaKind, text: &str) -> Result<Self, PkiError> {
        let mut found: Option<Self> = None;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let ["cert-authority", key_type, key, about] = words.as_slice() else {
                return Err(PkiError::PublicKey);
            };
            let (mut cluster, mut named) = (None, None);
            for (name, value) in about.split('&').filter_map(|pair| pair.split_once('=')) {
                match name {
                    "clustername" => cluster = Some(value),
                    "type" => named = Some(value),
                    _ => {}
                }
            }
            let cluster: ClusterName = cluster
                .and_then(|name| name.parse().ok())
                .ok_or(PkiError::Identity("cluster name"))?;
            if named != Some(kind.as_str()) {
                return Err(PkiError::Identity("authority type"));
            }
            let key = format!("{key_type} {key}");
            authority_key(&key).map_err(|_| PkiError::PublicKey)?;
            let authority = found.get_or_insert_with(|| Self {
                kind,
                cluster: cluster.clone(),
                ssh_keys: Vec::new(),
                tls_certs: Vec::new(),
            });
            if authority.cluster != cluster {
                return Err(PkiError::Identity("cluster name"));
            }
            authority.ssh_keys.push(key);
        }
        found.ok_or(PkiError::PublicKey)
    }

    /// The pin of each TLS certificate.
    pub fn pins(&self) -> Vec<CaPin> {
        self.tls_cert_ders().iter().filter_map(|der| CaPin::of(der).ok()).collect()
    }

    /// The keys written anew, so that nothing but the key gets from a peer into a file.
    fn plain_keys(&self) -> impl Iterator<Item = String> {
        self.ssh_public_keys()
            .into_iter()
            .filter_map(|key| PublicKey::new(key.key_data().clone(), "").to_openssh().ok())
    }
}

/// Reads the public key of an authority: Ed25519, ECDSA, or RSA of 2048 bits and more.
fn authority_key(line: &str) -> Result<PublicKey, CertRefusal> {
    let key = parse_public_key(line)?;
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::Rsa(_) => Ok(key),
        other => Err(CertRefusal::UnsupportedKey(other.algorithm().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, cluster, now, user_spec};

    #[test]
    fn stored_and_read_again() {
        let authority = CertAuthority::generate(CaKind::User, &cluster(), now()).unwrap();
        let text = serde_json::to_string(&authority).unwrap();
        let again: CertAuthority = serde_json::from_str(&text).unwrap();
        assert_eq!(again.trusted(), authority.trusted());
        assert_eq!((again.kind(), again.cluster()), (CaKind::User, &cluster()));
        let cert = again.ssh_ca().unwrap().sign_user(user_spec()).unwrap();
        assert!(
            crate::verify::SshVerifier::new(&[authority.trusted()], now())
                .user(&cert, "root", None)
                .is_ok()
        );
        // Nothing private in what is printed or given away.
        for text in [format!("{authority:?}"), serde_json::to_string(&authority.trusted()).unwrap()]
        {
            assert!(!text.contains("PRIVATE"), "{text}");
        }
        // A store that was tampered with: the certificate of one key with another key.
        let other =
            serde_json::to_value(CertAuthority::generate(CaKind::User, &cluster(), now()).unwrap())
                .unwrap();
        let mut mixed = serde_json::to_value(&authority).unwrap();
        mixed["tls"][0]["private_key"] = other["tls"][0]["private_key"].clone();
        let error = serde_json::from_value::<CertAuthority>(mixed).unwrap_err().to_string();
        assert_eq!(error, "certificate and private key do not belong together");
    }

    #[test]
    fn the_public_form() {
        let trusted = Cluster::new().host.trusted();
        trusted.check().unwrap();
        let value = serde_json::to_value(&trusted).unwrap();
        assert_eq!(
            (value["kind"].as_str(), value["cluster"].as_str()),
            (Some("host"), Some("example.com"))
        );
        assert_eq!(serde_json::from_value::<TrustedAuthority>(value).unwrap(), trusted);
        assert_eq!(trusted.pins().len(), 1);
        assert!(trusted.pins()[0].to_string().starts_with("sha256:"));
        assert!(
            TrustedAuthority { tls_certs: vec!["x".to_owned()], ..trusted.clone() }
                .check()
                .is_err()
        );
        assert!(TrustedAuthority { ssh_keys: vec!["x".to_owned()], ..trusted }.check().is_err());
    }

    #[test]
    fn lines() {
        let cluster = Cluster::new();
        let (user, host) = (&cluster.trusted[1], &cluster.trusted[0]);
        let key = &user.ssh_keys[0];
        assert_eq!(
            user.authorized_line(),
            format!("cert-authority {key} clustername=example.com&type=user")
        );
        let key = &host.ssh_keys[0];
        assert_eq!(
            host.known_hosts_line(None),
            format!("@cert-authority example.com,*.example.com {key} type=host")
        );
        let proxy = HostName::new("proxy.example.com").unwrap();
        let line = host.known_hosts_line(Some(&proxy));
        assert_eq!(
            line,
            format!("@cert-authority proxy.example.com,example.com,*.example.com {key} type=host")
        );
        let same = HostName::new("example.com").unwrap();
        assert_eq!(host.known_hosts_line(Some(&same)), host.known_hosts_line(None));
    }

    #[test]
    fn exported_lines_are_read_again() {
        let authority = CertAuthority::generate(CaKind::Recording, &cluster(), now()).unwrap();
        let trusted = TrustedAuthority { tls_certs: Vec::new(), ..authority.trusted() };
        let text = format!("# recording CA\n\n{}\n", trusted.authorized_line());
        let read = |text: &str| TrustedAuthority::from_authorized_lines(CaKind::Recording, text);
        assert_eq!(read(&text).unwrap(), trusted);
        let twice = format!("{text}{text}");
        assert_eq!(read(&twice).unwrap().ssh_keys.len(), 2);
        assert!(TrustedAuthority::from_authorized_lines(CaKind::User, &text).is_err());
        for bad in [
            String::new(),
            "ssh-ed25519 AAAA".to_owned(),
            trusted.ssh_keys[0].clone(),
            text.replace("type=recording", "type=user"),
            text.replace("clustername=example.com&", ""),
            text.replace("ssh-ed25519", "ssh-rsa"),
            format!("{text}{}", text.replace("example.com", "other.com")),
            format!("{} more\n", text.trim_end()),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_peer_wrote_behind_a_key_stays_out_of_files() {
        let mut trusted = Cluster::new().host.trusted();
        let clean = trusted.known_hosts_line(None);
        trusted.ssh_keys = vec![
            format!("{} evil comment", trusted.ssh_keys[0]),
            "* ssh-ed25519 AAAA".to_owned(),
            "a\nb".to_owned(),
        ];
        assert_eq!(trusted.known_hosts_line(None), clean);
    }

    #[test]
    fn kinds() {
        assert_eq!("db_client".parse::<CaKind>().unwrap(), CaKind::DbClient);
        assert_eq!(
            "x".parse::<CaKind>().unwrap_err().to_string(),
            "\"x\" authority type is not supported"
        );
    }
}
