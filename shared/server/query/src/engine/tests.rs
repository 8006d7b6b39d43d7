use std::fs;

use super::*;

/// Made-up events of ten days in March 2024.
const FIXTURE: &str = include_str!("fixture.jsonl");
/// The statements that the guide shows.
const GUIDE: &str = include_str!("../../tests/guide-queries.sql");

fn guide(number: usize) -> String {
    let statements =
        GUIDE.split("\n-- ").skip(1).map(|text| text.split_once('\n').unwrap().1.trim().to_owned());
    statements.filter(|text| !text.is_empty()).nth(number - 1).unwrap()
}

fn log() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    // Written late: the file's day is not the events' day.
    let (first, second) = FIXTURE.split_at(FIXTURE.find("{\"event\":\"session.join\"").unwrap());
    fs::write(dir.path().join("2024-03-09.00:00:00.log"), first).unwrap();
    fs::write(dir.path().join("2024-03-10.00:00:00.log"), second).unwrap();
    dir
}

fn request(dir: &tempfile::TempDir, sql: &str) -> Request {
    let question = serde_json::json!({ "sql": sql, "log_dir": dir.path() });
    serde_json::from_value(question).unwrap()
}

async fn ask(sql: &str) -> Result<Reply, Failure> {
    let dir = log();
    answer(&request(&dir, sql)).await
}

/// The rows, one per line, cells by commas.
async fn rows(sql: &str) -> String {
    let reply = ask(sql).await.unwrap_or_else(|failure| panic!("{sql}\n{failure:?}"));
    let row = |row: &Vec<Option<String>>| {
        row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(",")
    };
    reply.rows.iter().map(row).collect::<Vec<_>>().join("\n")
}

async fn sorted(sql: &str) -> String {
    let rows = rows(sql).await;
    let mut lines: Vec<_> = rows.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

async fn names(sql: &str) -> String {
    ask(sql)
        .await
        .unwrap()
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect::<Vec<_>>()
        .join(",")
}

#[tokio::test]
async fn the_guides_statements_run_as_they_stand() {
    assert_eq!(rows(&guide(1)).await, "bob");
    let per_day = "2024-03-04,bob,2\n2024-03-05,alice,1\n2024-03-06,alice,1";
    assert_eq!(rows(&guide(2)).await, per_day);
    assert_eq!(names(&guide(2)).await, "event_date,user,unique_ip_count");
    assert_eq!(rows(&guide(3)).await, "2024-03-04,bob,2");
    assert_eq!(rows(&guide(4)).await, "");
    assert_eq!(sorted(&guide(4).replace("admin-annie", "bob")).await, "198.51.100.7\n203.0.113.9");
    assert_eq!(sorted("SELECT access_request_create.id, access_request_create.reviewer FROM access_request_create, access_request_review WHERE access_request_create.id = access_request_review.id").await, "r1,NULL\nr2,NULL");
    assert_eq!(ask(&guide(5)).await.unwrap().rows.len(), 2);
    assert_eq!(
        sorted(&guide(6)).await,
        "alice,incident 7,[admin, dba],[{cluster=c, kind=node, name=n2, sub_resource=null}],carol,APPROVED\nbob,NULL,[admin],NULL,bob,DENIED"
    );
    assert_eq!(sorted(&guide(7)).await, "2024-03-05,1,bob\n2024-03-05,1,carol");
    assert_eq!(rows(&guide(9)).await, "2024-03-06,1,carol");
    assert_eq!(rows(&guide(10)).await, "2024-03-05,1,bob");
    assert_eq!(rows(&guide(15)).await, "2024-03-06,1,carol");
    assert_eq!(sorted(&guide(8)).await, "2024-03-04,1,bob\n2024-03-05,1,bob");
    assert_eq!(rows(&guide(11)).await, "2024-03-06,1,carol");
    assert_eq!(rows(&guide(12)).await, "2024-03-05,1,alice");
    assert_eq!(rows(&guide(13)).await, "2024-03-03,1,db1,h1");
    assert_eq!(rows(&guide(14)).await, "2024-03-04,1,bob");
    let reply = ask(&guide(16)).await.unwrap();
    assert_eq!(names(&guide(16)).await, "event_time,identity_user");
    assert_eq!(reply.columns[0].sql_type, "timestamp(3)");
    let row: Vec<_> = reply.rows[0].iter().flatten().collect();
    assert!(
        reply.rows.len() == 1
            && row[0].starts_with("2024-03-04 0")
            && row[0].len() == 23
            && row[1] == "bob",
        "{row:?}"
    );
}

#[tokio::test]
async fn names_in_any_case_and_headers_as_documented() {
    assert_eq!(
        rows("SELECT EXITCODE, \"exitError\", User FROM Exec WHERE exitCode <> '0'").await,
        "137,signal,carol"
    );
    assert_eq!(
        names("SELECT EXITCODE, \"exitError\", User AS \"Who\", count(*) OVER () FROM exec").await,
        "exitCode,exitError,Who,_col3"
    );
    assert!(names("SELECT * FROM exec").await.starts_with("event_date,event_time,"));
    assert!(names("SELECT * FROM exec").await.contains(",exitCode,exitError,"));
}

#[tokio::test]
async fn values_print_as_documented() {
    assert_eq!(
        rows("SELECT event_date, event_time, success, method, mfa_device_mfa_device_name FROM user_login WHERE uid IN ('u05', 'u06') ORDER BY uid").await,
        "2024-03-05,2024-03-05 01:00:00.000,true,local,key\n2024-03-06,2024-03-06 02:30:00.500,true,saml,NULL"
    );
    assert_eq!(
        rows("SELECT identity_roles, identity_logins FROM cert_create WHERE uid = 'c01'").await,
        "[dev],[ubuntu, root]"
    );
    assert_eq!(rows("SELECT identity_expires, addr_remote FROM cert_create, session_start WHERE cert_create.uid='c01' AND session_start.uid='s01'").await, "2024-03-04T20:05:01Z,203.0.113.9:5005");
    assert_eq!(
        rows("SELECT from_iso8601_timestamp(time), event_time - TIMESTAMP '2024-03-03 20:10:00', 7/2, 7/2.0, 1e7, NULL, ARRAY['a', NULL] FROM session_start WHERE uid='s01'").await,
        "2024-03-04 08:10:00.000 UTC,0 12:00:00.000,3,3.5,1.0E7,NULL,[a, null]"
    );
    assert_eq!(
        rows("SELECT lock_target_user, lock_target_role FROM lock_created ORDER BY uid").await,
        "bob,NULL\nNULL,dba"
    );
    assert_eq!(rows("SELECT trusted_device_device_id, trusted_device_os_type, server_labels_key FROM session_start WHERE uid='s02'").await, "dev1,2,NULL");
}

#[tokio::test]
async fn nulls_come_last_and_arrays_have_a_size() {
    let sql = "SELECT with_mfa FROM session_start ORDER BY with_mfa";
    assert_eq!(rows(sql).await, "d1\nNULL\nNULL\nNULL");
    assert_eq!(rows(&format!("{sql} DESC")).await, "d1\nNULL\nNULL\nNULL");
    assert_eq!(
        rows("SELECT uid, cardinality(access_requests) FROM session_start ORDER BY 2, 1 LIMIT 2")
            .await,
        "s02,1\ns01,NULL"
    );
    assert_eq!(
        rows("SELECT cardinality(ARRAY[]), cardinality(ARRAY[ARRAY[1,2],ARRAY[3]])").await,
        "0,2"
    );
    assert_eq!(
        rows("SELECT uid FROM session_start WHERE contains(kubernetes_groups, 'system:masters')")
            .await,
        "s04"
    );
    assert_eq!(rows("SELECT uid FROM session_start WHERE any_match(kubernetes_groups, g -> g = 'system:masters')").await, "s04");
}

#[tokio::test]
async fn what_auditors_ask() {
    for (sql, expected) in [
        (
            "SELECT user, count_if(NOT success) AS failed, max_by(addr_remote, event_time) FROM user_login GROUP BY user HAVING count_if(NOT success) > 2",
            "bob,3,203.0.113.9:5004",
        ),
        ("SELECT name FROM user_create EXCEPT SELECT user FROM user_login WHERE success", "dave"),
        (
            "SELECT j.sid, s.user AS owner, array_agg(j.user) AS joined_by FROM session_join AS j JOIN session_start AS s ON s.sid = j.sid WHERE j.user <> s.user GROUP BY j.sid, s.user",
            "S2,alice,[carol]",
        ),
        (
            "SELECT user, reason, max, count(*) AS n FROM session_rejected GROUP BY user, reason, max ORDER BY n DESC FETCH FIRST 10 ROWS ONLY",
            "bob,max_concurrent_sessions,1,1",
        ),
        (
            "WITH seen AS (SELECT user, server_hostname, min(event_date) AS first_day FROM session_start WHERE server_hostname IS NOT NULL GROUP BY user, server_hostname) SELECT user, server_hostname, first_day FROM seen WHERE first_day >= DATE '2024-03-05' ORDER BY first_day, user",
            "alice,web1,2024-03-05\nbob,web1,2024-03-05",
        ),
        (
            "SELECT event_type, count(*) FROM events WHERE event_date = DATE '2024-03-08' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 2",
            "access_list.review,1\nwindows.desktop.session.end,1",
        ),
        (
            "SELECT json_extract_scalar(event_data, '$.identity.logins[1]') FROM events WHERE uid = 'c01'",
            "root",
        ),
        (
            "SELECT user, rank() OVER (ORDER BY count(*) DESC) AS r FROM session_start GROUP BY user ORDER BY r, user",
            "bob,1\nalice,2\ncarol,2",
        ),
        (
            "SELECT date_diff('minute', event_time, TIMESTAMP '2024-03-04 09:00:00') FROM session_start WHERE uid='s01'",
            "50",
        ),
        (
            "SELECT date_format(event_time, '%Y-%m-%d %H:%i'), day_of_week(event_date), hour(event_time) FROM session_start WHERE uid='s01'",
            "2024-03-04 08:10,1,8",
        ),
        (
            "SELECT substr('abcdef', -2), concat('a', NULL), split_part('a:b', ':', 3), round(2.5), greatest(1, NULL), regexp_extract('abc', 'b(.)', 1)",
            "ef,NULL,NULL,3.0,NULL,c",
        ),
        (
            "SELECT count(*) FROM session_start WHERE event_date >= DATE '2024-03-10' - INTERVAL '5' DAY",
            "3",
        ),
        (
            "SELECT DATE '2024-03-05' - DATE '2024-03-03' > INTERVAL '1' DAY, TIMESTAMP '2024-03-02 00:00:00' - TIMESTAMP '2024-03-01 00:00:00' > INTERVAL '1' DAY",
            "true,false",
        ),
        (
            "SELECT 'a!b' LIKE 'a!!b' ESCAPE '!', 'a\\b' LIKE 'a!\\b' ESCAPE '!', 'axb' LIKE 'a\\_b'",
            "true,true,false",
        ),
        ("SELECT 'a\\b' LIKE 'a\\%', 'a_b' LIKE 'a!_b' ESCAPE '!'", "true,true"),
        ("SELECT uid FROM session_start ORDER BY event_time DESC OFFSET 1 LIMIT 1", "s03"),
        (
            "SELECT user, user, login AS user, count(*), count(*) FROM exec WHERE uid = 'e01' GROUP BY user, login",
            "bob,bob,ubuntu,1,1",
        ),
        (
            "SELECT user, db_service, db_name, db_user, trim(db_query) AS statement FROM db_session_query WHERE regexp_like(db_query, '(?i)^\\s*(drop|truncate|alter|grant|revoke|delete)\\b') OR db_query LIKE '%cards%' ORDER BY event_time",
            "bob,pg,app,postgres,DROP TABLE users\nbob,pg,app,postgres,select * from cards where id=$1",
        ),
        (
            "SELECT user, kind, count(*) AS n, max(error) AS sample FROM (SELECT user, 'connect' AS kind, error FROM db_session_start WHERE NOT success UNION ALL SELECT user, 'query', error FROM db_session_query_failed) AS d GROUP BY user, kind ORDER BY user, kind",
            "bob,query,1,denied\ncarol,connect,1,access to db denied",
        ),
        (
            "SELECT event_date, count(*) AS count, user FROM db_session_start WHERE coalesce(cardinality(access_requests), 0) = 0 AND coalesce(with_mfa, '') = '' AND coalesce(impersonator, '') = '' AND coalesce(trusted_device_device_id, '') = '' GROUP BY event_date, user ORDER BY event_date, user",
            "2024-03-05,1,bob\n2024-03-05,1,carol",
        ),
        ("SELECT db_query_parameters FROM db_session_query WHERE uid = 'q02'", "[42]"),
        (
            "SELECT count(*) FROM db_session_postgres_statements_bind, db_session_mysql_statements_execute",
            "0",
        ),
        ("VALUES (1, 'a'), (2, 'b')", "1,a\n2,b"),
    ] {
        assert_eq!(rows(sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn days_are_counted_back_from_today() {
    let dir = log();
    let count = async |days: u32| {
        let request = Request { days: Some(days), ..request(&dir, "SELECT count(*) FROM events") };
        let reply =
            answer_on(&request, NaiveDate::from_ymd_opt(2024, 3, 8).unwrap()).await.unwrap();
        reply.rows[0][0].clone().unwrap()
    };
    assert_eq!((count(0).await.as_str(), count(1).await.as_str()), ("3", "4"));
    let all = FIXTURE.lines().count().to_string();
    assert_eq!(count(100_000).await, all);
    assert_eq!(rows("SELECT count(*) FROM events").await, all);
}

#[tokio::test]
async fn an_event_written_twice_counts_once() {
    let dir = log();
    let line = FIXTURE.lines().next().unwrap();
    fs::write(
        dir.path().join("2024-03-11.00:00:00.log"),
        format!("{line}\nnot json\n{line}\n{{\"event\":\"user.login\",\"uid\":\"tor"),
    )
    .unwrap();
    let reply = answer(&request(&dir, "SELECT count(*) FROM user_login")).await.unwrap();
    assert_eq!(reply.rows, [[Some("6".to_owned())]]);
    assert!(reply.scanned_bytes >= FIXTURE.len() as u64);
}

#[tokio::test]
async fn mistakes_are_explained_with_their_place() {
    for (sql, message, place) in [
        ("SELECT nosuch FROM exec", "Column 'nosuch' cannot be resolved", (1, 8)),
        ("SELECT user\nFROM exec\nWHERE nosuch = 1", "Column 'nosuch' cannot be resolved", (3, 7)),
        ("SELECT 1 FROM nosuch", "Table 'nosuch' does not exist", (1, 15)),
        ("SELECT nosuch(user) FROM exec", "Function 'nosuch' not registered", (1, 8)),
        ("SELECT user FROM exec, session_start", "Column 'user' is ambiguous", (1, 8)),
        ("SELECT user", "Column 'user' cannot be resolved", (1, 8)),
    ] {
        let failure = ask(sql).await.unwrap_err();
        assert_eq!(
            (failure.message.as_str(), failure.line.zip(failure.column)),
            (message, Some(place)),
            "{sql}"
        );
    }
    let typo = ask("SELECT identity_usr FROM cert_create").await.unwrap_err();
    assert_eq!(typo.hint.as_deref(), Some("there is a column 'identity_user'"));
    for sql in [
        "SELECT 1/0",
        "SELECT CAST('x' AS bigint)",
        "SELECT from_iso8601_timestamp('x')",
        "SELECT user FROM exec GROUP BY uid",
        "SELECT sum(user) FROM exec",
    ] {
        assert!(ask(sql).await.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn an_answer_has_limits() {
    let dir = log();
    let few = Request { max_rows: 3, ..request(&dir, "SELECT uid FROM session_start") };
    let failure = answer(&few).await.unwrap_err();
    assert!(failure.limit && failure.message.contains("more than 3 rows"), "{failure:?}");
    let small = Request { max_bytes: 100, ..request(&dir, "SELECT event_data FROM events") };
    assert!(answer(&small).await.unwrap_err().limit);
    let narrow = Request {
        memory_bytes: 4 << 20,
        ..request(
            &dir,
            "SELECT count(*) FROM (SELECT DISTINCT a.uid AS a, b.uid AS b, c.uid AS c, d.uid AS d FROM events a, events b, events c, events d)",
        )
    };
    assert!(answer(&narrow).await.unwrap_err().limit);
}
