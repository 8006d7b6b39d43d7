//! Plain host keys that the user has accepted, one file per proxy and cluster, in the format of OpenSSH's
//! `known_hosts`. A line that cannot be understood is an error, never a reason to ask again.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use shared_pki::ssh_key::PublicKey;
use shared_types::HostName;

/// The largest file that is read.
const LARGEST: u64 = 1024 * 1024;
/// The port that `known_hosts` leaves out.
const SSH_PORT: u16 = 22;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PinError {
    /// It cannot be read or written.
    #[error("{step} {}", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is larger than anybody's list of hosts.
    #[error("{} is too large", path.display())]
    Large { path: PathBuf },
    /// A line is not one of ours.
    #[error("{} line {line}: expected '[host]:port key-type key', without patterns or hashes", path.display())]
    Line { path: PathBuf, line: usize },
}

/// A host as `known_hosts` names it: `[host]:port`, or the bare host for port 22.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PinName(String);

impl PinName {
    pub(super) fn new(host: &HostName, port: u16) -> Self {
        let host = match host.address() {
            Some(address) => address.to_string(),
            None => host.as_str().to_ascii_lowercase(),
        };
        if port == SSH_PORT { Self(host) } else { Self(format!("[{host}]:{port}")) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the file says about a host's key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pinned {
    /// The host is not in it.
    Unknown,
    /// This key is kept for the host.
    Same,
    /// Another one is, or this one is revoked.
    Other { line: usize, kept: Box<PublicKey>, revoked: bool },
}

/// The file.
#[derive(Debug)]
pub(super) struct PinFile {
    path: PathBuf,
}

impl PinFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks a host's key up.
    pub(super) fn look(&self, name: &PinName, key: &PublicKey) -> Result<Pinned, PinError> {
        match File::open(&self.path) {
            Ok(file) => self.find(&self.text(&file)?, name, key),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(Pinned::Unknown)
            }
            Err(source) => Err(self.fault("read")(source)),
        }
    }

    /// Keeps a host's key, unless another was kept meanwhile; says what the file says now.
    pub(super) fn keep(&self, name: &PinName, key: &PublicKey) -> Result<Pinned, PinError> {
        if let Some(folder) = self.path.parent() {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(self.fault("make the folder of"))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(&self.path).map_err(self.fault("open"))?;
        // Whoever pins the same host at the same time waits, and then sees this key.
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| self.fault("lock")(error.into()))?;
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(self.fault("set the mode of"))?;
        let text = self.text(&file)?;
        let found = self.find(&text, name, key)?;
        if found != Pinned::Unknown {
            return Ok(found);
        }
        let key = PublicKey::new(key.key_data().clone(), "").to_openssh();
        let key = key.map_err(|error| self.fault("write")(std::io::Error::other(error)))?;
        let start = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let line = format!("{start}{} {key}\n", name.as_str());
        file.write_all(line.as_bytes()).map_err(self.fault("write"))?;
        file.sync_all().map_err(self.fault("write"))?;
        Ok(Pinned::Same)
    }

    fn text(&self, file: &File) -> Result<String, PinError> {
        let mut text = String::new();
        let read = file.take(LARGEST + 1).read_to_string(&mut text).map_err(self.fault("read"))?;
        if u64::try_from(read).unwrap_or(u64::MAX) > LARGEST {
            return Err(PinError::Large { path: self.path.clone() });
        }
        Ok(text)
    }

    fn find(&self, text: &str, name: &PinName, key: &PublicKey) -> Result<Pinned, PinError> {
        let mut same = false;
        let mut other = None;
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let fault = || PinError::Line { path: self.path.clone(), line };
            let pin = Pin::parse(content).ok_or_else(fault)?;
            if !pin.names.contains(&name.as_str()) {
                continue;
            }
            let equal = pin.key.key_data() == key.key_data();
            if equal && pin.revoked {
                return Ok(Pinned::Other { line, kept: Box::new(pin.key), revoked: true });
            }
            same |= equal;
            if !equal && !pin.revoked && other.is_none() {
                other = Some(Pinned::Other { line, kept: Box::new(pin.key), revoked: false });
            }
        }
        Ok(if same { Pinned::Same } else { other.unwrap_or(Pinned::Unknown) })
    }

    fn fault(&self, step: &'static str) -> impl FnOnce(std::io::Error) -> PinError + use<> {
        let path = self.path.clone();
        move |source| PinError::Io { step, path, source }
    }
}

/// One line.
struct Pin<'a> {
    names: Vec<&'a str>,
    key: PublicKey,
    revoked: bool,
}

impl<'a> Pin<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (revoked, line) = match line.strip_prefix("@revoked") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, line),
        };
        let (names, key) = line.split_once([' ', '\t'])?;
        let plain = |name: &str| !name.is_empty() && !name.contains(['*', '?', '!', '|', '@']);
        let names: Vec<&str> = names.split(',').collect();
        if !names.iter().all(|name| plain(name)) {
            return None;
        }
        let key = shared_pki::parse_public_key(key.trim()).ok()?;
        Some(Self { names, key, revoked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_pki::KeyPair;

    fn key() -> PublicKey {
        KeyPair::generate().unwrap().public().clone()
    }

    fn name(host: &str, port: u16) -> PinName {
        PinName::new(&host.parse().unwrap(), port)
    }

    fn file() -> (tempfile::TempDir, PinFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = PinFile::at(folder.path().join("new/pins"));
        (folder, file)
    }

    #[test]
    fn names_are_those_of_known_hosts() {
        assert_eq!(name("DB.example.com", 2222).as_str(), "[db.example.com]:2222");
        assert_eq!(name("db", 22).as_str(), "db");
        assert_eq!(name("0:0:0:0:0:0:0:1", 2222).as_str(), "[::1]:2222");
    }

    #[test]
    fn a_kept_key_is_the_only_one_for_its_host_and_port() {
        let (_folder, file) = file();
        let (first, second) = (key(), key());
        let db = name("db", 2222);
        assert_eq!(file.look(&db, &first).unwrap(), Pinned::Unknown);
        assert!(!file.path().exists());
        assert_eq!(file.keep(&db, &first).unwrap(), Pinned::Same);
        assert_eq!(file.look(&db, &first).unwrap(), Pinned::Same);
        let changed = file.look(&db, &second).unwrap();
        let Pinned::Other { line: 1, kept, revoked: false } = &changed else {
            panic!("{changed:?}")
        };
        assert_eq!(kept.key_data(), first.key_data());
        assert!(matches!(file.keep(&db, &second).unwrap(), Pinned::Other { line: 1, .. }));
        for elsewhere in [name("db", 2223), name("db", 22), name("web", 2222)] {
            assert_eq!(file.look(&elsewhere, &second).unwrap(), Pinned::Unknown);
        }
        assert_eq!(file.keep(&name("web", 22), &second).unwrap(), Pinned::Same);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.starts_with("[db]:2222 ssh-ed25519 AAAA"), "{text}");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(file.path().parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn hand_written_files_are_read_and_loose_modes_tightened() {
        let (_folder, file) = file();
        let (old, new, bad) = (key(), key(), key());
        let line = |key: &PublicKey| key.to_openssh().unwrap();
        std::fs::create_dir_all(file.path().parent().unwrap()).unwrap();
        let text = format!(
            "# both keys while the host is moved\n\n[db]:2222,[db.example.com]:2222 {} old\n[db]:2222\t{}\n@revoked [db]:2222 {}",
            line(&old),
            line(&new),
            line(&bad)
        );
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), Permissions::from_mode(0o644)).unwrap();
        let db = name("db", 2222);
        assert_eq!(file.look(&db, &old).unwrap(), Pinned::Same);
        assert_eq!(file.look(&db, &new).unwrap(), Pinned::Same);
        assert_eq!(file.look(&name("db.example.com", 2222), &old).unwrap(), Pinned::Same);
        assert!(matches!(
            file.look(&db, &bad).unwrap(),
            Pinned::Other { line: 5, revoked: true, .. }
        ));
        assert!(matches!(
            file.look(&db, &key()).unwrap(),
            Pinned::Other { line: 3, revoked: false, .. }
        ));
        // The last line has no end.
        assert_eq!(file.keep(&name("web", 22), &new).unwrap(), Pinned::Same);
        assert_eq!(file.look(&name("web", 22), &new).unwrap(), Pinned::Same);
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_understood_is_no_reason_to_ask_again() {
        let (_folder, file) = file();
        let good = key();
        std::fs::create_dir_all(file.path().parent().unwrap()).unwrap();
        for text in [
            "|1|c2FsdA==|aGFzaA== KEY".to_owned(),
            "* KEY".to_owned(),
            "!db,[db]:2222 KEY".to_owned(),
            "@cert-authority [db]:2222 KEY".to_owned(),
            "[db]:2222 ssh-ed25519 AAAA".to_owned(),
            "[db]:2222".to_owned(),
            "nonsense".to_owned(),
        ] {
            let text = format!("# first\n{}\n", text.replace("KEY", &good.to_openssh().unwrap()));
            std::fs::write(file.path(), &text).unwrap();
            let found = file.look(&name("db", 2222), &good);
            assert!(matches!(found, Err(PinError::Line { line: 2, .. })), "{text}: {found:?}");
            assert!(file.keep(&name("db", 2222), &good).is_err());
        }
        std::fs::write(file.path(), vec![b'#'; usize::try_from(LARGEST).unwrap() + 1]).unwrap();
        assert!(matches!(file.look(&name("db", 22), &good), Err(PinError::Large { .. })));
    }
}
