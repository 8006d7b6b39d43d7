//! Which host key the cluster certifies: one that sshd has already, so that nobody who knows this host by its key sees
//! another one, or else one of our own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shared_pki::ssh_key::{Algorithm, EcdsaCurve, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::files::{self, FileError};
use super::sshd::Effective;

/// Smallest RSA key that is certified, in bits.
const RSA_BITS: u32 = 2048;

/// The kinds of keys that are made, the best first, and how ssh-keygen is told of them.
const KINDS: [(Algorithm, &[&str]); 4] = [
    (Algorithm::Ed25519, &["-t", "ed25519"]),
    (Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }, &["-t", "ecdsa", "-b", "256"]),
    (Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 }, &["-t", "ecdsa", "-b", "384"]),
    (Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 }, &["-t", "ecdsa", "-b", "521"]),
];

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostKeyError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no key that can be used.
    #[error("{0} holds no host key that can be certified")]
    Unusable(PathBuf),
    /// A key cannot be made.
    #[error("make a host key with ssh-keygen")]
    Keygen(#[source] std::io::Error),
    /// sshd has a key of each kind.
    #[error("sshd has a host key of each kind already, and one of them has to be certified")]
    NoKind,
}

/// A host key of sshd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostKey {
    /// The file of the private half.
    pub(super) path: PathBuf,
    /// The public half, one line.
    pub(super) public: String,
    /// Whether it is ours: then the configuration has to name it.
    pub(super) own: bool,
}

impl HostKey {
    /// The best key that sshd has, unless it has a certificate for it that is not ours, `certificate`.
    pub(super) fn of_sshd(effective: &Effective, certificate: &Path) -> Option<Self> {
        let certified: Vec<PublicKey> = effective
            .host_certificates
            .iter()
            .filter(|path| path.as_path() != certificate)
            .filter_map(|path| certified_key(path))
            .collect();
        let mut keys: Vec<(u8, HostKey)> = effective
            .host_keys
            .iter()
            .filter_map(|path| Some((path, public_of(path)?)))
            .filter(|(_, key)| !certified.iter().any(|other| other.key_data() == key.key_data()))
            .filter_map(|(path, key)| {
                let public = plain(&key)?;
                Some((rank(&key)?, HostKey { path: path.clone(), public, own: false }))
            })
            .collect();
        keys.sort_by_key(|(rank, _)| *rank);
        keys.into_iter().next().map(|(_, key)| key)
    }

    /// A key of our own in `path`: the one that is there, or with `anew` and where there is none a new one, whose text
    /// is not written there yet. It is of a kind that none of `beside` is: of two of a kind sshd shows one only to who
    /// does not ask for certificates, and that has to stay the one that is known.
    pub(super) fn own(
        path: &Path,
        anew: bool,
        beside: &[PathBuf],
    ) -> Result<(Self, Option<Zeroizing<String>>), HostKeyError> {
        if !anew && path.exists() {
            return Ok((Self::read(path, true)?, None));
        }
        let taken: Vec<Algorithm> = beside
            .iter()
            .filter(|other| other.as_path() != path)
            .filter_map(|other| Some(public_of(other)?.algorithm()))
            .collect();
        let mut kinds = KINDS.iter().filter(|(kind, _)| !taken.contains(kind));
        let (_, words) = kinds.next().ok_or(HostKeyError::NoKind)?;
        let text = made(&path.with_extension("new"), words)?;
        let key = PrivateKey::from_openssh(text.as_str()).ok();
        let public = key.as_ref().and_then(|key| plain(key.public_key()));
        let public = public.ok_or_else(|| HostKeyError::Unusable(path.to_owned()))?;
        Ok((Self { path: path.to_owned(), public, own: true }, Some(text)))
    }

    /// The key in a file as it is now.
    pub(super) fn read(path: &Path, own: bool) -> Result<Self, HostKeyError> {
        let public = public_of(path).and_then(|key| plain(&key));
        let public = public.ok_or_else(|| HostKeyError::Unusable(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), public, own })
    }
}

/// Makes a key with the program that comes with sshd. `path` is where it makes it, and is removed again.
fn made(path: &Path, kind: &[&str]) -> Result<Zeroizing<String>, HostKeyError> {
    let beside = path.with_extension("new.pub");
    let clear = || {
        std::fs::remove_file(path).ok();
        std::fs::remove_file(&beside).ok();
    };
    clear();
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", ""]).args(kind).arg("-f").arg(path).stdin(Stdio::null());
    let output = command.output().map_err(HostKeyError::Keygen)?;
    let text = files::read_text(path);
    clear();
    match text? {
        Some(text) if output.status.success() => Ok(Zeroizing::new(text)),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(HostKeyError::Keygen(std::io::Error::other(said)))
        }
    }
}

/// The public half of a private key's file: out of the file itself, or where that is of an older format or encrypted,
/// out of the file beside it.
fn public_of(path: &Path) -> Option<PublicKey> {
    let text = Zeroizing::new(files::read_text(path).ok()??);
    if let Ok(key) = PrivateKey::from_openssh(text.as_str()) {
        return Some(key.public_key().clone());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    shared_pki::parse_public_key(&files::read_text(Path::new(&beside)).ok()??).ok()
}

fn certified_key(path: &Path) -> Option<PublicKey> {
    let text = files::read_text(path).ok()??;
    let certificate = shared_pki::parse_certificate_line(text.trim()).ok()?;
    Some(PublicKey::new(certificate.public_key().clone(), ""))
}

/// Without the comment.
fn plain(key: &PublicKey) -> Option<String> {
    PublicKey::new(key.key_data().clone(), "").to_openssh().ok()
}

/// The best first; none for what is not certified.
fn rank(key: &PublicKey) -> Option<u8> {
    match key.algorithm() {
        Algorithm::Ed25519 => Some(0),
        Algorithm::Ecdsa { .. } => Some(1),
        Algorithm::Rsa { .. } => {
            key.key_data().rsa().filter(|key| key.key_size() >= RSA_BITS).map(|_| 2)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(folder: &Path, name: &str, args: &[&str]) -> PathBuf {
        let path = folder.join(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-C", "a comment"]).args(args).arg("-f").arg(&path);
        assert!(command.status().unwrap().success());
        path
    }

    #[test]
    fn the_best_key_of_sshd_or_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let rsa = make(folder, "rsa", &["-t", "rsa", "-b", "2048", "-m", "PEM"]);
        let ecdsa = make(folder, "ecdsa", &["-t", "ecdsa"]);
        let ed25519 = make(folder, "ed25519", &["-t", "ed25519"]);
        let weak = make(folder, "weak", &["-t", "rsa", "-b", "1024"]);
        let none = folder.join("none");
        let ours = folder.join("host-cert.pub");
        let best = |keys: &[&PathBuf], certificates: &[&PathBuf]| {
            let effective = Effective {
                host_keys: keys.iter().map(|path| PathBuf::from(*path)).collect(),
                host_certificates: certificates.iter().map(|path| PathBuf::from(*path)).collect(),
                ..Effective::default()
            };
            HostKey::of_sshd(&effective, &ours).map(|key| key.path)
        };
        assert_eq!(best(&[&rsa, &ecdsa, &ed25519], &[]), Some(ed25519.clone()));
        assert_eq!(best(&[&rsa, &ecdsa], &[]), Some(ecdsa.clone()));
        assert_eq!(best(&[&none, &weak, &rsa], &[]), Some(rsa.clone()));
        assert_eq!(best(&[&none, &weak], &[]), None);

        // Certified by somebody else already; or by us, which does not count.
        let sign = Command::new("ssh-keygen")
            .args(["-q", "-h", "-I", "x", "-n", "x", "-s"])
            .arg(&rsa)
            .arg(folder.join("ed25519.pub"))
            .status();
        assert!(sign.unwrap().success());
        let certificate = folder.join("ed25519-cert.pub");
        assert_eq!(best(&[&ed25519, &ecdsa], &[&certificate]), Some(ecdsa));
        std::fs::copy(&certificate, &ours).unwrap();
        assert_eq!(best(&[&ed25519], &[&ours]), Some(ed25519));
    }

    #[test]
    fn our_own_key_stays_until_another_is_wanted_and_is_of_another_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (made, text) = HostKey::own(&path, false, &[]).unwrap();
        assert!(made.public.starts_with("ssh-ed25519 "));
        std::fs::write(&path, text.unwrap().as_str()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside");
        let (again, text) = HostKey::own(&path, false, &[]).unwrap();
        assert!(text.is_none());
        assert_eq!(again, made);
        // The key itself does not count as another one.
        let (other, text) = HostKey::own(&path, true, std::slice::from_ref(&path)).unwrap();
        assert!(text.is_some() && other.public != made.public);
        assert!(other.public.starts_with("ssh-ed25519 "));
        let ecdsa = make(folder.path(), "ecdsa", &["-t", "ecdsa", "-b", "256"]);
        let ed25519 = make(folder.path(), "ed25519", &["-t", "ed25519"]);
        let (other, _) = HostKey::own(&path, true, &[ecdsa, ed25519]).unwrap();
        assert!(other.public.starts_with("ecdsa-sha2-nistp384 "), "{}", other.public);
    }
}
