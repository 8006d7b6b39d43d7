use server_ssh::child::{Launcher, Program, Refusal, SpawnError};

use crate::host::{Host, TELEPORT, exec, finish, spec};

async fn refusal(host: &Host, login: &str, program: Program) -> Refusal {
    match host.spawn(spec(login, program)).await {
        Err(SpawnError::Refused { reason, .. }) => reason,
        Err(other) => panic!("{login}: {other}"),
        Ok(_) => panic!("{login} got in"),
    }
}

#[tokio::test]
async fn accounts_that_nobody_may_use() {
    let Some(host) = Host::new() else { return };
    for program in [Program::Shell, exec("true"), Program::Sftp] {
        assert_eq!(refusal(&host, "nobody-here", program.clone()).await, Refusal::NoAccount);
        assert_eq!(refusal(&host, "old", program.clone()).await, Refusal::Expired);
        let shell = Refusal::NoLoginShell("/usr/sbin/nologin".into());
        assert_eq!(refusal(&host, "closed", program.clone()).await, shell);
        assert_eq!(refusal(&host, "odd", program).await, Refusal::BadShell("/no/shell".into()));
    }
    let error = host.spawn(spec("old", Program::Shell)).await.unwrap_err();
    assert_eq!(error.to_string(), "login old cannot be used on this host: the account has expired");
}

#[tokio::test]
async fn a_closed_host_takes_root_only() {
    let Some(host) = Host::with(&[("nologin", "Back at five\n")]) else { return };
    assert_eq!(refusal(&host, "joe", Program::Shell).await, Refusal::Closed("Back at five".into()));
    let child = host.spawn(spec("root", exec("id -u"))).await.unwrap();
    assert_eq!(finish(child, b"").await.output, "0\n");
}

#[tokio::test]
async fn without_root_only_the_own_login() {
    let Some(_host) = Host::new() else { return };
    let Some(postgres) = std::fs::read_to_string("/etc/passwd").ok().and_then(|all| {
        let line = all.lines().find(|line| line.starts_with("postgres:"))?;
        line.split(':').nth(2).map(str::to_owned)
    }) else {
        eprintln!("SKIPPED: needs an account with a shell that is not root");
        return;
    };
    let as_postgres =
        ["--reuid", &postgres, "--clear-groups", TELEPORT].map(std::ffi::OsString::from);
    let launcher = Launcher::new("/usr/bin/setpriv", as_postgres);
    let mut own = spec("postgres", exec("id -un; tty"));
    own.pty = Some(crate::host::pty(&[]));
    let ran = finish(launcher.spawn(own).await.unwrap(), b"").await;
    assert!(ran.output.starts_with("postgres\r\n/dev/pts/"), "{ran:?}");
    match launcher.spawn(spec("root", Program::Shell)).await {
        Err(SpawnError::Refused { reason, .. }) => {
            assert_eq!(reason, Refusal::OtherLogin("postgres".into()))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_program_that_knows_no_exec_is_an_error() {
    let error =
        Launcher::new("/bin/true", []).spawn(spec("root", Program::Shell)).await.unwrap_err();
    assert!(matches!(error, SpawnError::Died | SpawnError::System { .. }), "{error}");
}
