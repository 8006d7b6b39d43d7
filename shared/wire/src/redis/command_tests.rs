use proptest::prelude::*;

use super::super::encode;
use super::*;

/// All commands in `bytes`, given in pieces of at most `cut` bytes.
fn all(bytes: &[u8], cut: usize) -> Result<Vec<Vec<Vec<u8>>>, Malformed> {
    let mut commands = Commands::default();
    let mut found = Vec::new();
    for mut piece in bytes.chunks(cut) {
        while !piece.is_empty() {
            let (used, complete) = commands.scan(piece)?;
            piece = &piece[used..];
            if complete {
                found.push(commands.command().args().map(|arg| arg.kept.to_vec()).collect());
            }
        }
    }
    Ok(found)
}

fn shown(bytes: &[u8]) -> Result<Vec<Vec<String>>, Malformed> {
    let text = |arg: &Vec<u8>| arg.escape_ascii().to_string();
    Ok(all(bytes, 7)?.iter().map(|args| args.iter().map(text).collect()).collect())
}

#[test]
fn arrays_and_lines_mixed() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING\r\n\r\n*0\r\n*-1\r\n  \nget 'a b'\n*1\r\n$4\r\nQUIT\r\n";
    let wanted = vec![vec!["GET", ""], vec!["PING"], vec!["get", "a b"], vec!["QUIT"]];
    assert_eq!(shown(bytes).unwrap(), wanted);
}

#[test]
fn what_servers_read_leniently_is_malformed() {
    let cases: [(&[u8], Malformed); 12] = [
        (b"*1\rx$4\r\nPING\r\n", Malformed::LineEnd("the number of arguments")),
        (b"*1\n$4\r\nPING\r\n", Malformed::Count),
        (b"*1\r\n$4\r\nPINGxx", Malformed::LineEnd("an argument")),
        (b"*1\r\n$4\r\nPING\rx", Malformed::LineEnd("an argument")),
        (b"*01\r\n", Malformed::Count),
        (b"*+1\r\n", Malformed::Count),
        (b"*-2\r\n", Malformed::Count),
        (b"*2147483648\r\n", Malformed::Count),
        (b"*1\r\n:4\r\n", Malformed::Mark(b':')),
        (b"*1\r\n$-1\r\n", Malformed::Length),
        (b"*1\r\n$1099511627777\r\n", Malformed::Length),
        (b"GET a\0b\r\n", Malformed::InlineNul),
    ];
    for (bytes, wanted) in cases {
        assert_eq!(all(bytes, 64), Err(wanted.clone()), "{}", bytes.escape_ascii());
        assert_eq!(all(bytes, 1), Err(wanted), "{}", bytes.escape_ascii());
    }
    let long = vec![b'a'; INLINE_LIMIT + 1];
    assert_eq!(all(&long, 1000), Err(Malformed::InlineTooLong));
}

#[test]
fn the_name_is_known_before_the_value_has_come() {
    let mut commands = Commands::default();
    commands.scan(b"*3\r\n$3\r\nSE").unwrap();
    assert_eq!(commands.name(), None);
    commands.scan(b"T\r\n").unwrap();
    assert_eq!(commands.name(), Some(b"SET".as_slice()));
    assert!(!commands.between());
    commands.scan(b"$1\r\nk\r\n$1000000\r\nvv").unwrap();
    assert_eq!(commands.name(), Some(b"SET".as_slice()));
}

#[test]
fn a_long_value_is_counted_and_hashed_but_not_kept() {
    let value = vec![b'v'; 3_000_000];
    let bytes = encode([b"SET".as_slice(), b"k", &value, b"after"].into_iter());
    let mut commands = Commands::default();
    let mut complete = false;
    for piece in bytes.chunks(8192) {
        (_, complete) = commands.scan(piece).unwrap();
        assert!(commands.kept.capacity() <= 2 * KEPT_BYTES);
    }
    assert!(complete);
    let command = commands.command();
    let arg = command.arg(2).unwrap();
    assert_eq!((arg.len, arg.kept.len()), (3_000_000, KEPT_BYTES - 4));
    assert_eq!(arg.sha256, Some(Sha256::digest(&value).into()));
    let after = command.arg(3).unwrap();
    assert_eq!((after.len, after.kept.len(), after.whole()), (5, 0, false));
    assert!(!command.whole());
}

#[test]
fn a_million_arguments_are_counted_but_not_kept() {
    let mut commands = Commands::default();
    commands.scan(b"*1000001\r\n$4\r\nMSET\r\n").unwrap();
    for _ in 0..999_999 {
        assert_eq!(commands.scan(b"$1\r\nx\r\n").unwrap(), (7, false));
    }
    assert_eq!(commands.scan(b"$1\r\nx\r\n").unwrap(), (7, true));
    let command = commands.command();
    assert_eq!((command.count(), command.args().len()), (1_000_001, KEPT_ARGS));
    assert!(!command.whole());
}

fn args() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(sent in prop::collection::vec(args(), 0..8), cut in 1_usize..50) {
        let bytes: Vec<u8> =
            sent.iter().flat_map(|args| encode(args.iter().map(Vec::as_slice))).collect();
        prop_assert_eq!(all(&bytes, cut).unwrap(), sent);
    }

    #[test]
    fn nothing_panics_and_cuts_do_not_matter(bytes in prop::collection::vec(
        prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'"'), any::<u8>()], 0..200),
        cut in 1_usize..20)
    {
        prop_assert_eq!(all(&bytes, cut), all(&bytes, 1000));
    }
}
