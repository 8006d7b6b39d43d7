use server_ssh::child::{Exit, Program};
use tokio::io::AsyncReadExt;

use crate::host::{Host, JOE, appears, ends, exec, finish, spec};

fn status(status: u32) -> Exit {
    Exit { status: Some(status), ..Exit::default() }
}

#[tokio::test]
async fn a_command_runs_as_the_login_and_has_nothing_of_the_daemon() {
    let Some(host) = Host::new() else { return };
    // Descriptors that a careless opener leaves to its children, and a variable of the daemon's.
    let leaked = std::fs::File::open("/etc/hostname").unwrap();
    let _leaked = rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty());
    let ran = host
        .run("id -u; id -g; id -G; pwd; umask; ls /proc/self/fd; grep ^Sig /proc/self/status")
        .await;
    assert_eq!((ran.exit, ran.error.as_str()), (status(0), ""));
    let home = host.home();
    // Of ls, 3 is its own.
    let start =
        format!("{}\n{}\n{} 44010\n{}\n0022\n0\n1\n2\n3\n", JOE.1, JOE.2, JOE.2, home.display());
    assert!(ran.output.starts_with(&start), "{}", ran.output);
    // The two are the C library's own: its posix_spawn ignores them for every program.
    for mask in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000180000000"] {
        assert!(ran.output.contains(mask), "{}", ran.output);
    }
}

#[tokio::test]
async fn the_environment_is_the_hosts_the_accounts_and_the_sessions() {
    let Some(host) = Host::new() else { return };
    let tsh = host.home().join(".tsh");
    std::fs::create_dir(&tsh).unwrap();
    std::fs::write(tsh.join("environment"), "EDITOR=vi\nSSH_SESSION_ID=mine\n").unwrap();
    let mut wanted = spec("joe", exec("env"));
    wanted.client_env = vec![("LC_ALL".into(), "C".into())];
    wanted.env = vec![("SSH_SESSION_ID".into(), "s1".into())];
    for permit in [false, true] {
        wanted.permit_user_env = permit;
        let ran = finish(host.spawn(wanted.clone()).await.unwrap(), b"").await;
        let mut names: Vec<_> = ran.output.lines().collect();
        names.retain(|line| !line.starts_with("PATH=") && !line.starts_with("LANG="));
        names.retain(|line| {
            !["PWD=", "OLDPWD=", "_=", "SHLVL="].iter().any(|own| line.starts_with(own))
        });
        names.sort_unstable();
        let home = format!("HOME={}", host.home().display());
        let mut expected = vec![
            "FROM_HOST=yes",
            &home,
            "LC_ALL=C",
            "LOGNAME=joe",
            "MAIL=/var/mail/joe",
            "SHELL=/bin/sh",
            "SSH_SESSION_ID=s1",
            "USER=joe",
        ];
        if permit {
            expected.insert(0, "EDITOR=vi");
        }
        assert_eq!(names, expected);
    }
}

#[tokio::test]
async fn the_services_own_limit_of_open_files_is_not_the_logins() {
    let Some(host) = Host::new() else { return };
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let ran = host.run("ulimit -Sn").await;
    assert_eq!(ran.output.trim(), hard.map_or(1024, |hard| hard.min(1024)).to_string());
}

#[tokio::test]
async fn exit_status_signal_and_errors_come_back() {
    let Some(host) = Host::new() else { return };
    let ran = host.run("echo out; echo err >&2; exit 7").await;
    assert_eq!((ran.exit, ran.output.as_str(), ran.error.as_str()), (status(7), "out\n", "err\n"));
    let ran = host.run("kill -TERM $$").await;
    assert_eq!(ran.exit, Exit { signal: Some("TERM".into()), ..Exit::default() });
    let ran = host.run("no-such-command-here").await;
    assert_eq!(ran.exit, status(127));
}

#[tokio::test]
async fn bytes_pass_both_ways_and_input_ends() {
    let Some(host) = Host::new() else { return };
    let bytes: Vec<u8> =
        (0..8_000_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let child = host.spawn(spec("joe", exec("sha256sum"))).await.unwrap();
    let theirs = finish(child, &bytes).await.output;
    let (cat, sum) =
        (host.spawn(spec("joe", exec("cat"))), host.spawn(spec("joe", exec("sha256sum"))));
    let (mut cat, mut sum) = (cat.await.unwrap(), sum.await.unwrap());
    let (from, into) = (&mut cat.output, &mut sum.input);
    let feed = async {
        use tokio::io::AsyncWriteExt;
        cat.input.write_all(&bytes).await.unwrap();
        cat.input.shutdown().await.unwrap();
    };
    let pass = async {
        use tokio::io::AsyncWriteExt;
        tokio::io::copy(from, into).await.unwrap();
        into.shutdown().await.unwrap();
    };
    tokio::join!(feed, pass);
    assert_eq!(finish(sum, b"").await.output, theirs);
}

#[tokio::test]
async fn a_shell_is_a_login_shell_and_a_missing_home_is_no_obstacle() {
    let Some(host) = Host::new() else { return };
    let child = host.spawn(spec("ghost", Program::Shell)).await.unwrap();
    let ran = finish(child, b"echo $0; pwd; exit 3\n").await;
    assert_eq!((ran.exit, ran.output.as_str()), (status(3), "-sh\n/\n"), "{}", ran.error);
}

#[tokio::test]
async fn commands_are_bytes() {
    let Some(host) = Host::new() else { return };
    let child = host
        .spawn(spec("joe", Program::Exec(b"printf '\xff' | od -An -tx1".to_vec())))
        .await
        .unwrap();
    assert_eq!(finish(child, b"").await.output.trim(), "ff");
    let error = host.spawn(spec("joe", Program::Exec(b"a\0b".to_vec()))).await.unwrap_err();
    assert!(error.to_string().starts_with("start the program as joe: run /bin/sh: "), "{error}");
    let long = vec![b'x'; 3 * 1024 * 1024];
    assert!(host.spawn(spec("joe", Program::Exec(long))).await.is_err());
}

#[tokio::test]
async fn signals_reach_the_group_as_far_as_the_login_may() {
    let Some(host) = Host::new() else { return };
    let child = host
        .spawn(spec(
            "joe",
            exec("trap 'echo got usr1; exit 5' USR1; echo ready; while :; do sleep 0.05; done"),
        ))
        .await
        .unwrap();
    let mut child = child;
    let mut line = [0; 6];
    child.output.read_exact(&mut line).await.unwrap();
    assert!(child.control.signal("NOPE").is_err());
    child.control.signal("USR1").unwrap();
    let ran = finish(child, b"").await;
    assert_eq!((ran.exit, ran.output.as_str()), (status(5), "got usr1\n"));
}

#[tokio::test]
async fn who_stops_listening_ends_the_whole_group() {
    let Some(host) = Host::new() else { return };
    let file = host.home().join("pids");
    // The second takes no hint.
    let command = exec(
        "sleep 600 & echo $! > pids; (trap '' HUP; exec sleep 601) & echo $! >> pids; \
         trap '' HUP; echo $$ >> pids; echo end >> pids; sleep 602",
    );
    let child = host.spawn(spec("joe", command)).await.unwrap();
    let text = loop {
        let text = appears(&file).await;
        if text.ends_with("end\n") {
            break text;
        }
    };
    let control = child.control.clone();
    drop(child);
    for pid in text.lines().take(3) {
        assert!(std::path::Path::new("/proc").join(pid).exists());
    }
    control.hangup();
    assert_eq!(control.wait().await.signal.as_deref(), Some("KILL"));
    drop(control);
    for pid in text.lines().take(3) {
        ends(pid).await;
    }
}

#[tokio::test]
async fn what_the_program_left_behind_lives_on() {
    let Some(host) = Host::new() else { return };
    let ran = host.run("sleep 600 >/dev/null 2>&1 </dev/null & echo $!").await;
    let pid: i32 = ran.output.trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::test_kill_process(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
