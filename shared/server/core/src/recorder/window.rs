//! How far a session may be ahead of what the auth service has acknowledged of its recording.
//!
//! Output is admitted while no more than [`WindowLimits::bytes`] of it are unacknowledged and none for longer than
//! [`WindowLimits::age`]. Past that the session stops in both directions; when that lasts for [`WindowLimits::wait`]
//! it has to end, which [`Window::overdue`] says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Output that came within so long counts as of one moment.
const MOMENT: Duration = Duration::from_millis(50);
/// No deadline.
const NEVER: u64 = u64::MAX;

/// The limits of a window.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    /// Bytes of output that may be unacknowledged.
    pub bytes: u64,
    /// How long one of them may be.
    pub age: Duration,
    /// How long a session that is stopped waits for an acknowledgement before it ends.
    pub wait: Duration,
}

impl WindowLimits {
    /// 256 KiB or 2 s, whichever is first; `wait` is configured.
    pub fn new(wait: Duration) -> Self {
        Self { bytes: 256 * 1024, age: Duration::from_secs(2), wait }
    }
}

/// The window of one session.
#[derive(Debug)]
pub struct Window {
    limits: WindowLimits,
    began: Instant,
    state: Mutex<State>,
    /// Somebody waits for room.
    full: AtomicBool,
    /// Milliseconds from `began` at which the oldest unacknowledged byte becomes too old.
    late_at: AtomicU64,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    admitted: u64,
    acknowledged: u64,
    /// Where what came in a moment ends, and when that was; oldest first.
    moments: VecDeque<(u64, Instant)>,
    /// Since when somebody waits for room without any progress.
    full_since: Option<Instant>,
    failed: Option<String>,
}

impl Window {
    /// An open window.
    pub fn new(limits: WindowLimits) -> Self {
        Self {
            limits,
            began: Instant::now(),
            state: Mutex::default(),
            full: AtomicBool::new(false),
            late_at: AtomicU64::new(NEVER),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session has to stop. Takes no lock.
    pub fn is_closed(&self) -> bool {
        let late_at = self.late_at.load(Ordering::Relaxed);
        self.full.load(Ordering::Relaxed)
            || (late_at != NEVER && self.began.elapsed().as_millis() >= u128::from(late_at))
    }

    /// Waits until the session may go on.
    pub async fn opened(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_closed() {
                return;
            }
            changed.await;
        }
    }

    /// Takes room for output before it is shown. Never comes back once the window has failed: the session ends then.
    pub async fn admit(&self, bytes: u64) {
        loop {
            let changed = self.changed.notified();
            if self.try_admit(bytes) {
                return;
            }
            changed.await;
        }
    }

    fn try_admit(&self, bytes: u64) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let ahead = state.admitted - state.acknowledged;
        let late = state.moments.front().is_some_and(|(_, at)| *at + self.limits.age <= now);
        let room = ahead == 0 || ahead + bytes <= self.limits.bytes;
        if state.failed.is_some() || late || !room {
            state.full_since.get_or_insert(now);
            self.full.store(true, Ordering::Relaxed);
            return false;
        }
        self.add(&mut state, bytes, now);
        true
    }

    /// Takes room without waiting for it, for the few events that end a session.
    pub(super) fn force(&self, bytes: u64) {
        self.add(&mut self.state(), bytes, Instant::now());
    }

    fn add(&self, state: &mut State, bytes: u64, now: Instant) {
        state.admitted += bytes;
        let end = state.admitted;
        match state.moments.back_mut() {
            Some((last, at)) if now.duration_since(*at) < MOMENT => *last = end,
            _ => state.moments.push_back((end, now)),
        }
        if state.moments.len() == 1 {
            self.set_late(state);
            self.changed.notify_waiters();
        }
    }

    /// So many of the oldest bytes are acknowledged, or were given back unused.
    pub(super) fn acknowledge(&self, bytes: u64) {
        let mut state = self.state();
        state.acknowledged = (state.acknowledged + bytes).min(state.admitted);
        while state.moments.front().is_some_and(|(end, _)| *end <= state.acknowledged) {
            state.moments.pop_front();
        }
        state.full_since = None;
        self.full.store(false, Ordering::Relaxed);
        self.set_late(&state);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Gives back room that was not used.
    pub(super) fn give_back(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state();
        state.admitted = state.admitted.saturating_sub(bytes).max(state.acknowledged);
        let end = state.admitted;
        while state.moments.back().is_some_and(|(last, _)| *last > end) {
            let before = state.moments.len().checked_sub(2).and_then(|at| state.moments.get(at));
            if before.map_or(state.acknowledged, |(last, _)| *last) >= end {
                state.moments.pop_back();
            } else if let Some((last, _)) = state.moments.back_mut() {
                *last = end;
            }
        }
        self.set_late(&state);
        drop(state);
        self.changed.notify_waiters();
    }

    fn set_late(&self, state: &State) {
        let late_at = state.moments.front().map_or(NEVER, |(_, at)| {
            let late = at.saturating_duration_since(self.began) + self.limits.age;
            u64::try_from(late.as_millis()).unwrap_or(NEVER)
        });
        self.late_at.store(late_at, Ordering::Relaxed);
    }

    /// The session cannot go on, for this reason.
    pub(super) fn fail(&self, why: String) {
        self.state().failed.get_or_insert(why);
        self.changed.notify_waiters();
    }

    /// Bytes that are not acknowledged.
    pub fn ahead(&self) -> u64 {
        let state = self.state();
        state.admitted - state.acknowledged
    }

    /// Pends until the session has to end, and says why.
    pub async fn overdue(&self) -> String {
        loop {
            let changed = self.changed.notified();
            let due = {
                let state = self.state();
                if let Some(why) = &state.failed {
                    return why.clone();
                }
                let late = state.moments.front().map(|(_, at)| *at + self.limits.age);
                late.into_iter().chain(state.full_since).min().map(|at| at + self.limits.wait)
            };
            match due {
                Some(due) if due <= Instant::now() => {
                    let why = format!(
                        "the auth service has not acknowledged the recording of this session for {} s; it is recorded \
                         there as it runs (session_recording: \"proxy-sync\"), so it ends",
                        self.limits.wait.as_secs()
                    );
                    self.fail(why);
                }
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, changed).await;
                }
                None => changed.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const AGE: Duration = Duration::from_millis(300);
    const WAIT: Duration = Duration::from_millis(400);

    fn window() -> Arc<Window> {
        Arc::new(Window::new(WindowLimits { age: AGE, ..WindowLimits::new(WAIT) }))
    }

    async fn is_stuck(what: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(Duration::from_millis(5), what).await.is_err()
    }

    #[tokio::test]
    async fn never_more_than_the_limit_is_ahead() {
        let window = window();
        for _ in 0..8 {
            window.admit(32 * 1024).await;
        }
        assert!(!window.is_closed(), "nobody wanted more");
        assert!(is_stuck(window.admit(1)).await);
        assert!(window.is_closed() && is_stuck(window.opened()).await);
        window.acknowledge(32 * 1024);
        assert!(!window.is_closed());
        window.opened().await;
        window.admit(32 * 1024).await;
        assert_eq!(window.ahead(), 256 * 1024);
    }

    #[tokio::test]
    async fn a_byte_that_is_too_old_stops_both_directions() {
        let window = window();
        window.admit(1).await;
        tokio::time::sleep(AGE / 2).await;
        window.admit(1).await;
        assert!(!window.is_closed());
        tokio::time::sleep(AGE * 2 / 3).await;
        assert!(window.is_closed() && is_stuck(window.admit(1)).await);
        window.acknowledge(1);
        assert!(!window.is_closed(), "the next one is younger");
        window.admit(1).await;
        window.acknowledge(2);
        tokio::time::sleep(AGE * 2).await;
        assert!(!window.is_closed(), "all is acknowledged");
    }

    #[tokio::test]
    async fn a_session_ends_when_nothing_moves_for_the_wait() {
        let window = window();
        let idle = tokio::time::timeout(AGE + WAIT * 2, window.overdue()).await;
        assert!(idle.is_err(), "nothing is owed to an idle session");
        window.admit(10).await;
        let began = Instant::now();
        let why = window.overdue().await;
        assert!(why.contains("proxy-sync"), "{why}");
        let took = began.elapsed();
        assert!(
            took + Duration::from_millis(2) >= AGE + WAIT && took < (AGE + WAIT) * 3,
            "{took:?}"
        );
        window.acknowledge(10);
        assert!(is_stuck(window.admit(1)).await, "it has ended");
    }

    #[tokio::test]
    async fn slow_is_not_away() {
        let window = window();
        let overdue = tokio::spawn({
            let window = Arc::clone(&window);
            async move { window.overdue().await }
        });
        for _ in 0..4 {
            window.admit(100_000).await;
            window.admit(100_000).await;
            tokio::time::sleep(AGE + WAIT / 2).await;
            window.acknowledge(100_000);
            window.acknowledge(100_000);
        }
        assert!(!overdue.is_finished());
        window.fail("no".to_owned());
        assert_eq!(overdue.await.unwrap(), "no");
    }

    #[tokio::test]
    async fn unused_room_comes_back() {
        let window = window();
        window.admit(100).await;
        tokio::time::sleep(MOMENT * 2).await;
        window.admit(200_000).await;
        window.give_back(150_000);
        assert_eq!(window.ahead(), 50_100);
        window.give_back(50_000);
        window.acknowledge(100);
        assert_eq!(window.ahead(), 0);
        tokio::time::sleep(AGE * 2).await;
        assert!(!window.is_closed());
    }
}
