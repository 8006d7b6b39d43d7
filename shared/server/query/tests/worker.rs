//! The real worker process, asked the way the auth service asks it.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use server_audit::{
    AuditLog, QueryEngine, QueryError, QueryErrorKind, QueryLimits, QueryReply, QueryRequest,
};
use shared_events::{AuditEvent, CertificateCreate, Exec, Identity, UserLogin};

const WORKER: &str = env!("CARGO_BIN_EXE_teleport-query");

async fn ask(engine: &QueryEngine, sql: &str) -> Result<QueryReply, QueryError> {
    engine.run(QueryRequest { sql: sql.into(), days: Some(7) }).await
}

fn login(user: &str) -> AuditEvent {
    let mut event = UserLogin::default();
    event.user.user = user.into();
    event.status.success = true;
    event.into()
}

fn number(reply: &QueryReply) -> usize {
    reply.rows[0][0].as_deref().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_acknowledged_event_is_in_the_next_answer() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path().join("log/host"), "one").await.unwrap();
    let engine = QueryEngine::new(WORKER, log.dir());
    for n in 1..=5 {
        log.append(vec![login(&format!("user{n}"))]).await.unwrap();
        let reply = ask(&engine, "SELECT count(*) FROM user_login WHERE event_time <= now()")
            .await
            .unwrap();
        assert_eq!(number(&reply), n);
    }
    let roles = vec!["access".into(), "dev".into()];
    let identity = Identity { user: "alice".into(), roles, ..Identity::default() };
    let event = CertificateCreate { identity, ..CertificateCreate::default() };
    log.append(vec![event.into()]).await.unwrap();
    let reply = ask(&engine, "select event_time,identity_user,identity_roles from cert_create order by event_date limit 1;").await.unwrap();
    let names: Vec<_> = reply.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["event_time", "identity_user", "identity_roles"]);
    let row: Vec<_> = reply.rows[0].iter().flatten().map(String::as_str).collect();
    assert!(
        row[0].len() == "2024-03-20 12:12:03.374".len() && row[1..] == ["alice", "[access, dev]"],
        "{row:?}"
    );
}

#[tokio::test]
async fn hostile_texts_are_data() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), "one").await.unwrap();
    let hostile = "';DROP TABLE x--\u{1b}]0;t\u{7}\n$(id)\u{202e}%\0\"";
    let mut event = Exec::default();
    event.command.command = hostile.into();
    log.append(vec![event.into()]).await.unwrap();
    let reply =
        ask(&QueryEngine::new(WORKER, dir.path()), "SELECT command FROM exec").await.unwrap();
    assert_eq!(reply.rows, [[Some(hostile.to_owned())]]);
}

#[tokio::test]
async fn a_mistake_comes_back_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let engine = QueryEngine::new(WORKER, dir.path());
    let error = ask(&engine, "SELECT user,\n nosuch FROM exec").await.unwrap_err();
    assert_eq!(
        (error.kind, error.to_string().as_str()),
        (QueryErrorKind::Statement, "line 2:2: Column 'nosuch' cannot be resolved")
    );
    let error = ask(&engine, "DELETE FROM exec").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1:1: only queries can be run: the audit log is read, never changed"
    );
}

#[tokio::test]
async fn a_query_that_takes_too_much_ends() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), "one").await.unwrap();
    log.append((0..500).map(|n| login(&format!("user{n}"))).collect()).await.unwrap();
    let many = "FROM user_login a, user_login b, user_login c, user_login d";
    let limited = |limits| QueryEngine::with_limits(WORKER, dir.path(), limits);
    let wall = limited(QueryLimits { wall: Duration::from_secs(2), ..QueryLimits::default() });
    let cpu = limited(QueryLimits { cpu_seconds: 1, ..QueryLimits::default() });
    let memory = limited(QueryLimits { memory_bytes: 96 << 20, ..QueryLimits::default() });
    let answer = limited(QueryLimits { max_bytes: 1 << 20, ..QueryLimits::default() });
    for (engine, sql) in [
        (&wall, format!("SELECT count(*) {many} WHERE a.uid || b.uid < c.uid || d.uid")),
        (&cpu, format!("SELECT count(*) {many} WHERE a.uid || b.uid < c.uid || d.uid")),
        (&memory, format!("SELECT array_agg(a.uid || b.uid || c.uid) {many}")),
        (&memory, "SELECT length(repeat(repeat('x', 1000), 1000000))".into()),
        (&answer, format!("SELECT a.uid {many}")),
    ] {
        let error = ask(engine, &sql).await.unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::Limit, "{sql}: {error}");
    }
    // And the next one is answered.
    assert_eq!(number(&ask(&answer, "SELECT count(*) FROM user_login").await.unwrap()), 500);
}

#[test]
fn a_question_by_hand_is_answered_and_a_bad_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |question: &str| {
        let mut worker = Command::new(WORKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        worker.stdin.take().unwrap().write_all(question.as_bytes()).unwrap();
        let output = worker.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let question =
        |dir: &Path, sql: &str| serde_json::json!({ "sql": sql, "log_dir": dir }).to_string();
    let (done, answer) = run(&question(dir.path(), "SELECT 1 AS one, NULL"));
    assert!(done && answer.contains(r#""rows":[["1",null]]"#), "{answer}");
    let (done, answer) = run(&question(&dir.path().join("nowhere"), "SELECT 1"));
    assert!(!done && answer.contains("the audit log cannot be read"), "{answer}");
    assert_eq!(run("not json"), (false, String::new()));
    assert_eq!(run(""), (false, String::new()));
}
