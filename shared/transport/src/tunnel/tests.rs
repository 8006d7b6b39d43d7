//! Both ends over a stream in memory.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn request() -> DialRequest {
    DialRequest {
        address: DialRequest::LOCAL_NODE.to_owned(),
        server_id: "id.example.com".to_owned(),
        conn_type: ConnType::Node,
        teleport_version: "1".to_owned(),
        client_src_addr: "192.0.2.7:1".parse().unwrap(),
        client_dst_addr: None,
    }
}

/// A tunnel whose agent hands what is asked of it to `act`.
async fn pair(
    mut act: impl FnMut(Asked) + Send + 'static,
) -> (Tunnel, tokio::task::JoinHandle<Result<(), TunnelError>>) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    tokio::spawn(async move {
        let mut agent = AgentTunnel::open(far).await.unwrap();
        while let Ok(Some(asked)) = agent.next().await {
            act(asked);
        }
    });
    let (tunnel, driver) = Tunnel::accept(near).await.unwrap();
    (tunnel, tokio::spawn(driver.run()))
}

fn echo(asked: Asked) {
    let Asked::Dial(_, reply) = asked else { panic!("not a dial: {asked:?}") };
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(reply.accept().unwrap());
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
}

#[tokio::test]
async fn streams_carry_bytes_and_half_closes() {
    let (tunnel, _driver) = pair(echo).await;
    let mut all = Vec::new();
    for n in 0..20_u8 {
        let tunnel = tunnel.clone();
        all.push(tokio::spawn(async move {
            let stream = tunnel.dial(&request(), LIMIT).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let sent = vec![n; 3 * 1024 * 1024 + usize::from(n)];
            let sending = sent.clone();
            let writing = tokio::spawn(async move {
                write.write_all(&sending).await.unwrap();
                write.shutdown().await.unwrap();
                write
            });
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            assert!(back == sent, "stream {n}");
            writing.await.unwrap();
        }));
    }
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn one_who_does_not_read_stops_nobody_and_holds_a_window() {
    // Every stream gets bytes without end.
    let (tunnel, _driver) = pair(|asked| {
        let Asked::Dial(_, reply) = asked else { return };
        tokio::spawn(async move {
            let mut stream = reply.accept().unwrap();
            let mut sent = 0_u64;
            while let Ok(Ok(())) =
                tokio::time::timeout(Duration::from_secs(2), stream.write_all(&[7; 32 * 1024]))
                    .await
            {
                sent += 32 * 1024;
                if sent > 64 * 1024 * 1024 {
                    break;
                }
            }
            let within = u64::from(STREAM_WINDOW) + SEND_BUFFER as u64 + 256 * 1024;
            // Who is not read is held at the window; who is read went on.
            assert!(sent <= within || sent > 64 * 1024 * 1024, "{sent} bytes were taken");
        });
    })
    .await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(tunnel.dial(&request(), LIMIT).await.unwrap());
    }
    let mut read = tunnel.dial(&request(), LIMIT).await.unwrap();
    let mut got = 0;
    let mut buf = vec![0; 64 * 1024];
    while got < 32 * 1024 * 1024 {
        let n = tokio::time::timeout(LIMIT, read.read(&mut buf)).await.unwrap().unwrap();
        assert!(n > 0);
        got += n;
    }
    // What stood still goes on as soon as it is read.
    let mut late = stalled.pop().unwrap();
    let mut got = 0;
    while got < 4 * 1024 * 1024 {
        let n = tokio::time::timeout(LIMIT, late.read(&mut buf)).await.unwrap().unwrap();
        assert!(n > 0);
        got += n;
    }
}

#[tokio::test]
async fn a_refusal_arrives_in_words_fit_for_a_terminal() {
    let (tunnel, _driver) = pair(|asked| match asked {
        Asked::Dial(_, reply) => reply.refuse("no such \x1b[31mservice here"),
        other => panic!("{other:?}"),
    })
    .await;
    let err = tunnel.dial(&request(), LIMIT).await.unwrap_err();
    assert_eq!(err.to_string(), "no such [31mservice here");
    // A reply that is dropped is a refusal as well.
    let (tunnel, _driver) = pair(drop).await;
    let err = tunnel.dial(&request(), LIMIT).await.unwrap_err();
    assert!(matches!(err, Refused::Gone(_)), "{err:?}");
    let (tunnel, _driver) = pair(std::mem::forget).await;
    let err = tunnel.dial(&request(), Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(err, Refused::TimedOut(_)), "{err:?}");
}

#[tokio::test]
async fn dials_that_are_refused_or_given_up_leave_nothing_behind() {
    let (tunnel, driver) = pair(|asked| {
        let Asked::Dial(request, reply) = asked else { return };
        if request.address == "refuse" {
            reply.refuse("no");
        } else {
            echo(Asked::Dial(request, reply));
        }
    })
    .await;
    let refused = DialRequest { address: "refuse".to_owned(), ..request() };
    for n in 0..5_000 {
        let err = tunnel.dial(&refused, LIMIT).await.unwrap_err();
        assert_eq!(err.to_string(), "no", "dial {n}");
    }
    for _ in 0..2_000 {
        // Given up before the answer, and right after it.
        let _ = tokio::time::timeout(Duration::ZERO, tunnel.dial(&request(), LIMIT)).await;
        drop(tunnel.dial(&request(), LIMIT).await.unwrap());
    }
    // More than there may be at a time: places are given back.
    let mut stream = tunnel.dial(&request(), LIMIT).await.unwrap();
    stream.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    stream.read_exact(&mut back).await.unwrap();
    assert!(!driver.is_finished());
}

#[tokio::test]
async fn proxies_are_told_and_a_reconnect_is_asked_for() {
    let (heard, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let (tunnel, _driver) = pair(move |asked| {
        let heard = heard.clone();
        match asked {
            Asked::Discovery(list) => {
                tokio::spawn(async move { heard.send(list.read().await).unwrap() });
            }
            Asked::Reconnect => heard.send(None).unwrap(),
            Asked::Dial(..) => panic!("a dial"),
        }
    })
    .await;
    let proxies: Vec<ProxyEntry> = (0..100)
        .map(|n| ProxyEntry { host_id: n.to_string(), addr: "gate:443".to_owned() })
        .collect();
    tunnel.tell_proxies(&proxies).await.unwrap();
    assert_eq!(hear.recv().await.unwrap().as_ref(), Some(&proxies));
    tunnel.ask_to_reconnect().await.unwrap();
    assert_eq!(hear.recv().await.unwrap(), None);
}

#[tokio::test]
async fn an_agent_that_finishes_lets_streams_end() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (finish, mut finished) = tokio::sync::oneshot::channel::<()>();
    let agent = tokio::spawn(async move {
        let mut agent = AgentTunnel::open(far).await.unwrap();
        let mut finishing = false;
        loop {
            tokio::select! {
                asked = agent.next() => match asked.unwrap() {
                    Some(asked) => echo(asked),
                    None => return,
                },
                _ = &mut finished, if !finishing => {
                    finishing = true;
                    agent.finish();
                }
            }
        }
    });
    let (tunnel, driver) = Tunnel::accept(near).await.unwrap();
    let driver = tokio::spawn(driver.run());
    let mut stream = tunnel.dial(&request(), LIMIT).await.unwrap();
    finish.send(()).unwrap();
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        match tunnel.dial(&request(), LIMIT).await {
            Err(Refused::Gone(_)) => break,
            other => assert!(tokio::time::Instant::now() < deadline, "{other:?}"),
        }
    }
    stream.write_all(b"last words").await.unwrap();
    let mut back = [0; 10];
    stream.read_exact(&mut back).await.unwrap();
    drop(stream);
    drop(tunnel);
    tokio::time::timeout(LIMIT, agent).await.unwrap().unwrap();
    tokio::time::timeout(LIMIT, driver).await.unwrap().unwrap().unwrap();
}

/// Passes bytes between two streams until told to swallow them: a link that is cut without a word.
async fn link(a: DuplexStream, b: DuplexStream, cut: tokio::sync::watch::Receiver<bool>) {
    let (mut a_read, mut a_write) = tokio::io::split(a);
    let (mut b_read, mut b_write) = tokio::io::split(b);
    let pass = async |read: &mut tokio::io::ReadHalf<DuplexStream>,
                      write: &mut tokio::io::WriteHalf<DuplexStream>| {
        let mut buf = [0; 4096];
        while let Ok(n @ 1..) = read.read(&mut buf).await {
            if !*cut.borrow() && write.write_all(&buf[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(pass(&mut a_read, &mut b_write), pass(&mut b_read, &mut a_write));
}

#[tokio::test]
async fn both_sides_notice_a_cut_link() {
    let ms = Duration::from_millis;
    let pace = super::heart::Pace { ask: ms(50), answer: ms(300), look: ms(200) };
    let (near, near_far) = tokio::io::duplex(64 * 1024);
    let (far_near, far) = tokio::io::duplex(64 * 1024);
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    tokio::spawn(link(near_far, far_near, is_cut));
    let agent = tokio::spawn(async move {
        let mut agent = AgentTunnel::open_at(far, pace).await.unwrap();
        agent.next().await
    });
    let (_tunnel, driver) = Tunnel::accept_at(near, pace).await.unwrap();
    let driver = tokio::spawn(driver.run());
    tokio::time::sleep(ms(1500)).await;
    assert!(!agent.is_finished() && !driver.is_finished(), "an idle tunnel lives");
    cut.send_replace(true);
    let agent = tokio::time::timeout(LIMIT, agent).await.unwrap().unwrap();
    assert!(matches!(agent, Err(TunnelError::Silent)));
    let driver = tokio::time::timeout(LIMIT, driver).await.unwrap().unwrap();
    assert!(matches!(driver, Err(TunnelError::Silent)));
}

#[test]
fn a_cut_link_is_noticed_in_seconds() {
    let usual = super::heart::Pace::USUAL;
    assert!(usual.ask + usual.answer <= SILENCE);
    assert!(usual.look * 2 <= SILENCE && usual.look > usual.ask);
}

#[tokio::test]
async fn what_is_no_tunnel_is_an_error() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], b"SSH-2.0-x\r\n"] {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(garbage).await.unwrap();
        far.shutdown().await.unwrap();
        let driven = async {
            let (_tunnel, driver) = Tunnel::accept(near).await?;
            driver.run().await
        };
        assert!(driven.await.is_err());
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(garbage).await.unwrap();
        far.shutdown().await.unwrap();
        let opened = async {
            let mut agent = AgentTunnel::open(near).await?;
            agent.next().await
        };
        assert!(opened.await.is_err());
    }
}
