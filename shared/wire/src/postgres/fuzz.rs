//! An entry point for fuzzing; also run as a test. It panics when a promise is broken.

use super::{Cut, First, FrameError, Frames, backend, first, frontend};

/// What is kept of a body; little, so that fuzzing gets beyond it.
const KEEP: usize = 32;

/// What came of a stream: messages as type, body and cut, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Run {
    messages: Vec<(u8, Vec<u8>, Option<Cut>)>,
    ends: Vec<usize>,
    error: Option<FrameError>,
}

/// Any bytes as a first packet and as both directions of a connection. No panic; memory within the limit; cut otherwise
/// it comes to the same; what is read of a start-up message is written and read again.
pub fn postgres(data: &[u8]) {
    if let Ok(Some((read, length))) = first(data) {
        assert!(length <= data.len());
        match read {
            First::Startup(startup) if !startup.user.is_empty() => {
                let written = startup.to_bytes();
                // The name of a database that was not named may be too much.
                if written.len() > super::FIRST_LIMIT {
                    return;
                }
                let again = first(&written);
                let Ok(Some((First::Startup(again), _))) = again else { panic!("{again:?}") };
                assert_eq!(
                    (again.user.as_str(), again.database()),
                    (startup.user.as_str(), startup.database())
                );
                assert_eq!(again.settings, startup.settings);
            }
            First::Cancel(cancel) => assert_eq!(cancel.to_bytes(), data[..length]),
            _ => {}
        }
    }
    let Some((step, data)) = data.split_first() else { return };
    for make in [Frames::frontend, Frames::opening, Frames::backend] {
        let whole = run(make(KEEP), data, usize::MAX);
        for step in [1, usize::from(*step).max(2)] {
            assert_eq!(whole, run(make(KEEP), data, step));
        }
    }
}

fn run(mut frames: Frames, data: &[u8], step: usize) -> Run {
    let (mut run, mut before) = (Run::default(), 0);
    'pieces: for piece in data.chunks(step.min(data.len()).max(1)) {
        let mut at = 0;
        loop {
            match frames.next(piece, &mut at) {
                Ok(Some(message)) => {
                    assert!(message.body.len() <= KEEP);
                    if let Some(super::Frontend::Bind(bind)) = frontend(&message) {
                        assert!(bind.parameters.iter().count() <= bind.parameters.count());
                    }
                    let _ = backend(&message);
                    run.messages.push((message.tag, message.body.to_vec(), message.cut));
                    run.ends.push(before + at);
                }
                Ok(None) => break,
                Err(error) => {
                    run.error = Some(error);
                    break 'pieces;
                }
            }
        }
        assert_eq!(at, piece.len());
        before += piece.len();
    }
    run
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let tag = prop::sample::select(b"QPBECDFXSHdcf123ADGINTVWnstvZRK?".to_vec());
        (
            tag,
            prop::collection::vec(prop_oneof![Just(0_u8), Just(b'S'), any::<u8>()], 0..80),
            0..20_u8,
        )
            .prop_map(|(tag, body, odd)| {
                let length =
                    if odd == 0 { u32::MAX } else { u32::try_from(body.len() + 4).unwrap() };
                let mut bytes = vec![tag];
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&body);
                bytes
            })
    }

    proptest! {
        #[test]
        fn promises_hold(step: u8, messages in prop::collection::vec(message(), 0..8)) {
            let mut data = vec![step];
            data.extend(messages.concat());
            super::postgres(&data);
        }

        #[test]
        fn first_packets(
            words in prop::collection::vec("[a-c]{0,3}", 0..8),
            tail in prop::collection::vec(any::<u8>(), 0..3),
        ) {
            let mut body = vec![0, 3, 0, 0];
            for word in ["user", "joe"].into_iter().chain(words.iter().map(String::as_str)) {
                body.extend_from_slice(word.as_bytes());
                body.push(0);
            }
            body.push(0);
            body.extend(tail);
            let mut data = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
            data.extend(body);
            super::postgres(&data);
        }

        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
            super::postgres(&data);
        }
    }
}
