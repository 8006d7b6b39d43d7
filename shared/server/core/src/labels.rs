//! Labels of this host, or of what it serves: those that are written down, and those whose values commands give.
//!
//! Commands run as the service, one at a time each, with bounded output and time; one that fails or takes too long
//! leaves its label as it was. Nothing of the service's environment but `PATH` reaches them.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use shared_types::Labels;
use shared_types::resource::CommandLabel;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a command may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest value, in bytes.
const MAX_VALUE: usize = 1024;
/// What is read of a command's output, in bytes.
const MAX_OUTPUT: u64 = 4096;

/// Why a command gave no value.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("run {program}")]
    Run {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} took longer than {} s", LIMIT.as_secs())]
    Slow { program: String },
    #[error("{program} ended with {status}")]
    Failed { program: String, status: std::process::ExitStatus },
    #[error("the label's command is empty")]
    Empty,
}

/// Such labels, as they are now. Commands stop when the last clone is dropped.
#[derive(Clone)]
pub struct HostLabels {
    fixed: Arc<Labels>,
    commands: watch::Receiver<Arc<BTreeMap<String, CommandLabel>>>,
    _running: Arc<DropGuard>,
}

impl HostLabels {
    /// Starts the commands. The first values are there within moments, so that [`Self::settled`] can wait for them.
    pub fn start(fixed: Labels, commands: BTreeMap<String, CommandLabel>) -> Self {
        let (values, current) = watch::channel(Arc::new(commands.clone()));
        let (values, stop) = (Arc::new(values), CancellationToken::new());
        for (name, label) in commands {
            let (values, stop) = (Arc::clone(&values), stop.clone());
            tokio::spawn(async move {
                let _ = stop.run_until_cancelled(keep(&name, &label, &values)).await;
            });
        }
        Self { fixed: Arc::new(fixed), commands: current, _running: Arc::new(stop.drop_guard()) }
    }

    /// Waits until every command has given a value, or `limit` is over.
    pub async fn settled(&self, limit: Duration) {
        let mut commands = self.commands.clone();
        let all = commands.wait_for(|all| all.values().all(|label| !label.result.is_empty()));
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Those that are written down.
    pub fn fixed(&self) -> &Labels {
        &self.fixed
    }

    /// Those whose values commands give, with what they gave last.
    pub fn commands(&self) -> Arc<BTreeMap<String, CommandLabel>> {
        self.commands.borrow().clone()
    }

    /// All of them: for decisions and events. What is written down wins.
    pub fn all(&self) -> Labels {
        let commands = self.commands();
        let given = commands.iter().filter(|(_, label)| !label.result.is_empty());
        let mut all: Labels =
            given.map(|(name, label)| (name.clone(), label.result.clone())).collect();
        all.extend(self.fixed.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    }

    /// Tells of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<BTreeMap<String, CommandLabel>>> {
        self.commands.clone()
    }
}

async fn keep(
    name: &str,
    label: &CommandLabel,
    values: &watch::Sender<Arc<BTreeMap<String, CommandLabel>>>,
) {
    let period = label.period.as_std().max(Duration::from_secs(1));
    loop {
        match value(&label.command).await {
            Ok(value) => {
                values.send_if_modified(|all| {
                    let changed = all.get(name).is_some_and(|label| label.result != value);
                    if changed && let Some(label) = Arc::make_mut(all).get_mut(name) {
                        label.result.clone_from(&value);
                    }
                    changed
                });
            }
            Err(err) => {
                tracing::warn!(
                    label = name,
                    error = &err as &dyn std::error::Error,
                    "label keeps its value"
                );
            }
        }
        tokio::time::sleep(period).await;
    }
}

/// What a command prints, trimmed, as a label may hold it.
async fn value(command: &[String]) -> Result<String, CommandError> {
    let [program, arguments @ ..] = command else { return Err(CommandError::Empty) };
    let name = || program.clone();
    let failed = |source| CommandError::Run { program: name(), source };
    let mut running = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut output = Vec::new();
    let told = async {
        if let Some(stdout) = running.stdout.take() {
            let mut stdout = stdout.take(MAX_OUTPUT);
            stdout.read_to_end(&mut output).await.map_err(failed)?;
        }
        running.wait().await.map_err(failed)
    };
    let status = tokio::time::timeout(LIMIT, told)
        .await
        .map_err(|_| CommandError::Slow { program: name() })??;
    if !status.success() {
        return Err(CommandError::Failed { program: name(), status });
    }
    Ok(as_value(&String::from_utf8_lossy(&output)))
}

fn as_value(output: &str) -> String {
    let printed: String =
        output.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=MAX_VALUE.min(printed.len())).rev().find(|at| printed.is_char_boundary(*at));
    printed.get(..end.unwrap_or_default()).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use shared_types::GoDuration;

    use super::*;

    fn label(command: &[&str]) -> CommandLabel {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        CommandLabel { command, period: GoDuration::from_secs(1), result: String::new() }
    }

    #[tokio::test]
    async fn commands_give_values_and_what_is_written_down_wins() {
        let commands = [
            ("kernel".to_owned(), label(&["/bin/echo", " 6.1\t\u{7} "])),
            ("env".to_owned(), label(&["/bin/echo", "prod"])),
            ("broken".to_owned(), label(&["/bin/false"])),
            ("missing".to_owned(), label(&["/no/such/program"])),
        ];
        let fixed = Labels::from([("env".to_owned(), "test".to_owned())]);
        let labels = HostLabels::start(fixed, commands.into());
        let mut changes = labels.watch();
        let both = changes
            .wait_for(|all| !all["kernel"].result.is_empty() && !all["env"].result.is_empty());
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap().unwrap();
        assert_eq!(
            labels.all(),
            Labels::from([
                ("env".to_owned(), "test".to_owned()),
                ("kernel".to_owned(), "6.1".to_owned())
            ])
        );
    }

    #[tokio::test]
    async fn a_value_follows_its_command() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("value");
        std::fs::write(&file, "one").unwrap();
        let commands = [("v".to_owned(), label(&["/bin/cat", file.to_str().unwrap()]))];
        let labels = HostLabels::start(Labels::new(), commands.into());
        labels.settled(Duration::from_secs(20)).await;
        assert_eq!(labels.all()["v"], "one");
        std::fs::write(&file, "two").unwrap();
        let mut changes = labels.watch();
        let two = changes.wait_for(|all| all["v"].result == "two");
        tokio::time::timeout(Duration::from_secs(20), two).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn output_without_end_is_cut_and_the_command_is_ended() {
        let value = value(&["/usr/bin/yes".to_owned(), "x".repeat(2000)]).await;
        // It is still writing when enough was read: ended by the closed pipe, which is a failure.
        assert!(matches!(value, Err(CommandError::Failed { .. })), "{value:?}");
        assert_eq!(as_value(&"ä".repeat(5000)).len(), MAX_VALUE);
        assert_eq!(as_value("a\nb\n"), "a b");
    }
}
