//! How much of one user goes through this proxy at a time: `max_connections` and `max_sessions` of roles.
//!
//! Counted on this proxy: a user of two proxies has the limit on each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use server_core::EventSink as _;
use shared_types::UserName;

use super::access;
use super::visit::Visit;

/// Connections by user.
#[derive(Debug, Default)]
pub(crate) struct PerUser(Mutex<HashMap<UserName, u64>>);

/// One counted connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    counts: Arc<PerUser>,
    user: UserName,
}

impl PerUser {
    /// Counts one more connection of `user`, where there are fewer than `most`.
    fn take(self: &Arc<Self>, user: &UserName, most: Option<u64>) -> Option<Connection> {
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
pub(super) struct Sessions(Arc<AtomicU64>);

/// One counted session channel, until it is dropped.
#[derive(Debug)]
struct Session(Sessions);

impl Sessions {
    fn take(&self, most: Option<u64>) -> Option<Session> {
        let most = most.unwrap_or(u64::MAX);
        let more = |count| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Session(self.clone()))
    }

    /// Whether none is open.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The event of a limit that was reached, and the text for the client.
async fn reached(visit: &Visit, login: &str, limit: &str, most: u64, of: &str) -> String {
    let reason = format!("{limit} limit reached");
    let user = &visit.identity.user;
    tracing::info!(%user, login, host = %visit.host(), most, reason, "access refused");
    let event = visit.party(login, None).limited(&reason, most);
    if let Err(err) = visit.proxy.events.emit(vec![event]).await {
        tracing::error!(error = %err, "audit event is lost");
    }
    format!(
        "{reason}: the roles of user {user:?} allow {most} {of} at a time",
        user = user.as_str()
    )
}

/// Counts a visit among its user's connections. The error is a text for the client; the event is emitted.
pub(super) async fn connection(visit: &Visit, login: &str) -> Result<Connection, String> {
    let most = access::options(&visit.proxy.authority.state(), &visit.identity).max_connections;
    match visit.proxy.users.take(&visit.identity.user, most) {
        Some(place) => Ok(place),
        None => {
            let most = most.unwrap_or_default();
            Err(reached(visit, login, "max_connections", most, "connections").await)
        }
    }
}

/// Counts a session channel on a visit's connection. The error is a text for the client; the event is emitted.
pub(super) async fn session(visit: &Visit, login: &str) -> Result<Box<dyn Send>, String> {
    let most = access::options(&visit.proxy.authority.state(), &visit.identity).max_sessions;
    match visit.sessions.take(most) {
        Some(place) => Ok(Box::new(place)),
        None => {
            let most = most.unwrap_or_default();
            Err(reached(visit, login, "max_sessions", most, "sessions on a connection").await)
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
