//! What is kept of a joined sshd below the data directory: who it is, and what was done for it.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared_api::{ClientIdentity, Secret};
use shared_pki::TrustedAuthority;
use shared_types::{HostId, Labels};

use super::config::Included;
use super::files::{self, FileError};
use super::timer::Timer;
use crate::data_dir::{DataDir, DataDirError};

const IDENTITY: &str = "identity.json";
const RECORD: &str = "joined.json";
const ASKING: &str = "joining.json";

/// Why it cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeptError {
    /// The folder.
    #[error(transparent)]
    Dir(#[from] DataDirError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("{path} is not readable")]
    Content {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// Certificates towards the cluster's own services.
#[derive(Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) cert_pem: String,
    pub(super) key_pem: Secret,
    pub(super) authorities: Vec<TrustedAuthority>,
    pub(super) valid_until: DateTime<Utc>,
}

impl Identity {
    pub(super) fn client(&self) -> ClientIdentity {
        ClientIdentity {
            cert_pem: self.cert_pem.clone(),
            key_pem: self.key_pem.expose().to_owned().into(),
        }
    }
}

/// What was done, so that it can be renewed and taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) proxy_server: String,
    pub(super) node_name: String,
    /// Further names in the certificate.
    pub(super) names: Vec<String>,
    pub(super) labels: Labels,
    pub(super) address: String,
    pub(super) sshd: PathBuf,
    pub(super) openssh_config: PathBuf,
    pub(super) restart_command: Option<String>,
    pub(super) host_key: PathBuf,
    pub(super) own_host_key: bool,
    pub(super) trust_user_ca: bool,
    /// The file with our lines.
    pub(super) drop_in: PathBuf,
    /// Whether a line was added to the main file for it.
    pub(super) added_line: bool,
    pub(super) timer: Timer,
}

impl Record {
    pub(super) fn included(&self) -> Included {
        match self.added_line {
            true => Included::Line(self.drop_in.clone()),
            false => Included::Folder(self.drop_in.clone()),
        }
    }
}

/// The folder, held by one process at a time.
pub(super) struct Kept {
    dir: DataDir,
}

impl Kept {
    /// Below `data_dir`; made when missing.
    pub(super) fn open(data_dir: &Path) -> Result<Self, KeptError> {
        Ok(Self { dir: DataDir::open(&folder(data_dir))? })
    }

    /// The id of this host as a registered server; an agent here has another.
    pub(super) fn host_id(&self) -> Result<HostId, KeptError> {
        Ok(HostId::from(self.dir.host_id()?))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn host_key(&self) -> PathBuf {
        self.path("ssh_host_key")
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.path("ssh_host-cert.pub")
    }

    pub(super) fn user_ca(&self) -> PathBuf {
        self.path("user_ca.pub")
    }

    /// Our lines, where no folder is included.
    pub(super) fn own_drop_in(&self) -> PathBuf {
        self.path("sshd.conf")
    }

    pub(super) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn identity(&self) -> Result<Option<Identity>, KeptError> {
        self.read(IDENTITY)
    }

    /// Keeps new certificates; the keys of an attempt before are no longer needed.
    pub(super) fn keep_identity(&self, identity: &Identity) -> Result<(), KeptError> {
        self.write(IDENTITY, identity)?;
        std::fs::remove_file(self.path(ASKING)).ok();
        Ok(())
    }

    /// The TLS key of an attempt whose answer may have been lost.
    pub(super) fn asking(&self) -> Result<Option<Secret>, KeptError> {
        self.read(ASKING)
    }

    pub(super) fn keep_asking(&self, key: &Secret) -> Result<(), KeptError> {
        self.write(ASKING, key)
    }

    pub(super) fn record(&self) -> Result<Option<Record>, KeptError> {
        self.read(RECORD)
    }

    pub(super) fn record_path(&self) -> PathBuf {
        self.path(RECORD)
    }

    /// What [`Self::record`] reads; it is written with everything else that was done.
    pub(super) fn record_text(&self, record: &Record) -> Result<Vec<u8>, KeptError> {
        let fault = |source| KeptError::Content { path: self.record_path(), source };
        serde_json::to_vec_pretty(record).map_err(fault)
    }

    /// Removes everything that was made here, and the folder if nothing else is in it.
    pub(super) fn clear(self) {
        let folder = self.dir.path().to_owned();
        for path in [self.host_key(), self.certificate(), self.user_ca(), self.own_drop_in()] {
            std::fs::remove_file(path).ok();
        }
        for name in [IDENTITY, RECORD, ASKING, "host_uuid", "sshd_config.before", "teleport.lock"] {
            std::fs::remove_file(self.path(name)).ok();
        }
        drop(self.dir);
        std::fs::remove_dir(folder).ok();
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, KeptError> {
        let path = self.path(name);
        let Some(text) = files::read_text(&path)? else { return Ok(None) };
        let text = zeroize::Zeroizing::new(text);
        serde_json::from_str(&text).map(Some).map_err(|source| KeptError::Content { path, source })
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), KeptError> {
        let fault = |source| KeptError::Content { path: self.path(name), source };
        let text = zeroize::Zeroizing::new(serde_json::to_vec_pretty(value).map_err(fault)?);
        Ok(self.dir.write_secret(name, &text)?)
    }
}

/// Where it is.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("openssh")
}
