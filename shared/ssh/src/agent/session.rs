//! One agent channel that `tsh` serves to the proxy, as a state machine.
//!
//! Unbound → (one good bind) → Bound → … ; whatever the rules call fatal leads to Closed, and nothing
//! leads out of it. A bind with a plain host key is a question first, where such keys are not ruled out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chrono::{DateTime, Utc};
use russh::keys::ssh_key::PublicKey;
use shared_pki::TrustedAuthority;
use shared_pki::verify::HostRole;
use shared_types::{HostName, Login};

use super::budget::Budget;
use super::checks::{BoundHost, Expected, Refusal, check_bind, check_plain_bind, check_sign};
use super::host_keys::{HostKeyRefusal, HostKeys};
use super::key::AgentKey;
use crate::wire::{IdentityEntry, Reply, Request, SessionBind, parse_request};

/// Refused signatures after which a channel is closed.
const MAX_REFUSALS: u32 = 4;

/// Whom the agent signs for.
#[derive(Debug, Clone)]
pub struct Policy {
    host: HostName,
    login: Login,
    authorities: Vec<TrustedAuthority>,
    plain_publickey: bool,
    host_role: HostRole,
}

impl Policy {
    /// Signs only for `login` on the host that has a certificate for `host` from one of `authorities`.
    #[must_use]
    pub fn new(host: HostName, login: Login, authorities: Vec<TrustedAuthority>) -> Self {
        Self { host, login, authorities, plain_publickey: true, host_role: HostRole::Node }
    }

    /// Whether a request may leave out the host, as sshd before 8.9 needs it.
    #[must_use]
    pub fn plain_publickey(mut self, allowed: bool) -> Self {
        self.plain_publickey = allowed;
        self
    }

    /// Accepts a bind with a certificate of any role, so that a proxy can pass itself off as the host.
    /// For the control run of the tests that show what the role check is for; no command reaches it.
    #[must_use]
    pub fn danger_skip_role_check(mut self) -> Self {
        self.host_role = HostRole::Any;
        self
    }
}

/// The agent of one `tsh`: a key, a policy, and what was used up so far.
#[derive(Debug)]
pub struct EmbeddedAgent {
    key: Arc<AgentKey>,
    policy: Policy,
    budget: Budget,
    host_keys: OnceLock<Arc<dyn HostKeys>>,
    hostbound_only: AtomicBool,
    last_refusal: Mutex<Option<String>>,
}

impl EmbeddedAgent {
    /// An agent with nothing used up.
    #[must_use]
    pub fn new(key: Arc<AgentKey>, policy: Policy) -> Arc<Self> {
        Arc::new(Self {
            key,
            hostbound_only: AtomicBool::new(!policy.plain_publickey),
            policy,
            budget: Budget::default(),
            host_keys: OnceLock::new(),
            last_refusal: Mutex::default(),
        })
    }

    /// From now on a host without a certificate is not refused outright: `host_keys` decides about its
    /// key. For clusters that do not check host keys, which only auth may say. Hosts with a certificate
    /// keep to the rules for certificates.
    pub fn ask_about_plain_keys(&self, host_keys: Arc<dyn HostKeys>) {
        // The first stays: who decides does not change under a running connection.
        let _ = self.host_keys.set(host_keys);
    }

    /// From now on a request that leaves the host out is refused, whatever the policy said.
    pub fn refuse_plain_publickey(&self) {
        self.hostbound_only.store(true, Ordering::Release);
    }

    /// Call for each session channel that is about to be opened.
    pub fn note_session(&self) {
        self.budget.note_session();
    }

    /// Call before the output of a session is shown: see [`HostKeys::settle`].
    pub async fn settle(&self) {
        if let Some(host_keys) = self.host_keys.get() {
            host_keys.settle().await;
        }
    }

    /// The key, to authenticate with in this process.
    #[must_use]
    pub fn key(&self) -> &Arc<AgentKey> {
        &self.key
    }

    /// State of a fresh agent channel; none when the peer opened far too many.
    #[must_use]
    pub fn channel(self: &Arc<Self>) -> Option<AgentSession> {
        self.budget.take_channel().then(|| AgentSession {
            agent: Arc::clone(self),
            state: State::Unbound,
            refusals: 0,
        })
    }

    /// What was refused last, to tell the user after a failed login.
    #[must_use]
    pub fn last_refusal(&self) -> Option<String> {
        self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_refusal(&self, refusal: &Refusal) {
        let mut text = refusal.to_string();
        let mut cause = std::error::Error::source(refusal);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        *self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

#[derive(Debug)]
enum State {
    Unbound,
    Bound(BoundHost),
    Closed,
}

/// What a channel answers.
#[derive(Debug)]
pub struct Answer {
    /// The reply to send.
    pub reply: Reply,
    /// Close the channel after the reply.
    pub close: bool,
    /// Why it was refused; for us, never for the peer.
    pub refusal: Option<Refusal>,
}

impl Answer {
    pub(crate) fn ok(reply: Reply) -> Self {
        Self { reply, close: false, refusal: None }
    }

    pub(crate) fn refuse(refusal: Refusal, close: bool) -> Self {
        Self { reply: Reply::Failure, close, refusal: Some(refusal) }
    }
}

/// A bind that is good but for the host's key, which somebody has to vouch for.
#[derive(Debug)]
pub(crate) struct Question {
    bound: BoundHost,
    key: PublicKey,
}

enum Step {
    Answer(Answer),
    Ask(Question),
}

enum Bind {
    Done,
    Ask(Question),
}

/// One agent channel.
#[derive(Debug)]
pub struct AgentSession {
    agent: Arc<EmbeddedAgent>,
    state: State,
    refusals: u32,
}

impl AgentSession {
    /// Answers one message (without its frame). A host key that nobody vouches for is refused.
    pub fn handle(&mut self, message: &[u8], now: DateTime<Utc>) -> Answer {
        match self.step(message, now) {
            Step::Answer(answer) => answer,
            Step::Ask(question) => {
                let unasked = HostKeyRefusal("nobody was asked about it".to_owned());
                self.decide(question, Err(unasked))
            }
        }
    }

    /// The same, and asks about a plain host key whoever decides about those.
    pub async fn handle_asking(&mut self, message: &[u8], now: DateTime<Utc>) -> Answer {
        match self.step(message, now) {
            Step::Answer(answer) => answer,
            Step::Ask(question) => {
                let verdict = match self.agent.host_keys.get().cloned() {
                    Some(host_keys) => host_keys.accept(&question.key).await,
                    None => Err(HostKeyRefusal("plain host keys are not accepted".to_owned())),
                };
                self.decide(question, verdict)
            }
        }
    }

    fn step(&mut self, message: &[u8], now: DateTime<Utc>) -> Step {
        match self.answer(message, now) {
            Step::Answer(answer) => Step::Answer(self.noted(answer)),
            ask @ Step::Ask(_) => ask,
        }
    }

    fn decide(&mut self, question: Question, verdict: Result<(), HostKeyRefusal>) -> Answer {
        let bound = verdict.map_err(Refusal::HostKey).and_then(|()| self.take(question.bound));
        let answer = match bound {
            Ok(()) => Answer::ok(Reply::Success),
            Err(refusal) => Answer::refuse(refusal, true),
        };
        self.noted(answer)
    }

    fn noted(&mut self, answer: Answer) -> Answer {
        if let Some(refusal) = &answer.refusal {
            self.agent.note_refusal(refusal);
        }
        if answer.close {
            self.state = State::Closed;
        }
        answer
    }

    /// The host this channel is bound to.
    #[must_use]
    pub fn bound(&self) -> Option<&BoundHost> {
        match &self.state {
            State::Bound(host) => Some(host),
            State::Unbound | State::Closed => None,
        }
    }

    fn answer(&mut self, message: &[u8], now: DateTime<Utc>) -> Step {
        if matches!(self.state, State::Closed) {
            return Step::Answer(Answer::refuse(Refusal::Closed, true));
        }
        Step::Answer(match parse_request(message) {
            Err(error) => Answer::refuse(Refusal::Message(error), true),
            Ok(Request::Bind(bind)) => match self.bind(&bind, now) {
                Ok(Bind::Done) => Answer::ok(Reply::Success),
                Ok(Bind::Ask(question)) => return Step::Ask(question),
                Err(refusal) => Answer::refuse(refusal, true),
            },
            Ok(Request::List) => match self.state {
                State::Bound(_) => Answer::ok(Reply::Identities(vec![IdentityEntry {
                    key: self.agent.key.blob().to_vec(),
                    comment: self.agent.key.comment().to_owned(),
                }])),
                State::Unbound | State::Closed => self.tolerate(Refusal::Unbound),
            },
            Ok(Request::Sign { key, data, flags }) => match self.sign((key, data, flags)) {
                Ok(blob) => Answer::ok(Reply::Signature(blob)),
                Err(refusal) => self.tolerate(refusal),
            },
            Ok(Request::Extension(_)) => self.tolerate(Refusal::Extension),
            Ok(Request::Other(kind)) => self.tolerate(Refusal::Request(kind)),
        })
    }

    /// Refuses and keeps the channel, for a while.
    fn tolerate(&mut self, refusal: Refusal) -> Answer {
        self.refusals += 1;
        Answer::refuse(refusal, self.refusals >= MAX_REFUSALS)
    }

    fn bind(&mut self, bind: &SessionBind<'_>, now: DateTime<Utc>) -> Result<Bind, Refusal> {
        if !matches!(self.state, State::Unbound) {
            return Err(Refusal::SecondBind);
        }
        if bind.forwarding {
            return Err(Refusal::ForwardingBind);
        }
        if self.agent.budget.knows_session_id(bind.session_id) {
            return Err(Refusal::SessionIdReused);
        }
        if self.agent.host_keys.get().is_some()
            && let Some((bound, key)) = check_plain_bind(bind)?
        {
            return Ok(Bind::Ask(Question { bound, key }));
        }
        let policy = &self.agent.policy;
        let expected = Expected {
            authorities: &policy.authorities,
            principal: Some(policy.host.as_str()),
            role: policy.host_role,
        };
        let bound = check_bind(bind, &expected, now)?;
        self.take(bound).map(|()| Bind::Done)
    }

    /// Taken last, and atomically: of two channels with one session id, one gets it.
    fn take(&mut self, bound: BoundHost) -> Result<(), Refusal> {
        if !self.agent.budget.take_session_id(&bound.session_id) {
            return Err(Refusal::SessionIdReused);
        }
        self.state = State::Bound(bound);
        Ok(())
    }

    fn sign(&mut self, asked: (&[u8], &[u8], u32)) -> Result<Vec<u8>, Refusal> {
        let State::Bound(bound) = &self.state else {
            return Err(Refusal::Unbound);
        };
        let policy = &self.agent.policy;
        let plain = check_sign(&self.agent.key, bound, Some(policy.login.as_str()), asked)?;
        if plain {
            if self.agent.hostbound_only.load(Ordering::Acquire) {
                return Err(Refusal::PlainPublicKey);
            }
            tracing::info!(host = %policy.host, "target does not know hostbound authentication");
        }
        if !self.agent.budget.take_signature() {
            return Err(Refusal::Budget);
        }
        Ok(self.agent.key.sign(asked.1)?)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
