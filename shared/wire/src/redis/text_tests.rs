use proptest::prelude::*;

use super::super::{Commands, encode};
use super::*;

fn text_of(args: &[&[u8]], limit: usize) -> String {
    let bytes = encode(args.iter().copied());
    let mut commands = Commands::default();
    assert_eq!(commands.scan(&bytes).unwrap(), (bytes.len(), true));
    commands.command().text(limit)
}

fn line(line: &str) -> String {
    let mut commands = Commands::default();
    commands.scan(format!("{line}\r\n").as_bytes()).unwrap();
    let command = commands.command();
    assert_eq!(command.secret(), command.text(4096).contains(HIDDEN), "{line}");
    command.text(4096)
}

#[test]
fn words_stay_bare_and_the_rest_is_quoted() {
    let args: [&[u8]; 7] =
        [b"SET", b"k:1", b"", b"a b", b"it's \"x\"\\", "ä\n".as_bytes(), b"\x00\xff\x1b"];
    let wanted = r#"SET k:1 "" "a b" "it's \"x\"\\" "ä\n" "\x00\xff\x1b""#;
    assert_eq!(text_of(&args, 4096), wanted);
}

#[test]
fn secrets_are_left_out_and_said_to_be() {
    for (command, wanted) in [
        ("AUTH hunter2", "AUTH <redacted>"),
        ("auth alice hunter2", "auth alice <redacted>"),
        ("AUTH hunter2 hunter2 hunter2", "AUTH <redacted> <redacted> <redacted>"),
        (
            "HELLO 3 AUTH alice hunter2 SETNAME n",
            "HELLO 3 AUTH alice <redacted> <redacted> <redacted>",
        ),
        ("HELLO 3 SETNAME n", "HELLO 3 SETNAME n"),
        ("HELLO 3 AUTH hunter2", "HELLO 3 AUTH <redacted>"),
        (
            "ACL SETUSER bob on >pw <old #abc !abc ~* +get",
            "ACL SETUSER bob on ><redacted> <<redacted> #<redacted> !<redacted> ~* +get",
        ),
        ("ACL GETUSER bob", "ACL GETUSER bob"),
        ("MIGRATE h 1 k 0 10 COPY AUTH pw", "MIGRATE h 1 k 0 10 COPY AUTH <redacted>"),
        (
            "MIGRATE h 1 \"\" 0 10 AUTH2 bob pw KEYS AUTH k",
            "MIGRATE h 1 \"\" 0 10 AUTH2 bob <redacted> KEYS AUTH k",
        ),
        (
            "config set maxmemory 1 RequirePass pw masterauth pw timeout 5 tls-key-file-pass x",
            "config set maxmemory 1 RequirePass <redacted> masterauth <redacted> timeout 5 tls-key-file-pass <redacted>",
        ),
        ("CONFIG GET requirepass", "CONFIG GET requirepass"),
        ("SENTINEL SET m auth-pass pw", "SENTINEL SET m auth-pass <redacted>"),
        ("SENTINEL CONFIG SET sentinel-pass pw", "SENTINEL CONFIG SET sentinel-pass <redacted>"),
        ("COMMAND GETKEYS AUTH alice pw", "COMMAND GETKEYS AUTH alice <redacted>"),
        (
            "ACL DRYRUN bob CONFIG SET requirepass pw",
            "ACL DRYRUN bob CONFIG SET requirepass <redacted>",
        ),
        ("SET AUTH alice", "SET AUTH alice"),
    ] {
        assert_eq!(line(command), wanted);
    }
}

#[test]
fn a_cut_is_named_with_length_and_digest() {
    let value = vec![b'v'; 100_000];
    let digest: String = Sha256::digest(&value).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = text_of(&[b"SET", b"k", &value, b"EX", b"10"], 8192);
    assert!(text.starts_with("SET k \"vvvv"), "{text}");
    assert!(
        text.contains(&format!("v\"… [cut: 100000 bytes, sha256 {digest}] … and 2 more arguments")),
        "{text}"
    );
    assert!(text.len() <= 8192);
    // Kept whole, but too long when written out.
    let binary = vec![0xff_u8; 10_000];
    let text = text_of(&[b"SET", b"k", &binary], 8192);
    assert!(text.contains("… [cut: 10000 bytes, sha256 ") && text.len() <= 8192, "{text}");
}

proptest! {
    #[test]
    fn the_limit_holds_and_what_is_shown_can_be_read_back(
        args in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 1..20), limit in 400_usize..2000)
    {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let text = text_of(&args, limit);
        prop_assert!(text.len() <= limit);
        if !text.contains('…') && !text.contains(HIDDEN) {
            let mut commands = Commands::default();
            let bytes = format!("{text}\n");
            // A first word with a star would be read as the other form.
            if !text.starts_with('*') {
                prop_assert_eq!(commands.scan(bytes.as_bytes()).unwrap(), (bytes.len(), true));
                let back: Vec<Vec<u8>> = commands.command().args().map(|arg| arg.kept.to_vec()).collect();
                prop_assert_eq!(back, args);
            }
        }
    }
}
