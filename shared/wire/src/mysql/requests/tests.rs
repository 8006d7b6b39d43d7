use super::*;
use crate::mysql::capability::{DEPRECATE_EOF, LOCAL_FILES};
use crate::mysql::{Answers, packet};

fn start() -> (Requests, Answers) {
    Conversation::start(LOCAL_FILES, 16 * 1024)
}

fn command(opcode: u8, body: &[u8]) -> Vec<u8> {
    packet(0, &[&[opcode], body].concat())
}

/// What a client asks for, as one line each; the bytes come in chunks of `step`.
fn asked(requests: &mut Requests, bytes: &[u8], step: usize) -> Result<Vec<String>, Malformed> {
    let mut lines = Vec::new();
    for chunk in bytes.chunks(step) {
        let mut at = 0;
        while let Some(seen) = requests.next(chunk, &mut at)? {
            lines.push(match seen.request {
                Request::Query(text) => format!("query {}", text.to_text()),
                Request::Prepare(text) => format!("prepare {}", text.to_text()),
                Request::InitDb(text) => format!("use {}", text.to_text()),
                other => format!("{other:?}"),
            });
        }
    }
    Ok(lines)
}

#[test]
fn commands_in_any_cut() {
    let bytes = [
        command(0x03, b"select 1; select 2"),
        command(0x16, b"insert into t values (?)"),
        command(0x17, &[0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 0, 1, 0xfd, 0, 2, b'h', b'i']),
        command(0x18, &[1, 0, 0, 0, 2, 0, b'a', b'b', b'c']),
        command(0x19, &[1, 0, 0, 0]),
        command(0x1a, &[2, 0, 0, 0]),
        command(0x1c, &[3, 0, 0, 0, 9, 0, 0, 0]),
        command(0x02, b"shop"),
        command(0x0c, &[4, 0, 0, 0]),
        command(0x0e, &[]),
        command(0x01, &[]),
    ]
    .concat();
    let want = [
        "query select 1; select 2",
        "prepare insert into t values (?)",
        r#"Execute { statement: 4294967295, text: Some("insert into t values (?)"), parameters: ["hi"] }"#,
        "LongData { statement: 1, parameter: 2, size: 3 }",
        "Close(1)",
        "Reset(2)",
        "Fetch { statement: 3, rows: 9 }",
        "use shop",
        "Kill(4)",
        "Quiet",
        "Quit",
    ];
    for step in [1, 2, 3, 5, 7, 64, usize::MAX] {
        assert_eq!(asked(&mut start().0, &bytes, step).unwrap(), want, "in chunks of {step}");
    }
}

#[test]
fn where_a_command_begins_is_told() {
    let bytes = [command(0x0e, &[]), command(0x11, b"bob\0")].concat();
    let (mut requests, _answers) = start();
    let mut at = 0;
    assert_eq!(requests.next(&bytes, &mut at).unwrap().unwrap().from, 0);
    let refused = requests.next(&bytes, &mut at).unwrap().unwrap();
    assert_eq!(refused, Seen { from: 5, request: Request::NotPassed("COM_CHANGE_USER") });
    let (mut requests, _answers) = start();
    let mut at = 0;
    while requests.next(&bytes[..8], &mut at).unwrap().is_some() {}
    let mut at = 0;
    assert_eq!(requests.next(&bytes[8..], &mut at).unwrap().unwrap().from, 0);
}

#[test]
fn a_query_of_several_packets_is_one() {
    let sql = vec![b'x'; MAX_PAYLOAD_TWICE];
    let bytes = command(0x03, &sql);
    let (mut requests, _answers) = start();
    let mut found = Vec::new();
    for chunk in bytes.chunks(64 * 1024) {
        let mut at = 0;
        while let Some(seen) = requests.next(chunk, &mut at).unwrap() {
            let Request::Query(text) = seen.request else { panic!("{seen:?}") };
            found.push((text.bytes.len(), text.size, text.cut.is_some()));
        }
    }
    assert_eq!(found, [(KEEP, sql.len() as u64, true)]);
}

const MAX_PAYLOAD_TWICE: usize = 2 * crate::mysql::MAX_PAYLOAD + 10;

#[test]
fn what_is_not_the_protocol_is_refused() {
    let cases: [(Vec<u8>, &str); 5] = [
        (packet(0, &[]), "command without a byte"),
        (packet(1, &[3]), "packet 1 is out of order: 0 is expected"),
        (command(0x99, &[]), "command 0x99 is not known"),
        (command(0x17, &[1, 0]), "command 0x17 is too short"),
        (command(0x0c, &[1]), "command 0x0c is too short"),
    ];
    for (bytes, want) in cases {
        let refused = asked(&mut start().0, &bytes, usize::MAX).unwrap_err();
        assert_eq!(refused.to_string(), want);
    }
}

#[test]
fn commands_ahead_have_a_limit() {
    let bytes = command(0x0e, &[]).repeat((1 << 17) + 1);
    let refused = asked(&mut start().0, &bytes, 64 * 1024).unwrap_err();
    assert_eq!(refused.to_string(), "too many commands before the answer to the first");
}

#[test]
fn a_file_is_not_taken_for_commands() {
    let (mut requests, mut answers) = start();
    asked(&mut requests, &command(0x03, b"load data local infile 'f' into table t"), 9).unwrap();
    let mut outcomes = Vec::new();
    answers.see(&packet(1, b"\xfbf"), &mut outcomes).unwrap();
    let early = answers.see(&packet(4, &[0, 1, 0, 2, 0, 0, 0]), &mut outcomes).unwrap_err();
    assert_eq!(early.to_string(), "answer before the file that the database asked for");
    let file = [packet(2, b"\x03drop table t"), packet(3, b""), command(0x0e, &[])].concat();
    assert_eq!(asked(&mut requests, &file, 5).unwrap(), ["Quiet", "Quiet", "Quiet"]);

    let (mut requests, mut answers) = start();
    asked(&mut requests, &command(0x03, b"load"), 9).unwrap();
    answers.see(&packet(1, b"\xfbf"), &mut outcomes).unwrap();
    let refused = asked(&mut requests, &command(0x03, b"drop table t"), 50).unwrap_err();
    assert_eq!(refused.to_string(), "packet 0 is out of order: 2 is expected");

    let (mut requests, mut answers) = Conversation::start(DEPRECATE_EOF, 100);
    asked(&mut requests, &command(0x03, b"select 1"), 9).unwrap();
    let refused = answers.see(&packet(1, b"\xfb/etc/passwd"), &mut outcomes).unwrap_err();
    assert_eq!(refused.to_string(), "request for a file, which the client has not allowed");
}
