//! Who does not get in, and what is not done for those who do.

use chrono::{TimeDelta, Utc};
use shared_pki::{CaKind, CertAuthority};

use super::support::{World, have_ssh, run, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_in_with_another_certificate() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let ours = &world.cluster.user;
    let other =
        CertAuthority::generate(CaKind::User, &"main".parse().unwrap(), Utc::now()).unwrap();
    world.cluster.write_user(&world.path("principal"), ours, |spec| {
        spec.principals = vec!["admin".parse().unwrap()];
    });
    world.cluster.write_user(&world.path("expired"), ours, |spec| {
        spec.now = Utc::now() - TimeDelta::hours(3);
    });
    world.cluster.write_user(&world.path("other"), &other, |_| {});
    world.cluster.write_host_as_user(&world.path("host"));
    world.cluster.write_user(&world.path("plain"), ours, |_| {});
    std::fs::remove_file(world.path("plain-cert.pub")).unwrap();
    for (count, key) in ["principal", "expired", "other", "host", "plain"].into_iter().enumerate() {
        let output = run(world.ssh_as(key, "root").arg("true")).await;
        assert!(
            text(&output.stderr).contains("Permission denied (publickey)"),
            "{key}: {output:?}"
        );
        let failures = world.cluster.wait_for("auth", count + 1).await;
        let failure = &failures[count];
        assert_eq!(
            (failure["code"].as_str(), failure["success"].as_bool()),
            (Some("T3007W"), Some(false)),
            "{key}"
        );
        assert_eq!(failure["login"], "root");
    }
    assert!(world.cluster.seen("session.start").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_decide_on_login_and_labels() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    world.cluster.write_user(&world.path("daemon"), &world.cluster.user, |spec| {
        spec.principals.push("daemon".parse().unwrap());
    });
    let output = run(world.ssh_as("daemon", "daemon").arg("true")).await;
    let shown = text(&output.stderr);
    assert!(
        shown.contains("user joe@main is not authorized to login as daemon@web-1: access denied"),
        "{shown}"
    );
    world.cluster.change(|state| {
        let role = state.roles.get_mut("dev").unwrap();
        role.spec.allow.node_labels =
            serde_json::from_value(serde_json::json!({"env": "prod"})).unwrap();
    });
    let output = run(world.ssh().arg("true")).await;
    assert!(
        text(&output.stderr).contains("is not authorized to login as root@web-1"),
        "{output:?}"
    );
    assert_eq!(world.cluster.wait_for("auth", 2).await.len(), 2);
    assert!(world.cluster.seen("session.start").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_table_is_refused() {
    if !have_ssh() {
        return;
    }
    let world = World::start().await;
    let mut ssh = world.client("ssh", "user");
    ssh.args(["root@127.0.0.1", "-s", "netconf"]);
    let output = run(&mut ssh).await;
    assert!(text(&output.stderr).contains("subsystem request failed"), "{output:?}");
    let mut ssh = world.client("ssh", "user");
    ssh.args(["-o", "ExitOnForwardFailure=yes", "-R", "/tmp/nowhere.sock:127.0.0.1:1"]);
    ssh.args(["root@127.0.0.1", "true"]);
    assert!(!run(&mut ssh).await.status.success(), "a socket of the host");
    let mut ssh = world.client("ssh", "user");
    ssh.args(["-X", "root@127.0.0.1", "echo x$DISPLAY"]).env("DISPLAY", ":9");
    assert_eq!(text(&run(&mut ssh).await.stdout), "x\n");
}
