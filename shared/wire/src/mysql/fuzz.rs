//! An entry point for fuzzing; also run as a test. It panics when a promise is broken.

use super::{Conversation, Greeting, HEADER, Login, Outcome, Reply, Request, capability};

/// What came of both directions of a connection.
#[derive(Debug, Default, PartialEq)]
struct Run {
    asked: Vec<String>,
    outcomes: Vec<Outcome>,
    refused: Vec<String>,
}

/// Any bytes as packets of a handshake, and as both directions of a connection in turns. No panic; cut otherwise it
/// comes to the same; what is read of a handshake is written and read again.
pub fn mysql(data: &[u8]) {
    if let Ok(greeting) = Greeting::parse(data) {
        // What is written is complete, where servers may leave something out.
        let packet = greeting.packet();
        let again = Greeting::parse(packet.get(HEADER..).unwrap_or_default());
        assert!(again.is_ok(), "{again:?}");
    }
    if let Ok(login) = Login::parse(data) {
        let again = Login::parse(&login.payload());
        assert!(
            again.is_ok_and(|again| (again.user, again.database)
                == (login.user.clone(), login.database.clone()))
        );
        login.attribute("program_name");
    }
    let _ = Reply::parse(data);
    let Some((&flags, data)) = data.split_first() else { return };
    let whole = run(flags, data, usize::MAX);
    for step in [1, usize::from(flags) + 2] {
        assert_eq!(whole, run(flags, data, step), "in chunks of {step}");
    }
}

/// The bytes of a turn are a length and so many bytes.
fn run(flags: u8, data: &[u8], step: usize) -> Run {
    let mut capabilities = 0;
    for (bit, capability) in [(1, capability::DEPRECATE_EOF), (2, capability::LOCAL_FILES)] {
        if flags & bit != 0 {
            capabilities |= capability;
        }
    }
    let (mut requests, mut answers) = Conversation::start(capabilities, 200);
    let mut run = Run::default();
    let mut rest = data;
    let mut clients = true;
    while let Some((&length, after)) = rest.split_first() {
        let (turn, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        for chunk in turn.chunks(step) {
            let refused = if clients {
                ask(&mut requests, chunk, &mut run)
            } else {
                answers.see(chunk, &mut run.outcomes)
            };
            if let Err(refused) = refused {
                run.refused.push(refused.to_string());
                return run;
            }
        }
        clients = !clients;
    }
    run
}

fn ask(
    requests: &mut super::Requests,
    chunk: &[u8],
    run: &mut Run,
) -> Result<(), super::Malformed> {
    let mut at = 0;
    while let Some(seen) = requests.next(chunk, &mut at)? {
        assert!(seen.from <= at && at <= chunk.len());
        if let Request::Execute { parameters, .. } | Request::Bulk { parameters, .. } =
            &seen.request
        {
            assert!(parameters.iter().map(String::len).sum::<usize>() <= 400, "{parameters:?}");
        }
        run.asked.push(format!("{:?}", seen.request));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::mysql;
    use crate::mysql::packet;

    /// A turn as [`mysql`] takes it: a packet that may make sense.
    fn turn() -> impl Strategy<Value = Vec<u8>> {
        let opcode = prop_oneof![
            Just(3u8),
            Just(0x16),
            Just(0x17),
            Just(0x18),
            Just(0x1c),
            Just(0xfa),
            Just(0),
            any::<u8>()
        ];
        (0u8..3, opcode, proptest::collection::vec(0u8..4, 0..24)).prop_map(
            |(sequence, opcode, body)| {
                let bytes = packet(sequence, &[vec![opcode], body].concat());
                [vec![bytes.len() as u8], bytes].concat()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            mysql(&bytes);
        }

        #[test]
        fn packets(flags: u8, turns in proptest::collection::vec(turn(), 0..12)) {
            mysql(&[vec![flags], turns.concat()].concat());
        }
    }
}
