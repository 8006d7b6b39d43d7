use chrono::TimeDelta;
use shared_events::*;

use super::*;
use crate::export;

/// The session's own time, in milliseconds since its start.
fn at(event: impl Into<AuditEvent>, ms: i64) -> AuditEvent {
    let start: DateTime<Utc> = "2026-01-01T12:30:00Z".parse().unwrap();
    let mut event = event.into();
    event.metadata_mut().time = (start + TimeDelta::milliseconds(ms)).into();
    event.metadata_mut().index = ms;
    event
}

fn start(protocol: &str, name: &str) -> AuditEvent {
    let database = DatabaseMetadata {
        db_service: "orders".into(),
        db_protocol: protocol.into(),
        db_name: name.into(),
        db_user: "alice".into(),
        ..DatabaseMetadata::default()
    };
    let status = Status { success: true, ..Status::default() };
    at(DatabaseSessionStart { database, status, ..Default::default() }, 0)
}

fn query(text: &str) -> DatabaseSessionQuery {
    let status = Status { success: true, ..Status::default() };
    DatabaseSessionQuery { query: text.into(), status, ..Default::default() }
}

fn result(rows: u64) -> DatabaseSessionCommandResult {
    let status = Status { success: true, ..Status::default() };
    DatabaseSessionCommandResult { affected_records: rows, status, ..Default::default() }
}

fn failure(error: &str) -> DatabaseSessionCommandResult {
    let status = Status { error: error.into(), ..Status::default() };
    DatabaseSessionCommandResult { status, ..Default::default() }
}

fn parse(name: &str, query: &str) -> PostgresParse {
    PostgresParse { statement_name: name.into(), query: query.into(), ..Default::default() }
}

fn bind(portal: &str, statement: &str, parameters: &[&str]) -> PostgresBind {
    PostgresBind {
        portal_name: portal.into(),
        statement_name: statement.into(),
        parameters: parameters.iter().map(|text| (*text).to_owned()).collect(),
        ..Default::default()
    }
}

fn execute(portal: &str) -> PostgresExecute {
    PostgresExecute { portal_name: portal.into(), ..Default::default() }
}

fn text(events: &[AuditEvent]) -> String {
    let mut out = Vec::new();
    export::text(events.iter().cloned().map(Ok), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_postgres_session_reads_as_documented() {
    let shown = text(&[
        start("postgres", "app"),
        at(query("select *\n   from cards\n where id = 1;"), 1_500),
        at(result(1), 1_600),
        at(query("update cards set x = 2"), 61_250),
        at(result(3), 61_300),
        at(query("selekt"), 62_000),
        at(failure("ERROR: syntax error at or near \"selekt\" (SQLSTATE 42601)"), 62_010),
        at(result(9), 62_020),
        at(DatabaseSessionEnd::default(), 125_000),
    ]);
    let expected = "Session started to database \"orders\" at Thu Jan  1 12:30 UTC\r\n\
        \r\n-- 2026-01-01 12:30:01.500 UTC\r\n\
        app=> select *\r\n      from cards\r\n      where id = 1;\r\n\
        SUCCESS\r\n(1 row affected)\r\n\
        \r\n-- 2026-01-01 12:31:01.250 UTC\r\n\
        app=> update cards set x = 2\r\n\
        SUCCESS\r\n(3 rows affected)\r\n\
        \r\n-- 2026-01-01 12:31:02.000 UTC\r\n\
        app=> selekt\r\n\
        ERROR: syntax error at or near \"selekt\" (SQLSTATE 42601)\r\n\
        \r\nSession ended at Thu Jan  1 12:32 UTC\r\n";
    assert_eq!(shown, expected);
}

#[test]
fn prepared_statements_show_when_they_run() {
    let close = PostgresClose { statement_name: "s1".into(), ..Default::default() };
    let shown = text(&[
        start("postgres", "app"),
        at(parse("", "select $1::int"), 10),
        at(bind("", "", &["7"]), 11),
        at(execute(""), 12),
        at(result(1), 13),
        at(parse("s1", "insert into t\n values ($1, $2)"), 20),
        at(bind("p", "s1", &["a", "b"]), 21),
        at(execute("p"), 22),
        at(execute("unknown"), 23),
        at(close, 24),
        at(bind("", "s1", &[]), 25),
        at(execute(""), 26),
        at(PostgresFunctionCall { function_oid: 1, ..Default::default() }, 27),
    ]);
    let lines: Vec<&str> =
        shown.lines().filter(|line| !line.starts_with("-- ") && !line.is_empty()).collect();
    assert_eq!(
        lines[1..],
        [
            "app=> select $1::int ($1 = \"7\")",
            "SUCCESS",
            "(1 row affected)",
            "app=> EXECUTE s1 ($1 = \"a\", $2 = \"b\")",
            "      -- insert into t",
            "      -- values ($1, $2)",
            "app=> EXECUTE s1",
        ]
    );
}

#[test]
fn a_mysql_session_shows_what_was_sent_and_what_came_of_it() {
    let prepare = MySqlStatementPrepare { query: "select ?".into(), ..Default::default() };
    let run = |query: &str| MySqlStatementExecute {
        statement_id: 4,
        parameters: vec!["42".into()],
        query: query.into(),
        ..Default::default()
    };
    let shown = text(&[
        start("mysql", ""),
        at(MySqlInitDb { schema_name: "shop".into(), ..Default::default() }, 1),
        at(result(0), 2),
        at(query("delete from t"), 3),
        at(failure("Table 't' doesn't exist (1146, 42S02)"), 4),
        at(prepare, 5),
        at(result(0), 6),
        at(run("select ?"), 7),
        at(run(""), 8),
        at(MySqlProcessKill { process_id: 12, ..Default::default() }, 9),
        at(MySqlStatementClose::default(), 10),
    ]);
    let lines: Vec<&str> =
        shown.lines().filter(|line| !line.starts_with("-- ") && !line.is_empty()).collect();
    assert_eq!(
        lines[1..],
        [
            "orders> USE shop",
            "SUCCESS",
            "(0 rows affected)",
            "orders> delete from t",
            "Table 't' doesn't exist (1146, 42S02)",
            "orders> PREPARE select ?",
            "SUCCESS",
            "(0 rows affected)",
            "orders> select ? ($1 = \"42\")",
            "orders> EXECUTE 4 ($1 = \"42\")",
            "orders> KILL 12",
        ]
    );
}

#[test]
fn redis_dynamodb_and_refused_statements_show() {
    let refused = DatabaseSessionQuery {
        query: "FLUSHALL".into(),
        status: Status { error: "not allowed".into(), ..Status::default() },
        ..Default::default()
    };
    let shown = text(&[start("redis", "0"), at(refused, 1), at(result(5), 2)]);
    assert!(shown.ends_with("0> FLUSHALL\r\nnot allowed\r\n"), "{shown}");
    let body: Struct = serde_json::from_str(r#"{"TableName":"t"}"#).unwrap();
    let request = DynamoDbRequest {
        status_code: 400,
        target: "DynamoDB_20120810.Scan".into(),
        body: Some(body),
        ..Default::default()
    };
    let shown = text(&[start("dynamodb", ""), at(request, 1)]);
    assert!(
        shown.ends_with("orders> DynamoDB_20120810.Scan {\"TableName\":\"t\"}\r\nHTTP 400\r\n"),
        "{shown}"
    );
}

#[test]
fn other_sessions_and_protocols_show_nothing() {
    assert_eq!(text(&[start("mongodb", "app"), at(query("find"), 1)]), "");
    assert_eq!(text(&[at(SessionStart::default(), 0), at(query("select"), 1)]), "");
}

#[test]
fn no_statement_drives_a_terminal() {
    let shown = text(&[
        start("postgres", "a\x1b[2Jpp"),
        at(query("select '\x1b]0;owned\x07\u{9b}31m'"), 1),
    ]);
    assert!(!shown.chars().any(|c| c.is_control() && c != '\r' && c != '\n'), "{shown:?}");
    assert!(shown.contains(r"\u{1b}]0;owned\u{7}\u{9b}31m"), "{shown}");
}

#[test]
fn what_a_client_prepares_without_end_is_forgotten() {
    let mut translator = Translator::default();
    translator.print(&start("postgres", "app"));
    for name in 0..5_000 {
        translator.print(&at(parse(&name.to_string(), "select 1"), 1));
    }
    for name in 0..100 {
        translator.print(&at(bind(&format!("p{name}"), "0", &[&"x".repeat(1 << 20)]), 1));
    }
    let (count, bytes) = translator.session.unwrap().statements.size();
    assert!(count <= 1_000 && bytes <= 8 * 1024 * 1024, "{count} {bytes}");
}

#[test]
fn output_has_the_time_of_its_event_and_places_that_follow() {
    let events = [start("postgres", "app"), at(query("a"), 1_500), at(result(1), 1_600)];
    let prints: Vec<SessionPrint> = shown(events.into_iter().map(Ok))
        .filter_map(|event| match event.unwrap() {
            AuditEvent::SessionPrint(print) => Some(print),
            _ => None,
        })
        .collect();
    let times: Vec<i64> = prints.iter().map(|print| print.ms).collect();
    assert_eq!(times, [0, 1_500, 1_600]);
    assert_eq!(prints[2].offset, prints[0].bytes + prints[1].bytes);
    assert_eq!(prints[1].metadata.event, "print");
}

#[test]
fn exports_take_a_database_session_like_any_other() {
    let events = || {
        [start("postgres", "app"), at(query("select 'x<y'"), 1_500), at(result(2), 1_600)]
            .into_iter()
            .map(Ok)
    };
    let run = |export: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        export(&mut out);
        String::from_utf8(out).unwrap()
    };
    let transcript = run(&|out| export::transcript(events(), out).unwrap());
    assert!(
        transcript.contains("app=> select 'x<y'\nSUCCESS\n(2 rows affected)\n"),
        "{transcript}"
    );
    let page = run(&|out| export::html::html(events(), out).unwrap());
    assert!(
        page.contains("<title>alice@orders</title>") && page.contains("rows affected"),
        "{page}"
    );
    let cast = run(&|out| {
        export::asciicast::asciicast(events(), export::asciicast::Version::Two, out).unwrap();
    });
    assert!(cast.contains("alice@orders") && cast.contains("[1.500, \"o\", "), "{cast}");
    let json = run(&|out| export::json(events(), out).unwrap());
    assert!(json.contains("db.session.query") || json.contains("db_query"), "{json}");
    assert!(!json.contains("print") && !json.contains("SUCCESS"), "{json}");
}

#[test]
fn search_finds_statements_when_they_were_sent() {
    let events = [start("postgres", "app"), at(query("drop table cards"), 61_000)];
    let hits: Vec<_> =
        crate::grep::Hits::new(events.into_iter().map(Ok), "drop table".parse().unwrap())
            .map(|hit| hit.unwrap())
            .collect();
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].at_ms, 61_000);
}

#[test]
fn the_lines_of_a_statement_are_not_multiplied_by_a_long_name() {
    let shown =
        text(&[start("postgres", &"n".repeat(30_000)), at(query(&"a\n".repeat(10_000)), 1)]);
    assert!(shown.len() < 1_000_000, "{}", shown.len());
}

/// Any event of a session with these texts in it.
fn any(kind: u8, name: &str, text: &str) -> AuditEvent {
    let list = vec![text.to_owned(), name.to_owned()];
    match kind % 9 {
        0 => parse(name, text).into(),
        1 => bind(name, text, &[text, name]).into(),
        2 => execute(name).into(),
        3 => DatabaseSessionQuery { parameters: list, ..query(text) }.into(),
        4 => failure(text).into(),
        5 => result(u64::from(kind)).into(),
        6 => PostgresClose {
            statement_name: name.into(),
            portal_name: text.into(),
            ..Default::default()
        }
        .into(),
        7 => MySqlStatementExecute { query: text.into(), parameters: list, ..Default::default() }
            .into(),
        _ => DynamoDbRequest { target: text.into(), method: name.into(), ..Default::default() }
            .into(),
    }
}

proptest::proptest! {
    #[test]
    fn whatever_was_sent_shows_as_text(protocol in 0..6usize, events: Vec<(u8, String, String)>) {
        let protocol = SHOWN.get(protocol).copied().unwrap_or("other");
        let mut all = vec![start(protocol, "a\x1b]b")];
        all.extend(events.iter().map(|(kind, name, text)| at(any(*kind, name, text), 1)));
        let shown = text(&all);
        proptest::prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\r' && c != '\n'));
    }
}
