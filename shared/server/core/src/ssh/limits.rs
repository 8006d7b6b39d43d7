//! How much of one user goes through this process at a time: `max_connections` and `max_sessions` of roles.
//!
//! Counted here: a user of two proxies, or of two nodes, has the limit on each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use shared_authz::MergedOptions;
use shared_types::UserName;

use super::events::Party;
use crate::EventSink;

/// Connections by user.
#[derive(Debug, Default)]
pub struct PerUser(Mutex<HashMap<UserName, u64>>);

/// One counted connection, until it is dropped.
#[derive(Debug)]
pub struct Connection {
    counts: Arc<PerUser>,
    user: UserName,
}

impl PerUser {
    /// Counts one more connection of `user`, where there are fewer than `most`.
    pub fn take(self: &Arc<Self>, user: &UserName, most: Option<u64>) -> Option<Connection> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(user).copied().unwrap_or_default();
        if most.is_some_and(|most| count >= most) {
            return None;
        }
        counts.insert(user.clone(), count + 1);
        Some(Connection { counts: Arc::clone(self), user: user.clone() })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.user)),
        }
    }
}

/// Session channels of one connection.
#[derive(Debug, Default, Clone)]
pub struct Sessions(Arc<AtomicU64>);

/// One counted session channel, until it is dropped.
#[derive(Debug)]
pub struct Session(Sessions);

impl Sessions {
    fn take(&self, most: Option<u64>) -> Option<Session> {
        let most = most.unwrap_or(u64::MAX);
        let more = |count| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Session(self.clone()))
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One more of something that roles limit.
pub struct OneMore<'a> {
    /// What the user's roles say.
    pub options: MergedOptions,
    /// The user.
    pub user: &'a UserName,
    /// What the event of a refusal says.
    pub party: Party,
    /// Where it goes.
    pub events: &'a dyn EventSink,
}

impl OneMore<'_> {
    /// The event of a limit that was reached, and the text for the client.
    async fn refused(&self, limit: &str, most: Option<u64>, of: &str) -> String {
        let most = most.unwrap_or_default();
        let (reason, user) = (format!("{limit} limit reached"), self.user.as_str());
        let (login, host) = (&self.party.user.login, &self.party.server.server_hostname);
        tracing::info!(user, login, host, most, reason, "access refused");
        if let Err(err) = self.events.emit(vec![self.party.limited(&reason, most)]).await {
            tracing::error!(error = %err, "audit event is lost");
        }
        format!("{reason}: the roles of user {user:?} allow {most} {of} at a time")
    }

    /// Counts one more connection of the user. The error is a text for the client; the event is emitted.
    pub async fn connection(self, users: &Arc<PerUser>) -> Result<Connection, String> {
        let most = self.options.max_connections;
        match users.take(self.user, most) {
            Some(place) => Ok(place),
            None => Err(self.refused("max_connections", most, "connections").await),
        }
    }

    /// Counts one more session channel on a connection. The error is a text for the client; the event is emitted.
    pub async fn session(self, sessions: &Sessions) -> Result<Session, String> {
        let most = self.options.max_sessions;
        match sessions.take(most) {
            Some(place) => Ok(place),
            None => Err(self.refused("max_sessions", most, "sessions on a connection").await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_user_and_given_back() {
        let (joe, ann) = (UserName::new("joe").unwrap(), UserName::new("ann").unwrap());
        let users = Arc::new(PerUser::default());
        let first = users.take(&joe, Some(2)).unwrap();
        let second = users.take(&joe, Some(2)).unwrap();
        assert!(users.take(&joe, Some(2)).is_none());
        assert!(users.take(&ann, Some(1)).is_some(), "others are not affected");
        drop(first);
        let third = users.take(&joe, Some(2)).unwrap();
        assert!(users.take(&joe, None).is_some(), "no limit");
        drop((second, third));
        assert!(users.0.lock().unwrap().is_empty(), "nobody who left is remembered");
    }

    #[test]
    fn sessions_are_counted_and_given_back() {
        let sessions = Sessions::default();
        let first = sessions.take(Some(1)).unwrap();
        assert!(sessions.take(Some(1)).is_none() && !sessions.is_empty());
        drop(first);
        assert!(sessions.is_empty());
        assert!(sessions.take(Some(1)).is_some());
        assert!(sessions.take(None).is_some());
    }
}
