//! The relay between a real SSH client and a scripted target.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, client};
use shared_pki::KeyPair;
use tokio::sync::Semaphore;

use super::test_support::{World, enter, knock, pattern};

const DEADLINE: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("the deadline has passed")
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    output: Vec<u8>,
    eof: bool,
    status: Option<u32>,
    signal: bool,
    closed: bool,
}

async fn listen(channel: &mut Channel<Msg>) -> Heard {
    let mut heard = Heard::default();
    within(async {
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => heard.output.extend_from_slice(&data),
                ChannelMsg::Eof => heard.eof = true,
                ChannelMsg::ExitStatus { exit_status } => heard.status = Some(exit_status),
                ChannelMsg::ExitSignal { .. } => heard.signal = true,
                ChannelMsg::Close => heard.closed = true,
                _ => {}
            }
        }
    })
    .await;
    heard
}

async fn exec(
    handle: &client::Handle<super::test_support::AnyServer>,
    command: &str,
) -> Channel<Msg> {
    let channel = within(handle.channel_open_session()).await.unwrap();
    channel.exec(true, command).await.unwrap();
    channel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_status_and_close_arrive_in_every_order_with_the_window_full() {
    let world = World::new();
    let client = enter(&world).await;
    // 5 MiB is past the 2 MiB window; the client reads late.
    for bytes in [0, 1, 100_000, 5 * 1024 * 1024] {
        for order in ["exc", "xec", "xc", "ec", "c", "esc"] {
            let mut channel = exec(&client.handle, &format!("flood {bytes} {order}")).await;
            if bytes > 1 << 20 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let heard = listen(&mut channel).await;
            assert_eq!(heard.output.len(), bytes, "{order}");
            assert!(heard.output == pattern(bytes), "{bytes} {order}");
            assert_eq!(heard.status, order.contains('x').then_some(7), "{bytes} {order}");
            assert_eq!(heard.signal, order.contains('s'), "{bytes} {order}");
            assert!(heard.closed, "{bytes} {order}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_at_once_all_end() {
    let world = World::new();
    let client = enter(&world).await;
    let mut channels = Vec::new();
    for _ in 0..20 {
        channels.push(exec(&client.handle, "flood 3000000 xec").await);
    }
    let heard = futures::future::join_all(channels.iter_mut().map(listen)).await;
    for heard in heard {
        assert_eq!((heard.output.len(), heard.status, heard.closed), (3_000_000, Some(7), true));
    }
    assert_eq!(
        world.connects.load(Ordering::Relaxed),
        20,
        "each session channel has its own connection"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tap_sees_every_byte_and_the_beginning_and_the_end() {
    let world = World::new();
    let client = enter(&world).await;
    let mut channel = exec(&client.handle, "flood 2500000 exc").await;
    let heard = listen(&mut channel).await;
    assert!(world.seen.lock().unwrap().output == heard.output);
    let log = world.log();
    assert_eq!(log[0], "start Exec(\"flood 2500000 exc\") pty=None");
    assert!(
        log[1].contains("exit_status: Some(7)") && log[1].contains("to_client: 2500000"),
        "{log:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_that_waits_stops_the_target_and_loses_nothing() {
    let mut world = World::unshared();
    world.gate = Semaphore::new(0);
    let world = Arc::new(world);
    let client = enter(&world).await;
    let mut channel = exec(&client.handle, "flood 20000000 xec").await;
    let none = tokio::time::timeout(Duration::from_millis(300), async {
        loop {
            if let Some(ChannelMsg::Data { .. }) = channel.wait().await {
                return;
            }
        }
    });
    assert!(none.await.is_err(), "output reached the client ahead of the tap");
    world.gate.add_permits(1_000_000);
    let heard = listen(&mut channel).await;
    assert_eq!((heard.output.len(), heard.status), (20_000_000, Some(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paste_comes_back_whole() {
    let world = World::new();
    let client = enter(&world).await;
    let channel = exec(&client.handle, "cat").await;
    let (mut reading, writing) = channel.split();
    let sent = pattern(16 * 1024 * 1024);
    let paste = Bytes::from(sent.clone());
    tokio::spawn(async move {
        writing.data_bytes(paste).await.unwrap();
        writing.eof().await.unwrap();
    });
    let mut output = Vec::new();
    let mut status = None;
    within(async {
        while let Some(message) = reading.wait().await {
            match message {
                ChannelMsg::Data { data } => output.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
    })
    .await;
    assert!(output == sent);
    assert_eq!(status, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_nobody_reads_does_not_stop_the_one_beside_it() {
    let world = World::new();
    let client = enter(&world).await;
    // The target does not read 8 MiB of input, far beyond every window and queue.
    let deaf = exec(&client.handle, "deaf").await;
    let input = tokio::spawn(async move {
        deaf.data_bytes(Bytes::from(vec![0; 8 * 1024 * 1024])).await.unwrap();
        deaf
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut channel = exec(&client.handle, "flood 100000 xec").await;
    assert_eq!(listen(&mut channel).await.output.len(), 100_000);
    let mut cat = exec(&client.handle, "cat").await;
    cat.data_bytes(Bytes::from_static(b"hello")).await.unwrap();
    cat.eof().await.unwrap();
    assert_eq!(listen(&mut cat).await.output, b"hello");
    drop(within(input).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_belong_to_their_requests() {
    let mut world = World::unshared();
    world.refuse_pty = true;
    let world = Arc::new(world);
    let client = enter(&world).await;
    let mut channel = within(client.handle.channel_open_session()).await.unwrap();
    // One burst, as OpenSSH sends it.
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.set_env(false, "LANG", "C").await.unwrap();
    channel.request_shell(true).await.unwrap();
    let mut replies = Vec::new();
    within(async {
        while replies.len() < 2 {
            match channel.wait().await {
                Some(ChannelMsg::Success) => replies.push(true),
                Some(ChannelMsg::Failure) => replies.push(false),
                Some(_) => {}
                None => panic!("closed"),
            }
        }
    })
    .await;
    assert_eq!(replies, [false, true]);
    channel.eof().await.unwrap();
    listen(&mut channel).await;
    assert_eq!(world.log()[0], "start Shell pty=None");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_and_its_sizes_are_seen() {
    let world = World::new();
    let client = enter(&world).await;
    let mut channel = within(client.handle.channel_open_session()).await.unwrap();
    channel.request_pty(true, "xterm", 120, 40, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel.window_change(100, 30, 0, 0).await.unwrap();
    channel.data_bytes(Bytes::from_static(b"x")).await.unwrap();
    channel.eof().await.unwrap();
    listen(&mut channel).await;
    let log = world.log();
    assert_eq!(log[0], "start Shell pty=Some(Size { columns: 120, rows: 40 })");
    assert_eq!(log[1], "resize 100:30");
}

#[tokio::test]
async fn a_target_that_cannot_be_had_is_told_at_the_first_channel() {
    let world = World::new();
    *world.refuse.lock().unwrap() = Some("ssh: handshake failed: EOF".to_owned());
    let client = enter(&world).await;
    match within(client.handle.channel_open_session()).await {
        Err(russh::Error::ChannelOpenFailure(reason)) => assert_eq!(reason.code(), 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_connections_share_one_connection_and_obey() {
    let world = World::new();
    let client = enter(&world).await;
    for _ in 0..3 {
        let mut channel =
            within(client.handle.channel_open_direct_tcpip("echo", 80, "127.0.0.1", 1))
                .await
                .unwrap();
        channel.data_bytes(Bytes::from_static(b"ping")).await.unwrap();
        channel.eof().await.unwrap();
        assert_eq!(listen(&mut channel).await.output, b"ping");
    }
    assert_eq!(world.connects.load(Ordering::Relaxed), 1);
    assert!(
        within(client.handle.channel_open_direct_tcpip("echo", 25, "127.0.0.1", 1)).await.is_err()
    );
    assert!(
        within(client.handle.channel_open_direct_tcpip("nowhere", 80, "127.0.0.1", 1))
            .await
            .is_err()
    );
    within(async {
        while world.log().len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(world.log()[0], "forward 4 4 None");
    assert!(world.log()[3].starts_with("forward 0 0 Some("));
}

#[tokio::test]
async fn what_is_not_in_the_table_does_not_pass() {
    let world = World::new();
    let client = enter(&world).await;
    assert!(within(client.handle.channel_open_x11("127.0.0.1", 1)).await.is_err());
    assert!(within(client.handle.channel_open_direct_streamlocal("/run/x")).await.is_err());
    assert!(within(client.handle.tcpip_forward("0.0.0.0", 8080)).await.is_err());
    let mut channel = within(client.handle.channel_open_session()).await.unwrap();
    channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.unwrap();
    assert!(matches!(within(channel.wait()).await, Some(ChannelMsg::Failure)));
    channel.set_env(true, "LANG", "C\x1b]0;x\x07").await.unwrap();
    assert!(matches!(within(channel.wait()).await, Some(ChannelMsg::Failure)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_ends_sessions_with_a_message() {
    let world = World::new();
    let client = enter(&world).await;
    let mut channel = exec(&client.handle, "cat").await;
    assert!(matches!(
        within(channel.wait()).await,
        Some(ChannelMsg::WindowAdjusted { .. } | ChannelMsg::Success)
    ));
    world.over.cancel();
    let mut words = Vec::new();
    within(async {
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::ExtendedData { data, .. } = message {
                words.extend_from_slice(&data);
            }
        }
    })
    .await;
    assert_eq!(String::from_utf8(words).unwrap().trim(), "ERROR: access was revoked");
    drop(client.handle);
    // The client is told before the tap has ended.
    within(client.server).await.unwrap();
    assert!(world.log().last().unwrap().contains("access was revoked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_ends_its_sessions() {
    let world = World::new();
    let client = enter(&world).await;
    let _channel = exec(&client.handle, "flood 50000000 xec").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    within(client.server).await.unwrap();
    assert!(world.log().last().unwrap().starts_with("end "), "{:?}", world.log());
}

#[tokio::test]
async fn a_user_name_that_changes_ends_the_connection() {
    let world = World::new();
    let mut client = knock(&world, DEADLINE).await;
    assert!(!client.handle.authenticate_none("nobody").await.unwrap().success());
    let (key, certificate) = world.cluster.user("joe");
    let got_in = client
        .handle
        .authenticate_openssh_cert("root", Arc::new(key.private().clone()), certificate)
        .await;
    assert!(!got_in.is_ok_and(|result| result.success()));
    let login = within(client.server).await.unwrap();
    assert_eq!(login.failure.as_deref(), Some("user name changed during authentication"));
    assert!(!login.admitted);
}

#[tokio::test]
async fn a_plain_key_and_a_foreign_login_are_refused_and_the_reason_is_kept() {
    let world = World::new();
    let mut client = knock(&world, DEADLINE).await;
    let key = KeyPair::generate().unwrap();
    let key = russh::keys::PrivateKeyWithHashAlg::new(Arc::new(key.private().clone()), None);
    assert!(!client.handle.authenticate_publickey("root", key).await.unwrap().success());
    client.handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    let login = within(client.server).await.unwrap();
    assert_eq!(
        login.failure.as_deref(),
        Some("a plain key was presented, expected a user certificate")
    );

    let mut client = knock(&world, DEADLINE).await;
    let (key, certificate) = world.cluster.user("joe");
    assert!(
        !client
            .handle
            .authenticate_openssh_cert("admin", Arc::new(key.private().clone()), certificate)
            .await
            .unwrap()
            .success()
    );
    client.handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    let login = within(client.server).await.unwrap();
    assert!(login.failure.is_some_and(|why| why.contains("admin")));
}

#[tokio::test]
async fn nobody_stands_at_the_door_for_ever() {
    let world = World::new();
    let client = knock(&world, Duration::from_millis(100)).await;
    let login = within(client.server).await.unwrap();
    assert!(!login.admitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_changes_what_passes_and_answers_itself() {
    let world = World::new();
    let client = enter(&world).await;
    let mut channel = within(client.handle.channel_open_session()).await.unwrap();
    // Before there is a program: no target may keep it for the program, past the filter.
    channel.data_bytes(Bytes::from_static(b"early")).await.unwrap();
    channel.request_subsystem(true, "brackets").await.unwrap();
    channel.data_bytes(Bytes::from_static(b"abc")).await.unwrap();
    channel.data_bytes(Bytes::from_static(b"ask")).await.unwrap();
    let (mut output, mut words, mut asked_to_end) = (Vec::new(), Vec::new(), false);
    within(async {
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => output.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => words.extend_from_slice(&data),
                _ => {}
            }
            let text = String::from_utf8_lossy(&output);
            let whole =
                text.replace("answer", "").ends_with("(<)(abc)(>)") && text.contains("answer");
            if whole && !std::mem::replace(&mut asked_to_end, true) {
                channel.data_bytes(Bytes::from_static(b"end")).await.unwrap();
            }
        }
    })
    .await;
    let output = String::from_utf8(output).unwrap();
    let filtered = output.replace("answer", "").replace("(<)(early)(>)", "");
    assert_eq!(filtered, "(<)(abc)(>)");
    assert_eq!(String::from_utf8(words).unwrap().trim(), "ERROR: that was it");
    within(async {
        while world.log().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(world.log()[1].contains("that was it"), "{:?}", world.log());
    assert_eq!(world.seen.lock().unwrap().output, b"", "the filter's output is not the tap's");
}
