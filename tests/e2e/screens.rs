//! Playback shows what was on the screen: a session is watched by tmux, a real terminal emulator,
//! and recorded by the proxy; at many moments the recording's screen is tmux's.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use shared_events::AuditEvent;
use shared_recording::screen::Size;
use shared_recording::view::{Frame, Painter};
use shared_recording::{Decoder, Player};
use shared_testkit::{Tmux, process, until};

use crate::support::Stage;

/// What tmux showed at a moment.
struct Seen {
    what: &'static str,
    at: DateTime<Utc>,
    screen: Vec<String>,
}

/// A session being driven and watched.
struct Watched {
    tmux: Tmux,
    seen: Vec<Seen>,
}

impl Watched {
    /// Types a line, waits until the screen has a text and rests, and keeps it.
    fn after(&mut self, what: &'static str, keys: &str, text: &str) -> Result<()> {
        self.tmux.send(keys)?;
        self.look(what, text)
    }

    fn look(&mut self, what: &'static str, text: &str) -> Result<()> {
        let screen = self.tmux.settled(text).context(what)?;
        self.seen.push(Seen { what, at: Utc::now(), screen });
        Ok(())
    }

    fn resize(&mut self, what: &'static str, columns: u16, rows: u16, text: &str) -> Result<()> {
        self.tmux.resize(columns, rows)?;
        self.look(what, text)
    }
}

/// Shell, wide and combining characters, vim, less, htop, tmux, and windows of several sizes.
fn drive(stage: &Stage) -> Result<Vec<Seen>> {
    let folder = stage.scratch.path();
    let text: String = (1..200)
        .map(|line| format!("line {line} of a text that is long enough to wrap 漢字\n"))
        .collect();
    std::fs::write(folder.join("long.txt"), text)?;
    let tmux = Tmux::start(&stage.tsh_ssh(&[], &[]), 90, 28)?;
    let mut session = Watched { tmux, seen: Vec::new() };
    until("the far shell's prompt", 30, || {
        let screen = session.tmux.screen().ok()?;
        let last = screen.iter().rev().find(|line| !line.is_empty())?;
        last.ends_with(['$', '#']).then_some(())
    })?;
    let setup = format!(
        "export LANG=C.UTF-8 LC_ALL=C.UTF-8; PS1='$ '; cd {}; clear; echo re''ady\r",
        folder.display()
    );
    session.after("shell", &setup, "ready")?;
    session.after(
        "wide characters",
        "printf '北京 に 한국어 e\\u0301 n\\u0303 \\U1F980|\\n\
         \\033[1;31mred\\033[0m \\033[7minverse\\033[0m│┌─┐\\n'; echo wi''de\r",
        "wide",
    )?;
    session.after("long lines", "head -c 700 long.txt; echo; echo lo''ng\r", "long")?;
    session.after("vim", "vim.tiny -u NONE -N long.txt\r", "line 1 of")?;
    session.after("vim, changed", "GO漢字かな inserted e\u{301}\x1b:set number\r", "inserted")?;
    session.after("vim, split", ":split | normal 50G\r", "50 line 50")?;
    session.resize("vim, narrower", 60, 20, "line 50")?;
    session.resize("vim, wider", 100, 30, "line 50")?;
    // How a terminal breaks a shell's lines anew is its own affair, so they are written anew.
    session.tmux.send(":qa!\r")?;
    session.after("vim left", "clear; echo ba''ck\r", "back")?;
    session.after("less", "clear; less -S long.txt\r", "line 20 ")?;
    session.after("less, its end", "G", "line 199")?;
    session.after("less, backwards", "bb", "line 14")?;
    session.after("less left", "q", "$")?;
    if process::installed("htop")? {
        session.after("htop", "htop -d 100\r", "F10Quit")?;
        session.resize("htop, narrower", 70, 20, "F")?;
        session.after("htop left", "q", "$")?;
    }
    session.resize("shell again", 90, 28, "$")?;
    let inner = "clear; tmux -L inner -f /dev/null new-session -d -x 90 -y 28 'exec sh'; \
        tmux -L inner set status on; tmux -L inner set status-right ''; tmux -L inner attach\r";
    session.after("tmux", inner, "[0]")?;
    session.after(
        "tmux, divided",
        "tmux -L inner split-window -h 'exec sh'; clear; echo 漢字 in''side\r",
        "inside",
    )?;
    session.after("tmux left", "tmux -L inner kill-server\r", "$")?;
    // With the window goes the client, and with it the session.
    drop(session.tmux);
    Ok(session.seen)
}

/// The only recording, once it has arrived.
fn recording(stage: &Stage) -> Result<PathBuf> {
    let folder = stage.cluster.data_dir().join("log/records");
    until("the recording to arrive", 30, || {
        let entries = std::fs::read_dir(&folder).ok()?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| path.extension().is_some_and(|kind| kind == "tar"))
    })
}

/// When the recording's time began: that of its first output.
fn beginning(path: &Path) -> Result<DateTime<Utc>> {
    for event in Decoder::new(BufReader::new(File::open(path)?)) {
        if let AuditEvent::SessionPrint(print) = event? {
            return print.metadata.time.get().context("time of the first output");
        }
    }
    anyhow::bail!("there is no output")
}

fn trimmed(mut lines: Vec<String>) -> Vec<String> {
    for line in &mut lines {
        line.truncate(line.trim_end().len());
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn texts(frame: &Frame) -> Vec<String> {
    frame.rows.iter().map(|row| row.text().to_owned()).collect()
}

#[test]
fn playback_shows_what_tmux_showed() -> Result<()> {
    if !process::installed("tmux")? {
        return Ok(());
    }
    let stage = Stage::new("screens")?;
    let seen = drive(&stage)?;
    assert!(seen.len() >= 10);
    let path = recording(&stage)?;
    let beginning = beginning(&path)?;
    let mut player = Player::new(Decoder::new(BufReader::new(File::open(&path)?)));
    // Backwards, so that every seek goes back to a snapshot.
    for seen in seen.iter().rev() {
        let at = seen.at - TimeDelta::milliseconds(200) - beginning;
        player.seek(u64::try_from(at.num_milliseconds())?)?;
        let shown = player.screen().rows().iter().map(|row| row.text().to_owned()).collect();
        assert_eq!(trimmed(shown), trimmed(seen.screen.clone()), "{}", seen.what);
        for window in [
            player.screen().size(),
            Size { columns: 40, rows: 12 },
            Size { columns: 140, rows: 50 },
        ] {
            painted(&stage, &player, window, seen.what)?;
        }
    }
    watch(&stage, &path, &seen, beginning)
}

/// What the painter writes makes a real terminal of the window's size show the frame.
fn painted(
    stage: &Stage,
    player: &Player<BufReader<File>>,
    window: Size,
    what: &str,
) -> Result<()> {
    let frame = Frame::fit(player.screen(), window);
    let bytes = Painter::default().paint(&frame, window);
    let file = stage.scratch.write("painted", bytes)?;
    let mut show = process::command("sh", stage.scratch.path());
    show.args(["-c", "stty raw -echo; cat \"$0\"; exec sleep 60"]).arg(file);
    let tmux = Tmux::start(&show, window.columns, window.rows)?;
    let wanted = trimmed(texts(&frame));
    until("the frame in tmux", 20, || (trimmed(tmux.screen().ok()?) == wanted).then_some(()))
        .with_context(|| format!("{what} in {window}: {wanted:#?} and {:#?}", tmux.screen()))
}

/// `tsh play` in tmux, paused in the middle: the same screen above the progress line, and in a
/// narrower window the part that fits.
fn watch(stage: &Stage, path: &Path, seen: &[Seen], beginning: DateTime<Utc>) -> Result<()> {
    let find = |what: &str| seen.iter().find(|seen| seen.what == what).context("a moment");
    let vim = find("vim, split")?;
    let at = vim.at - TimeDelta::milliseconds(300) - beginning;
    let mut play = stage.cluster.home("nobody")?.tsh();
    play.arg("play")
        .arg(format!("--at={}ms", at.num_milliseconds()))
        .arg("--speed=0.25x")
        .arg(path);
    let tmux = Tmux::start(&play, 90, 29)?;
    let settle = |progress: &str| -> Result<Vec<String>> {
        tmux.send(" ")?;
        tmux.settled(progress)
    };
    let mut screen = settle("paused")?;
    let bar = screen.pop().unwrap_or_default();
    assert!(bar.contains("paused") && bar.contains("0.25x"), "{bar}");
    assert_eq!(trimmed(screen), trimmed(vim.screen.clone()));
    tmux.resize(40, 29)?;
    let mut screen = tmux.settled("paused")?;
    screen.pop();
    for (narrow, whole) in trimmed(screen).iter().zip(&vim.screen) {
        assert!(whole.starts_with(narrow.trim_end()), "{narrow:?} of {whole:?}");
    }
    tmux.resize(90, 29)?;
    tmux.send("/inside")?;
    tmux.press("Enter")?;
    tmux.settled("漢字 inside")?;
    tmux.send("q")?;
    assert_eq!(tmux.finish().context("playback")?, 0);
    Ok(())
}
