//! Child processes: ended by id when their guard goes, their output kept in files.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One of our programs, built beside the running test.
pub fn bin(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().unwrap_or_default();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built; run: cargo xtask test", path.display());
    path
}

/// Whether a program is there that a test can do without on a laptop; in continuous integration it must be.
pub fn installed(program: &str) -> Result<bool> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return Ok(true);
    }
    if std::env::var_os("CI").is_some() {
        bail!("{program} is not installed; cargo xtask test brings it");
    }
    eprintln!("skipped: {program} is not installed; cargo xtask test brings it");
    Ok(false)
}

/// A server program that ends with its guard.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Guard {
    /// Starts `command` with its output in `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_path_buf() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits.
    pub fn stop(&mut self, seconds: u64) -> Result<std::process::ExitStatus> {
        self.signal(rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end in {seconds} s after SIGTERM", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(60).collect::<Vec<_>>();
            eprintln!("--- {} ({}) ---", self.name, self.log.display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a finished program left.
#[derive(Debug)]
#[must_use]
pub struct Outcome {
    /// Its exit code; a signal counts as -1.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error as text.
    pub stderr: String,
    command: String,
}

impl Outcome {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails the test unless the program ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(
            self.code == 0,
            "{} ended with {}\n{}\n{}",
            self.command,
            self.code,
            self.text(),
            self.stderr
        );
        self
    }

    /// Fails the test unless the program ended with `code` and standard error has `text`.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> Self {
        assert!(
            self.code == code && self.stderr.contains(text),
            "{}: wanted {code} and {text:?}, got {}\n{}\n{}",
            self.command,
            self.code,
            self.text(),
            self.stderr
        );
        self
    }
}

/// Runs a program to its end with `input`, bounded in time.
pub fn run(command: &mut Command, input: impl AsRef<[u8]>, seconds: u64) -> Result<Outcome> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let input = input.as_ref().to_vec();
    let stdin = child.stdin.take();
    let writer = std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A program may end without reading all of it.
            stdin.write_all(&input).ok();
        }
    });
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().ok();
            child.wait().ok();
            bail!("{shown} did not end in {seconds} s");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    writer.join().ok();
    Ok(Outcome {
        code: status.code().unwrap_or(-1),
        stdout: stdout.join().unwrap_or_default(),
        stderr: String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned(),
        command: shown,
    })
}

fn drain(from: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut from) = from {
            from.read_to_end(&mut all).ok();
        }
        all
    })
}

/// A command with an environment of its own: home, locale and width are set, the rest is clear.
pub fn command(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LANG", "C.UTF-8")
        .env("TERM", "xterm-256color")
        .env("COLUMNS", "120")
        .env("NO_COLOR", "1")
        .env("TZ", "UTC")
        .current_dir(home);
    command
}
