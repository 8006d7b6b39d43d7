//! Sessions that run in this process, so that the auth service can be told that they do.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared_types::SessionId;

use crate::{Authority, RecordingSpool};

/// When the auth service is first told which sessions run, and again where it is away.
const FIRST_RENEWAL: Duration = Duration::from_secs(1);
/// Bounds of the time it asks for in between.
const SOONEST_RENEWAL: Duration = Duration::from_millis(50);
const LATEST_RENEWAL: Duration = Duration::from_secs(60);

/// The sessions that run.
#[derive(Debug, Default)]
pub struct RunningSessions(Mutex<HashSet<SessionId>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Running {
    all: Arc<RunningSessions>,
    sid: SessionId,
}

impl RunningSessions {
    /// Lists a session.
    pub fn begin(self: &Arc<Self>, sid: SessionId) -> Running {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sid);
        Running { all: Arc::clone(self), sid }
    }

    /// Those that run now.
    pub fn all(&self) -> Vec<SessionId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Tells the auth service again and again which sessions run here, and whose recordings wait in `recordings`.
    /// Never ends.
    pub async fn keep_alive(&self, authority: &dyn Authority, recordings: &RecordingSpool) {
        let mut within = FIRST_RENEWAL;
        loop {
            tokio::time::sleep(within).await;
            let mut sessions = self.all();
            // The tracker of a session that has ended lives as long as its recording waits here.
            sessions.extend(recordings.waiting_sessions().await.unwrap_or_default());
            let mut rest = sessions.as_slice();
            loop {
                let (now, later) = rest.split_at(rest.len().min(shared_api::limits::MAX_RENEWED));
                match authority.renew_sessions(now.to_vec()).await {
                    Ok(wanted) => within = wanted.clamp(SOONEST_RENEWAL, LATEST_RENEWAL),
                    Err(err) => {
                        tracing::debug!(error = %err, "sessions are not renewed");
                        within = FIRST_RENEWAL;
                        break;
                    }
                }
                if later.is_empty() {
                    break;
                }
                rest = later;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.sid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_listed_while_it_runs() {
        let all = Arc::new(RunningSessions::default());
        let sid = SessionId::random();
        let running = all.begin(sid);
        assert_eq!(all.all(), [sid]);
        drop(running);
        assert!(all.all().is_empty());
    }
}
