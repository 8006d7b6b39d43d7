//! What an SSH service needs to know of its configuration.

use std::net::SocketAddr;
use std::time::Duration;

use shared_config::{ExecRecording, SshConfig};
use shared_types::{HostId, HostName};

use crate::child::Launcher;

/// Settings of an SSH service.
#[derive(Debug, Clone)]
pub struct SshServiceSettings {
    /// This host's id.
    pub host_id: HostId,
    /// This host's name, as users type it.
    pub hostname: HostName,
    /// The address programs are told that their client reached.
    pub local: SocketAddr,
    /// The address of the cluster's web port, `host:port`; empty where it is not known.
    pub web_proxy: String,
    /// Whether clients may set any variable, and `~/.tsh/environment` counts.
    pub permit_user_env: bool,
    /// Whether this host forwards connections, where roles allow it.
    pub port_forwarding: bool,
    /// Whether files may be copied, where roles allow it.
    pub file_copy: bool,
    /// Overrides the choice of ciphers.
    pub ssh_ciphers: Vec<String>,
    /// The output of non-interactive commands goes through a bucket of so many bytes, refilled with so many in a
    /// second. `None` records all of it.
    pub exec_bucket: Option<(u64, u64)>,
    /// How long a session whose recording is not taken is stopped before it ends.
    pub recording_wait: Duration,
    /// Time limits.
    pub timeouts: Timeouts,
    /// What starts programs.
    pub launcher: Launcher,
}

/// Time limits of an SSH service.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// What a connection may take until it is authenticated.
    pub auth: Duration,
    /// What a forwarded connection may take to be made.
    pub dial: Duration,
    /// What running sessions have at the end.
    pub drain: Duration,
    /// How often idle clients are asked whether they are there.
    pub keepalive: Duration,
    /// How many such questions may stay unanswered.
    pub keepalive_max: usize,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            auth: Duration::from_secs(60),
            dial: Duration::from_secs(15),
            drain: Duration::from_secs(30),
            keepalive: Duration::from_secs(60),
            keepalive_max: 3,
        }
    }
}

impl SshServiceSettings {
    /// Settings with the documented defaults.
    pub fn new(host_id: HostId, hostname: HostName) -> Self {
        Self {
            host_id,
            hostname,
            local: SocketAddr::from(([0, 0, 0, 0], 3022)),
            web_proxy: String::new(),
            permit_user_env: false,
            port_forwarding: true,
            file_copy: true,
            ssh_ciphers: Vec::new(),
            exec_bucket: Some((16 * 1024 * 1024, 64 * 1024)),
            recording_wait: Duration::from_secs(30),
            timeouts: Timeouts::default(),
            launcher: Launcher::this_program(),
        }
    }

    /// Settings out of a configuration file.
    pub fn from_config(config: &SshConfig, host_id: HostId, hostname: HostName) -> Self {
        Self {
            local: config.listen_addr,
            permit_user_env: config.permit_user_env,
            port_forwarding: config.port_forwarding,
            file_copy: config.ssh_file_copy,
            ssh_ciphers: config.ssh_ciphers.clone().unwrap_or_default(),
            exec_bucket: match config.exec_recording {
                ExecRecording::Full => None,
                ExecRecording::Bucket { burst_bytes, bytes_per_second } => {
                    Some((burst_bytes, bytes_per_second))
                }
            },
            recording_wait: config.recording_wait.as_std(),
            ..Self::new(host_id, hostname)
        }
    }
}
