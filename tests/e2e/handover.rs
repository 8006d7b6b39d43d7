//! A recording given to somebody without our programs: the page in a real browser, the asciicast in
//! the real asciinema. What was recorded stays text in both.

use std::path::{Path, PathBuf};

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared_events::{Resize, SessionEnd, SessionStart};
use shared_recording::{Header, Limits, SessionRecorder};
use shared_testkit::{Browser, Scratch, Terminal, bin, process, run};
use shared_types::{HostId, SessionId};

use crate::support::Stage;

/// A recording of five minutes with everything in it that a page or a terminal must not obey.
fn recording(scratch: &Scratch) -> Result<PathBuf> {
    let header = Header {
        cluster: "example.test".parse()?,
        session: SessionId::random(),
        recorder: HostId::random(),
    };
    let sid = header.session;
    let mut recorder = SessionRecorder::new(header, Limits::default(), None);
    let mut slices = Vec::new();
    let at = |second: i64| -> DateTime<Utc> { DateTime::UNIX_EPOCH + TimeDelta::seconds(second) };
    let mut start = SessionStart { size: "60:12".into(), ..SessionStart::default() };
    start.user.login = "root".into();
    start.server.server_hostname = "</title><script>ran=1</script>db-1".into();
    recorder.event(&mut start.into(), at(0), &mut slices)?;
    let hostile = "\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1bP$qm\x1b\\\x1b[6n\
        </script><script>ran=1</script><img src=http://127.0.0.1:1/x onerror=ran=1>\r\n\
        \x1b]8;;javascript:ran=1\x07a link\x1b]8;;\x07 <a href=javascript:ran=1>another</a>\r\n";
    recorder.output(hostile.into(), at(0), &mut slices)?;
    for second in 1..300 {
        let line = format!("\x1b[3{}msecond {second}\x1b[0m 漢字 e\u{301}\r\n", second % 8);
        recorder.output(line.into(), at(second), &mut slices)?;
        if second == 200 {
            recorder.output("the needle in the hay\r\n".into(), at(second), &mut slices)?;
            let resize = Resize { size: "90:20".into(), ..Resize::default() };
            recorder.event(&mut resize.into(), at(second), &mut slices)?;
        }
    }
    recorder.event(&mut SessionEnd::default().into(), at(300), &mut slices)?;
    recorder.finish(at(300), &mut slices)?;
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect();
    scratch.write(&format!("{sid}.tar"), bytes)
}

/// `tsh recordings export` in a home that was never logged in.
fn export(scratch: &Scratch, recording: &Path, format: &str, more: &[&str]) -> Result<PathBuf> {
    let out = scratch.path().join(format!("out.{format}"));
    let mut tsh = process::command(bin("tsh"), scratch.path());
    tsh.args(["recordings", "export", "--format", format, "--overwrite"]).args(more);
    let outcome = run(tsh.arg("-o").arg(&out).arg(recording), "", 60)?.ok();
    assert!(outcome.stderr.contains("Wrote recording to"), "{}", outcome.stderr);
    Ok(out)
}

#[test]
fn the_page_plays_in_a_browser_and_runs_nothing_recorded() -> Result<()> {
    if !process::installed("chromium")? {
        return Ok(());
    }
    let scratch = Scratch::new("page")?;
    let page = export(&scratch, &recording(&scratch)?, "html", &[])?;
    let mut browser = Browser::start(&scratch.folder("browser")?)?;
    browser.open(&page)?;
    let text = "document.getElementById('rows').innerText";
    browser.until(&format!("{text}.includes('<script>ran=1</script>')"))?;
    assert_eq!(
        browser.value("document.getElementById('time').textContent")?,
        json!("00:00 / 04:59")
    );

    // It plays: time passes, and rows come.
    browser.value(
        "document.getElementById('speed').value = '16'; document.getElementById('play').click()",
    )?;
    browser.until(&format!("{text}.includes('second 5')"))?;
    browser.value("document.getElementById('play').click()")?;
    let stopped = browser.value("document.getElementById('seek').value")?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(browser.value("document.getElementById('seek').value")?, stopped, "a pause");

    // It seeks, forward and back.
    for (to, shown, not) in [
        (150_500, "second 150", "second 151"),
        (20_000, "second 20", "second 21"),
        (299_000, "second 299", "second 200"),
    ] {
        browser.value(&format!(
            "seek = document.getElementById('seek'); seek.value = {to}; seek.dispatchEvent(new Event('input'))"
        ))?;
        let rows = browser.value(text)?.to_string();
        assert!(rows.contains(shown) && !rows.contains(not), "{to}: {rows}");
    }
    assert_eq!(browser.value("document.getElementById('rows').children.length")?, json!(20));

    // It finds a word, and shows the moment.
    browser.value(
        "find = document.getElementById('find'); find.value = 'needle'; \
         find.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }))",
    )?;
    assert_eq!(browser.value("document.getElementById('found').textContent")?, json!("1 of 1"));
    assert!(browser.value(text)?.to_string().contains("the needle in the hay"));
    assert_eq!(
        browser.value("document.querySelector('#rows .hit').innerText")?,
        json!("the needle in the hay")
    );
    assert_eq!(
        browser.value("document.getElementById('time').textContent")?,
        json!("03:20 / 04:59")
    );

    // Nothing recorded became part of the page, and nothing was asked of anybody.
    for expression in ["typeof ran", "typeof window.ran"] {
        assert_eq!(browser.value(expression)?, json!("undefined"));
    }
    for selector in ["img", "a", "iframe", "link", "object", "[onerror]", "[href]", "[src]"] {
        let found = browser.value(&format!("document.querySelectorAll('{selector}').length"))?;
        assert_eq!(found, json!(0), "{selector}");
    }
    assert_eq!(browser.value("document.title")?, json!("root@</title><script>ran=1</script>db-1"));
    let own = format!("file://{}", page.display());
    assert_eq!(browser.requests, [own]);
    assert_eq!(browser.complaints, [""; 0]);

    // Markup that got in all the same would neither run nor load anything.
    browser.value(
        "script = document.createElement('script'); script.textContent = 'window.ran = 1'; \
         document.body.append(script); \
         image = document.createElement('img'); image.src = 'http://127.0.0.1:1/x'; document.body.append(image)",
    )?;
    browser.until("document.images.length === 1")?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(browser.value("typeof window.ran")?, json!("undefined"));
    assert!(
        browser.complaints.iter().any(|text| text.contains("script-src")),
        "{:?}",
        browser.complaints
    );
    assert!(
        browser
            .complaints
            .iter()
            .any(|text| text.contains("img-src") || text.contains("default-src"))
    );
    Ok(())
}

#[test]
fn a_link_names_a_moment() -> Result<()> {
    if !process::installed("chromium")? {
        return Ok(());
    }
    let scratch = Scratch::new("link")?;
    let page = export(&scratch, &recording(&scratch)?, "html", &[])?;
    let mut browser = Browser::start(&scratch.folder("browser")?)?;
    browser.open(&PathBuf::from(format!("{}#t=02:30", page.display())))?;
    browser.until("document.getElementById('time').textContent === '02:30 / 04:59'")?;
    browser.until("document.getElementById('rows').innerText.includes('second 150')")
}

#[test]
fn the_asciicast_plays_in_asciinema() -> Result<()> {
    let scratch = Scratch::new("cast")?;
    let recording = recording(&scratch)?;
    let cast = export(&scratch, &recording, "asciicast", &[])?;
    let text = std::fs::read_to_string(&cast)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!((&lines[0]["version"], &lines[0]["width"]), (&json!(2), &json!(60)));
    let three = export(&scratch, &recording, "asciicast", &["--asciicast-version=3"])?;
    assert!(std::fs::read_to_string(three)?.starts_with("{\"term\":{\"cols\":60,\"rows\":12}"));
    if !process::installed("asciinema")? {
        return Ok(());
    }
    let cast = export(&scratch, &recording, "asciicast", &[])?;
    for args in [&["cat"][..], &["play", "--speed=1000", "--idle-time-limit=0.01"]] {
        let mut asciinema = process::command("asciinema", scratch.path());
        asciinema.args(args).arg(&cast);
        let (code, seen) = Terminal::start(&mut asciinema, 100, 30)?.finish(60)?;
        let seen = String::from_utf8_lossy(&seen);
        assert_eq!(code, 0, "{seen}");
        for part in
            ["second 299", "the needle in the hay", "漢字", "\x1b[31m", "<script>ran=1</script>"]
        {
            assert!(seen.contains(part), "{part} is missing in {args:?}: {seen}");
        }
        for part in ["\x1b]", "\x1bP", "\x1b[6n", "owned", "javascript:ran=1\x07"] {
            assert!(!seen.contains(part), "{part:?} reached the terminal by {args:?}");
        }
    }
    Ok(())
}

#[test]
fn text_and_json_have_no_sequences() -> Result<()> {
    let scratch = Scratch::new("text")?;
    let recording = recording(&scratch)?;
    let text = std::fs::read_to_string(export(&scratch, &recording, "text", &[])?)?;
    assert!(text.contains("second 299 漢字 e\u{301}\n") && text.contains("a link <a href"));
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains("owned"));
    let json: Value =
        serde_json::from_slice(&std::fs::read(export(&scratch, &recording, "json", &[])?)?)?;
    assert_eq!(json[0]["event"], "session.start");
    // What is there is not replaced unasked; standard output is one way around files.
    let mut tsh = process::command(bin("tsh"), scratch.path());
    tsh.args(["recordings", "export", "--format=text", "-o"]).arg(scratch.path().join("out.text"));
    let _refused = run(tsh.arg(&recording), "", 30)?.fails(1, "exists");
    let mut tsh = process::command(bin("tsh"), scratch.path());
    let outcome = run(
        tsh.args(["recordings", "export", "--format=text", "-o-", "-"]),
        std::fs::read(&recording)?,
        30,
    )?;
    assert_eq!(outcome.ok().text(), text);
    Ok(())
}

#[test]
fn times_and_lines_that_match_are_printed() -> Result<()> {
    let scratch = Scratch::new("grep")?;
    let recording = recording(&scratch)?;
    let grep = |args: &[&str]| {
        let mut tsh = process::command(bin("tsh"), scratch.path());
        run(tsh.arg("play").arg(&recording).args(args), "", 30)
    };
    assert_eq!(grep(&["--grep=needle"])?.ok().text(), "00:03:20.000  the needle in the hay\n");
    assert_eq!(
        grep(&["--grep", "second 1[01]0 ", "--at=1:45", "--format=text"])?.ok().text(),
        "00:01:50.000  second 110 漢字 e\u{301}\n"
    );
    let _none = grep(&["--grep=owned"])?.fails(5, "matches");
    let _bad = grep(&["--grep=("])?.fails(2, "");
    let _bad = grep(&["--at=never"])?.fails(2, "12:31");
    // From standard input, too, where nothing can be sought.
    let mut tsh = process::command(bin("tsh"), scratch.path());
    let found = run(tsh.args(["play", "-", "--grep=needle"]), std::fs::read(&recording)?, 30)?;
    assert_eq!(found.ok().text(), "00:03:20.000  the needle in the hay\n");
    Ok(())
}

#[test]
fn recordings_are_listed_downloaded_and_removed() -> Result<()> {
    let stage = Stage::new("lsrm")?;
    let _ran = run(&mut stage.tsh_ssh(&[], &["echo hello"]), "", 60)?.ok();
    let sid = stage.last_session()?;
    let _whole = stage.played(&sid)?;
    for (args, there) in [
        (&["--user=joe"][..], true),
        (&["--user=ann"], false),
        (&["--login", &stage.login], true),
        (&["--login=nobody"], false),
        (&["--host=nowhere"], false),
        (&["--last=1h", "--limit=5"], true),
        (&["--to-utc=2020-01-02", "--from-utc=2020-01-01"], false),
    ] {
        let mut ls = vec!["recordings", "ls", "--format=json"];
        ls.extend(args);
        let listed: Value = serde_json::from_str(&stage.joe.run(&ls)?.ok().text())?;
        assert_eq!(
            listed.as_array().map(|list| !list.is_empty()),
            Some(there),
            "{args:?}: {listed}"
        );
        let listed: Value = serde_json::from_str(&stage.cluster.tctl_ok(&ls)?.text())?;
        assert_eq!(
            listed.as_array().map(|list| !list.is_empty()),
            Some(there),
            "{args:?}: {listed}"
        );
    }
    // Who one is does not narrow the list.
    let mut ls = stage.joe.tsh();
    ls.args(["recordings", "ls", "--format=json"])
        .env("TELEPORT_USER", "ann")
        .env("TELEPORT_LOGIN", "no");
    let listed: Value = serde_json::from_str(&run(&mut ls, "", 30)?.ok().text())?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    // Byte for byte, by both programs; what is there is not replaced unasked.
    let (one, two) = (stage.scratch.path().join("one.tar"), stage.scratch.path().join("two.tar"));
    let paths = [one.display().to_string(), two.display().to_string()];
    let download = ["recordings", "download", &sid, "-o", &paths[0]];
    let _done = stage.joe.run(download)?.ok();
    let _again = stage.joe.run(download)?.fails(1, "exists");
    let _over = stage.joe.run(download.iter().chain(&["--overwrite"]))?.ok();
    let _done = stage.cluster.tctl_ok(["recordings", "download", &sid, "-o", &paths[1]])?;
    let bytes = std::fs::read(&one)?;
    assert_eq!(bytes, std::fs::read(&two)?);
    let stored = std::fs::read(stage.cluster.data_dir().join(format!("log/records/{sid}.tar")))?;
    assert!(bytes.starts_with(&stored));
    let played = stage.joe.run(["play", "--format=text", &paths[0]])?.ok();
    assert_eq!(played.text(), "hello\n");

    // Removing takes the right, leaves a trace, and is for good.
    let _refused = {
        let mut tctl = process::command(bin("tctl"), &stage.joe.folder);
        run(tctl.args(["recordings", "rm", &sid]), "", 30)?.fails(4, "access denied")
    };
    let _removed = stage.cluster.tctl_ok(["recordings", "rm", &sid])?;
    let _gone = stage.joe.run(["play", &sid])?.fails(5, "not found");
    let again = run(stage.cluster.tctl().args(["recordings", "rm", &sid]), "", 30)?;
    let _gone = again.fails(5, "not found");
    let rows = stage
        .cluster
        .query(&format!("select sid from session_recording_delete where sid = '{sid}'"))?;
    assert_eq!(rows.len(), 1, "{rows:?}");
    Ok(())
}
