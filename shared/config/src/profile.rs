//! Client profiles: `~/.tsh` as users know it (folders 0700, secrets 0600).
//!
//! Names from outside become file names here, so each is checked before it is joined to a path.
//! Files are written beside and renamed: a crash leaves the old one or the new one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared_types::{ClusterName, UserName};
use zeroize::Zeroizing;

/// Largest file that is read.
const LARGEST: u64 = 1024 * 1024;

/// Trouble with a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Neither `TELEPORT_HOME` nor `HOME` is set.
    #[error("no home folder: neither TELEPORT_HOME nor HOME is set")]
    NoHome,
    /// A name that cannot be a file name.
    #[error("{0:?} cannot be the name of a profile")]
    Name(String),
    /// A file or folder cannot be used.
    #[error("{step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: std::io::Error,
    },
    /// A profile is not readable.
    #[error("{path}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Place and fault.
        message: String,
    },
}

/// One profile, as in `P.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Web address, `host:port`.
    pub web_proxy_addr: String,
    /// SSH address, `host:port`.
    pub ssh_proxy_addr: String,
    /// Who is logged in.
    pub user: UserName,
    /// The cluster.
    pub cluster: ClusterName,
    /// Where PostgreSQL clients connect, `host:port`; empty where that is the web address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub postgres_proxy_addr: String,
    /// Where MySQL clients connect, `host:port`; empty where there is no port of their own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mysql_proxy_addr: String,
    /// Whether one port serves everything.
    #[serde(default)]
    pub tls_routing_enabled: bool,
    /// Always `none` here; written because readers expect it.
    #[serde(default)]
    pub private_key_policy: String,
    /// Always empty here; written because readers expect it.
    #[serde(default)]
    pub piv_slot: String,
}

impl Profile {
    /// A profile after a login.
    pub fn new(
        web_proxy_addr: String,
        ssh_proxy_addr: String,
        user: UserName,
        cluster: ClusterName,
        tls_routing_enabled: bool,
    ) -> Self {
        let private_key_policy = "none".to_owned();
        Self {
            web_proxy_addr,
            ssh_proxy_addr,
            user,
            cluster,
            postgres_proxy_addr: String::new(),
            mysql_proxy_addr: String::new(),
            tls_routing_enabled,
            private_key_policy,
            piv_slot: String::new(),
        }
    }

    /// Its name: the proxy's host without the port.
    pub fn name(&self) -> &str {
        let address = &self.web_proxy_addr;
        let host = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, _)) => host,
            None => address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host),
        };
        if host.is_empty() { address } else { host }
    }
}

/// The folder of profiles.
#[derive(Debug, Clone)]
pub struct ProfileDir(PathBuf);

impl ProfileDir {
    /// `TELEPORT_HOME`, or `.tsh` in the home folder.
    pub fn from_env() -> Result<Self, ProfileError> {
        let set =
            |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = set("TELEPORT_HOME") {
            return Ok(Self(path));
        }
        set("HOME").map(|home| Self(home.join(".tsh"))).ok_or(ProfileError::NoHome)
    }

    /// A folder by its path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The profile that `current-profile` names.
    pub fn current(&self) -> Result<Option<Profile>, ProfileError> {
        match self.read_secret(&self.0.join("current-profile"))? {
            Some(name) if !name.trim().is_empty() => self.load(name.trim()),
            _ => Ok(None),
        }
    }

    /// A profile by its name.
    pub fn load(&self, name: &str) -> Result<Option<Profile>, ProfileError> {
        let path = self.profile_path(name)?;
        let Some(text) = self.read_secret(&path)? else { return Ok(None) };
        serde_saphyr::from_str(&text)
            .map(Some)
            .map_err(|error| ProfileError::Content { path, message: error.to_string() })
    }

    /// All profiles that can be read, by name.
    pub fn profiles(&self) -> Result<Vec<Profile>, ProfileError> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(ProfileError::Io { step: "list", path: self.0.clone(), source });
            }
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|entry| {
                entry.file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned)
            })
            .collect();
        names.sort();
        Ok(names.iter().filter_map(|name| self.load(name).ok().flatten()).collect())
    }

    /// Writes a profile and makes it the current one.
    pub fn save(&self, profile: &Profile) -> Result<(), ProfileError> {
        let path = self.profile_path(profile.name())?;
        let text = serde_saphyr::to_string(profile).map_err(|error| ProfileError::Content {
            path: path.clone(),
            message: error.to_string(),
        })?;
        self.write_secret(&path, text.as_bytes())?;
        self.write_secret(
            &self.0.join("current-profile"),
            format!("{}\n", profile.name()).as_bytes(),
        )
    }

    /// Removes a profile with its keys and certificates.
    pub fn remove(&self, profile: &Profile) -> Result<(), ProfileError> {
        for path in [
            self.ssh_key_path(profile),
            self.ssh_public_key_path(profile),
            self.ssh_cert_path(profile),
            self.tls_key_path(profile),
            self.tls_cert_path(profile),
            self.hosts_path(profile),
            self.database_names_path(profile),
            self.profile_path(profile.name())?,
        ] {
            remove_file(path)?;
        }
        for database in self.databases(profile)? {
            self.remove_database(profile, &database)?;
        }
        // Empty folders go too; those of another user of the same proxy stay.
        std::fs::remove_dir(self.keys(profile).join(format!("{}-ssh", profile.user))).ok();
        let current = self.0.join("current-profile");
        if self.read_secret(&current)?.is_some_and(|name| name.trim() == profile.name()) {
            std::fs::remove_file(&current).ok();
        }
        Ok(())
    }

    fn profile_path(&self, name: &str) -> Result<PathBuf, ProfileError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if name.is_empty()
            || name.len() > 255
            || name.starts_with(['.', '-'])
            || !name.chars().all(plain)
        {
            return Err(ProfileError::Name(name.chars().take(64).collect()));
        }
        Ok(self.0.join(format!("{name}.yaml")))
    }

    /// `keys/P`. A profile's name was checked when it was loaded or saved; user and cluster names
    /// are types that hold no separator.
    pub(crate) fn keys(&self, profile: &Profile) -> PathBuf {
        let name: String = profile.name().chars().map(|c| if c == '/' { '_' } else { c }).collect();
        self.0.join("keys").join(if name.starts_with('.') { "_" } else { name.as_str() })
    }

    /// The SSH private key.
    pub fn ssh_key_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join(profile.user.as_ref())
    }

    /// The SSH public key.
    pub fn ssh_public_key_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join(format!("{}.pub", profile.user))
    }

    /// The SSH certificate.
    pub fn ssh_cert_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile)
            .join(format!("{}-ssh", profile.user))
            .join(format!("{}-cert.pub", profile.cluster))
    }

    /// The TLS private key.
    pub fn tls_key_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join(format!("{}.key", profile.user))
    }

    /// The TLS certificate.
    pub fn tls_cert_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join(format!("{}.crt", profile.user))
    }

    /// The cluster's TLS host authority.
    pub fn cas_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join("cas").join(format!("{}.pem", profile.cluster))
    }

    /// Host names kept for completion.
    pub fn hosts_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join(format!("{}-hosts", profile.user))
    }

    /// Plain host keys that the user has accepted behind this proxy, in this cluster. They outlive a logout.
    pub fn pinned_hosts_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join("pinned").join(format!("{}.known_hosts", profile.cluster))
    }

    /// Host authorities, as OpenSSH reads them.
    pub fn known_hosts_path(&self) -> PathBuf {
        self.0.join("known_hosts")
    }

    /// Replaces the lines of the profile's cluster in `known_hosts`; other clusters' lines stay.
    pub fn set_known_hosts(&self, profile: &Profile, lines: &[String]) -> Result<(), ProfileError> {
        let path = self.known_hosts_path();
        let cluster = profile.cluster.as_ref();
        let ours = |line: &&str| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|names| names.split(',').any(|name| name == cluster))
        };
        let before = self.read_secret(&path)?.unwrap_or_default();
        let mut text: String =
            before.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect();
        for line in lines {
            text.extend([line.trim_end(), "\n"]);
        }
        self.write_secret(&path, text.as_bytes())
    }

    /// A file's text; `None` when there is none.
    pub fn read_secret(&self, path: &Path) -> Result<Option<Zeroizing<String>>, ProfileError> {
        let fault = |source| ProfileError::Io { step: "read", path: path.to_path_buf(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(fault(error)),
        };
        let mut text = Zeroizing::new(String::new());
        file.take(LARGEST).read_to_string(&mut text).map_err(fault)?;
        Ok(Some(text))
    }

    /// Writes a file whole or not at all, 0600, in folders of 0700.
    pub fn write_secret(&self, path: &Path, content: &[u8]) -> Result<(), ProfileError> {
        let fault = |step, path: &Path| {
            let path = path.to_path_buf();
            move |source| ProfileError::Io { step, path, source }
        };
        let folder = path.parent().unwrap_or(&self.0);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(fault("make", folder))?;
        self.close_to_others(folder)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.new", std::process::id()));
        let temporary = PathBuf::from(temporary);
        std::fs::remove_file(&temporary).ok();
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(|source| {
            std::fs::remove_file(&temporary).ok();
            ProfileError::Io { step: "write", path: path.to_path_buf(), source }
        })
    }

    /// Takes every folder from `folder` up to ours away from other users.
    fn close_to_others(&self, folder: &Path) -> Result<(), ProfileError> {
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.0)) {
            let fault = |source| ProfileError::Io {
                step: "set the mode of",
                path: folder.to_path_buf(),
                source,
            };
            let mode = std::fs::metadata(folder).map_err(fault)?.permissions().mode();
            if mode & 0o077 != 0 {
                std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
                    .map_err(fault)?;
            }
        }
        Ok(())
    }
}

/// Removes a file; answers whether there was one.
pub(crate) fn remove_file(path: PathBuf) -> Result<bool, ProfileError> {
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ProfileError::Io { step: "remove", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(web: &str) -> Profile {
        Profile::new(
            web.into(),
            "p:3023".into(),
            "joe".parse().unwrap(),
            "example.test".parse().unwrap(),
            true,
        )
    }

    #[test]
    fn saved_and_read_back_with_tight_modes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ProfileDir::at(&folder.path().join("home"));
        assert!(dir.current().unwrap().is_none());
        let profile = profile("proxy.example.test:3080");
        dir.write_secret(&dir.ssh_key_path(&profile), b"secret").unwrap();
        dir.save(&profile).unwrap();
        assert_eq!(dir.current().unwrap().unwrap(), profile);
        assert_eq!(dir.profiles().unwrap().len(), 1);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.ssh_key_path(&profile)), 0o600);
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.path().join("keys/proxy.example.test")), 0o700);
        dir.remove(&profile).unwrap();
        assert!(dir.current().unwrap().is_none());
        assert!(!dir.ssh_key_path(&profile).exists());
    }

    #[test]
    fn names_stay_inside_the_folder() {
        let dir = ProfileDir::at(Path::new("/nowhere"));
        for name in ["", "..", "../x", "a/b", "-x", ".hidden", "a\nb", "a\0b"] {
            assert!(matches!(dir.load(name), Err(ProfileError::Name(_))), "{name:?}");
        }
        let odd = profile("../../etc:1");
        assert!(dir.ssh_key_path(&odd).starts_with("/nowhere/keys"));
        assert!(dir.save(&odd).is_err());
        assert_eq!(profile("[::1]:3080").name(), "::1");
    }

    #[test]
    fn other_clusters_lines_stay_in_known_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ProfileDir::at(folder.path());
        std::fs::write(dir.known_hosts_path(), "@cert-authority other,*.other ssh-ed25519 AAAA\n@cert-authority p,example.test,*.example.test ssh-ed25519 OLD\n").unwrap();
        dir.set_known_hosts(
            &profile("p:1"),
            &["@cert-authority p,example.test,*.example.test ssh-ed25519 NEW".into()],
        )
        .unwrap();
        let text = std::fs::read_to_string(dir.known_hosts_path()).unwrap();
        assert!(text.contains("AAAA") && text.contains("NEW") && !text.contains("OLD"), "{text}");
    }

    #[test]
    fn a_damaged_profile_names_file_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ProfileDir::at(folder.path());
        std::fs::write(folder.path().join("p.yaml"), "web_proxy_addr: [\n").unwrap();
        let text = dir.load("p").unwrap_err().to_string();
        assert!(text.contains("p.yaml") && text.contains("line"), "{text}");
    }
}
