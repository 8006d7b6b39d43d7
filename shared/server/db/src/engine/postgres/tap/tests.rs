use shared_events::MAX_RECORD;

use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn bind(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = b"p\0s\0".to_vec();
    body.extend(u16::try_from(formats.len()).unwrap().to_be_bytes());
    body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        body.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

/// What is told of a stream that comes in pieces of `step` bytes.
fn seen(tap: &mut dyn Tap, stream: &[u8], step: usize) -> Vec<AuditEvent> {
    let (mut all, mut events) = (Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        assert_eq!(tap.see(piece, &mut events), Ok(Step::Pass));
        all.append(&mut events);
    }
    assert!(tap.is_settled());
    all
}

fn query(text: &str) -> AuditEvent {
    let status = Status { success: true, ..Status::default() };
    DatabaseSessionQuery { query: text.into(), status, ..Default::default() }.into()
}

#[test]
fn every_statement_is_told_of_in_order_at_every_cut() {
    let stream = [
        message(b'Q', "select 'é'\0".as_bytes()),
        message(b'P', b"s\0select $1, $2\0\0\0"),
        bind(&[0, 1], &[Some(b"42"), Some(b"\x01\x02")]),
        message(b'D', b"Pp\0"),
        message(b'E', b"p\0\0\0\0\0"),
        message(b'S', b""),
        message(b'd', &[9; 500]),
        message(b'F', b"\0\0\x04\xd2\0\0\0\x01\0\0\0\x01a\0\0"),
        message(b'C', b"Ss\0"),
        message(b'C', b"Pp\0"),
        message(b'X', b""),
    ]
    .concat();
    let wanted: Vec<AuditEvent> = vec![
        query("select 'é'"),
        PostgresParse {
            statement_name: "s".into(),
            query: "select $1, $2".into(),
            ..Default::default()
        }
        .into(),
        PostgresBind {
            statement_name: "s".into(),
            portal_name: "p".into(),
            parameters: vec!["42".into(), "AQI=".into()],
            ..Default::default()
        }
        .into(),
        PostgresExecute { portal_name: "p".into(), ..Default::default() }.into(),
        PostgresFunctionCall {
            function_oid: 1234,
            function_args: vec!["a".into()],
            ..Default::default()
        }
        .into(),
        PostgresClose { statement_name: "s".into(), ..Default::default() }.into(),
        PostgresClose { portal_name: "p".into(), ..Default::default() }.into(),
    ];
    for step in 1..stream.len() {
        assert_eq!(seen(&mut Up::new(), &stream, step), wanted, "{step}");
    }
}

#[test]
fn values_without_text_are_named() {
    let stream = bind(&[7, 0, 0], &[Some(b"x"), None, Some(b"")]);
    let [AuditEvent::PostgresBind(event)] = &seen(&mut Up::new(), &stream, 1000)[..] else {
        panic!()
    };
    assert_eq!(event.parameters, ["<unknown>", "<null>", ""]);
}

#[test]
fn whatever_the_size_an_event_fits_a_record_and_says_what_is_missing() {
    let long = "ü".repeat(1 << 20);
    let many = vec![Some(&b"1234567890"[..]); 60_000];
    for step in [1000, 64 << 10, usize::MAX] {
        let one = |stream: &[u8]| {
            let mut events = seen(&mut Up::new(), stream, step.min(stream.len()));
            assert_eq!(events.len(), 1);
            let event = events.remove(0);
            assert!(event.inner_len() < MAX_RECORD - 10_000, "{}", event.inner_len());
            event
        };
        let AuditEvent::DatabaseSessionQuery(event) =
            one(&message(b'Q', format!("{long}\0").as_bytes()))
        else {
            panic!()
        };
        assert!(
            event.query.contains("… [cut: 2097152 bytes, sha256 "),
            "{}",
            &event.query[event.query.len() - 120..]
        );
        let AuditEvent::PostgresParse(event) = one(&message(
            b'P',
            format!("{long}\0{long}\0\0\0").as_bytes()[2 * (1 << 20) - 8..].as_ref(),
        )) else {
            panic!()
        };
        assert!(event.query.contains("… [cut: 2097152 bytes"));
        let AuditEvent::PostgresBind(event) = one(&bind(&[], &many)) else { panic!() };
        assert!(event.parameters.last().unwrap().contains("more"), "{:?}", event.parameters.last());
        let AuditEvent::PostgresBind(event) =
            one(&bind(&[1], &[Some(b"a"), Some(long.as_bytes()), Some(b"b")]))
        else {
            panic!()
        };
        assert!(event.parameters[1].contains("[cut: "), "{:?}", event.parameters);
    }
}

#[test]
fn what_is_malformed_ends_it_behind_what_was_told_of() {
    let good = message(b'Q', b"select 1\0");
    for bad in [&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], b"Q\0\0\0\x02", b"z", &message(b'Q', b"no end")]
    {
        let stream = [&good[..], bad].concat();
        let (mut up, mut events) = (Up::new(), Vec::new());
        let step = up.see(&stream, &mut events);
        assert_eq!(step, Ok(Step::Instead { pass: good.len(), skip: 0, reply: Vec::new() }));
        assert_eq!(events, [query("select 1")]);
        events.clear();
        let malformed = up.see(&stream[good.len()..], &mut events).unwrap_err();
        assert!(!malformed.payload.is_empty() && events.is_empty());
        assert!(Up::new().see(bad, &mut events).is_err() && events.is_empty());
    }
}

#[test]
fn results_are_told_of_and_rows_are_not_looked_at() {
    let stream = [
        message(b'T', &[0; 40]),
        message(b'D', &[7; 10_000]),
        message(b'C', b"SELECT 3\0"),
        message(b'E', b"SERROR\0C42P01\0Mno such table\0\0"),
        message(b'Z', b"I"),
    ]
    .concat();
    let results = |events: Vec<AuditEvent>| -> Vec<(bool, String, u64)> {
        let of = |event| match event {
            AuditEvent::DatabaseSessionCommandResult(it) => {
                (it.status.success, it.status.error, it.affected_records)
            }
            other => panic!("{other:?}"),
        };
        events.into_iter().map(of).collect()
    };
    let wanted =
        [(true, String::new(), 3), (false, "ERROR: no such table (SQLSTATE 42P01)".to_owned(), 0)];
    for step in [1, 7, 4096, stream.len()] {
        assert_eq!(results(seen(&mut Down::new(), &stream, step)), wanted);
    }
    for bad in [
        message(b'R', b"\0\0\0\0"),
        b"D\xff\xff\xff\xff".to_vec(),
        message(b'C', b"no end"),
        b"Q".to_vec(),
    ] {
        let malformed = Down::new().see(&bad, &mut Vec::new()).unwrap_err();
        assert!(malformed.what.starts_with("from the database: "), "{}", malformed.what);
    }
}
