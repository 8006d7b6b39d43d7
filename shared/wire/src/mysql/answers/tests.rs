use super::*;
use crate::mysql::{MAX_PAYLOAD, Requests, packet};

const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
const EOF_MORE: &[u8] = &[0xfe, 0, 0, 8, 0];
const EOF_CURSOR: &[u8] = &[0xfe, 0, 0, 0x40, 0];
const OK_END: &[u8] = &[0xfe, 0, 0, 2, 0, 0, 0];
const OK_3: &[u8] = &[0, 3, 0, 2, 0, 0, 0];
const OK_MORE: &[u8] = &[0, 1, 0, 8, 0, 0, 0];
const DEF: &[u8] = b"\x03def and more of a column";
const ERR: &[u8] = b"\xff\x28\x04#42000no";

fn ask(requests: &mut Requests, commands: &[&[u8]]) {
    for payload in commands {
        let bytes = packet(0, payload);
        let mut at = 0;
        while requests.next(&bytes, &mut at).unwrap().is_some() {}
    }
}

fn answer(payloads: &[&[u8]]) -> Vec<u8> {
    payloads.iter().zip(1..).flat_map(|(payload, sequence)| packet(sequence, payload)).collect()
}

fn lines(outcomes: &[Outcome]) -> Vec<String> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Done(rows) => rows.to_string(),
            Outcome::Failed(failure) => failure.to_string(),
        })
        .collect()
}

/// What is told of these answers to these commands, the same in any cut; and nothing is left to be answered.
fn told(capabilities: u64, commands: &[&[u8]], payloads: &[&[u8]]) -> Vec<String> {
    let bytes = answer(payloads);
    let mut all = Vec::new();
    for step in [1, 2, 3, 7, usize::MAX] {
        let (mut requests, mut answers) = crate::mysql::Conversation::start(capabilities, 1000);
        ask(&mut requests, commands);
        let mut outcomes = Vec::new();
        for chunk in bytes.chunks(step) {
            answers.see(chunk, &mut outcomes).unwrap();
        }
        assert!(answers.is_settled());
        assert_eq!(answers.phase, Phase::Start);
        assert_eq!(answers.conversation.state().expected(), None);
        all.push(lines(&outcomes));
    }
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
    all.remove(0)
}

#[test]
fn results_of_every_shape() {
    let query: &[&[u8]] = &[b"\x03select"];
    assert_eq!(told(0, query, &[OK_3]), ["3"]);
    assert_eq!(told(0, query, &[ERR]), ["1064 (42000): no"]);
    assert_eq!(told(0, query, &[&[2], DEF, DEF, EOF, b"\x01a\x01b", b"\xfb\xfb", EOF]), ["2"]);
    assert_eq!(told(DEPRECATE_EOF, query, &[&[1], DEF, b"\x01a", b"\xfb", OK_END]), ["2"]);
    assert_eq!(told(0, query, &[&[1], DEF, EOF, b"\x01a", ERR]), ["1064 (42000): no"]);
    assert_eq!(told(0, query, &[OK_MORE, &[1], DEF, EOF, EOF_MORE, OK_3]), ["4"]);
    assert_eq!(told(0, &[b"\x17\0\0\0\0\x01\x01\0\0\0"], &[&[1], DEF, EOF_CURSOR]), ["0"]);
    // A procedure's own cursor.
    assert_eq!(told(0, query, &[&[1], DEF, EOF_CURSOR, b"\x01a", EOF]), ["1"]);
    assert_eq!(told(0, &[b"\x1c\0\0\0\0\x09\0\0\0"], &[&[0, 0, 1], &[0, 0, 2], EOF]), ["2"]);
}

#[test]
fn prepared_statements_with_and_without_ends() {
    let prepare: &[&[u8]] = &[b"\x16select ?, ?", b"\x0e"];
    let ok = |columns, parameters| [0, 7, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0];
    let pong = OK_3;
    assert_eq!(told(0, prepare, &[&ok(1, 2), DEF, DEF, EOF, DEF, EOF, pong]), ["0"]);
    assert_eq!(told(0, prepare, &[&ok(1, 0), DEF, EOF, pong]), ["0"]);
    assert_eq!(told(0, prepare, &[&ok(0, 0), pong]), ["0"]);
    assert_eq!(told(DEPRECATE_EOF, prepare, &[&ok(1, 2), DEF, DEF, DEF, pong]), ["0"]);
    assert_eq!(told(0, prepare, &[ERR, pong]), ["1064 (42000): no"]);
}

#[test]
fn commands_without_rows() {
    let commands: &[&[u8]] =
        &[b"\x0e", b"\x02shop", b"\x1b\0\0", b"\x09", b"\x1f", b"\x04t\0", b"\x0a", b"\x03select"];
    let payloads: &[&[u8]] =
        &[OK_3, ERR, EOF, b"Uptime: 3", OK_3, DEF, DEF, EOF, &[1], DEF, EOF, b"\x01x", EOF, OK_3];
    assert_eq!(told(0, commands, payloads), ["1064 (42000): no", "3"]);
}

#[test]
fn a_long_row_is_no_end() {
    let (mut requests, mut answers) = crate::mysql::Conversation::start(DEPRECATE_EOF, 1000);
    ask(&mut requests, &[b"\x03select"]);
    let mut row = vec![b'x'; MAX_PAYLOAD + 20];
    row[0] = 0xfe;
    let bytes = [answer(&[&[1], DEF]), packet(3, &row), packet(5, OK_END)].concat();
    let mut outcomes = Vec::new();
    for chunk in bytes.chunks(64 * 1024) {
        answers.see(chunk, &mut outcomes).unwrap();
    }
    assert_eq!(outcomes, [Outcome::Done(1)]);
}

#[test]
fn a_server_out_of_order_is_refused() {
    type Case = (&'static [&'static [u8]], Vec<u8>, &'static str);
    let cases: [Case; 7] = [
        (&[], packet(1, OK_3), "answer to nothing"),
        (&[b"\x03x"], packet(1, &[0]), "OK packet"),
        (&[b"\x03x"], packet(1, &[]), "answer without a byte"),
        (&[b"\x03x"], packet(1, &[1, 1]), "number of columns"),
        (&[b"\x03x"], answer(&[&[1], DEF, OK_3]), "end of rows or columns"),
        (&[b"\x16x"], packet(1, &[0, 1]), "prepared statement"),
        (&[b"\x0e"], packet(1, &[1]), "answer to a command"),
    ];
    for (commands, bytes, want) in cases {
        let (mut requests, mut answers) = crate::mysql::Conversation::start(0, 1000);
        ask(&mut requests, commands);
        let refused = answers.see(&bytes, &mut Vec::new()).unwrap_err();
        assert_eq!(refused.to_string(), want);
    }
}

#[test]
fn a_packet_of_ours_follows_the_servers() {
    let (mut requests, mut answers) = crate::mysql::Conversation::start(0, 1000);
    assert_eq!(answers.next(), 1);
    ask(&mut requests, &[b"\x03x"]);
    let bytes = answer(&[&[1], DEF, EOF, b"\x01x"]);
    answers.see(&bytes[..bytes.len() - 1], &mut Vec::new()).unwrap();
    assert!(!answers.is_settled());
    answers.see(&bytes[bytes.len() - 1..], &mut Vec::new()).unwrap();
    assert!(answers.is_settled());
    assert_eq!(answers.next(), 5);
    answers.see(&packet(5, EOF), &mut Vec::new()).unwrap();
    assert_eq!(answers.next(), 1);
}
