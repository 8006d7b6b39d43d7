//! What a service needs to know of the cluster to decide on its own.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared_pki::{CaKind, TrustedAuthority};
use shared_types::resource::{
    ClusterAuthPreference, ClusterNetworkingConfig, Lock, LockSubject, Role, SessionRecordingConfig,
};
use shared_types::{ClusterName, Database, RoleName, User, UserName};

/// `GET /v1/cluster-state`: no secrets, everything a service checks certificates and roles by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterState {
    /// Grows with every change.
    pub revision: u64,
    /// The cluster.
    pub cluster: ClusterName,
    /// Public halves of all authorities.
    pub authorities: Vec<TrustedAuthority>,
    /// All roles.
    pub roles: BTreeMap<RoleName, Role>,
    /// All accounts. Who is not among them does not exist, whatever a certificate says.
    pub users: BTreeMap<UserName, Account>,
    /// The locks, also those whose time is over since this was made.
    pub locks: Vec<Lock>,
    /// Where sessions are recorded.
    pub recording: SessionRecordingConfig,
    /// Time-outs and routing.
    pub networking: ClusterNetworkingConfig,
    /// How users log in.
    pub auth_preference: ClusterAuthPreference,
    /// The databases that administrators have written, by name; agents choose among them by label.
    #[serde(default)]
    pub databases: Vec<Database>,
}

impl ClusterState {
    /// The authority of a kind, if it is among those that services know.
    pub fn authority(&self, kind: CaKind) -> Option<&TrustedAuthority> {
        self.authorities.iter().find(|authority| authority.kind == kind)
    }

    /// The first lock that stops `subject` at `now`.
    pub fn lock_on(&self, subject: &LockSubject<'_>, now: DateTime<Utc>) -> Option<&Lock> {
        self.locks.iter().find(|lock| lock.stops(subject, now))
    }
}

/// What decides whether a user may do anything at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// The roles the user has now; a certificate may name more, which do not count.
    pub roles: Vec<RoleName>,
    /// Whether the account is locked, for ever or until `lock_expires`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// When it is locked no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_expires: Option<DateTime<Utc>>,
    /// When the account ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
}

impl Account {
    /// Whether its user may do anything at `now`.
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        let locked = self.locked && self.lock_expires.is_none_or(|until| until > now);
        !locked && self.expires.is_none_or(|end| end > now)
    }
}

impl From<&User> for Account {
    fn from(user: &User) -> Self {
        let status = &user.spec.status;
        Self {
            roles: user.spec.roles.clone(),
            locked: status.is_locked,
            lock_expires: status.lock_expires,
            expires: [user.spec.expires, user.metadata.expires].into_iter().flatten().min(),
        }
    }
}

/// `?after=` of the cluster state and of the node view.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct StateQuery {
    /// The revision in hand; answered at once where unset or different, otherwise at the next change or after a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn accounts_are_open_until_they_are_locked_or_end() {
        let now = Utc::now();
        let (past, future) = (now - TimeDelta::hours(1), now + TimeDelta::hours(1));
        let cases = [
            (false, None, None, true),
            (true, None, None, false),
            (true, Some(future), None, false),
            (true, Some(past), None, true),
            (false, None, Some(past), false),
            (false, None, Some(now), false),
            (false, None, Some(future), true),
        ];
        for (locked, lock_expires, expires, open) in cases {
            let account = Account { roles: Vec::new(), locked, lock_expires, expires };
            assert_eq!(account.is_open(now), open, "{account:?}");
        }
        let mut user = User::new("joe", Default::default());
        user.spec.expires = Some(future);
        user.metadata.expires = Some(past);
        assert_eq!(Account::from(&user).expires, Some(past));
    }
}
