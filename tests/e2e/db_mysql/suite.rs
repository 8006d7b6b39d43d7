//! A part of MariaDB's own suite, through the chain and past it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shared_testkit::process::{command, installed};
use shared_testkit::{DbAgent, DbOptions, Outcome, run};

use super::{SHOP, Shop};
use crate::db_told::ended;
use crate::support::alone;

/// Where Debian's `mariadb-test` has the suite.
const SUITE: &str = "/usr/share/mysql/mysql-test";

/// Tests that need nothing but one connection, of a second at most: types, functions, joins, procedures, prepared
/// statements, character sets.
const TESTS: &[&str] = &[
    "bool",
    "bulk_replace",
    "create_drop_procedure",
    "create_drop_trigger",
    "create_drop_view",
    "create_replace_tmp",
    "create_utf8",
    "cte_cycle",
    "ctype_ascii",
    "ctype_collate_table",
    "ctype_cp850",
    "ctype_latin2",
    "ctype_mb",
    "ctype_recoding",
    "ctype_ujis_ucs2",
    "date_formats",
    "datetime_456",
    "default_innodb",
    "distinct_notembedded",
    "fulltext2",
    "fulltext_multi",
    "func_analyse",
    "func_bit",
    "func_concat",
    "func_date_add",
    "func_default",
    "func_equal",
    "func_isnull",
    "func_op",
    "func_replace",
    "func_sapdb",
    "func_set",
    "func_test",
    "func_time_hires",
    "func_time_round",
    "func_timestamp",
    "gis-json",
    "group_by_null",
    "insert_innodb",
    "insert_returning_datatypes",
    "join_crash",
    "join_outer_innodb",
    "key_primary",
    "keywords",
    "multi_statement",
    "negation_elimination",
    "odbc",
    "olap",
    "order_by_innodb",
    "ps_3innodb",
    "ps_4heap",
    "ps_5merge",
    "row",
    "rowid_order_innodb",
    "sp-anchor-type",
    "sp-condition-handler",
    "sp-expr",
    "sp-for-loop",
    "sp-inout",
    "sp-vars",
    "sp2",
    "sp_gis",
    "str_to_datetime_457",
    "strict",
    "strings",
    "subselect_gis",
    "subselect_nulls",
    "type_bool",
    "type_char",
    "type_datetime_round",
    "type_hex_hybrid",
    "type_interval",
    "type_json",
    "type_nchar",
    "type_num",
    "type_row",
    "type_varbinary",
    "union_innodb",
    "win_avg",
    "win_bit",
    "win_lead_lag",
    "win_nth_value",
    "win_rank",
    "win_std",
];

/// What one test came to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    code: i32,
    said: String,
    result: String,
}

/// Runs a test by a connection of these options, and keeps what the server answered.
fn test(shop: &Shop, name: &str, options: &[String]) -> Result<Came> {
    let database = "drop database if exists test; create database test character set latin1 collate latin1_swedish_ci";
    shop.mariadb.sql(database)?;
    let folder = shop.stage.scratch.folder("suite")?;
    let result = folder.join("result");
    let mut client = command("mariadb-test", Path::new(SUITE));
    client.arg("--no-defaults").args(options);
    for (option, path) in [
        ("basedir", Path::new(SUITE)),
        ("tmpdir", &folder),
        ("logdir", &folder),
        ("result-file", &result),
    ] {
        client.arg(format!("--{option}={}", path.display()));
    }
    client
        .args(["--silent", "--record", "test"])
        .env("MYSQLTEST_VARDIR", &folder)
        .env("MYSQL_TMP_DIR", &folder);
    let script = std::fs::read(Path::new(SUITE).join("main").join(format!("{name}.test")))?;
    let Outcome { code, stderr, .. } =
        run(&mut client, &script, 60).with_context(|| name.to_owned())?;
    let result = String::from_utf8_lossy(&std::fs::read(&result)?).into_owned();
    // The two accounts of the same name.
    let result =
        result.replace("alice`@`localhost", "alice`@`%").replace("alice@localhost", "alice@%");
    Ok(Came { code, said: stderr, result })
}

#[test]
fn a_part_of_the_servers_own_suite_comes_to_the_same_as_directly() -> Result<()> {
    if !installed("mariadb-test")? {
        return Ok(());
    }
    let _alone = alone();
    let options = DbOptions { agent: DbAgent::Tunnel, ..DbOptions::default() };
    let Some(shop) = Shop::with("my-suite", &options)? else { return Ok(()) };
    // Directly, she comes by the socket.
    shop.mariadb.sql(
        "create user alice@localhost; grant all on *.* to alice@localhost with grant option",
    )?;
    let tunnel = shop.tunnel()?;
    let direct = [shop.mariadb.socket(), "--user=alice".to_owned()];
    let through =
        ["--protocol=tcp", "--host=127.0.0.1", "--user=alice", &format!("--port={}", tunnel.port)]
            .map(str::to_owned);
    let (mut took, mut passed) = ([0.0; 2], 0);
    let mut differ = Vec::new();
    for name in TESTS {
        let mut came = Vec::new();
        for (way, options) in [&direct[..], &through[..]].iter().enumerate() {
            let begun = Instant::now();
            came.push(test(&shop, name, options)?);
            took[way] += begun.elapsed().as_secs_f64();
        }
        passed += usize::from(came[0].code == 0);
        if came[0] != came[1] {
            differ.push((name, came));
        }
    }
    eprintln!(
        "{} tests, {:.0} s directly, {:.0} s through the chain",
        TESTS.len(),
        took[0],
        took[1]
    );
    ensure!(differ.is_empty(), "{differ:#?}");
    assert_eq!(passed, TESTS.len());
    assert!(ended(&shop.stage, SHOP, TESTS.len())?.len() >= TESTS.len(), "a session for each test");
    Ok(())
}
