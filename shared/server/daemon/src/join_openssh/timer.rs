//! What renews the certificate: a timer of systemd where that runs the host, else a line for cron.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::is_plain;
use super::files::{Changes, FileError};
use super::sshd::{SshdError, systemctl, systemd_runs};

/// Names of the unit and of cron's file.
const NAME: &str = "gatehouse-openssh-renew";
const UNITS: &str = "/etc/systemd/system";
const CRON: &str = "/etc/cron.d";

/// Why there is no timer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TimerError {
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// systemd does not take it.
    #[error(transparent)]
    Systemd(#[from] SshdError),
    /// It cannot stand in a table of cron or in a unit.
    #[error(
        "{0} has characters that a timer cannot have; give --timer=none and renew with: teleport join openssh --renew"
    )]
    Path(PathBuf),
    /// Nothing runs a timer here.
    #[error(
        "neither systemd nor {CRON} is there; give --timer=none and renew every day with: teleport join openssh --renew"
    )]
    Nothing,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TimerChoice {
    /// systemd where it runs the host, else cron.
    Auto,
    /// A timer of systemd.
    Systemd,
    /// A file for cron.
    Cron,
    /// None: somebody else renews.
    None,
}

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Timer {
    /// Units in a folder.
    Systemd(PathBuf),
    /// A file in a folder.
    Cron(PathBuf),
    /// Nothing.
    None,
}

impl Timer {
    /// What fits the host. `folder` instead of the usual one.
    pub(super) fn choose(choice: TimerChoice, folder: Option<&Path>) -> Result<Self, TimerError> {
        let at = |usual: &str| folder.map_or_else(|| PathBuf::from(usual), Path::to_owned);
        match choice {
            TimerChoice::None => Ok(Self::None),
            TimerChoice::Systemd => Ok(Self::Systemd(at(UNITS))),
            TimerChoice::Cron => Ok(Self::Cron(at(CRON))),
            TimerChoice::Auto if systemd_runs() => Ok(Self::Systemd(at(UNITS))),
            TimerChoice::Auto if at(CRON).is_dir() => Ok(Self::Cron(at(CRON))),
            TimerChoice::Auto => Err(TimerError::Nothing),
        }
    }

    /// The files, with what stands in them. `minute` spreads the hosts of a cluster over the hour.
    fn files(&self, program: &Path, data_dir: &Path, minute: u8) -> Vec<(PathBuf, String)> {
        let run =
            format!("{} join openssh --renew --data-dir={}", program.display(), data_dir.display());
        match self {
            Self::Systemd(folder) => vec![
                (
                    folder.join(format!("{NAME}.service")),
                    format!(
                        "[Unit]\nDescription=Renew the host certificate of sshd\nAfter=network-online.target\n\
                         Wants=network-online.target\n\n[Service]\nType=oneshot\nExecStart={run}\n"
                    ),
                ),
                (
                    folder.join(format!("{NAME}.timer")),
                    "[Unit]\nDescription=Renew the host certificate of sshd\n\n[Timer]\nOnBootSec=10min\n\
                     OnUnitActiveSec=12h\nRandomizedDelaySec=1h\n\n[Install]\nWantedBy=timers.target\n"
                        .to_owned(),
                ),
            ],
            Self::Cron(folder) => {
                let minute = minute % 60;
                let text = format!("# Renews the host certificate of sshd.\n{minute} */12 * * * root {run}\n");
                vec![(folder.join(NAME), text)]
            }
            Self::None => Vec::new(),
        }
    }

    /// Writes the files.
    pub(super) fn install(
        &self,
        changes: &mut Changes,
        program: &Path,
        data_dir: &Path,
        minute: u8,
    ) -> Result<(), TimerError> {
        if *self == Self::None {
            return Ok(());
        }
        if let Some(odd) = [program, data_dir].into_iter().find(|path| !is_plain(path)) {
            return Err(TimerError::Path(odd.to_owned()));
        }
        for (path, text) in self.files(program, data_dir, minute) {
            changes.write(&path, text.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// Has the installed files take effect.
    pub(super) fn start(&self) -> Result<(), TimerError> {
        if self.is_live() {
            systemctl(&["daemon-reload"])?;
            systemctl(&["enable", "--now", &format!("{NAME}.timer")])?;
        }
        Ok(())
    }

    /// Ends it, and removes the files.
    pub(super) fn remove(&self, changes: &mut Changes) -> Result<(), TimerError> {
        if self.is_live() {
            systemctl(&["disable", "--now", &format!("{NAME}.timer")])?;
        }
        for (path, _) in self.files(Path::new(""), Path::new(""), 0) {
            changes.remove(&path)?;
        }
        if self.is_live() {
            systemctl(&["daemon-reload"])?;
        }
        Ok(())
    }

    /// Whether systemd reads what is written.
    fn is_live(&self) -> bool {
        matches!(self, Self::Systemd(folder) if folder == Path::new(UNITS)) && systemd_runs()
    }
}

impl std::fmt::Display for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Systemd(folder) => write!(f, "{}/{NAME}.timer", folder.display()),
            Self::Cron(folder) => write!(f, "{}/{NAME}", folder.display()),
            Self::None => write!(f, "none; renew every day with: teleport join openssh --renew"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let (program, data) =
            (Path::new("/usr/local/bin/teleport"), Path::new("/var/lib/teleport"));
        let at = |choice| Timer::choose(choice, Some(folder.path())).unwrap();
        for (timer, count) in
            [(at(TimerChoice::Systemd), 2), (at(TimerChoice::Cron), 1), (at(TimerChoice::None), 0)]
        {
            let mut changes = Changes::default();
            timer.install(&mut changes, program, data, 77).unwrap();
            changes.keep();
            let texts: Vec<String> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
                .collect();
            assert_eq!(texts.len(), count, "{timer}");
            let run = "/usr/local/bin/teleport join openssh --renew --data-dir=/var/lib/teleport\n";
            assert!(count == 0 || texts.concat().contains(run), "{texts:?}");
            if matches!(timer, Timer::Cron(_)) {
                assert!(texts.concat().contains("\n17 */12 * * * root /usr"), "{texts:?}");
            }
            let mut changes = Changes::default();
            timer.remove(&mut changes).unwrap();
            changes.keep();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_cron_would_read_otherwise_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let timer = Timer::Cron(folder.path().to_owned());
        let mut changes = Changes::default();
        let refused =
            timer.install(&mut changes, Path::new("/opt/100%/teleport"), Path::new("/d"), 0);
        assert!(refused.unwrap_err().to_string().contains("--timer=none"));
    }
}
