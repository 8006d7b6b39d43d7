//! Readers that do not read, on either side: memory stays bounded, nothing is lost, nobody else waits.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::{Guard, run, until};

use crate::support::Stage;

const MIB: usize = 1 << 20;

/// How long a reader does not read: a minute when asked for, and this many seconds otherwise.
fn pause(seconds: u64) -> Duration {
    Duration::from_secs(if std::env::var_os("GATEHOUSE_LONG").is_some() { 60 } else { seconds })
}

/// A value of `/proc/PID/status`, in KiB.
fn memory(process: u32, key: &str) -> Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("a line of /proc")?;
    Ok(line.trim_start_matches(':').split_whitespace().next().context("a number")?.parse()?)
}

/// What `seq 1 last` prints.
fn sequence(last: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 1..=last {
        text.extend_from_slice(number.to_string().as_bytes());
        text.push(b'\n');
    }
    text
}

fn agent(stage: &Stage) -> Result<(Guard, std::path::PathBuf)> {
    let (guard, socket) = stage.agent("a")?;
    let _done =
        run(stage.joe.login_command().env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?
            .ok();
    Ok((guard, socket))
}

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn piped(command: &mut Command) -> Result<Ended> {
    Ok(Ended(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
}

#[test]
fn a_large_paste_arrives_whole_and_takes_no_memory() -> Result<()> {
    let stage = Stage::new("paste")?;
    let (_guard, socket) = agent(&stage)?;
    let paste = sequence(8_600_000);
    ensure!(paste.len() > 64 * MIB);
    let before = memory(stage.cluster.auth.id(), "VmHWM")?;
    let to = stage.scratch.path().join("pasted");
    // The reader takes its time before it begins.
    let line = format!("sleep 3; cat > {}", to.display());
    let mut tsh = piped(&mut stage.tsh_ssh(&[], &[&line]))?;
    let mut stdin = tsh.0.stdin.take().context("stdin")?;
    let id = tsh.0.id();
    std::thread::scope(|scope| -> Result<()> {
        let sending = scope.spawn(|| stdin.write_all(&paste).map(|()| drop(stdin)));
        let peak = until("the paste", 90, || {
            let held = memory(id, "VmHWM").ok();
            sending.is_finished().then_some(held)
        })?;
        sending.join().ok().context("the sender")??;
        let held = peak.context("tsh ended early")?;
        assert!(held < 128 * 1024, "tsh holds {held} KiB of a paste");
        Ok(())
    })?;
    assert!(tsh.0.wait()?.success());
    assert!(std::fs::read(&to)? == paste, "the paste is not what was sent");

    std::fs::remove_file(&to)?;
    let outcome = run(&mut stage.ssh(&socket, &[], &[&line])?, &paste, 90)?.ok();
    assert!(outcome.stdout.is_empty());
    assert!(std::fs::read(&to)? == paste, "the paste through ssh is not what was sent");
    // One channel stalls its own connection, whose windows are all that piles up.
    let grown = memory(stage.cluster.auth.id(), "VmHWM")? - before;
    assert!(grown < 96 * 1024, "{grown} KiB more in the daemon");
    Ok(())
}

#[test]
fn a_client_that_stops_reading_loses_nothing() -> Result<()> {
    let stage = Stage::new("stops")?;
    let (_guard, socket) = agent(&stage)?;
    let before = memory(stage.cluster.auth.id(), "VmHWM")?;
    // A command's output, which is recorded up to its bucket, and a terminal's, which is recorded in full.
    let (command, terminal) = (sequence(8_000_000), sequence(1_000_000));
    let mut plain = piped(&mut stage.ssh(&socket, &[], &["seq 1 8000000"])?)?;
    let mut tsh = piped(&mut stage.tsh_ssh(&["-t"], &["stty raw; seq 1 1000000"]))?;
    let mut outputs = Vec::new();
    for child in [&mut plain, &mut tsh] {
        let mut stdout = child.0.stdout.take().context("stdout")?;
        let mut first = vec![0_u8; 4096];
        stdout.read_exact(&mut first)?;
        outputs.push((first, stdout));
    }
    std::thread::sleep(pause(20));
    let grown = memory(stage.cluster.auth.id(), "VmHWM")? - before;
    assert!(grown < 64 * 1024, "{grown} KiB more in the daemon");
    for child in [&plain, &tsh] {
        assert!(memory(child.0.id(), "VmHWM")? < 96 * 1024);
    }
    // Others go on meanwhile.
    let echoed = run(&mut stage.tsh_ssh(&[], &["echo", "alive"]), "", 30)?.ok();
    assert_eq!(echoed.text(), "alive\n");
    let readers: Vec<_> = outputs
        .into_iter()
        .map(|(mut first, mut rest)| {
            std::thread::spawn(move || rest.read_to_end(&mut first).map(|_| first))
        })
        .collect();
    let mut received = Vec::new();
    for reader in readers {
        received.push(reader.join().ok().context("a reader")??);
    }
    assert!(received[0] == command, "{} of {} bytes came", received[0].len(), command.len());
    assert!(received[1] == terminal, "{} of {} bytes came", received[1].len(), terminal.len());
    assert!(plain.0.wait()?.success() && tsh.0.wait()?.success());
    let sid = until("the session to end", 30, || {
        let rows = stage.cluster.query("select sid from session_end where interactive").ok()?;
        rows.into_iter().next()?.into_iter().next()
    })?;
    assert!(stage.played(&sid)? == terminal, "the recording of the terminal is not what was shown");
    Ok(())
}

/// One connection of the plain client, kept open, on which others ride.
struct Shared<'a> {
    stage: &'a Stage,
    socket: &'a Path,
    control: std::path::PathBuf,
    _master: Guard,
}

impl<'a> Shared<'a> {
    fn new(stage: &'a Stage, socket: &'a Path) -> Result<Self> {
        let control = stage.scratch.path().join("m");
        let path = control.display().to_string();
        let log = stage.scratch.path().join("master.log");
        let mut master = stage.ssh(socket, &["-M", "-S", &path, "-N"], &[])?;
        let guard = Guard::start("ssh", &mut master, &log)?;
        until("the shared connection", 30, || control.exists().then_some(()))?;
        Ok(Self { stage, socket, control, _master: guard })
    }

    fn ssh(&self, remote: &str) -> Result<Command> {
        let path = self.control.display().to_string();
        self.stage.ssh(self.socket, &["-S", &path], &[remote])
    }
}

/// A far `cat` on the shared connection.
struct Echo {
    child: Ended,
    lines: std::sync::mpsc::Receiver<String>,
    asked: usize,
}

impl Echo {
    fn new(shared: &Shared<'_>) -> Result<Self> {
        let mut child = piped(&mut shared.ssh("cat")?)?;
        let stdout = child.0.stdout.take().context("stdout")?;
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut echo = Self { child, lines, asked: 0 };
        // The first answer has a connection to wait for.
        echo.answers_within(Duration::from_secs(60))?;
        Ok(echo)
    }

    /// Asks, and demands an answer soon.
    fn answers(&mut self) -> Result<()> {
        self.answers_within(Duration::from_secs(10))
    }

    fn answers_within(&mut self, deadline: Duration) -> Result<()> {
        self.asked += 1;
        let line = format!("question-{}", self.asked);
        let stdin = self.child.0.stdin.as_mut().context("stdin")?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        let answer =
            self.lines.recv_timeout(deadline).with_context(|| format!("no answer to {line}"))?;
        assert_eq!(answer, line);
        Ok(())
    }

    /// Goes on answering for this long.
    fn answers_for(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.answers()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

#[test]
fn an_unread_channel_does_not_stop_its_neighbour() -> Result<()> {
    let stage = Stage::new("mux")?;
    let (_guard, socket) = agent(&stage)?;
    let shared = Shared::new(&stage, &socket)?;
    let mut echo = Echo::new(&shared)?;
    let before = memory(stage.cluster.auth.id(), "VmHWM")?;
    // The client does not read one of its channels.
    let mut unread = piped(&mut shared.ssh("seq 1 6000000")?)?;
    let mut stdout = unread.0.stdout.take().context("stdout")?;
    let mut received = vec![0_u8; 4096];
    stdout.read_exact(&mut received)?;
    echo.answers_for(pause(10))?;
    let grown = memory(stage.cluster.auth.id(), "VmHWM")? - before;
    assert!(grown < 64 * 1024, "{grown} KiB more in the daemon");
    // And what was held comes when it is wanted, while the other still answers.
    let reader = std::thread::spawn(move || stdout.read_to_end(&mut received).map(|_| received));
    while !reader.is_finished() {
        echo.answers()?;
    }
    let received = reader.join().ok().context("the reader")??;
    assert!(received == sequence(6_000_000), "{} bytes came", received.len());
    assert!(unread.0.wait()?.success());
    Ok(())
}

#[test]
fn a_target_that_does_not_read_is_closed_alone() -> Result<()> {
    let stage = Stage::new("deaf")?;
    let (_guard, socket) = agent(&stage)?;
    let shared = Shared::new(&stage, &socket)?;
    let mut echo = Echo::new(&shared)?;
    let before = memory(stage.cluster.auth.id(), "VmHWM")?;
    // Within the cap nothing is lost, however late it is read.
    let late = sequence(5_000_000);
    let mut slow = piped(&mut shared.ssh("sleep 6; cksum")?)?;
    let mut stdin = slow.0.stdin.take().context("stdin")?;
    let sent = late.clone();
    let sender = std::thread::spawn(move || stdin.write_all(&sent));
    echo.answers_for(Duration::from_secs(5))?;
    sender.join().ok().context("the sender")??;
    let mut sum = String::new();
    slow.0.stdout.take().context("stdout")?.read_to_string(&mut sum)?;
    let wanted = run(Command::new("cksum").env_clear(), &late, 30)?.text();
    assert_eq!(sum, wanted);
    // Behind it, that channel is closed, with a word, and its neighbour goes on.
    let mut command = shared.ssh("sleep 600")?;
    let mut deaf =
        Ended(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    let mut stdin = deaf.0.stdin.take().context("stdin")?;
    let sender = std::thread::spawn(move || {
        let block = vec![b'x'; MIB];
        (0..400).take_while(|_| stdin.write_all(&block).is_ok()).count()
    });
    let limit = Instant::now() + Duration::from_secs(90);
    while deaf.0.try_wait()?.is_none() {
        echo.answers()?;
        ensure!(Instant::now() < limit, "the channel is still open");
    }
    let taken = sender.join().ok().context("the sender")?;
    assert!((64..200).contains(&taken), "{taken} MiB were taken");
    let grown = memory(stage.cluster.auth.id(), "VmHWM")? - before;
    assert!(grown < 320 * 1024, "{grown} KiB more in the daemon");
    let mut said = String::new();
    deaf.0.stderr.take().context("stderr")?.read_to_string(&mut said)?;
    assert!(said.contains("does not read"), "{said:?}");
    echo.answers()?;
    let rows = until("the event about it", 20, || {
        stage
            .cluster
            .query("select reason from client_disconnect")
            .ok()
            .filter(|rows| !rows.is_empty())
    })?;
    assert!(rows[0][0].contains("does not read"), "{rows:?}");
    Ok(())
}

#[test]
fn two_hundred_sessions_at_once_are_all_recorded() -> Result<()> {
    let _alone = crate::support::alone();
    const COUNT: usize = 200;
    const BEGINNING: usize = 40;
    let stage = Stage::with("twohundred", &Default::default(), "MaxStartups 500:30:1000")?;
    let mut sessions: Vec<(Ended, BufReader<std::process::ChildStdout>)> = Vec::new();
    for wave in 0..COUNT / BEGINNING {
        for number in wave * BEGINNING..(wave + 1) * BEGINNING {
            let mut child =
                piped(&mut stage.tsh_ssh(
                    &[],
                    &[&format!("echo begun-{number}; read word; echo $word-{number}")],
                ))?;
            let stdout = child.0.stdout.take().context("stdout")?;
            sessions.push((child, BufReader::new(stdout)));
        }
        for (number, (_, out)) in sessions.iter_mut().enumerate().skip(wave * BEGINNING) {
            let mut line = String::new();
            out.read_line(&mut line)?;
            assert_eq!(line, format!("begun-{number}\n"));
        }
    }
    // All of them run now.
    assert_eq!(
        stage.cluster.query("select count(distinct sid) from session_start")?,
        [[COUNT.to_string()]]
    );
    for (child, _) in &mut sessions {
        child.0.stdin.take().context("stdin")?.write_all(b"done\n")?;
    }
    for (number, (mut child, mut out)) in sessions.into_iter().enumerate() {
        let mut rest = String::new();
        out.read_to_string(&mut rest)?;
        assert_eq!(rest, format!("done-{number}\n"));
        assert!(child.0.wait()?.success());
    }
    let records = stage.cluster.data_dir().join("log/records");
    until("all recordings", 60, || {
        let files = std::fs::read_dir(&records).ok()?;
        let tars = files
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|kind| kind == "tar"));
        (tars.count() == COUNT).then_some(())
    })?;
    assert_eq!(
        stage.cluster.query("select count(distinct sid) from session_end")?,
        [[COUNT.to_string()]]
    );
    // Each holds its own session's output and nobody else's.
    for number in (0..COUNT).step_by(17) {
        let rows = stage
            .cluster
            .query(&format!("select sid from exec where command like 'echo begun-{number};%'"))?;
        let sid = rows.first().and_then(|row| row.first()).context("no such session")?;
        assert_eq!(
            String::from_utf8_lossy(&stage.played(sid)?),
            format!("begun-{number}\ndone-{number}\n")
        );
    }
    Ok(())
}
