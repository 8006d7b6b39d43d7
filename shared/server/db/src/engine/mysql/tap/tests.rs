use shared_wire::mysql::{Conversation, packet};

use super::*;

fn taps() -> (Up, Down) {
    let (requests, answers) = Conversation::start(0, 16 * 1024);
    (Up::new(requests), Down::new(answers))
}

fn command(opcode: u8, body: &[u8]) -> Vec<u8> {
    packet(0, &[&[opcode], body].concat())
}

#[test]
fn commands_become_events_and_answers_results() {
    let (mut up, mut down) = taps();
    let mut events = Vec::new();
    let sent =
        [command(3, b"select 1"), command(0x0e, b""), command(2, b"shop"), command(0x16, b"do ?")]
            .concat();
    assert_eq!(up.see(&sent, &mut events), Ok(Step::Pass));
    let [
        AuditEvent::DatabaseSessionQuery(query),
        AuditEvent::MySqlInitDb(init),
        AuditEvent::MySqlStatementPrepare(_),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(query.query == "select 1" && query.status.success && init.schema_name == "shop");
    let ok = [0, 4, 0, 2, 0, 0, 0];
    let answers = [
        packet(1, &ok),
        packet(1, &ok),
        packet(1, b"\xff\x19\x04#42000Unknown database 'shop'"),
        packet(1, &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let mut results = Vec::new();
    for chunk in answers.concat().chunks(5) {
        assert_eq!(down.see(chunk, &mut results), Ok(Step::Pass));
    }
    let results: Vec<_> = results
        .iter()
        .map(|event| match event {
            AuditEvent::DatabaseSessionCommandResult(it) => {
                (it.status.success, it.affected_records, it.status.error.as_str())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let error = "ERROR 1049 (42000): Unknown database 'shop'";
    assert_eq!(results, [(true, 4, ""), (false, 0, error), (true, 0, "")]);
    assert_eq!(down.next(), 1);
}

#[test]
fn what_is_not_passed_on_ends_the_session_behind_what_is() {
    let (mut up, _down) = taps();
    let ping = command(0x0e, b"");
    let sent = [ping.clone(), command(0x11, b"root\0")].concat();
    let step = up.see(&sent, &mut Vec::new()).unwrap();
    assert_eq!(
        step,
        Step::End { pass: ping.len(), why: "COM_CHANGE_USER is not supported".to_owned() }
    );
}

#[test]
fn a_broken_packet_is_told_when_those_before_it_have_passed() {
    let (mut up, _down) = taps();
    let query = command(3, b"select 1");
    let broken = command(0x17, &[1, 2, 3]);
    let sent = [query.clone(), broken.clone()].concat();
    let mut events = Vec::new();
    let step = up.see(&sent, &mut events).unwrap();
    assert_eq!(step, Step::Instead { pass: query.len(), skip: 0, reply: Vec::new() });
    assert_eq!(events.len(), 1);
    let told = up.see(&broken, &mut events).unwrap_err();
    assert_eq!((told.what.as_str(), told.payload), ("command 0x17 is too short", broken));
    let (_up, mut down) = taps();
    let told = down.see(&packet(1, &[0; 7]), &mut events).unwrap_err();
    assert_eq!(told.what, "from the database: answer to nothing");
}

#[test]
fn a_long_statement_is_cut_and_says_so() {
    let (mut up, _down) = taps();
    let sql = vec![b'x'; 200_000];
    let mut events = Vec::new();
    for chunk in command(3, &sql).chunks(64 * 1024) {
        up.see(chunk, &mut events).unwrap();
    }
    let [AuditEvent::DatabaseSessionQuery(query)] = &events[..] else { panic!("{events:?}") };
    assert!(
        query.query.len() <= MAX_STATEMENT && query.query.contains("[cut: 200000 bytes, sha256 ")
    );
}
