use shared_events::{Metadata, SessionEnd, SessionPrint, SessionStart, Timestamp};

use super::*;
use crate::decoder::Fault;

fn events() -> Vec<Result<AuditEvent, DecodeError>> {
    let metadata = |index, event: &str| Metadata {
        index,
        event: event.into(),
        uid: "3f1c7a52".into(),
        time: Timestamp::from(
            "2025-03-04T09:15:22.481Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap(),
        ),
        ..Metadata::default()
    };
    let mut start = SessionStart {
        metadata: metadata(0, "session.start"),
        size: "80:24".into(),
        ..Default::default()
    };
    start.user.login = "yes".into();
    start.server.server_hostname = "a\u{9b}6n\u{1b}]0;x\u{7}: b".into();
    start.initial_command = vec!["ls -l".into(), "/tmp".into()];
    let data = "out\u{1b}[1mput\u{7}".as_bytes();
    let print = SessionPrint {
        metadata: metadata(1, "print"),
        data: data.into(),
        bytes: 12,
        ..Default::default()
    };
    let end = SessionEnd { metadata: metadata(2, "session.end"), ..Default::default() };
    vec![Ok(start.into()), Ok(print.into()), Ok(end.into())]
}

fn damaged() -> Vec<Result<AuditEvent, DecodeError>> {
    let mut events = events();
    events[2] = Err(DecodeError { offset: 9, slice: 1, what: Fault::Bomb });
    events
}

fn run(
    export: impl Fn(
        std::vec::IntoIter<Result<AuditEvent, DecodeError>>,
        &mut Vec<u8>,
    ) -> Result<(), ExportError>,
    events: Vec<Result<AuditEvent, DecodeError>>,
) -> (String, bool) {
    let mut out = Vec::new();
    let result = export(events.into_iter(), &mut out);
    (String::from_utf8(out).unwrap(), result.is_ok())
}

#[test]
fn json_is_an_indented_array_without_ids() {
    let (text, ok) = run(json, events());
    assert!(
        ok && text
            .starts_with("[\n    {\n        \"ei\": 0,\n        \"event\": \"session.start\",\n")
    );
    assert!(text.contains("\n    },\n    {\n") && text.ends_with("\n    }]\n"));
    assert!(!text.contains("uid") && !text.contains("put"));
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(list[0]["server_hostname"], "a\u{9b}6n\u{1b}]0;x\u{7}: b");
    let (text, ok) = run(json, damaged());
    assert!(!ok);
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap().len(), 2);
    assert_eq!(run(json, Vec::new()).0, "[\n]\n");
}

#[test]
fn json_lines_are_one_object_each() {
    let (text, ok) = run(json_lines, events());
    assert!(ok && text.lines().count() == 3);
    assert!(text.starts_with(r#"{"ei":0,"event":"session.start","uid":"3f1c7a52","#));
    assert!(text.contains(r#""server_hostname":"a\u009b6n\u001b]0;x\u0007: b""#));
}

#[test]
fn yaml_is_a_document_each() {
    let (text, ok) = run(yaml, events());
    assert!(ok);
    insta::assert_snapshot!(text);
}

#[test]
fn text_is_the_output_byte_for_byte() {
    assert_eq!(run(text, events()), ("out\u{1b}[1mput\u{7}".into(), true));
}

/// A session with everything a program may send, and what a page must not run.
pub(super) fn session() -> Vec<Result<AuditEvent, DecodeError>> {
    let print = |ms: i64, data: &str| -> AuditEvent {
        SessionPrint { ms, data: data.to_owned().into(), ..SessionPrint::default() }.into()
    };
    let time: chrono::DateTime<chrono::Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut start = SessionStart { size: "40:10".into(), ..SessionStart::default() };
    start.metadata.time = time.into();
    start.user.login = "root".into();
    start.server.server_hostname = "db-1".into();
    let resize = shared_events::Resize { size: "60:20".into(), ..Default::default() };
    let hostile = "cat page\r\n</script><script>ran=1</script><img src=x onerror=ran=1>\r\n\
        \u{1b}]8;;javascript:ran=1\u{7}link\u{1b}]8;;\u{7} \u{1b}P$qm\u{1b}\\\u{1b}[31mred\u{1b}[0m 漢字 e\u{301} 👍🏽\r\n";
    [
        start.into(),
        print(0, "$ "),
        print(1500, "\u{1b}]0;owned\u{7}\u{1b}]52;c;b3duZWQ=\u{7}"),
        resize.into(),
        print(61_250, hostile),
        OutputGap { offset: 3, bytes: 7 }.to_event(),
        print(62_000, "\u{1b}[?1049h\u{1b}[2J\u{1b}[Hfull screen\u{1b}[2;1Hprogram"),
        print(63_000, "\u{1b}[?1049l$ exit\r\n"),
        SessionEnd::default().into(),
    ]
    .map(Ok)
    .into()
}
