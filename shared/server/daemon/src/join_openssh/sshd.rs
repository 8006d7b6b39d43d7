//! The sshd of this host: what its configuration comes to, whether it is valid, and how it is told of changes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::files;

/// Where programs of the administrator are.
const PROGRAMS: [&str; 4] =
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/usr/local/bin/sshd"];
/// The configuration of the system's own sshd.
pub(super) const USUAL_CONFIG: &str = "/etc/ssh/sshd_config";
/// What the system's sshd is called by systemd.
const UNITS: [&str; 2] = ["ssh.service", "sshd.service"];
/// Says that systemd runs the host.
const SYSTEMD: &str = "/run/systemd/system";
/// Longest text of a program that is shown.
const SHOWN: usize = 2000;

/// Why sshd is not as it has to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum SshdError {
    /// There is none.
    #[error("there is no sshd in {}; name it with --sshd", PROGRAMS.join(", "))]
    NoProgram,
    /// A program cannot be started.
    #[error("start {program}")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    /// It does not take its configuration.
    #[error("sshd does not accept {config}: {why}")]
    Invalid { config: PathBuf, why: String },
    /// It was not told.
    #[error("reload sshd with {how}: {why}")]
    Reload { how: String, why: String },
}

/// What a configuration comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effective {
    pub(super) port: u16,
    pub(super) host_keys: Vec<PathBuf>,
    pub(super) host_certificates: Vec<PathBuf>,
    pub(super) trusted_ca: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) public_keys: bool,
}

impl Effective {
    /// Reads what `sshd -T` prints: a keyword in small letters and its value on each line.
    fn parse(text: &str) -> Self {
        let mut found = Self { public_keys: true, ..Self::default() };
        for (keyword, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let path = || Some(PathBuf::from(value)).filter(|_| value != "none");
            match keyword {
                "port" if found.port == 0 => found.port = value.parse().unwrap_or_default(),
                "hostkey" => found.host_keys.extend(path()),
                "hostcertificate" => found.host_certificates.extend(path()),
                "trustedusercakeys" => found.trusted_ca = path(),
                "pidfile" => found.pid_file = path(),
                "pubkeyauthentication" => found.public_keys = value != "no",
                _ => {}
            }
        }
        found
    }
}

/// A program, and the configuration it is started with.
#[derive(Debug, Clone)]
pub(super) struct Sshd {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
}

impl Sshd {
    /// The one that was named, or the system's.
    pub(super) fn find(program: Option<&Path>, config: &Path) -> Result<Self, SshdError> {
        let usual = || PROGRAMS.iter().map(PathBuf::from).find(|path| path.is_file());
        let program = program.map(Path::to_owned).or_else(usual).ok_or(SshdError::NoProgram)?;
        Ok(Self { program, config: config.to_owned() })
    }

    /// What `config` comes to for somebody who connects.
    pub(super) fn effective(&self, config: &Path) -> Result<Effective, SshdError> {
        let who = "user=root,host=localhost,addr=127.0.0.1";
        let output = self.run(&["-T", "-C", who, "-f"], config)?;
        Ok(Effective::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Refuses a configuration with which sshd would not start.
    pub(super) fn check(&self, config: &Path) -> Result<(), SshdError> {
        self.run(&["-t", "-f"], config).map(drop)
    }

    fn run(&self, args: &[&str], config: &Path) -> Result<Output, SshdError> {
        let mut command = Command::new(&self.program);
        let output = command
            .args(args)
            .arg(config)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| start_error(&command, source))?;
        if output.status.success() {
            return Ok(output);
        }
        Err(SshdError::Invalid { config: config.to_owned(), why: said(&output) })
    }

    /// How it can be told of changes.
    pub(super) fn reload(&self, command: Option<&str>, effective: &Effective) -> Reload {
        if let Some(command) = command {
            return Reload::Command(command.to_owned());
        }
        if self.config == Path::new(USUAL_CONFIG)
            && systemd_runs()
            && let Some(unit) =
                UNITS.iter().find(|unit| systemctl(&["is-active", "--quiet", unit]).is_ok())
        {
            return Reload::Unit((*unit).to_owned());
        }
        match effective.pid_file.as_deref().and_then(running) {
            Some(pid) => Reload::Signal(pid),
            None => Reload::NotRunning,
        }
    }
}

/// Whether systemd runs this host.
pub(super) fn systemd_runs() -> bool {
    Path::new(SYSTEMD).is_dir()
}

/// The sshd whose process id is in a file.
fn running(pid_file: &Path) -> Option<Pid> {
    let pid: i32 = files::read_text(pid_file).ok()??.trim().parse().ok()?;
    let name = files::read_proc(&PathBuf::from(format!("/proc/{pid}/comm")))?;
    Pid::from_raw(pid).filter(|_| name.trim().starts_with("sshd"))
}

/// How sshd is told of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reload {
    /// The administrator's command.
    Command(String),
    /// A unit of systemd.
    Unit(String),
    /// A signal, on which sshd starts itself anew; sessions go on (sshd(8)).
    Signal(Pid),
    /// There is nobody to tell.
    NotRunning,
}

impl std::fmt::Display for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Command(command) => write!(f, "{command}"),
            Self::Unit(unit) => write!(f, "systemctl reload {unit}"),
            Self::Signal(pid) => write!(f, "kill -HUP {}", pid.as_raw_nonzero()),
            Self::NotRunning => {
                write!(f, "nothing: no running sshd was found, start it, or give --restart-command")
            }
        }
    }
}

impl Reload {
    /// Tells it.
    pub(super) fn run(&self) -> Result<(), SshdError> {
        let fault = |why: String| SshdError::Reload { how: self.to_string(), why };
        match self {
            Self::Command(text) => {
                let mut command = Command::new("/bin/sh");
                let output = command.arg("-c").arg(text).stdin(Stdio::null()).output();
                let output = output.map_err(|source| start_error(&command, source))?;
                if output.status.success() { Ok(()) } else { Err(fault(said(&output))) }
            }
            Self::Unit(unit) => systemctl(&["reload", unit]).map_err(|err| fault(err.to_string())),
            Self::Signal(pid) => {
                kill_process(*pid, Signal::HUP).map_err(|err| fault(err.to_string()))
            }
            Self::NotRunning => Ok(()),
        }
    }
}

/// Runs `systemctl`.
pub(super) fn systemctl(args: &[&str]) -> Result<(), SshdError> {
    let mut command = Command::new("systemctl");
    let output = command.args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|source| start_error(&command, source))?;
    if output.status.success() {
        return Ok(());
    }
    let how = format!("systemctl {}", args.join(" "));
    Err(SshdError::Reload { how, why: said(&output) })
}

fn start_error(command: &Command, source: std::io::Error) -> SshdError {
    SshdError::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

/// What a program said of its failure.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let shown: String = text.trim().chars().take(SHOWN).collect();
    match shown.is_empty() {
        true => output.status.to_string(),
        false => shown.lines().map(str::trim).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sshd_prints_of_itself() {
        let found = Effective::parse(
            "port 2222\nport 22\naddressfamily any\npidfile /run/sshd.pid\npubkeyauthentication yes\n\
             trustedusercakeys none\nhostkey /etc/ssh/ssh_host_rsa_key\nhostkey /etc/ssh/a b\n\
             hostcertificate /c\nversionaddendum none\nusepam\n",
        );
        let expected = Effective {
            port: 2222,
            host_keys: vec!["/etc/ssh/ssh_host_rsa_key".into(), "/etc/ssh/a b".into()],
            host_certificates: vec!["/c".into()],
            trusted_ca: None,
            pid_file: Some("/run/sshd.pid".into()),
            public_keys: true,
        };
        assert_eq!(found, expected);
        let other =
            Effective::parse("trustedusercakeys /ca\npubkeyauthentication no\npidfile none\n");
        assert_eq!(
            (other.trusted_ca, other.public_keys, other.pid_file),
            (Some("/ca".into()), false, None)
        );
    }

    #[test]
    fn only_an_sshd_is_signalled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        std::fs::write(&file, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(running(&file), None, "this is no sshd");
        std::fs::write(&file, "x\n").unwrap();
        assert_eq!(running(&file), None);
        assert_eq!(running(&folder.path().join("none")), None);
    }

    #[test]
    fn a_command_that_fails_is_told_with_what_it_said() {
        let reload = Reload::Command("echo went wrong >&2; exit 3".to_owned());
        assert!(reload.run().unwrap_err().to_string().ends_with(": went wrong"));
        assert!(Reload::Command("true".to_owned()).run().is_ok());
        assert!(Reload::NotRunning.run().is_ok());
    }
}
