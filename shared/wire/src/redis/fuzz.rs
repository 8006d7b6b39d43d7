//! Entry points for fuzzing; also run as tests. They panic when a promise is broken.

use super::{Commands, Due, KEPT_ARGS, Malformed, Replies, Reply, encode};

/// The texts of events are cut here; little, so that fuzzing gets beyond it.
const LIMIT: usize = 400;

/// A command as it was read: its arguments, what an event shows of it, and where it ended.
type Read = (Vec<Vec<u8>>, String, usize);

/// Any bytes as commands. No panic; memory within the limits; cut otherwise it comes to the same; what is passed on in
/// place of an inline command is read again as the same command.
pub fn redis_commands(data: &[u8]) {
    let Some((step, data)) = data.split_first() else { return };
    let whole = commands(data, usize::MAX);
    for step in [1, usize::from(*step).max(2)] {
        assert_eq!(commands(data, step), whole, "cut into pieces of {step}");
    }
    for (args, _, _) in &whole.0 {
        let again = encode(args.iter().map(Vec::as_slice));
        let (read, error) = commands(&again, usize::MAX);
        assert_eq!((read.len(), error), (1, None));
        assert_eq!(&read[0].0, args);
    }
}

fn commands(data: &[u8], step: usize) -> (Vec<Read>, Option<Malformed>) {
    let (mut commands, mut read, mut at) = (Commands::default(), Vec::new(), 0);
    let mut due = Due::default();
    while at < data.len() {
        let end = data.len().min(at.saturating_add(step));
        match commands.scan(&data[at..end]) {
            Err(error) => return (read, Some(error)),
            Ok((used, complete)) => {
                assert!(used > 0 && at + used <= end, "no way forward");
                at += used;
                if complete {
                    let command = commands.command();
                    assert!(command.args().len() <= KEPT_ARGS || command.inline());
                    due.sent(&command, false);
                    let text = command.text(LIMIT);
                    assert!(text.len() <= LIMIT, "{text}");
                    read.push((command.args().map(|arg| arg.kept.to_vec()).collect(), text, at));
                }
            }
        }
    }
    (read, None)
}

/// Any bytes as replies, to whatever was asked. No panic; cut otherwise it comes to the same; nothing that is due is
/// answered twice.
pub fn redis_replies(data: &[u8]) {
    let Some((step, data)) = data.split_first() else { return };
    let whole = replies(data, usize::MAX);
    for step in [1, usize::from(*step).max(2)] {
        assert_eq!(replies(data, step), whole, "cut into pieces of {step}");
    }
    let (mut due, mut commands) = (Due::default(), Commands::default());
    let asked = [
        "GET a\n",
        "SUBSCRIBE a b\n",
        "UNSUBSCRIBE\n",
        "MULTI\n",
        "AUTH a b\n",
        "EXEC\n",
        "MONITOR\n",
        "PING\n",
    ];
    for line in asked {
        assert!(matches!(commands.scan(line.as_bytes()), Ok((_, true))));
        let command = commands.command();
        due.sent(&command, command.is("AUTH"));
    }
    due.refused(b"-NOPERM\r\n".to_vec());
    let answered = whole.0.iter().filter(|(reply, _)| due.got(reply).answered).count();
    assert!(answered <= asked.len(), "{answered} answers to {} commands", asked.len());
}

fn replies(data: &[u8], step: usize) -> (Vec<(Reply, usize)>, Option<Malformed>) {
    let (mut replies, mut read, mut at) = (Replies::default(), Vec::new(), 0);
    while at < data.len() {
        let end = data.len().min(at.saturating_add(step));
        match replies.scan(&data[at..end]) {
            Err(error) => return (read, Some(error)),
            Ok((used, complete)) => {
                assert!(used > 0 && at + used <= end, "no way forward");
                assert_eq!(complete, replies.between());
                at += used;
                if complete {
                    read.push((replies.reply().clone(), at));
                }
            }
        }
    }
    (read, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that often are nearly of the protocol.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let pieces: Vec<&[u8]> = vec![
            b"*2\r\n",
            b"$3\r\nGET\r\n",
            b"$1\r\na\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"AUTH a b\r\n",
            b"SET \"a\\x00\" 'b'\r\n",
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":1\r\n",
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
            b">2\r\n",
            b"%1\r\n",
            b"|1\r\n",
            b"_\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"$100000\r\n",
            b"+1.1 [0 x] \"a\"\r\n",
            b"+QUEUED\r\n",
            b"\r\n",
            b"\n",
            b"*",
            b"$",
        ];
        let piece = prop_oneof![
            4 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn commands_of_all_sorts(data in nearly()) {
            redis_commands(&data);
        }

        #[test]
        fn replies_of_all_sorts(data in nearly()) {
            redis_replies(&data);
        }
    }
}
