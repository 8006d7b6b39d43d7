use serde_json::Value;
use shared_events::SessionStart;

use super::super::tests::session;
use super::*;

fn page(events: Vec<Result<AuditEvent, crate::DecodeError>>) -> String {
    let mut out = Vec::new();
    html(events.into_iter(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn operations(page: &str) -> Vec<Value> {
    let blocks = page.split("class=\"data\">").skip(1);
    blocks
        .filter_map(|block| block.split("</script>").next())
        .flat_map(|block| serde_json::from_str::<Vec<Value>>(block).unwrap())
        .collect()
}

#[test]
fn the_data_tells_what_the_screen_showed() {
    let lines: Vec<String> = operations(&page(session())).iter().map(Value::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn recorded_markup_stays_text() {
    let page = page(session());
    let [before, after] = page.split(BODY).collect::<Vec<_>>()[..] else { panic!("one body") };
    // Ours and no other: two scripts with data, one with code.
    assert_eq!(page.matches("<script").count(), 3, "{page}");
    assert_eq!(page.matches("</script").count(), 3);
    assert!(!page.contains("<img") && !page.contains("javascript:") && !page.contains("owned"));
    assert!(after.contains(r"\u003c/script\u003e\u003cscript\u003eran=1"), "{after}");
    assert!(before.contains("<title>root@db-1</title>"));
    for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!SCRIPT.contains(outside) && !STYLE.contains(outside) && !BODY.contains(outside));
    }
}

#[test]
fn names_are_escaped_in_the_head() {
    let mut start = SessionStart::default();
    start.server.server_hostname = "</title><script>ran=1</script>\u{1b}&\"".into();
    start.user.user = "</script><script>ran=1</script>".into();
    let page = page(vec![Ok(start.into())]);
    assert!(
        page.contains("<title>&lt;/title&gt;&lt;script&gt;ran=1&lt;/script&gt;&amp;&quot;</title>")
    );
    assert_eq!(page.matches("<script").count(), 3);
}

#[test]
fn the_policy_allows_our_script_and_nothing_else() {
    let page = page(session());
    let policy = page.split("Security-Policy\" content=\"").nth(1).unwrap();
    let policy = policy.split('"').next().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'));
    let hash = STANDARD.encode(Sha256::digest(SCRIPT));
    assert!(policy.contains(&hash) && page.contains(&format!("<script>{SCRIPT}</script>")));
}

#[test]
fn rows_are_told_once_and_scrolling_is_one_number() {
    let print = |ms: i64, data: String| -> Result<AuditEvent, crate::DecodeError> {
        Ok(shared_events::SessionPrint { ms, data: data.into(), ..Default::default() }.into())
    };
    let start = SessionStart { size: "80:24".into(), ..SessionStart::default() };
    let mut events = vec![Ok(start.into())];
    events.extend((0..100).map(|line| print(line * 1000, format!("line {}\r\n", line % 10))));
    let operations = operations(&page(events));
    let rows: usize =
        operations.iter().filter(|op| op[0] == 0).map(|op| op.as_array().unwrap().len() - 1).sum();
    assert_eq!(rows, 10);
    // A line more moves all up by one, and one row is another.
    let scrolled = operations.iter().rev().find(|op| op[0] == 2).unwrap();
    assert_eq!((&scrolled[4], scrolled.as_array().unwrap().len()), (&1.into(), 7), "{scrolled}");
}

#[test]
fn a_damaged_recording_says_so() {
    let mut events = session();
    events.truncate(3);
    events.push(Err(crate::DecodeError { offset: 9, slice: 1, what: crate::Fault::Bomb }));
    let mut out = Vec::new();
    assert!(html(events.into_iter(), &mut out).is_err());
    let page = String::from_utf8(out).unwrap();
    assert!(page.ends_with("</html>\n") && page.contains("damaged from here on"));
}

/// An hour at a shell: a command every ten seconds, some output each, and a full-screen program
/// that changes every second for a quarter of the time.
#[test]
fn an_hour_of_work_is_a_small_page() {
    let start = SessionStart { size: "120:40".into(), ..SessionStart::default() };
    let mut events = vec![Ok(start.into())];
    let mut print = |ms: i64, data: String| {
        let data = data.into();
        events.push(Ok(shared_events::SessionPrint { ms, data, ..Default::default() }.into()));
    };
    for second in 0..3600_i64 {
        if second % 3600 < 900 {
            let line = second % 38 + 2;
            print(
                second * 1000,
                format!(
                    "\x1b[?1049h\x1b[{line};1H\x1b[32m{second}\x1b[0m root {}%\x1b[K",
                    second % 97
                ),
            );
        } else if second % 10 == 0 {
            for (index, key) in format!("\x1b[?1049lls -l /srv/{second}").chars().enumerate() {
                print(second * 1000 + 100 * index as i64, key.to_string());
            }
            let listing: String = (0..25)
                .map(|file| format!("-rw-r--r-- 1 root root {second}{file} report-{file}.txt\r\n"))
                .collect();
            print(second * 1000 + 4000, format!("\r\n{listing}\x1b[1;32mroot@db-1\x1b[0m:~# "));
        }
    }
    let raw: usize = events
        .iter()
        .flatten()
        .map(|event: &AuditEvent| match event {
            AuditEvent::SessionPrint(print) => print.data.len(),
            _ => 0,
        })
        .sum();
    let size = page(events).len();
    println!("{raw} bytes of output make a page of {size}");
    assert!(size < 1024 * 1024, "{size}");
}
