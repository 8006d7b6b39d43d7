use proptest::prelude::*;

use super::*;

fn all(bytes: &[u8], cut: usize) -> Result<Vec<Reply>, Malformed> {
    let mut replies = Replies::default();
    let mut found = Vec::new();
    for mut piece in bytes.chunks(cut) {
        while !piece.is_empty() {
            let (used, complete) = replies.scan(piece)?;
            piece = &piece[used..];
            if complete {
                found.push(replies.reply().clone());
            }
        }
    }
    Ok(found)
}

fn one(bytes: &[u8]) -> Reply {
    let found = all(bytes, 1).unwrap();
    assert_eq!(found, all(bytes, 1000).unwrap());
    assert_eq!(found.len(), 1, "{}", bytes.escape_ascii());
    found.into_iter().next().unwrap()
}

#[test]
fn every_type_is_one_reply() {
    let plain: [&[u8]; 14] = [
        b":-12\r\n",
        b"$3\r\na\r\n\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5e10\r\n",
        b"(123456789012345678901234567890\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"*0\r\n",
        b"%1\r\n+a\r\n*2\r\n:1\r\n_\r\n",
        b"~2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"*2\r\n*1\r\n*1\r\n*1\r\n:1\r\n$1\r\nx\r\n",
    ];
    for bytes in plain {
        let reply = one(bytes);
        assert!(!matches!(reply.kind, Kind::Error | Kind::Push | Kind::Simple));
        assert!(reply.errors.is_empty());
    }
}

#[test]
fn words_and_errors_are_told() {
    let ok = one(b"+OK\r\n");
    assert_eq!((ok.kind, ok.line.as_slice()), (Kind::Simple, b"OK".as_slice()));
    for error in [b"-ERR no\r\n".as_slice(), b"!6\r\nERR no\r\n"] {
        let error = one(error);
        assert_eq!((error.kind, error.line.as_slice()), (Kind::Error, b"ERR no".as_slice()));
    }
    let exec = one(b"*3\r\n+OK\r\n-WRONGTYPE a\r\n!5\r\nERR b\r\n");
    assert_eq!(exec.errors, [b"WRONGTYPE a".to_vec(), b"ERR b".to_vec()]);
}

#[test]
fn what_subscribers_are_sent_is_told() {
    let message = one(b"*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:2\r\n");
    assert_eq!(message.kind, Kind::Aggregate);
    assert_eq!((message.first.as_slice(), message.third), (b"subscribe".as_slice(), Some(2)));
    assert_eq!(one(b">2\r\n$10\r\ninvalidate\r\n_\r\n").kind, Kind::Push);
}

#[test]
fn an_attribute_belongs_to_the_reply_behind_it() {
    let reply = one(b"|1\r\n+ttl\r\n*1\r\n:3600\r\n-ERR late\r\n");
    assert_eq!((reply.kind, reply.line.as_slice()), (Kind::Error, b"ERR late".as_slice()));
    assert_eq!(one(b"|0\r\n+OK\r\n").kind, Kind::Simple);
    let mut replies = Replies::default();
    assert_eq!(replies.scan(b"|1\r\n+a\r\n+b\r\n").unwrap(), (12, false));
    assert!(!replies.between());
}

#[test]
fn long_lines_and_values_pass_without_being_kept() {
    let mut replies = Replies::default();
    replies.scan(b"+").unwrap();
    for _ in 0..1000 {
        replies.scan(&[b'x'; 10_000]).unwrap();
        assert!(replies.line.capacity() <= 2 * KEPT);
    }
    assert_eq!(replies.scan(b"\r\n$9999999999\r\n").unwrap(), (2, true));
    replies.scan(b"$9999999999\r\n").unwrap();
    for _ in 0..1000 {
        assert_eq!(replies.scan(&[b'x'; 10_000]).unwrap(), (10_000, false));
    }
}

#[test]
fn depth_costs_nothing() {
    let mut replies = Replies::default();
    for _ in 0..1_000_000 {
        assert_eq!(replies.scan(b"*1\r\n").unwrap(), (4, false));
    }
    assert_eq!(replies.scan(b":1\r\n").unwrap(), (4, true));
}

#[test]
fn what_no_server_may_send() {
    let cases: [(&[u8], Malformed); 8] = [
        (b"HTTP/1.1 200 OK\r\n", Malformed::Type(b'H')),
        (b"$99999999999999999999999\r\n", Malformed::Length),
        (b"$-2\r\n", Malformed::Length),
        (b"*-2\r\n", Malformed::Count),
        (
            b"*2\r\n*9223372036854775807\r\n*9223372036854775807\r\n*9223372036854775807\r\n",
            Malformed::Elements,
        ),
        (b"%9223372036854775807\r\n%9223372036854775807\r\n", Malformed::Elements),
        (b"$1\r\nab\r\n", Malformed::LineEnd("a value")),
        (b"+OK\rx", Malformed::LineEnd("a line of a reply")),
    ];
    for (bytes, wanted) in cases {
        assert_eq!(all(bytes, 1), Err(wanted.clone()), "{}", bytes.escape_ascii());
        assert_eq!(all(bytes, 1000), Err(wanted), "{}", bytes.escape_ascii());
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_cuts_do_not_matter(bytes in prop::collection::vec(
        prop_oneof![Just(b'*'), Just(b'$'), Just(b'|'), Just(b'>'), Just(b'+'), Just(b'-'), Just(b'\r'), Just(b'\n'),
            Just(b'1'), Just(b'2'), any::<u8>()], 0..200), cut in 1_usize..20)
    {
        prop_assert_eq!(all(&bytes, cut), all(&bytes, 1000));
    }
}
