//! A terminal of the test's own: a program runs on its far side, every byte the program writes is
//! kept.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A running program and its terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    control: File,
    received: Arc<Received>,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// What the program has written.
#[derive(Debug, Default)]
struct Received {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
}

impl Terminal {
    /// Starts `command` on a new terminal of this size.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Result<Self> {
        let control = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&control)?;
        unlockpt(&control)?;
        set_size(&control, columns, rows)?;
        let name = ptsname(&control, Vec::new())?;
        let path = name.to_str().context("name of the terminal")?.to_owned();
        // `setsid -c` makes the terminal the program's controlling one.
        let open = || File::options().read(true).write(true).open(&path);
        let mut wrapped = Command::new("setsid");
        wrapped.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        wrapped.env_clear();
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(key, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        let child = wrapped
            .stdin(Stdio::from(open()?))
            .stdout(Stdio::from(open()?))
            .stderr(Stdio::from(open()?))
            .spawn()
            .with_context(|| format!("start {command:?} on a terminal"))?;
        let control = File::from(control);
        let mut from = control.try_clone()?;
        let received = Arc::new(Received::default());
        let sink = Arc::clone(&received);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0_u8; 16384];
            // The far side's last close reads as an error.
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if let Ok(mut bytes) = sink.bytes.lock() {
                    bytes.extend_from_slice(&buffer[..length]);
                }
                sink.more.notify_all();
            }
        });
        Ok(Self { child, control, received, reader: Some(reader) })
    }

    /// Types.
    pub fn send(&mut self, keys: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.control.write_all(keys.as_ref())?)
    }

    /// Changes the size, as dragging a window does.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        set_size(self.control.as_fd(), columns, rows)
    }

    /// Everything received so far.
    pub fn seen(&self) -> Vec<u8> {
        self.received.bytes.lock().map(|bytes| bytes.clone()).unwrap_or_default()
    }

    /// How many bytes were received so far.
    pub fn mark(&self) -> usize {
        self.received.bytes.lock().map(|bytes| bytes.len()).unwrap_or_default()
    }

    /// Sleeps until more than `mark` bytes were received, and returns how many there are then.
    pub fn beyond(&self, mark: usize) -> Result<usize> {
        let bytes = self.received.bytes.lock().map_err(|_| anyhow!("the reader panicked"))?;
        let limit = Duration::from_secs(30);
        let waited =
            self.received.more.wait_timeout_while(bytes, limit, |bytes| bytes.len() <= mark);
        let (bytes, waited) = waited.map_err(|_| anyhow!("the reader panicked"))?;
        ensure!(!waited.timed_out(), "waited for more than {mark} bytes");
        Ok(bytes.len())
    }

    /// Waits until `text` has been received at or after `from`; returns the place behind it.
    pub fn expect(&self, text: &str, from: usize) -> Result<usize> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let seen = self.seen();
            let rest = seen.get(from..).unwrap_or_default();
            if let Some(at) =
                rest.windows(text.len().max(1)).position(|window| window == text.as_bytes())
            {
                return Ok(from + at + text.len());
            }
            if Instant::now() > deadline {
                bail!(
                    "waited for {text:?}; the terminal shows {:?}",
                    String::from_utf8_lossy(rest)
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the program's end and returns its code with everything it wrote.
    pub fn finish(mut self, seconds: u64) -> Result<(i32, Vec<u8>)> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!(
                    "no end in {seconds} s; the terminal shows {:?}",
                    String::from_utf8_lossy(&self.seen())
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
        Ok((status.code().unwrap_or(-1), self.seen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn set_size(terminal: impl AsFd, columns: u16, rows: u16) -> Result<()> {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    Ok(())
}
