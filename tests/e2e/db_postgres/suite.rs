//! PostgreSQL's own regression suite, through the chain and past it.

use anyhow::Result;
use shared_testkit::postgres_suite::Suite;
use shared_testkit::{DbAgent, DbOptions};

use super::Shop;
use crate::support::alone;

#[test]
fn the_servers_own_suite_comes_to_the_same_as_directly() -> Result<()> {
    let Some(suite) = Suite::new()? else { return Ok(()) };
    let _alone = alone();
    let options = DbOptions { agent: DbAgent::Tunnel, ..DbOptions::default() };
    let Some(shop) = Shop::with("pg-suite", &options)? else { return Ok(()) };
    let direct = suite.run("direct", &shop.postgres.direct("psql"), &shop.postgres)?;
    for line in ["drop database regression", "drop tablespace if exists regress_tblspace"] {
        shop.postgres.sql(line)?;
    }
    // Its tests name the user that runs them.
    let tunnel = shop.stage.tunnel(super::SHOP, "postgres", "postgres")?;
    let through = suite.run("through", &tunnel.postgres("psql"), &shop.postgres)?;
    eprintln!(
        "{} tests, directly {} failed in {:.0} s, through the chain {} failed in {:.0} s",
        direct.tests.len(),
        direct.tests.iter().filter(|(_, passed)| !passed).count(),
        direct.took.as_secs_f64(),
        through.tests.iter().filter(|(_, passed)| !passed).count(),
        through.took.as_secs_f64()
    );
    assert!(direct.tests.len() > 200, "{:?}", direct.tests);
    assert_eq!(direct.differences, "", "the suite fails without us");
    assert_eq!(direct.tests, through.tests, "{}", through.differences);
    assert!(shop.ended(200)?.len() >= 200, "a session for each test");
    Ok(())
}
