//! Entry points for fuzzing; also run as tests. They panic when a promise is broken.

use std::io::Cursor;
use std::sync::LazyLock;

use shared_pki::{CaKind, CertAuthority, TrustedAuthority};

use crate::checkpoint::Checkpoint;
use crate::decoder::Decoder;
use crate::filter::Filter;
use crate::player::Player;
use crate::screen::Size;
use crate::seal::Seal;
use crate::verify::{Verdict, verify};
use crate::view::{Frame, Painter};

/// Any bytes as a recording: no panic, no unbounded memory, and the same twice.
pub fn recording(data: &[u8]) {
    let read = || {
        let mut decoder = Decoder::new(data);
        let mut events = 0_usize;
        let fault = loop {
            match decoder.next_event() {
                Ok(Some(_)) => events += 1,
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        (events, fault, decoder.chain_status())
    };
    assert_eq!(read(), read());
    let mut player = Player::new(Decoder::new(Cursor::new(data)));
    while let Ok(Some(step)) = player.step() {
        if step.at_ms > 60_000 {
            break;
        }
    }
    let window = Size { columns: 20, rows: 5 };
    let painted = Painter::default().paint(&Frame::fit(player.screen(), window), window);
    assert_harmless(painted.as_bytes());
    let _ = player.seek(0);
}

static AUTHORITY: LazyLock<Option<TrustedAuthority>> = LazyLock::new(|| {
    let now = chrono::DateTime::from_timestamp(1_790_000_000, 0)?;
    let cluster = "example.test".parse().ok()?;
    let authority = CertAuthority::generate(CaKind::Recording, &cluster, now).ok()?;
    Some(authority.trusted())
});

/// Any bytes as a checkpoint, as a seal, and as a recording to verify: no panic, one form, the same twice, and nothing
/// is believed that the authority did not sign.
pub fn checkpoint(data: &[u8]) {
    let Some(authority) = AUTHORITY.as_ref() else { return };
    if let Some(checkpoint) = Checkpoint::decode(data) {
        assert_eq!(checkpoint.encode(), data, "read in another spelling");
    }
    if let Some(seal) = Seal::from_body(data) {
        assert!(!seal.is_by(&authority.ssh_public_keys()), "believed a seal nobody made");
    }
    let read = || match verify(Cursor::new(data), authority, None) {
        Ok(report) => report,
        Err(error) => panic!("bytes in memory cannot be read: {error}"),
    };
    let report = read();
    assert_eq!(format!("{report:?}"), format!("{:?}", read()));
    assert_ne!(report.verdict, Verdict::Intact, "believed a recording nobody signed");
}

/// Any bytes as terminal output: what passes is harmless, and the same however it is cut.
pub fn output(data: &[u8]) {
    let whole = Filter::new().filter(data);
    assert_harmless(&whole);
    let mut filter = Filter::new();
    let mut pieces = Vec::new();
    for piece in data.chunks(1 + data.len() % 5) {
        filter.feed(piece, &mut pieces);
    }
    assert_eq!(whole, pieces);
}

/// Panics unless `output` consists of text and of sequences that are known to be harmless.
pub fn assert_harmless(output: &[u8]) {
    let text = std::str::from_utf8(output).unwrap_or_else(|error| panic!("not UTF-8: {error}"));
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x08'..='\x0d' => {}
            '\x1b' => sequence(&mut chars),
            c => assert!(!c.is_control(), "control character {c:?}"),
        }
    }
}

fn sequence(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('7' | '8' | 'M') => {}
        Some('[') => {
            let private = chars.as_str().starts_with('?');
            if private {
                chars.next();
            }
            let mut params = String::new();
            let action = loop {
                match chars.next() {
                    Some(c @ ('0'..='9' | ';' | ':')) => params.push(c),
                    Some(c) => break c,
                    None => panic!("unfinished sequence"),
                }
            };
            let allowed = match (private, action) {
                (true, 'h' | 'l') => matches!(params.as_str(), "6" | "7" | "25"),
                (false, 'h' | 'l') => params == "4",
                (false, 'J' | 'K') => matches!(params.as_str(), "" | "1" | "2"),
                (false, c) => "ABCDEFGH`adefrIZLMP@XbSTm".contains(c),
                _ => false,
            };
            assert!(allowed, "sequence CSI {params}{action}");
        }
        other => panic!("sequence ESC {other:?}"),
    }
}
