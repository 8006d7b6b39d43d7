//! An entry point for fuzzing; also run as a test. It panics when a promise is broken.

use std::time::Duration;

use bytes::Bytes;

use crate::sftp::wire;
use crate::{Direction, Limits, Observer, Policy, Settings, Tool};

/// What came of a run.
#[derive(PartialEq, Eq, Debug, Default)]
struct Run {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    records: Vec<crate::Record>,
    ended: bool,
}

/// Any bytes as a conversation: the first chooses tool and policy; then each piece is led by a byte for its side and
/// two for its length. No panic; memory within the limits; cut otherwise it comes to the same; where nothing is
/// forbidden everything goes on; and what is forbidden never does.
pub fn transfer(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let policy = Policy { upload: choice & 1 == 0, download: choice & 2 == 0 };
    let tool = match choice >> 2 & 3 {
        0 | 1 => Tool::Sftp,
        2 => Tool::Scp { path: String::new(), direction: Direction::Upload },
        _ => Tool::Scp { path: String::new(), direction: Direction::Download },
    };
    let whole = run(&tool, policy, rest, usize::MAX);
    let parts = run(&tool, policy, rest, 1);
    assert_eq!((&whole.records, whole.ended), (&parts.records, parts.ended));
    if !whole.ended {
        assert_eq!(whole, parts);
    }
    if tool == Tool::Sftp {
        nothing_forbidden(&whole.to_server, policy);
        nothing_forbidden(&parts.to_server, policy);
    }
}

fn run(tool: &Tool, policy: Policy, mut rest: &[u8], step: usize) -> Run {
    let limits = Limits { requests: 20, handles: 10, names: 2000, request: 1000, refusals: 20 };
    let mut observer = Observer::new(tool, Settings { policy, hash: true, limits });
    let (mut outcome, now) = (Run::default(), Duration::ZERO);
    let (mut said, mut heard) = (0, 0);
    while let [side, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (piece, behind) = more.split_at(length);
        rest = behind;
        for part in piece.chunks(step.min(piece.len()).max(1)) {
            let part = Bytes::copy_from_slice(part);
            let (onward, to) = if side & 1 == 0 {
                said += part.len();
                (observer.input(part, now), &mut outcome.to_server)
            } else {
                heard += part.len();
                (observer.output(part, now), &mut outcome.to_client)
            };
            match onward {
                Ok(pieces) => to.extend(pieces.concat()),
                Err(_) => {
                    outcome.ended = true;
                    outcome.records.extend(observer.take());
                    return outcome;
                }
            }
        }
        while let Some(reply) = observer.reply() {
            outcome.to_client.extend(reply);
        }
    }
    if policy.allows_all() {
        assert_eq!(outcome.to_client.len(), heard);
        assert!(outcome.to_server.len() <= said && said - outcome.to_server.len() < limits.request);
    }
    observer.finish(now);
    outcome.records.extend(observer.take());
    outcome
}

/// Reads whole packets as a server would.
fn nothing_forbidden(mut stream: &[u8], policy: Policy) {
    if policy.allows_all() {
        return;
    }
    while let Some((length, rest)) = stream.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((packet, behind)) = rest.split_at_checked(length) else { return };
        stream = behind;
        let flags = packet
            .get(5..9)
            .and_then(|length| length.try_into().ok())
            .and_then(|length| usize::try_from(u32::from_be_bytes(length)).ok())
            .and_then(|length| packet.get(9_usize.checked_add(length)?..)?.first_chunk::<4>())
            .map(|flags| u32::from_be_bytes(*flags));
        match packet.first() {
            Some(&wire::OPEN) => {
                let flags = flags.expect("an OPEN that ends too early went on");
                let writes = flags & !wire::FXF_READ != 0;
                assert!(if writes { policy.upload } else { policy.download });
            }
            Some(&wire::READ) => assert!(policy.download),
            Some(
                &wire::WRITE
                | &wire::SETSTAT
                | &wire::FSETSTAT
                | &wire::REMOVE
                | &wire::MKDIR
                | &wire::RMDIR
                | &wire::RENAME
                | &wire::SYMLINK,
            ) => assert!(policy.upload),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Line, after_versions, open, read, status, write};

    fn seed(choice: u8, lines: Vec<Line>) -> Vec<u8> {
        let mut bytes = vec![choice];
        for line in after_versions(lines) {
            let (side, said) = match line {
                Line::Client(said) => (0, said),
                Line::Server(said) => (1, said),
            };
            bytes.push(side);
            bytes.extend((said.len() as u16).to_be_bytes());
            bytes.extend(said);
        }
        bytes
    }

    #[test]
    fn a_handle_that_reaches_beyond_its_packet_does_not_hide_what_is_behind() {
        let mut hiding = write(2, "h", 0, b"abc");
        hiding[12] = 31;
        let lines = vec![Line::Client([hiding, read(3, "h", 0, 3)].concat())];
        transfer(&seed(2, lines));
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            transfer(&data);
        }

        #[test]
        fn damaged_conversations(
            choice in 0..4_u8,
            flags in 0..0x40_u32,
            damage in proptest::collection::vec((0..600_usize, any::<u8>()), 0..6),
        ) {
            let client = [open(1, "a", flags), write(2, "h", 0, b"abc"), read(3, "h", 0, 3)];
            let mut data = seed(choice, vec![
                Line::Client(client.concat()),
                Line::Server([crate::testing::handle(1, "h"), status(2, 0)].concat()),
            ]);
            for (at, byte) in damage {
                if let Some(place) = data.get_mut(at) {
                    *place = byte;
                }
            }
            transfer(&data);
        }
    }
}
