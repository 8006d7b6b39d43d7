use super::super::{Commands, Replies};
use super::*;

#[derive(Default)]
struct Talk {
    due: Due,
}

impl Talk {
    fn send(&mut self, line: &str) {
        let mut commands = Commands::default();
        assert!(commands.scan(format!("{line}\n").as_bytes()).unwrap().1, "{line}");
        let command = commands.command();
        let auth = command.is("AUTH");
        self.due.sent(&command, auth);
    }

    fn get(&mut self, bytes: &str) -> Got {
        let mut replies = Replies::default();
        assert_eq!(replies.scan(bytes.as_bytes()).unwrap(), (bytes.len(), true), "{bytes}");
        self.due.got(replies.reply())
    }

    fn answer(&mut self) -> Option<String> {
        self.due.answer().map(|answer| String::from_utf8(answer).unwrap())
    }
}

#[test]
fn an_answer_waits_for_its_turn() {
    let mut talk = Talk::default();
    talk.send("GET a");
    talk.send("GET b");
    talk.due.refused(b"no 1".to_vec());
    talk.due.refused(b"no 1".to_vec());
    talk.send("GET c");
    talk.due.refused(b"no 2".to_vec());
    assert_eq!(talk.answer(), None);
    talk.get("$1\r\na\r\n");
    assert_eq!(talk.answer(), None);
    talk.get("-ERR b\r\n");
    assert_eq!(talk.answer().as_deref(), Some("no 1"));
    assert_eq!(talk.answer().as_deref(), Some("no 1"));
    assert_eq!(talk.answer(), None);
    talk.get(">2\r\n+invalidate\r\n_\r\n");
    assert_eq!(talk.answer(), None);
    talk.get("$1\r\nc\r\n");
    assert_eq!(talk.answer().as_deref(), Some("no 2"));
}

#[test]
fn a_long_pipeline_costs_one_entry() {
    let mut talk = Talk::default();
    for _ in 0..100_000 {
        talk.send("PING");
    }
    assert_eq!(talk.due.queue.len(), 1);
    assert!(!talk.due.full());
}

#[test]
fn the_reply_to_auth_is_known() {
    let mut talk = Talk::default();
    talk.send("AUTH alice a");
    assert!(talk.due.auth());
    let wrong = Got { answered: true, auth: Some(false), secret: true };
    assert_eq!(talk.get("-WRONGPASS no\r\n"), wrong);
    talk.send("AUTH alice b");
    assert_eq!(talk.get("+QUEUED\r\n").auth, Some(false));
    talk.send("AUTH alice b");
    assert_eq!(talk.get("+OK\r\n").auth, Some(true));
    assert!(!talk.due.auth());
    assert_eq!(talk.get("+OK\r\n").auth, None);
}

#[test]
fn errors_that_may_repeat_a_secret_are_told() {
    let mut talk = Talk::default();
    talk.send("ACL SETUSER bob >pw");
    talk.send("GET a");
    assert!(talk.get("-ERR Error in ACL SETUSER modifier '>pw'\r\n").secret);
    assert!(!talk.get("-ERR no\r\n").secret);
    assert!(talk.get("-ERR sent on its own account\r\n").secret);
    for line in ["MULTI", "CONFIG SET requirepass x", "EXEC", "GET a"] {
        talk.send(line);
    }
    assert!(!talk.get("+OK\r\n").secret);
    assert!(talk.get("+QUEUED\r\n").secret);
    assert!(talk.get("*1\r\n-ERR x\r\n").secret);
    assert!(!talk.get("$-1\r\n").secret);
}

fn channel(word: &str, left: u64) -> String {
    format!("*3\r\n${}\r\n{word}\r\n$2\r\nch\r\n:{left}\r\n", word.len())
}

#[test]
fn subscriptions_have_a_reply_for_each_channel() {
    let mut talk = Talk::default();
    talk.send("SUBSCRIBE a b");
    talk.due.refused(b"no".to_vec());
    talk.get(&channel("subscribe", 1));
    talk.get("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
    assert_eq!(talk.answer(), None);
    talk.get(&channel("subscribe", 2));
    assert_eq!(talk.answer().as_deref(), Some("no"));
    talk.send("PING");
    talk.send("UNSUBSCRIBE");
    talk.send("GET a");
    talk.get("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    talk.get(&channel("unsubscribe", 1));
    talk.get(&channel("unsubscribe", 0));
    // Not a message: nothing is subscribed to.
    talk.get("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
    assert!(talk.due.queue.is_empty());
}

#[test]
fn subscriptions_may_fail_and_may_be_queued() {
    let mut talk = Talk::default();
    talk.send("SUBSCRIBE a b c");
    talk.send("PING");
    talk.get("-NOPERM no\r\n");
    talk.get("+PONG\r\n");
    talk.send("MULTI");
    talk.send("SUBSCRIBE a b");
    talk.send("DISCARD");
    talk.get("+OK\r\n");
    talk.get("+QUEUED\r\n");
    talk.get("+OK\r\n");
    assert!(talk.due.queue.is_empty());
    talk.send("SUBSCRIBE a");
    talk.get(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    assert!(talk.due.queue.is_empty());
}

#[test]
fn monitor_lines_are_not_due() {
    let mut talk = Talk::default();
    talk.send("MONITOR");
    talk.send("PING");
    talk.get("+OK\r\n");
    talk.get("+1700000000.000001 [0 127.0.0.1:1] \"GET\" \"k\"\r\n");
    assert!(!talk.due.queue.is_empty());
    talk.get("+PONG\r\n");
    assert!(talk.due.queue.is_empty());
}

#[test]
fn a_client_that_wants_no_replies_gets_none() {
    let mut talk = Talk::default();
    talk.send("CLIENT REPLY SKIP");
    talk.send("GET a");
    talk.send("GET b");
    assert_eq!(talk.due.queue.len(), 1);
    talk.get("$-1\r\n");
    talk.send("CLIENT REPLY OFF");
    talk.send("GET a");
    talk.due.refused(b"no".to_vec());
    assert!(talk.due.queue.is_empty());
    talk.send("CLIENT REPLY ON");
    assert!(talk.get("+OK\r\n").secret, "the order is not certain any more");
    assert!(talk.due.queue.is_empty());
}
