//! The hosts on which users lately had sessions: unregistered ones are known from nothing else.
//!
//! Gathered in memory as sessions begin, and written to the state now and then. What a crash takes with it is a
//! reminder in a listing, no record: that is the audit log, which is not read through for a listing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use server_store::Condition;
use shared_api::VisitedHost;
use shared_events::{AuditEvent, SessionStart};
use shared_types::Labels;

use crate::error::{AuthError, Result};
use crate::service::AuthService;
use crate::state;

/// How long a host is remembered after the last session there.
const DAYS: i64 = 30;
/// Most hosts of a user; the oldest are forgotten.
const HOSTS: usize = 200;
/// Most users between two writes.
const USERS: usize = 10_000;
/// Longest name that is remembered, in bytes.
const LONGEST: usize = 255;

/// A host as it was at the last session there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Visit {
    address: String,
    #[serde(default)]
    labels: Labels,
    at: DateTime<Utc>,
}

/// Hosts by their names.
type Hosts = BTreeMap<String, Visit>;

/// What is not written yet, by user.
#[derive(Default)]
pub(crate) struct Visits(Mutex<HashMap<String, Hosts>>);

impl Visits {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Hosts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers where sessions begin.
    pub(crate) fn note(&self, events: &[AuditEvent], now: DateTime<Utc>) {
        for event in events {
            let AuditEvent::SessionStart(SessionStart { user, server, .. }) = event else {
                continue;
            };
            let host = &server.server_hostname;
            if host.is_empty() || host.len() > LONGEST || user.user.is_empty() {
                continue;
            }
            let mut users = self.lock();
            if users.len() >= USERS && !users.contains_key(&user.user) {
                continue;
            }
            let visit = Visit {
                address: server.server_addr.clone(),
                labels: server.server_labels.clone(),
                at: now,
            };
            let hosts = users.entry(user.user.clone()).or_default();
            hosts.insert(host.clone(), visit);
            forget_oldest(hosts);
        }
    }

    fn of(&self, user: &str) -> Hosts {
        self.lock().get(user).cloned().unwrap_or_default()
    }

    fn users(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// What was written counts no more as new, unless it changed meanwhile.
    fn written(&self, user: &str, hosts: &Hosts) {
        let mut users = self.lock();
        if let Some(new) = users.get_mut(user) {
            new.retain(|name, visit| hosts.get(name) != Some(visit));
            if new.is_empty() {
                users.remove(user);
            }
        }
    }
}

fn forget_oldest(hosts: &mut Hosts) {
    while hosts.len() > HOSTS {
        let oldest = hosts.iter().min_by_key(|(_, visit)| visit.at).map(|(name, _)| name.clone());
        let Some(oldest) = oldest else { return };
        hosts.remove(&oldest);
    }
}

impl AuthService {
    /// The hosts on which a user lately had sessions, by name.
    pub(crate) async fn visited(&self, user: &str) -> Result<Vec<VisitedHost>> {
        let hosts = self.all_visits(user).await?.into_iter();
        Ok(hosts
            .map(|(hostname, visit)| VisitedHost {
                hostname,
                address: visit.address,
                labels: visit.labels,
            })
            .collect())
    }

    /// Those that were written, and over them what is new.
    async fn all_visits(&self, user: &str) -> Result<Hosts> {
        let stored = self.store().read::<Hosts>(&state::key("visits", user)?).await?;
        let mut hosts = stored.map(|stored| stored.value).unwrap_or_default();
        hosts.extend(self.visits.of(user));
        let first = self.now() - Duration::days(DAYS);
        hosts.retain(|_, visit| visit.at >= first);
        forget_oldest(&mut hosts);
        Ok(hosts)
    }

    /// Writes what is new. What fails stays new.
    pub(crate) async fn keep_visits(&self) {
        for user in self.visits.users() {
            if let Err(error) = self.keep_visits_of(&user).await {
                tracing::warn!(user, %error, "could not remember where a user was");
            }
        }
    }

    async fn keep_visits_of(&self, user: &str) -> Result<()> {
        let hosts = self.all_visits(user).await?;
        let ends = self.now() + Duration::days(DAYS);
        let key = state::key("visits", user)?;
        let put = state::put(key, &hosts, Some(ends), Condition::Any)?;
        self.store().write(vec![put]).await.map_err(AuthError::at("store visited hosts"))?;
        self.visits.written(user, &hosts);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: usize) -> DateTime<Utc> {
        DateTime::from_timestamp(i64::try_from(second).unwrap(), 0).unwrap()
    }

    fn start(user: &str, host: &str) -> AuditEvent {
        let mut start = SessionStart::default();
        start.user.user = user.to_owned();
        start.server.server_hostname = host.to_owned();
        start.into()
    }

    #[test]
    fn the_latest_hosts_of_each_user_and_no_more() {
        let visits = Visits::default();
        for number in 0..HOSTS + 5 {
            visits.note(&[start("joe", &format!("host-{number}"))], at(number));
        }
        visits.note(&[start("max", "db"), start("max", ""), start("", "db")], at(1));
        let joe = visits.of("joe");
        assert_eq!(joe.len(), HOSTS);
        assert!(!joe.contains_key("host-4") && joe.contains_key("host-5"));
        assert_eq!(visits.of("max").into_keys().collect::<Vec<_>>(), ["db"]);
        assert!(visits.of("ann").is_empty());
    }

    #[test]
    fn what_comes_while_the_rest_is_written_stays_new() {
        let visits = Visits::default();
        visits.note(&[start("joe", "a"), start("joe", "b")], at(1));
        let taken = visits.of("joe");
        visits.note(&[start("joe", "b")], at(2));
        visits.written("joe", &taken);
        assert_eq!(visits.of("joe").into_keys().collect::<Vec<_>>(), ["b"]);
        visits.written("joe", &visits.of("joe"));
        assert!(visits.users().is_empty());
    }
}
