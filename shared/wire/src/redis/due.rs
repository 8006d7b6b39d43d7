//! Which replies are due, and in which order: an error belongs to a command, and an answer of our own waits for its turn.
//!
//! A reply that is not due is passed on all the same. What depends on the order is only how an error is recorded, where
//! a refusal stands, and the answer to `AUTH`, with which nothing else is under way.

use std::collections::VecDeque;

use super::{Command, Kind, Reply};

/// How many different things may be due. Commands of the same kind in a row count as one.
const LIMIT: usize = 64 * 1024;

/// What is due to a client, oldest first.
#[derive(Debug, Default)]
pub struct Due {
    queue: VecDeque<(Expected, u64)>,
    /// How many channels and patterns the connection listens to, as the server counts them.
    subscribed: i64,
    monitor: bool,
    silence: Silence,
    /// After a transaction began: whether a secret is in it.
    transaction: Option<bool>,
    blurred: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Reply {
        secret: bool,
    },
    Auth,
    /// So many confirmations of single channels.
    Channels(u64),
    /// The end of all subscriptions of a kind: at least one confirmation.
    NoChannels {
        seen: bool,
    },
    /// An answer of our own.
    Answer(Vec<u8>),
}

/// `CLIENT REPLY OFF` and `SKIP`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Silence {
    #[default]
    None,
    Next,
    Off,
}

/// What a reply means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Got {
    /// A command was answered, to the end.
    pub answered: bool,
    /// It answers an `AUTH`, or a `HELLO` with one; whether it let the user in.
    pub auth: Option<bool>,
    /// The text of its errors may repeat a secret: only their code may be kept.
    pub secret: bool,
}

impl Due {
    /// A command is sent to the server. `auth`: it logs the user in.
    pub fn sent(&mut self, command: &Command<'_>, auth: bool) {
        let secret = self.in_transaction(command);
        if command.is("RESET") {
            (self.silence, self.transaction) = (Silence::None, None);
        }
        self.monitor |= command.is("MONITOR");
        if self.silent(command) {
            return;
        }
        let unsubscribe = ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"];
        let subscribe = ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"];
        let any = |names: &[&str]| names.iter().any(|name| command.is(name));
        self.push(match command.count() {
            _ if auth => Expected::Auth,
            1 if any(&unsubscribe) => Expected::NoChannels { seen: false },
            2.. if any(&unsubscribe) || any(&subscribe) => Expected::Channels(command.count() - 1),
            _ => Expected::Reply { secret },
        });
    }

    /// A command is not sent: the client gets `answer` when everything before it was answered.
    pub fn refused(&mut self, answer: Vec<u8>) {
        match self.silence {
            Silence::None => self.push(Expected::Answer(answer)),
            Silence::Next => self.silence = Silence::None,
            Silence::Off => {}
        }
    }

    /// The next answer of our own, if it is its turn.
    pub fn answer(&mut self) -> Option<Vec<u8>> {
        self.drop_satisfied();
        let Some((Expected::Answer(answer), _)) = self.queue.front() else { return None };
        let answer = answer.clone();
        self.done();
        Some(answer)
    }

    /// Whether it is the turn of an answer of our own.
    pub fn has_answer(&mut self) -> bool {
        self.drop_satisfied();
        matches!(self.queue.front(), Some((Expected::Answer(_), _)))
    }

    /// Whether nothing is due.
    pub fn is_empty(&mut self) -> bool {
        self.drop_satisfied();
        self.queue.is_empty()
    }

    /// Whether an `AUTH` waits for its reply.
    pub fn auth(&self) -> bool {
        self.queue.iter().any(|(expected, _)| *expected == Expected::Auth)
    }

    /// Whether so much is due that no more commands should be taken for now.
    pub fn full(&self) -> bool {
        self.queue.len() >= LIMIT
    }

    /// A reply has come.
    pub fn got(&mut self, reply: &Reply) -> Got {
        let mut got = Got { answered: false, auth: None, secret: self.blurred };
        if reply.kind == Kind::Push || self.is_message(reply) || self.is_monitor_line(reply) {
            self.subscription(reply, &mut got);
            return got;
        }
        if reply.kind == Kind::Aggregate
            && self.waits_for_channels()
            && self.subscription(reply, &mut got)
        {
            return got;
        }
        self.drop_satisfied();
        match self.queue.front_mut().map(|(expected, _)| expected) {
            Some(Expected::Reply { secret }) => got.secret |= *secret,
            Some(Expected::Auth) => {
                let queued = reply.kind == Kind::Simple && reply.line == b"QUEUED";
                got.auth = Some(reply.kind != Kind::Error && !queued);
                got.secret = true;
            }
            // An error, or QUEUED: the only reply to all of its channels.
            Some(Expected::Channels(_) | Expected::NoChannels { .. }) => {}
            // Sent without being asked for: nobody knows what it is about.
            Some(Expected::Answer(_)) | None => return Got { secret: true, ..got },
        }
        self.done();
        got.answered = true;
        got
    }

    /// Follows transactions; whether the reply to this command may repeat a secret.
    fn in_transaction(&mut self, command: &Command<'_>) -> bool {
        let secret = command.secret();
        if command.is("EXEC") || command.is("DISCARD") {
            return self.transaction.take().unwrap_or(false);
        }
        if command.is("MULTI") {
            self.transaction.get_or_insert(false);
        }
        if let Some(seen) = &mut self.transaction {
            *seen |= secret;
        }
        secret
    }

    /// Follows `CLIENT REPLY`; whether nothing is due for this command.
    fn silent(&mut self, command: &Command<'_>) -> bool {
        let reply = command.is("CLIENT") && command.word(1, "REPLY");
        if reply && command.word(2, "ON") {
            self.silence = Silence::None;
            return false;
        }
        let before = self.silence;
        if reply && command.word(2, "OFF") {
            (self.silence, self.blurred) = (Silence::Off, true);
            return true;
        }
        if reply && command.word(2, "SKIP") {
            self.blurred = true;
            if before != Silence::Off {
                self.silence = Silence::Next;
            }
            return true;
        }
        if before == Silence::Next {
            self.silence = Silence::None;
        }
        before != Silence::None
    }

    fn push(&mut self, expected: Expected) {
        let single = matches!(expected, Expected::Channels(_) | Expected::NoChannels { .. });
        match self.queue.back_mut() {
            Some((last, count)) if !single && *last == expected => *count += 1,
            _ => self.queue.push_back((expected, 1)),
        }
    }

    fn done(&mut self) {
        if let Some((_, count)) = self.queue.front_mut() {
            *count -= 1;
            if *count == 0 {
                self.queue.pop_front();
            }
        }
    }

    fn drop_satisfied(&mut self) {
        while let Some((Expected::NoChannels { seen: true }, _)) = self.queue.front() {
            self.queue.pop_front();
        }
    }

    fn waits_for_channels(&self) -> bool {
        let front = self.queue.front().map(|(expected, _)| expected);
        self.subscribed > 0
            || matches!(front, Some(Expected::Channels(_) | Expected::NoChannels { .. }))
    }

    fn is_message(&self, reply: &Reply) -> bool {
        let words: [&[u8]; 3] = [b"message", b"pmessage", b"smessage"];
        self.subscribed > 0
            && reply.kind == Kind::Aggregate
            && words.contains(&reply.first.as_slice())
    }

    /// `+1700000000.123456 [0 127.0.0.1:5000] "GET" "k"`
    fn is_monitor_line(&self, reply: &Reply) -> bool {
        let digits = reply.line.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.monitor
            && reply.kind == Kind::Simple
            && digits > 0
            && reply.line.get(digits) == Some(&b'.')
    }

    /// Takes note of a confirmation of a channel; whether it is one.
    fn subscription(&mut self, reply: &Reply, got: &mut Got) -> bool {
        let ends: [&[u8]; 3] = [b"unsubscribe", b"punsubscribe", b"sunsubscribe"];
        let begins: [&[u8]; 3] = [b"subscribe", b"psubscribe", b"ssubscribe"];
        let first = reply.first.as_slice();
        if !ends.contains(&first) && !begins.contains(&first) {
            return false;
        }
        self.subscribed = reply.third.unwrap_or(self.subscribed);
        match self.queue.front_mut() {
            Some((Expected::Channels(left), _)) => {
                *left -= 1;
                if *left == 0 {
                    self.done();
                    got.answered = true;
                }
            }
            Some((Expected::NoChannels { seen }, _)) => {
                got.answered = !*seen;
                *seen = true;
            }
            _ => {}
        }
        true
    }
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
