//! One connection to the socket of `tsh agent`, as a state machine.
//!
//! Here the host is not known beforehand: the user's own `ssh` says whom it talks to. Without
//! `--allow-unbound` a signature needs a bind to a host with a certificate of our authorities, and is for
//! a userauth request on exactly that connection. `ssh` binds once per hop when it forwards the agent
//! (PROTOCOL.agent, "session-bind"): a hop that forwards must be a proxy, and behind a proxy only nodes
//! are signed for, so that a proxy cannot pass itself off as the host.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use shared_pki::TrustedAuthority;
use shared_pki::verify::HostRole;

use super::checks::{BoundHost, Expected, Refusal, check_bind, check_sign};
use super::key::AgentKey;
use super::session::Answer;
use crate::wire::{IdentityEntry, Reply, Request, SessionBind, parse_request};

/// Hops on one connection; OpenSSH's agent stops at the same number.
const MAX_BINDS: usize = 16;
const MAX_REFUSALS: u32 = 64;

/// What all connections to the socket share.
#[derive(Debug)]
pub struct SocketAgent {
    login: RwLock<Option<Arc<Login>>>,
    allow_unbound: bool,
}

/// A key and the authorities that came with it.
#[derive(Debug)]
struct Login {
    key: Arc<AgentKey>,
    authorities: Vec<TrustedAuthority>,
}

impl SocketAgent {
    /// `allow_unbound` signs anything for anyone who reaches the socket, like an ordinary agent.
    #[must_use]
    pub fn new(
        key: Arc<AgentKey>,
        authorities: Vec<TrustedAuthority>,
        allow_unbound: bool,
    ) -> Arc<Self> {
        let login = RwLock::new(Some(Arc::new(Login { key, authorities })));
        Arc::new(Self { login, allow_unbound })
    }

    /// Takes a new login in place of the old one; connections see it the next time they list.
    pub fn replace(&self, key: Arc<AgentKey>, authorities: Vec<TrustedAuthority>) {
        self.set(Some(Arc::new(Login { key, authorities })));
    }

    /// Forgets the login: nothing is listed or signed, on no connection, until there is another one.
    pub fn forget(&self) {
        self.set(None);
    }

    /// State of a fresh connection.
    #[must_use]
    pub fn channel(self: &Arc<Self>) -> SocketSession {
        let (agent, login) = (Arc::clone(self), self.current());
        SocketSession { agent, login, hops: Vec::new(), poisoned: false, refusals: 0 }
    }

    fn set(&self, login: Option<Arc<Login>>) {
        *self.login.write().unwrap_or_else(PoisonError::into_inner) = login;
    }

    fn current(&self) -> Option<Arc<Login>> {
        self.login.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug)]
struct Hop {
    host: BoundHost,
    forwarding: bool,
}

/// One connection to the socket.
#[derive(Debug)]
pub struct SocketSession {
    agent: Arc<SocketAgent>,
    /// What was listed last here; a signature is asked of that key, also when a newer one has come.
    login: Option<Arc<Login>>,
    hops: Vec<Hop>,
    /// A bind was refused: the connection goes somewhere we did not check.
    poisoned: bool,
    refusals: u32,
}

impl SocketSession {
    /// Answers one message (without its frame).
    pub fn handle(&mut self, message: &[u8], now: DateTime<Utc>) -> Answer {
        match parse_request(message) {
            Err(error) => Answer::refuse(Refusal::Message(error), true),
            Ok(Request::List) => {
                self.login = self.agent.current();
                let entry = |login: &Arc<Login>| IdentityEntry {
                    key: login.key.blob().to_vec(),
                    comment: login.key.comment().to_owned(),
                };
                Answer::ok(Reply::Identities(self.login.iter().map(entry).collect()))
            }
            Ok(Request::Bind(bind)) => match self.bind(&bind, now) {
                Ok(()) => Answer::ok(Reply::Success),
                Err(refusal) => {
                    self.poisoned = true;
                    self.refuse(refusal)
                }
            },
            Ok(Request::Sign { key, data, flags }) => match self.sign((key, data, flags)) {
                Ok(blob) => Answer::ok(Reply::Signature(blob)),
                Err(refusal) => self.refuse(refusal),
            },
            Ok(Request::Extension(_)) => self.refuse(Refusal::Extension),
            Ok(Request::Other(kind)) => self.refuse(Refusal::Request(kind)),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Answer {
        self.refusals += 1;
        Answer::refuse(refusal, self.refusals >= MAX_REFUSALS)
    }

    /// The login in use here, unless it was forgotten.
    fn login(&self) -> Result<&Login, Refusal> {
        let forgotten = self.agent.current().is_none();
        self.login.as_deref().filter(|_| !forgotten).ok_or(Refusal::NoKey)
    }

    fn bind(&mut self, bind: &SessionBind<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
        if self.hops.len() >= MAX_BINDS || self.hops.last().is_some_and(|hop| !hop.forwarding) {
            return Err(Refusal::SecondBind);
        }
        if self.hops.iter().any(|hop| hop.host.session_id == bind.session_id) {
            return Err(Refusal::SessionIdReused);
        }
        let role = match (bind.forwarding, self.hops.is_empty()) {
            (true, _) => HostRole::Proxy,
            (false, true) => HostRole::Any,
            (false, false) => HostRole::Node,
        };
        let expected = Expected { authorities: &self.login()?.authorities, principal: None, role };
        let host = check_bind(bind, &expected, now)?;
        self.hops.push(Hop { host, forwarding: bind.forwarding });
        Ok(())
    }

    fn sign(&self, asked: (&[u8], &[u8], u32)) -> Result<Vec<u8>, Refusal> {
        let key = &self.login()?.key;
        if asked.0 != key.blob() {
            return Err(Refusal::OtherKey);
        }
        if self.agent.allow_unbound {
            return Ok(key.sign(asked.1)?);
        }
        let hop = match self.hops.last() {
            Some(hop) if !self.poisoned => hop,
            _ => return Err(Refusal::Unbound),
        };
        if hop.forwarding {
            return Err(Refusal::ForwardingBind);
        }
        check_sign(key, &hop.host, None, asked)?;
        Ok(key.sign(asked.1)?)
    }
}

#[cfg(test)]
#[path = "socket_session_tests.rs"]
mod tests;
