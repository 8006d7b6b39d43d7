//! Hosts that join: tokens, refused joins, names, and who sees what joined.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared_testkit::process::command;
use shared_testkit::{Guard, Outcome, bin, run, until};

use crate::support::Stage;

/// How long a host may take to join and to be listed.
const JOINS: u64 = 30;

fn token(stage: &Stage, more: &[&str]) -> Result<String> {
    let mut words = vec!["tokens", "add", "--format=text"];
    words.extend(more);
    Ok(stage.cluster.tctl_ok(words)?.text().trim().to_owned())
}

fn data(stage: &Stage, name: &str) -> PathBuf {
    stage.scratch.path().join(name).join("data")
}

/// An agent out of flags alone, behind a tunnel.
fn agent(stage: &Stage, name: &str, token: &str, more: &[&str]) -> Result<Command> {
    let folder = stage.scratch.folder(name)?;
    let file = stage.scratch.write(&format!("{name}/token"), token)?;
    let mut start = command(bin("teleport"), &folder);
    start.args(["start", "--roles=node", "--nodename", name]);
    start.arg(format!("--proxy-server={}", stage.cluster.address("web")));
    start.arg(format!("--ca-pin={}", stage.cluster.ca_pin()?));
    start.arg("--token").arg(file).arg("--data-dir").arg(data(stage, name)).args(more);
    Ok(start)
}

fn started(stage: &Stage, name: &str, mut start: Command) -> Result<Guard> {
    Guard::start(name, &mut start, &stage.scratch.path().join(format!("{name}.log")))
}

fn nodes(stage: &Stage, more: &[&str]) -> Result<Vec<Value>> {
    let mut words = vec!["nodes", "ls", "--format=json"];
    words.extend(more);
    Ok(serde_json::from_str(&stage.cluster.tctl_ok(words)?.text())?)
}

fn hostnames(nodes: &[Value]) -> Vec<&str> {
    nodes.iter().filter_map(|node| node["spec"]["hostname"].as_str()).collect()
}

/// Waits until exactly these nodes are there.
fn there(stage: &Stage, names: &[&str]) -> Result<()> {
    until(&format!("the nodes {names:?}"), JOINS, || {
        nodes(stage, &[]).ok().filter(|nodes| hostnames(nodes) == names).map(drop)
    })
}

fn says(outcome: &Outcome, code: i32, texts: &[&str]) -> Result<()> {
    for text in texts {
        ensure!(outcome.stderr.contains(text), "{text:?} is missing in {}", outcome.stderr);
    }
    ensure!(outcome.code == code, "exit {} in place of {code}: {}", outcome.code, outcome.stderr);
    Ok(())
}

#[test]
fn nodes_that_joined_are_listed_to_whom_they_concern() -> Result<()> {
    let stage = Stage::new("listing")?;
    let cluster = &stage.cluster;
    let added = cluster.tctl_ok(["nodes", "add", "--ttl=10m"])?.text();
    for text in [
        "The invite token: ",
        "This token will expire in 10 minutes.",
        "> teleport start \\\n   --roles=node \\\n   --token=",
        "   --ca-pin=sha256:",
        "   --auth-server=",
    ] {
        ensure!(added.contains(text), "{text:?} is missing in {added}");
    }
    let token = token(&stage, &["--type=node", "--ttl=10m", "--labels=team=a"])?;
    let listed = cluster.tctl_ok(["tokens", "ls", "--labels=team=a"])?.text();
    ensure!(listed.contains("Node") && listed.contains("team=a"), "{listed}");
    ensure!(!listed.contains(&token), "{listed}");
    let whole = cluster.tctl_ok(["tokens", "ls", "--with-secrets"])?.text();
    ensure!(whole.contains(&token), "{whole}");

    let one = started(&stage, "db-1", agent(&stage, "db-1", &token, &["--labels=env=prod"])?)?;
    let mut two =
        started(&stage, "web-1", agent(&stage, "web-1", &token, &["--labels=env=dev,tier=web"])?)?;
    there(&stage, &["db-1", "web-1"])?;
    let table = cluster.tctl_ok(["nodes", "ls", "-v"])?.text();
    ensure!(table.starts_with("Host") && table.contains("Public Address"), "{table}");
    ensure!(table.contains("⟵ Tunnel") && table.contains("env=dev,tier=web"), "{table}");
    for (words, names) in [
        (&["env=prod"][..], &["db-1"][..]),
        (&["--search=WEB"], &["web-1"]),
        (&["--query=labels[\"env\"] == \"dev\" && hasPrefix(name, \"web\")"], &["web-1"]),
        (&["env=none"], &[]),
    ] {
        let found = nodes(&stage, words)?;
        ensure!(hostnames(&found) == names, "{words:?}: {found:?}");
    }
    let _bad = run(cluster.tctl().args(["nodes", "ls", "env"]), "", 30)?.fails(2, "no label");

    // Users see what their roles admit, and ask for less of it.
    let role = |name: &str, labels: &str| {
        format!(
            "kind: role\nversion: v7\nmetadata:\n  name: {name}\nspec:\n  allow:\n    logins: [\"{}\"]\n    node_labels:\n      {labels}\n",
            stage.login
        )
    };
    let _made = cluster.create(&role("all", "'*': '*'"))?.ok();
    let _made = cluster.create(&role("devs", "env: dev"))?.ok();
    let ann = cluster.user("ann", "all", &stage.login)?;
    let dan = cluster.user("dan", "devs", &stage.login)?;
    let names = |home: &shared_testkit::Home, more: &[&str]| -> Result<String> {
        let mut words = vec!["ls", "--format=names"];
        words.extend(more);
        Ok(home.run(words)?.ok().text().split_whitespace().collect::<Vec<_>>().join(" "))
    };
    ensure!(names(&ann, &[])? == "db-1 web-1");
    ensure!(names(&dan, &[])? == "web-1");
    ensure!(names(&dan, &["--search=db"])?.is_empty());
    ensure!(names(&ann, &["--search=db"])? == "db-1");
    ensure!(names(&ann, &["env=dev"])? == "web-1");
    ensure!(names(&ann, &["--query=name == \"db-1\""])? == "db-1");
    let text = ann.run(["ls"])?.ok().text();
    ensure!(text.starts_with("Node Name Address") && text.contains("⟵ Tunnel"), "{text}");
    let listed: Vec<Value> = serde_json::from_str(&ann.run(["ls", "--format=json"])?.ok().text())?;
    let id = listed[0]["metadata"]["name"].as_str().context("an id")?;
    ensure!(listed[0]["kind"] == "node" && listed[0]["spec"]["use_tunnel"] == true, "{listed:?}");
    ensure!(ann.run(["ls", "-v"])?.ok().text().contains(id));
    let _wrong = ann.run(["ls", "--query=name =="])?.fails(1, "query");

    let inventory = cluster.tctl_ok(["inventory", "ls"])?.text();
    let lines: Vec<&str> =
        inventory.lines().filter(|line| line.contains(" node ") && line.contains(" ago")).collect();
    ensure!(lines.len() == 2 && inventory.contains("auth,proxy"), "{inventory}");
    let status = cluster.tctl_ok(["inventory", "status"])?.text();
    ensure!(
        status.contains("Instances: 3 (3 connected)") && status.contains("node: 2"),
        "{status}"
    );
    let got = cluster.tctl_ok(["get", "nodes", "--format=json"])?.text();
    ensure!(got.matches("\"hostname\"").count() == 2, "{got}");
    // One that ends in order is gone at once, and not after its time.
    let _status = two.stop(30)?;
    there(&stage, &["db-1"])?;
    drop(one);
    Ok(())
}

#[test]
fn joins_are_refused_with_the_reason() -> Result<()> {
    let stage = Stage::new("refused")?;
    let good = token(&stage, &["--type=node", "--ttl=10m"])?;
    let once = token(&stage, &["--type=node", "--ttl=10m", "--single-use"])?;
    let proxy = token(&stage, &["--type=proxy", "--ttl=10m"])?;
    let brief = token(&stage, &["--type=node", "--ttl=1s"])?;
    let mut first = started(&stage, "db-1", agent(&stage, "db-1", &once, &[])?)?;
    there(&stage, &["db-1"])?;
    std::thread::sleep(std::time::Duration::from_millis(1100));
    for (name, token, texts) in [
        ("a-1", "no-such-token-anywhere", &["token not recognized"][..]),
        ("a-2", &brief, &["token expired"]),
        ("a-3", &proxy, &["the token is not for role Node", "--type=node"]),
        ("a-4", &once, &["token already used"]),
        ("localhost", &good, &["the name \"localhost\" is held", "nodename"]),
        ("DB-1", &good, &["the name \"db-1\" is held", "tctl rm node/"]),
        ("gate", &good, &["is held"]),
    ] {
        let outcome = run(&mut agent(&stage, name, token, &[])?, "", 30)?;
        says(&outcome, 1, texts).with_context(|| name.to_owned())?;
        ensure!(!outcome.stderr.contains(token), "{name}: the token is in the log");
    }
    let refused = stage.cluster.query(
        "select node_name, role, token_name, error from instance_join where not success order by event_time",
    )?;
    ensure!(refused.len() == 7, "{refused:?}");
    ensure!(refused.iter().all(|row| row[1] == "Node" && row[2].starts_with('*')), "{refused:?}");
    // A name that was signed for an sshd is not an agent's.
    let key = stage.scratch.path().join("signed");
    let signed = stage.cluster.tctl_ok([
        "auth".as_ref(),
        "sign".as_ref(),
        "--host=Signed-1".as_ref(),
        "--format=openssh".as_ref(),
        "--out".as_ref(),
        key.as_os_str(),
    ])?;
    drop(signed);
    let outcome = run(&mut agent(&stage, "signed-1", &good, &[])?, "", 30)?;
    says(&outcome, 1, &["the name \"signed-1\" is held"])?;

    // What has joined needs no token again, and renews what it has at each start.
    let identity = data(&stage, "db-1").join("node-identity.json");
    let before = std::fs::read(&identity)?;
    let _status = first.stop(30)?;
    there(&stage, &[])?;
    let again = started(&stage, "db-1", agent(&stage, "db-1", "no-token-at-all-any-more", &[])?)?;
    there(&stage, &["db-1"])?;
    until("the certificates to be renewed", 30, || {
        std::fs::read(&identity).ok().filter(|now| *now != before).map(drop)
    })?;
    drop(again);
    Ok(())
}

#[test]
fn a_node_that_is_removed_stays_out() -> Result<()> {
    let stage = Stage::new("removed")?;
    let token = token(&stage, &["--type=node", "--ttl=10m"])?;
    let agent_there = started(&stage, "db-1", agent(&stage, "db-1", &token, &[])?)?;
    there(&stage, &["db-1"])?;
    let id = nodes(&stage, &[])?[0]["metadata"]["name"].as_str().context("an id")?.to_owned();
    let removed = stage.cluster.tctl_ok(["rm", &format!("node/{id}")])?.text();
    ensure!(removed.contains("has been deleted"), "{removed}");
    there(&stage, &[])?;
    drop(agent_there);
    let outcome = run(&mut agent(&stage, "db-1", &token, &[])?, "", 30)?;
    says(&outcome, 1, &["the node was removed from the cluster"])?;
    // Its name is free for another host.
    std::fs::remove_dir_all(data(&stage, "db-1"))?;
    let next = started(&stage, "db-1", agent(&stage, "db-1", &token, &[])?)?;
    there(&stage, &["db-1"])?;
    drop(next);
    Ok(())
}

#[test]
fn servers_are_registered_and_a_name_of_two_is_told() -> Result<()> {
    let stage = Stage::new("registered")?;
    let port = stage.sshd.port;
    let node = |env: &str| {
        format!(
            "kind: node\nversion: v2\nsub_kind: openssh\nmetadata:\n  labels:\n    env: {env}\nspec:\n  addr: 127.0.0.1:{port}\n  hostname: plain\n"
        )
    };
    let _made = stage.cluster.create(&node("dev"))?.ok();
    let listed = nodes(&stage, &[])?;
    ensure!(listed[0]["sub_kind"] == "openssh" && hostnames(&listed) == ["plain"], "{listed:?}");
    let forged = node("dev")
        .replace("sub_kind: openssh\n", "")
        .replace("metadata:\n", "metadata:\n  name: 5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11\n");
    let forge = run(stage.cluster.tctl().args(["create", "-f"]), forged, 60)?;
    let _refused = forge.fails(1, "an agent's node is not written");
    let _made = stage.cluster.create(&node("prod"))?.ok();
    let _role = stage.cluster.create(&format!(
        "kind: role\nversion: v7\nmetadata:\n  name: all\nspec:\n  allow:\n    logins: [\"{}\"]\n    node_labels:\n      '*': '*'\n",
        stage.login
    ))?;
    let ann = stage.cluster.user("ann", "all", &stage.login)?;
    let target = format!("{}@plain", stage.login);
    let outcome = ann.run(["ssh", &target, "true"])?;
    let texts = [
        "error: ambiguous host could match multiple nodes",
        "Node Name Node ID",
        "env=dev",
        "env=prod",
        "Hint: ",
        "tsh ls -v",
    ];
    says(&outcome, 1, &texts)?;
    let events = stage.cluster.query("select server_hostname from node_created")?;
    ensure!(events == [["plain"], ["plain"]], "{events:?}");
    Ok(())
}
