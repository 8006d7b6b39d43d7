use shared_wire::mysql::refuse;
use tokio::io::AsyncWriteExt as _;

use super::*;

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

fn login() -> Login {
    Login {
        capabilities: capability::PLAIN,
        max_packet: 1 << 24,
        charset: 45,
        user: "alice".into(),
        auth: b"what the client said".to_vec(),
        database: "shop".into(),
        plugin: "caching_sha2_password".into(),
        attributes: Vec::new(),
    }
}

/// Logs in at a server that says these payloads; what came of it, and what the server read.
async fn talk(said: &[&[u8]]) -> (Result<Answer, EngineError>, Vec<(u8, Vec<u8>)>) {
    let (mut near, mut far) = tokio::io::duplex(64 * 1024);
    for (payload, at) in said.iter().zip(0..) {
        packets::write(&mut far, 3 + 2 * at, payload).await.unwrap();
    }
    let answer = log_in(&mut near, &login()).await;
    drop(near);
    let mut heard = Vec::new();
    while let Ok(packet) = packets::read(&mut far, EngineError::Client).await {
        heard.push(packet);
    }
    (answer, heard)
}

#[tokio::test]
async fn a_certificate_and_an_empty_password_let_in() {
    let (answer, heard) = talk(&[OK]).await;
    assert_eq!(answer.unwrap(), Answer { payload: OK.to_vec(), refused: None });
    assert_eq!(heard.len(), 1);
    let (answer, heard) = talk(&[b"\xfemysql_native_password\0salt", OK]).await;
    assert!(answer.is_ok());
    assert_eq!(heard[1], (4, vec![]));
    let (answer, heard) = talk(&[b"\xfecaching_sha2_password\0salt", &[1, 3], OK]).await;
    assert!(answer.is_ok());
    assert_eq!(heard[1], (4, vec![0]));
}

#[tokio::test]
async fn no_password_leaves_and_its_want_is_explained() {
    for said in [
        &[&b"\xfeclient_ed25519\0salt"[..]][..],
        &[b"\xfemysql_clear_password\0"],
        &[&[1, 4]],
        &[&[0xfe]],
    ] {
        let (answer, heard) = talk(said).await;
        let text = answer.unwrap_err().to_string();
        assert!(text.contains("REQUIRE SUBJECT '/CN=alice'"), "{text}");
        assert_eq!(heard.len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_refuses_or_makes_no_sense() {
    let packet = refuse(0, 1045, "28000", "Access denied for user 'alice'");
    let (answer, _) = talk(&[&packet[4..]]).await;
    let answer = answer.unwrap();
    assert_eq!(answer.refused.as_deref(), Some("1045 (28000): Access denied for user 'alice'"));
    assert_eq!(answer.payload, &packet[4..]);
    assert!(matches!(talk(&[&[9]]).await.0, Err(EngineError::Malformed(_))));
    let (answer, _) = talk(&[&[1, 3][..]; 9]).await;
    assert!(answer.unwrap_err().to_string().contains("does not end"));
    let (mut near, mut far) = tokio::io::duplex(64);
    far.write_all(&[0xff, 0xff, 0xff, 0]).await.unwrap();
    let error = packets::read(&mut near, EngineError::Database).await.unwrap_err();
    assert_eq!(error.to_string(), "malformed packet: a packet of 16777215 bytes in a handshake");
}

#[test]
fn both_sides_agree_about_what_messages_look_like() {
    let greeting = Greeting::plain("8.0.36", 1, [1; 20]);
    let without = agree(&login(), &greeting).unwrap_err().to_string();
    assert!(without.contains("does not offer TLS"), "{without}");
    let greeting = greeting.with_tls();
    let agreed = agree(&login(), &greeting).unwrap();
    assert_eq!((agreed.auth.as_slice(), agreed.plugin.as_str()), (&b""[..], NATIVE));
    let newer = Login { capabilities: capability::PLAIN | capability::DEPRECATE_EOF, ..login() };
    let replaced = agree(&newer, &greeting).unwrap_err().to_string();
    assert!(replaced.contains("connect again"), "{replaced}");
    let old =
        Greeting { capabilities: greeting.capabilities & !capability::LOCAL_FILES, ..greeting };
    assert_eq!(agree(&login(), &old).unwrap().capabilities & capability::LOCAL_FILES, 0);
}
