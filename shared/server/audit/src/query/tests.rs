use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

use super::*;

/// A worker that is a shell script: what matters here is the process, not the SQL.
fn worker(script: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("teleport-query");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (dir, path)
}

fn question() -> QueryRequest {
    QueryRequest { sql: "select 1".into(), days: Some(7) }
}

async fn run(script: &str, limits: QueryLimits) -> Result<QueryReply, QueryError> {
    let (_dir, path) = worker(script);
    QueryEngine::with_limits(path, "/var/log/x", limits).run(question()).await
}

#[tokio::test]
async fn the_worker_gets_the_question_and_nothing_else() {
    let (dir, path) = worker(
        r#"q=$(/bin/cat); /usr/bin/env > "${0%/*}/env"; printf '%s' "$q" > "${0%/*}/question"
           printf '{"columns":[{"name":"a","type":"bigint"}],"rows":[["1"],[null]],"scanned_bytes":5}'"#,
    );
    let reply = QueryEngine::new(&path, "/var/log/x").run(question()).await.unwrap();
    assert_eq!(reply.rows, [vec![Some("1".to_owned())], vec![None]]);
    assert_eq!((reply.columns[0].sql_type.as_str(), reply.scanned_bytes), ("bigint", 5));
    let question: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("question")).unwrap()).unwrap();
    assert_eq!(
        (&question["sql"], &question["days"], &question["log_dir"]),
        (&"select 1".into(), &7.into(), &"/var/log/x".into())
    );
    let env = fs::read_to_string(dir.path().join("env")).unwrap();
    assert!(!env.contains("HOME=") && !env.contains("PATH=/root"), "{env}");
}

#[tokio::test]
async fn a_missing_program_is_named_with_its_remedy() {
    let error =
        QueryEngine::new("/nowhere/teleport-query", "/x").run(question()).await.unwrap_err();
    assert_eq!(error.kind, QueryErrorKind::NotInstalled);
    assert_eq!(error.to_string(), "no query engine is installed");
    assert_eq!(
        error.hint.as_deref(),
        Some("install teleport-query on the auth host as /nowhere/teleport-query")
    );
}

#[tokio::test]
async fn an_error_has_its_place() {
    let script = r#"/bin/cat >/dev/null; printf '{"error":{"message":"no such column","line":2,"column":8,"hint":"h"}}'; exit 1"#;
    let error = run(script, QueryLimits::default()).await.unwrap_err();
    assert_eq!(
        (error.kind, error.to_string().as_str()),
        (QueryErrorKind::Statement, "line 2:8: no such column")
    );
}

#[tokio::test]
async fn a_slow_worker_is_killed() {
    let (dir, path) = worker(r#"echo $$ > "${0%/*}/pid"; exec /bin/sleep 600"#);
    let limits = QueryLimits { wall: Duration::from_millis(300), ..QueryLimits::default() };
    let begun = Instant::now();
    let error = QueryEngine::with_limits(path, "/x", limits).run(question()).await.unwrap_err();
    assert!(
        error.kind == QueryErrorKind::Limit && begun.elapsed() < Duration::from_secs(60),
        "{error}"
    );
    gone(dir.path()).await;
}

#[tokio::test]
async fn a_worker_nobody_waits_for_is_killed() {
    let (dir, path) = worker(r#"echo $$ > "${0%/*}/pid"; exec /bin/sleep 600"#);
    let engine = QueryEngine::new(path, "/x");
    let task = tokio::spawn(async move { engine.run(question()).await });
    while !fs::read_to_string(dir.path().join("pid")).is_ok_and(|pid| pid.ends_with('\n')) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task.abort();
    gone(dir.path()).await;
}

/// Waits until the process of the pid file is no longer running.
async fn gone(dir: &Path) {
    let pid = fs::read_to_string(dir.join("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let dead = async {
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), dead).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_dies_or_floods_is_an_error() {
    for script in [
        "kill -9 $$",
        "/bin/cat >/dev/null; echo half a {",
        "exec /usr/bin/head -c 80000000 /dev/zero",
    ] {
        let error = run(script, QueryLimits { max_bytes: 1 << 20, ..QueryLimits::default() })
            .await
            .unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::Limit, "{script}: {error}");
    }
}
