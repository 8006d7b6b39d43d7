use super::*;

fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(rest.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
}

#[test]
fn requests_are_told_apart_and_what_follows_is_left() {
    let cancel = Cancel { pid: 7, secret: vec![1, 2, 3, 4] };
    let long = Cancel { pid: 7, secret: vec![5; 256] };
    for (bytes, wanted) in [
        (SSL_REQUEST.to_vec(), First::Ssl),
        (GSSENC_REQUEST.to_vec(), First::GssEnc),
        (cancel.to_bytes(), First::Cancel(cancel)),
        (long.to_bytes(), First::Cancel(long)),
    ] {
        for end in 0..bytes.len() {
            assert_eq!(first(&bytes[..end]), Ok(None));
        }
        let more = [&bytes[..], b"more"].concat();
        assert_eq!(first(&more), Ok(Some((wanted, bytes.len()))));
    }
}

#[test]
fn a_startup_message_names_user_and_database_once() {
    let bytes = packet(
        0x0003_0000,
        b"user\0eve\0database\0a\0application_name\0psql\0user\0alice\0options\0-c x=y\0\0",
    );
    let Ok(Some((First::Startup(startup), _))) = first(&bytes) else { panic!() };
    assert_eq!((startup.user.as_str(), startup.database()), ("alice", "a"), "the last one counts");
    assert_eq!(startup.setting("application_name"), Some("psql"));
    let again = startup.to_bytes();
    assert_eq!(
        again,
        packet(
            0x0003_0000,
            b"user\0alice\0database\0a\0application_name\0psql\0options\0-c x=y\0\0"
        )
    );
}

#[test]
fn without_a_database_it_is_the_users() {
    let bytes = packet(0x0003_0002, b"user\0alice\0\0");
    let Ok(Some((First::Startup(startup), _))) = first(&bytes) else { panic!() };
    assert_eq!((startup.database(), startup.minor), ("alice", 2));
    assert_eq!(startup.to_bytes(), packet(0x0003_0002, b"user\0alice\0database\0alice\0\0"));
}

#[test]
fn what_cannot_be_served_says_why() {
    for (bytes, wanted) in [
        (vec![0, 0, 0, 7], StartupError::Length(7)),
        (vec![0xff; 4], StartupError::Length(u32::MAX)),
        (10_001_u32.to_be_bytes().to_vec(), StartupError::Length(10_001)),
        (packet(0x0002_0000, b"joe\0"), StartupError::Version(2, 0)),
        (packet(0x0003_0000, b"user\0joe"), StartupError::Malformed),
        (packet(0x0003_0000, b"user\0joe\0\0\0"), StartupError::Malformed),
        (packet(0x0003_0000, b"user\0\xff\0\0"), StartupError::Malformed),
        (packet(SSL, b"x"), StartupError::Malformed),
        (packet(CANCEL, b"\0\0\0\x01abc"), StartupError::Malformed),
        (b"GET / HTTP/1.1\r\n".to_vec(), StartupError::Length(0x4745_5420)),
    ] {
        assert_eq!(first(&bytes), Err(wanted), "{}", bytes.escape_ascii());
    }
}
