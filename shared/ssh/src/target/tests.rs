use super::*;
use tokio::io::AsyncWriteExt;

#[test]
fn openssh_knows_hostbound_since_8_9() {
    for (ident, expected) in [
        ("SSH-2.0-OpenSSH_8.9p1 Ubuntu-3", true),
        ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", true),
        ("SSH-2.0-OpenSSH_10.0", true),
        ("SSH-2.0-OpenSSH_8.8", false),
        ("SSH-2.0-OpenSSH_7.4", false),
        ("SSH-2.0-dropbear_2022.83", false),
        ("SSH-2.0-OpenSSH_for_nobody", false),
    ] {
        assert_eq!(knows_hostbound(ident), expected, "{ident}");
    }
}

#[tokio::test]
async fn a_target_that_hangs_up_before_it_says_who_it_is_is_eof() {
    let (near, mut far) = tokio::io::duplex(256);
    far.write_all(b"Exceeded MaxStartups\r\n").await.unwrap();
    drop(far);
    let err = identify(near).await.err().unwrap();
    assert_eq!(err.to_string(), "ssh: handshake failed: EOF");
}

#[tokio::test]
async fn banner_lines_are_kept_for_the_handshake() {
    let (near, mut far) = tokio::io::duplex(256);
    far.write_all(b"hello\r\nSSH-2.0-OpenSSH_9.2\r\nrest").await.unwrap();
    drop(far);
    let (ident, mut stream) = identify(near).await.unwrap();
    assert_eq!(ident, "SSH-2.0-OpenSSH_9.2");
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "hello\r\nSSH-2.0-OpenSSH_9.2\r\nrest");
}

#[tokio::test]
async fn an_endless_banner_ends() {
    let (near, mut far) = tokio::io::duplex(1024);
    tokio::spawn(async move { while far.write_all(&[b'x'; 512]).await.is_ok() {} });
    assert!(matches!(identify(near).await, Err(TargetError::NotSsh)));
}
