//! The ledger of file copies: what scp, sftp and rsync move through the proxy, and what a role forbids of it.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::{Outcome, command};
use shared_testkit::{Guard, Home, run, until};

use crate::support::Stage;
use crate::transfer::noise;

const MIB: usize = 1 << 20;

/// A stage, and somebody with an agent on it.
struct Desk<'a> {
    stage: &'a Stage,
    home: Home,
    socket: PathBuf,
    options: Vec<String>,
    _agent: Guard,
}

impl<'a> Desk<'a> {
    fn new(stage: &'a Stage, home: Home) -> Result<Self> {
        let (agent, socket) = stage.agent(&format!("agent-{}", home.user))?;
        let mut login = home.login_command();
        let _done = run(login.env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?.ok();
        let ssh = stage.ssh(&socket, &[], &[])?;
        let options = ssh.get_args().map(|arg| arg.to_string_lossy().into_owned());
        let options = options.take_while(|arg| arg != "-p").collect();
        Ok(Self { stage, home, socket, options, _agent: agent })
    }

    /// Somebody with one more role, of these options.
    fn with_role(stage: &'a Stage, user: &str, options: &str) -> Result<Self> {
        let _created = stage.cluster.create(&format!(
            "kind: role\nversion: v7\nmetadata:\n  name: {user}\nspec:\n  options:\n    {options}\n"
        ))?;
        let roles = format!("access,loopback,{user}");
        Self::new(stage, stage.cluster.user(user, &roles, &stage.login)?)
    }

    fn tool(&self, program: &str) -> Command {
        let mut tool = command(program, &self.home.folder);
        tool.env("SSH_AUTH_SOCK", &self.socket);
        tool
    }

    fn remote(&self, path: &Path) -> String {
        format!("{}:{}", self.stage.target(), path.display())
    }

    fn port(&self) -> String {
        self.stage.sshd.port.to_string()
    }

    /// `scp` with these words; `-O` chooses the old protocol.
    fn scp(&self, words: &[&str]) -> Result<Outcome> {
        let mut scp = self.tool("scp");
        run(scp.args(&self.options).args(["-P", &self.port()]).args(words), "", 600)
    }

    fn sftp_command(&self, words: &[&str]) -> Command {
        let mut sftp = self.tool("sftp");
        sftp.args(&self.options).args(["-P", &self.port()]).args(words);
        sftp.args(["-b", "-", &self.stage.target()]);
        sftp
    }

    /// `sftp` with a batch.
    fn sftp(&self, words: &[&str], batch: &str) -> Result<Outcome> {
        run(&mut self.sftp_command(words), batch, 600)
    }

    fn rsync(&self, words: &[&str]) -> Result<Outcome> {
        let quoted: Vec<_> = self.options.iter().map(|word| format!("\"{word}\"")).collect();
        let line = format!("#!/bin/sh\nexec ssh {} -p {} \"$@\"\n", quoted.join(" "), self.port());
        let script = self.stage.scratch.write("remote-shell", line)?;
        let mut rsync = self.tool("rsync");
        let remote_shell = format!("sh {}", script.display());
        run(rsync.args(["-t", "--whole-file", "-e", &remote_shell]).args(words), "", 600)
    }

    /// Rows, once there are so many.
    fn rows(&self, sql: &str, count: usize) -> Result<Vec<Vec<String>>> {
        let found = until(sql, 20, || {
            self.stage.cluster.query(sql).ok().filter(|rows| rows.len() >= count)
        })?;
        assert_eq!(found.len(), count, "{sql}: {found:?}");
        Ok(found)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn sum(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output().context("sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

fn recordings_are_small(stage: &Stage) -> Result<()> {
    let records = stage.cluster.data_dir().join("log/records");
    for file in std::fs::read_dir(&records)?.flatten() {
        assert!(file.metadata()?.len() < 100 * 1024, "{:?} holds file contents", file.path());
    }
    Ok(())
}

#[test]
fn every_tool_copies_intact_and_is_listed_with_the_hash_of_the_file() -> Result<()> {
    let stage = Stage::new("ledger")?;
    let desk = Desk::new(&stage, stage.joe.clone())?;
    let long = std::env::var_os("GATEHOUSE_LONG").is_some();
    let size = if long { 1024 * MIB } else { 64 * MIB } + 12_345;
    let from = stage.scratch.write("from", noise(size))?;
    let wanted = sum(&from)?;
    let place = |name: &str| stage.scratch.path().join(name);
    let check = |name: &str| -> Result<()> {
        assert_eq!(sum(&place(name))?, wanted, "{name}");
        std::fs::remove_file(place(name))?;
        Ok(())
    };
    let bytes = size.to_string();

    for (name, old) in [("scp-new", false), ("scp-old", true)] {
        let words = if old { vec!["-O"] } else { vec![] };
        let (up, down) = (format!("{name}-up"), format!("{name}-down"));
        let there = desk.remote(&place(&up));
        let _copied = desk.scp(&[&words[..], &[text(&from), &there]].concat())?.ok();
        let _copied = desk.scp(&[&words[..], &[&there, text(&place(&down))]].concat())?.ok();
        check(&up)?;
        check(&down)?;
    }
    let old = desk.rows(
        "select action, name, path, cast(file_size as varchar), sha256, code from scp order by action",
        2,
    )?;
    for (row, (action, name, path, code)) in old.iter().zip([
        ("download", "scp-old-up", place("scp-old-up"), "T3004I"),
        ("upload", "from", place("scp-old-up"), "T3005I"),
    ]) {
        assert_eq!(row[..], [action, name, text(&path), &bytes, &wanted, code]);
    }

    let batch =
        format!("put {} {}\nget {1} {}\n", text(&from), text(&place("up")), text(&place("down")));
    let _copied = desk.sftp(&[], &batch)?.ok();
    check("up")?;
    check("down")?;
    let new = desk.rows(
        "select direction, path, cast(file_size as varchar), cast(bytes_read + bytes_written as varchar), sha256 \
         from sftp where action = 2 order by event_time",
        4,
    )?;
    for (row, (direction, name)) in new.iter().zip([
        ("upload", "scp-new-up"),
        ("download", "scp-new-up"),
        ("upload", "up"),
        ("download", "up"),
    ]) {
        assert_eq!(row[..], [direction, text(&place(name)), &bytes, &bytes, &wanted], "{row:?}");
    }

    let _copied = desk.rsync(&[text(&from), &desk.remote(&place("rs-up"))])?.ok();
    let _copied = desk.rsync(&[&desk.remote(&place("rs-up")), text(&place("rs-down"))])?.ok();
    check("rs-up")?;
    check("rs-down")?;
    let rsync = desk.rows(
        "select direction, bytes_written, bytes_read, command from sftp_summary where tool = 'rsync' order by event_time",
        2,
    )?;
    let moved = |row: usize, column: usize| rsync[row][column].parse::<usize>().unwrap_or_default();
    assert!(rsync[0][0] == "upload" && moved(0, 1) >= size && moved(0, 2) < MIB, "{rsync:?}");
    assert!(rsync[1][0] == "download" && moved(1, 2) >= size && moved(1, 1) < MIB, "{rsync:?}");
    assert!(rsync[0][3].starts_with("rsync --server"), "{rsync:?}");

    // A summary lists each of them, with totals in its last part.
    let totals = desk.rows(
        "select tool, cast(files as varchar), cast(files_unlisted as varchar) from sftp_summary where last and files > 0",
        5,
    )?;
    assert!(totals.iter().all(|row| row[2] == "0"), "{totals:?}");
    let untracked = stage.cluster.query("select reason from file_transfer_untracked")?;
    assert!(untracked.is_empty(), "{untracked:?}");
    recordings_are_small(&stage)
}

#[test]
fn clients_that_resume_append_and_ask_for_much_at_once_are_listed_as_what_they_did() -> Result<()> {
    let stage = Stage::new("tricks")?;
    let desk = Desk::new(&stage, stage.joe.clone())?;
    let content = noise(3 * MIB);
    let from = stage.scratch.write("from", &content)?;
    let there = stage.scratch.folder("there")?;
    let part = &content[..MIB];
    std::fs::write(there.join("half"), part)?;
    let half = stage.scratch.write("half-here", part)?;
    std::fs::create_dir(stage.scratch.path().join("tree"))?;
    for number in 0..300 {
        let name = format!("tree/small file {number} äö");
        stage.scratch.write(&name, format!("content of {number}"))?;
    }
    let batch = format!(
        "cd {}\nmkdir made\nput {1} whole\nget whole {2}\nreput {1} half\nreget whole {3}\n\
         rename whole other\nchmod 600 other\nln -s other link\nput -r {4}\nls -l\nrm link\nrmdir made\n",
        text(&there),
        text(&from),
        text(&stage.scratch.path().join("got")),
        text(&half),
        text(&stage.scratch.path().join("tree")),
    );
    // Small pieces, many at once.
    let _done = desk.sftp(&["-R", "256", "-B", "4096"], &batch)?.ok();
    assert_eq!(std::fs::read(there.join("half"))?, content);
    assert_eq!(std::fs::read(&half)?, content);
    assert_eq!(std::fs::read(there.join("other"))?, content);
    assert_eq!(std::fs::read_dir(there.join("tree"))?.count(), 300);

    let wanted = sum(&from)?;
    let big = desk.rows(
        "select path, direction, coalesce(sha256, sha256_missing) from sftp \
         where action = 2 and bytes_read + bytes_written > 1048576 order by event_time",
        4,
    )?;
    let at = |name: &str| there.join(name).display().to_string();
    let missing = format!("begins at byte {MIB}");
    for (row, (name, direction, hash)) in big.iter().zip([
        ("whole", "upload", &wanted),
        ("whole", "download", &wanted),
        ("half", "upload", &missing),
        ("whole", "download", &missing),
    ]) {
        assert_eq!(row[..], [&at(name)[..], direction, hash]);
    }
    let operations = desk.rows(
        "select cast(action as varchar), path, coalesce(target_path, '') from sftp \
         where action in (8, 7, 11, 12, 13, 16, 18) and path not like '%small%' and path not like '%tree%' order by event_time",
        6,
    )?;
    let told: Vec<_> = operations.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    assert_eq!(
        told,
        [
            ("12", at("made").as_str()),
            ("16", &at("whole")),
            ("7", &at("other")),
            ("18", &at("link")),
            ("11", &at("link")),
            ("13", &at("made")),
        ]
    );
    let summary = desk.rows(
        "select cast(files as varchar), cast(files_unlisted as varchar) from sftp_summary where last",
        1,
    )?;
    assert_eq!(summary[0][0], "304");

    // Somebody who goes in the middle.
    let big = stage.scratch.write("big", noise(400 * MIB))?;
    let mut child = desk.sftp_command(&[]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    {
        let mut stdin = child.stdin.take().context("stdin")?;
        writeln!(stdin, "put {} {}", text(&big), at("cut"))?;
    }
    let cut = there.join("cut");
    until("the copy to begin", 20, || std::fs::metadata(&cut).ok().filter(|file| file.len() > 0))?;
    child.kill()?;
    child.wait()?;
    let rows = desk.rows(
        &format!("select sha256_missing from sftp where action = 2 and path = '{}'", at("cut")),
        1,
    )?;
    assert_eq!(rows[0][0], "interrupted");
    recordings_are_small(&stage)
}

#[test]
fn a_role_that_allows_one_direction_only_holds_for_every_tool() -> Result<()> {
    let stage = Stage::new("oneway")?;
    let mine = stage.scratch.write("mine", noise(MIB))?;
    let theirs = stage.scratch.write("theirs", noise(MIB))?;
    let place = |name: &str| stage.scratch.path().join(name);

    let reader = Desk::with_role(&stage, "reader", "ssh_file_transfer: [download]")?;
    let batch = format!(
        "-put {mine} {bad}\n-mkdir {folder}\n-rm {theirs}\n-rename {theirs} {bad}\n-chmod 777 {theirs}\n\
         -ln -s {theirs} {bad}\n-put -a {mine} {theirs}\nget {theirs} {got}\n",
        mine = text(&mine),
        theirs = text(&theirs),
        bad = text(&place("bad")),
        folder = text(&place("bad-folder")),
        got = text(&place("got")),
    );
    let before = std::fs::metadata(&theirs)?;
    let refused = reader.sftp(&[], &batch)?.ok();
    assert!(
        refused.stderr.contains("ermission denied") || refused.stderr.contains("not permitted"),
        "{}",
        refused.stderr
    );
    // The session goes on after refusals, and what is allowed works.
    assert_eq!(std::fs::read(place("got"))?, std::fs::read(&theirs)?);
    assert!(!place("bad").exists() && !place("bad-folder").exists());
    let after = std::fs::metadata(&theirs)?;
    assert_eq!((before.len(), before.permissions()), (after.len(), after.permissions()));
    let there = reader.remote(&place("bad"));
    for words in [vec![text(&mine), &there], vec!["-O", text(&mine), &there]] {
        let outcome = reader.scp(&words)?;
        assert!(outcome.code != 0 && !place("bad").exists(), "{outcome:?}");
    }
    let outcome = reader.rsync(&[text(&mine), &there])?;
    assert!(outcome.code != 0 && !place("bad").exists(), "{outcome:?}");
    let from = reader.remote(&theirs);
    for (number, words) in [vec![], vec!["-O"]].into_iter().enumerate() {
        let to = place(&format!("down-{number}"));
        let _copied = reader.scp(&[&words[..], &[&from, text(&to)]].concat())?.ok();
        assert_eq!(std::fs::read(&to)?, std::fs::read(&theirs)?);
    }
    let _copied = reader.rsync(&[&from, text(&place("down-r"))])?.ok();

    let writer = Desk::with_role(&stage, "writer", "ssh_file_transfer: [upload]")?;
    let batch = format!(
        "-get {} {}\nput {} {}\n",
        text(&theirs),
        text(&place("leak")),
        text(&mine),
        text(&place("good")),
    );
    let _refused = writer.sftp(&[], &batch)?.ok();
    assert_eq!(std::fs::read(place("good"))?, std::fs::read(&mine)?);
    let leaked = || std::fs::metadata(place("leak")).is_ok_and(|file| file.len() > 0);
    assert!(!leaked());
    let from = writer.remote(&theirs);
    for words in [vec![&from[..]], vec!["-O", &from]] {
        let outcome = writer.scp(&[&words[..], &[text(&place("leak"))]].concat())?;
        assert!(outcome.code != 0 && !leaked(), "{outcome:?}");
    }
    let outcome = writer.rsync(&[&from, text(&place("leak"))])?;
    assert!(outcome.code != 0 && !leaked(), "{outcome:?}");
    let _copied = writer.scp(&["-O", text(&mine), &writer.remote(&place("good-2"))])?.ok();
    let _copied = writer.rsync(&[text(&mine), &writer.remote(&place("good-3"))])?.ok();

    let nobody = Desk::with_role(&stage, "nobody", "ssh_file_transfer: []")?;
    let outcome = nobody.sftp(&[], "ls\n")?;
    assert!(
        outcome.code != 0 && outcome.stderr.contains("file copying is not permitted"),
        "{outcome:?}"
    );

    let refused = |user: &str, table: &str| {
        let sql = format!(
            "select distinct code, coalesce(error, '') from sftp where user = '{user}' and code = 'TS020E'"
        );
        let sql = if table == "scp" {
            format!(
                "select distinct code, exitError from scp where user = '{user}' and code = 'T3010E'"
            )
        } else {
            sql
        };
        reader.rows(&sql, 1).map(|rows| rows[0][1].clone())
    };
    assert_eq!(refused("reader", "sftp")?, "file uploads are not permitted");
    assert_eq!(refused("reader", "scp")?, "file uploads are not permitted");
    assert_eq!(refused("writer", "sftp")?, "file downloads are not permitted");
    assert_eq!(refused("writer", "scp")?, "file downloads are not permitted");
    assert_eq!(refused("nobody", "sftp")?, "file copying is not permitted");
    Ok(())
}

#[test]
fn a_client_that_speaks_by_hand_is_refused_or_ended() -> Result<()> {
    let stage = Stage::new("early")?;
    let reader = Desk::with_role(&stage, "reader", "ssh_file_transfer: [download]")?;
    // A client that speaks SFTP by hand: version 3, then `mkdir`.
    let made = stage.scratch.path().join("made");
    let path = text(&made).as_bytes();
    let mut bytes = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
    let body =
        [&[14_u8, 0, 0, 0, 1][..], &(path.len() as u32).to_be_bytes(), path, &[0; 4]].concat();
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(&body);
    let mut ssh = stage.ssh(&reader.socket, &["-s"], &["sftp"])?;
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    stdin.write_all(&bytes)?;
    // The server ends with its input, so that stays open.
    let mut stdout = child.stdout.take().context("stdout")?;
    let (mut answer, mut buffer) = (Vec::new(), [0_u8; 4096]);
    while !String::from_utf8_lossy(&answer).contains("file uploads are not permitted") {
        let length = stdout.read(&mut buffer)?;
        assert!(length > 0, "no refusal in {answer:?}");
        answer.extend_from_slice(&buffer[..length]);
    }
    assert!(!made.exists());
    drop(stdin);
    child.wait()?;
    // Nonsense ends the session with a reason.
    let mut ssh = stage.ssh(&reader.socket, &["-s"], &["sftp"])?;
    let outcome = run(&mut ssh, [0xff; 100], 60)?;
    assert!(outcome.code != 0 && outcome.stderr.contains("cannot be followed"), "{outcome:?}");
    let rows = reader.rows("select tool, reason from file_transfer_untracked", 1)?;
    assert_eq!(rows[0][0], "sftp");
    Ok(())
}

#[test]
fn tsh_scp_copies_both_ways_and_is_listed() -> Result<()> {
    let stage = Stage::new("tshscp")?;
    let from = stage.scratch.write("from", noise(20 * MIB))?;
    for number in 0..20 {
        stage.scratch.write(&format!("tree/sub/file {number}"), format!("{number}"))?;
    }
    let place = |name: &str| stage.scratch.path().join(name);
    let there = |name: &str| format!("{}:{}", stage.target(), place(name).display());
    let port = format!("--port={}", stage.sshd.port);
    let copy = |words: &[&str]| stage.joe.run([&["scp", &port][..], words].concat());
    let said = copy(&[text(&from), &there("up")])?.ok().text();
    assert!(said.contains("20971520 bytes"), "{said}");
    let quiet = copy(&["-q", "-p", &there("up"), text(&place("down"))])?.ok().text();
    assert_eq!(quiet, "");
    assert_eq!(sum(&place("down"))?, sum(&from)?);
    let _copied = copy(&["-q", "-r", text(&place("tree")), &there("tree-up")])?.ok();
    let _copied = copy(&["-q", "-r", &there("tree-up"), text(&place("tree-down"))])?.ok();
    assert_eq!(std::fs::read_dir(place("tree-down/sub"))?.count(), 20);
    let _refused = copy(&[&there("tree-up"), text(&place("x"))])?.fails(1, "is a folder");
    let _missing = copy(&[&there("nothing"), text(&place("x"))])?.fails(1, "nothing");
    let _usage = copy(&[text(&from)])?.fails(2, "local and remote destinations are required");
    let wanted = sum(&from)?;
    let rows = until("both copies", 20, || {
        let sql = "select direction, sha256 from sftp where action = 2 and file_size = 20971520 order by event_time";
        stage.cluster.query(sql).ok().filter(|rows| rows.len() >= 2)
    })?;
    assert_eq!(rows, [["upload", &wanted], ["download", &wanted]]);
    recordings_are_small(&stage)
}
