use super::*;
use crate::parse::parse;

fn rewritten(sql: &str) -> Result<String, Failure> {
    let known = ["exec", "session_start"].map(str::to_owned).into();
    let mut parsed = parse(sql)?;
    rewrite(&mut parsed.query, &known)?;
    Ok(parsed.query.to_string())
}

#[test]
fn functions_get_the_engines_names() {
    for (written, expected) in [
        ("if(a, 1, 2)", "CASE WHEN a THEN 1 ELSE 2 END"),
        ("concat(a, 'x', b)", "((a || 'x') || b)"),
        ("count_if(NOT ok)", "count(*) FILTER (WHERE NOT ok)"),
        ("CONTAINS(roles, 'x')", "array_has(roles, 'x')"),
        ("max_by(a, b)", "first_value(a ORDER BY b DESC NULLS LAST)"),
        ("try(cast(a AS bigint))", "TRY_CAST(a AS BIGINT)"),
        ("greatest(a, b)", "CASE WHEN a IS NULL OR b IS NULL THEN NULL ELSE greatest(a, b) END"),
        ("a LIKE 'x\\_%'", "a LIKE 'x\\\\_%'"),
        ("substring(a FROM 2 FOR 3)", "substr(a, 2, 3)"),
        ("extract(DOW FROM a)", "day_of_week(a)"),
    ] {
        assert_eq!(
            rewritten(&format!("SELECT {written} FROM exec")).unwrap(),
            format!("SELECT {expected} FROM exec")
        );
    }
    let fetched = rewritten("SELECT 1 FROM exec ORDER BY 1 FETCH FIRST 3 ROWS ONLY").unwrap();
    assert_eq!(fetched, "SELECT 1 FROM exec ORDER BY 1 LIMIT 3");
}

#[test]
fn what_cannot_be_made_right_is_refused_with_its_place() {
    for (refused, word) in [
        ("SELECT count(*) FROM exec TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE"),
        ("SELECT * FROM exec FETCH FIRST 2 ROWS WITH TIES", "FETCH"),
        ("SELECT * FROM generate_series(1, 2)", "table functions"),
        ("SELECT * FROM read_csv('/etc/passwd')", "table functions"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM information_schema.tables", "does not exist"),
        ("SELECT * INTO t FROM exec", "INTO"),
        ("SELECT * FROM exec FOR UPDATE", "FOR UPDATE"),
        ("WITH a AS (DELETE FROM exec RETURNING *) SELECT * FROM a", "only queries"),
        ("SELECT event_time AT TIME ZONE 'Asia/Seoul' FROM exec", "AT TIME ZONE"),
        ("SELECT try(1 / 0)", "TRY"),
    ] {
        let failure = rewritten(refused).unwrap_err();
        assert!(failure.message.contains(word), "{refused}: {failure:?}");
    }
    let failure = rewritten("SELECT *\nFROM sesion_start").unwrap_err();
    assert_eq!((failure.line, failure.column), (Some(2), Some(6)));
    assert_eq!(failure.hint.as_deref(), Some("there is a table 'session_start'"));
    assert!(rewritten("WITH a AS (SELECT 1) SELECT * FROM a, (SELECT * FROM exec) AS b").is_ok());
}
