//! The plain OpenSSH client, with a stock ssh-agent, through the recording proxy.

use anyhow::Result;
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::command;
use shared_testkit::run;

use crate::support::Stage;

fn logged_in(stage: &Stage, socket: &std::path::Path) -> Result<()> {
    let _done =
        run(stage.joe.login_command().env("SSH_AUTH_SOCK", socket), format!("{PASSWORD}\n"), 60)?
            .ok();
    Ok(())
}

#[test]
fn command_through_both_hops_is_recorded() -> Result<()> {
    let stage = Stage::new("plain")?;
    let (_guard, socket) = stage.agent("a")?;
    logged_in(&stage, &socket)?;
    let echoed = run(&mut stage.ssh(&socket, &[], &["echo plain; exit 7"])?, "", 60)?;
    assert_eq!((echoed.code, echoed.text().as_str()), (7, "plain\n"), "{}", echoed.stderr);
    let sid = stage.last_session()?;
    assert_eq!(stage.played(&sid)?, b"plain\n");
    Ok(())
}

#[test]
fn without_agent_forwarding_it_is_refused() -> Result<()> {
    let stage = Stage::new("noagent")?;
    let (_guard, socket) = stage.agent("a")?;
    logged_in(&stage, &socket)?;
    let config = stage.ssh_config()?;
    let mut ssh = command("ssh", &stage.joe.folder);
    ssh.arg("-F").arg(&config).env("SSH_AUTH_SOCK", &socket).arg("-o").arg(format!(
        "ProxyCommand ssh -F {} -p {} %r@localhost -s proxy:%h:%p",
        config.display(),
        stage.cluster.port("ssh")
    ));
    ssh.args(["-p", &stage.sshd.port.to_string(), &stage.target(), "true"]);
    let _refused = run(&mut ssh, "", 60)?.fails(255, "agent forwarding");
    Ok(())
}

#[test]
fn a_constrained_key_reaches_that_host_and_no_other() -> Result<()> {
    let stage = Stage::new("constrained")?;
    let (_guard, socket) = stage.agent("a")?;
    let other = stage.cluster.sshd("other", "localhost", "")?;
    let config = stage.ssh_config()?;
    let known = stage.scratch.path().join("known_hosts");
    let mut add = command("ssh-add", &stage.joe.folder);
    add.env("SSH_AUTH_SOCK", &socket).arg("-H").arg(&known);
    let hop = format!("{}@127.0.0.1", stage.login);
    add.args(["-h", "localhost", "-h", &format!("localhost>{hop}")]).arg(stage.joe.ssh_key());
    // ssh-add takes the certificate from KEY-cert.pub.
    let key = stage.joe.ssh_key();
    std::fs::copy(stage.joe.ssh_certificate(), key.with_file_name("joe-cert.pub"))?;
    let _added = run(&mut add, "", 20)?.ok();
    // With the plain key in the agent too, ssh asks it to sign for the certificate, which a
    // constrained key refuses: only the certificate stays.
    let mut drop_plain = command("ssh-add", &stage.joe.folder);
    let _dropped =
        run(drop_plain.env("SSH_AUTH_SOCK", &socket).args(["-k", "-d"]).arg(&key), "", 20)?.ok();

    let echoed = run(&mut stage.ssh(&socket, &[], &["echo bound"])?, "", 60)?.ok();
    assert_eq!(echoed.text(), "bound\n");

    let mut ssh = command("ssh", &stage.joe.folder);
    ssh.arg("-F")
        .arg(&config)
        .env("SSH_AUTH_SOCK", &socket)
        .args(["-o", "ForwardAgent yes"])
        .arg("-o")
        .arg(format!(
            "ProxyCommand ssh -F {} -o 'ForwardAgent yes' -p {} %r@localhost -s proxy:%h:%p",
            config.display(),
            stage.cluster.port("ssh")
        ));
    ssh.args(["-p", &other.port.to_string(), &format!("{}@localhost", stage.login), "true"]);
    assert_ne!(run(&mut ssh, "", 60)?.code, 0);
    Ok(())
}

#[test]
fn max_startups_gives_the_known_text_and_a_hint() -> Result<()> {
    let stage =
        Stage::with("startups", &Default::default(), "MaxStartups 1:100:1\nLoginGraceTime 60")?;
    let (_guard, socket) = stage.agent("a")?;
    logged_in(&stage, &socket)?;
    // One connection that says nothing takes the only place.
    let _idle = std::net::TcpStream::connect(("127.0.0.1", stage.sshd.port))?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let refused = run(&mut stage.ssh(&socket, &[], &["true"])?, "", 60)?
        .fails(255, "open failed: connect failed: ssh: handshake failed: EOF");
    assert!(refused.stderr.contains("MaxStartups"), "no hint in {}", refused.stderr);
    Ok(())
}
