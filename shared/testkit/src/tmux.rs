//! A tmux server of the test's own: a real terminal emulator that says what it shows.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;
use crate::wait::until;

/// A program in the only window of a tmux, without a status line.
#[derive(Debug)]
pub struct Tmux {
    socket: PathBuf,
    home: PathBuf,
}

impl Tmux {
    /// Starts `command` in a window of this size. The socket is made in the command's folder.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Result<Self> {
        let home = command.get_current_dir().context("the command's folder")?.to_owned();
        // Names of sockets are short.
        let socket = tempfile::Builder::new().prefix("tmux").tempdir()?.keep().join("s");
        let config = socket.with_file_name("conf");
        let options = "set -g status off\nset -g remain-on-exit on\n\
             set -g default-terminal tmux-256color\nset -g escape-time 0\n";
        std::fs::write(&config, options)?;
        let tmux = Self { socket, home };
        let mut start = tmux.tmux();
        start.arg("-f").arg(&config).args(["new-session", "-d"]);
        start.args(["-x", &columns.to_string(), "-y", &rows.to_string(), "--", "env", "-i"]);
        for (key, value) in command.get_envs() {
            if let Some(value) = value.filter(|_| key != "TERM") {
                let mut pair = key.to_owned();
                pair.push("=");
                pair.push(value);
                start.arg(pair);
            }
        }
        // tmux may know of a program's end and not of its status: the shell in between writes that down.
        start.args(["TERM=tmux-256color", "sh", "-c", "\"$@\"; echo $? > \"$0\""]);
        start.arg(tmux.status()).arg(command.get_program()).args(command.get_args());
        let _started = run(&mut start, "", 20)?.ok();
        Ok(tmux)
    }

    fn tmux(&self) -> Command {
        let mut tmux = crate::process::command("tmux", &self.home);
        tmux.arg("-u").arg("-S").arg(&self.socket);
        tmux
    }

    fn ask(&self, args: &[&str]) -> Result<String> {
        Ok(run(self.tmux().args(args), "", 20)?.ok().text())
    }

    /// Types text as it is.
    pub fn send(&self, text: &str) -> Result<()> {
        self.ask(&["send-keys", "-l", "--", text]).map(drop)
    }

    /// Presses a key by tmux's name for it, such as `Enter` or `C-c`.
    pub fn press(&self, key: &str) -> Result<()> {
        self.ask(&["send-keys", key]).map(drop)
    }

    /// Changes the window's size.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.ask(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).map(drop)
    }

    /// What the window shows: all rows, without blanks at their ends.
    pub fn screen(&self) -> Result<Vec<String>> {
        let text = self.ask(&["capture-pane", "-p"])?;
        Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
    }

    /// Waits until the screen has `text` and stays as it is for a while; answers the screen.
    pub fn settled(&self, text: &str) -> Result<Vec<String>> {
        let mut last: Option<(Vec<String>, std::time::Instant)> = None;
        let settled = until(&format!("{text:?} on the screen"), 40, || {
            let screen = self.screen().ok()?;
            match &last {
                Some((before, since)) if *before == screen => {
                    let there = screen.iter().any(|line| line.contains(text));
                    (there && since.elapsed().as_millis() > 700).then_some(screen)
                }
                _ => {
                    last = Some((screen, std::time::Instant::now()));
                    None
                }
            }
        });
        settled
            .with_context(|| format!("the screen shows {:#?}", self.screen().unwrap_or_default()))
    }

    /// Waits for the program's end and answers its code.
    pub fn finish(&self) -> Result<i32> {
        let code = until("the program in tmux to end", 30, || {
            let text = std::fs::read_to_string(self.status()).ok()?;
            text.strip_suffix('\n').map(str::to_owned)
        });
        let code = code.with_context(|| format!("the screen shows {:#?}", self.screen()))?;
        Ok(code.parse()?)
    }

    /// Where the shell writes the program's status: a code, or 128 and the number of a signal.
    fn status(&self) -> PathBuf {
        self.socket.with_file_name("status")
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // The server of this socket and no other.
        self.tmux().arg("kill-server").output().ok();
        if let Some(folder) = self.socket.parent() {
            std::fs::remove_dir_all(folder).ok();
        }
    }
}
