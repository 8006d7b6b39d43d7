//! Bytes on their way to something that writes slowly: a terminal, a pipe, a local connection.
//!
//! Pushing never waits; whoever pushes looks at [`ByteQueue::len`] and stops reading its source. Taking
//! out blocks a thread or awaits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use tokio::sync::Notify;

/// Writes what can be written without waiting, and answers how many bytes that were.
pub type Shortcut = Box<dyn Fn(&[u8]) -> usize + Send + Sync>;

/// A queue that counts bytes.
#[derive(Default)]
pub struct ByteQueue {
    state: Mutex<State>,
    /// Tried while nothing waits: a keystroke's echo then crosses no thread.
    shortcut: Option<Shortcut>,
    filled: Condvar,
    filled_async: Notify,
    drained: Notify,
}

impl std::fmt::Debug for ByteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteQueue").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    /// Bytes queued or taken out and not yet written.
    len: usize,
    ended: bool,
    broken: bool,
}

impl ByteQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One whose bytes go through `shortcut` where nothing waits before them; what it leaves is queued.
    #[must_use]
    pub fn with_shortcut(shortcut: Shortcut) -> Self {
        Self { shortcut: Some(shortcut), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends bytes; `false` when nobody takes them any more.
    pub fn push(&self, mut bytes: Bytes) -> bool {
        let mut state = self.state();
        if state.broken {
            return false;
        }
        if state.len == 0
            && let Some(shortcut) = &self.shortcut
        {
            // Under the lock: nothing may come between these bytes and what is queued of them.
            bytes.advance(shortcut(&bytes).min(bytes.len()));
        }
        if !bytes.is_empty() {
            state.len += bytes.len();
            state.chunks.push_back(bytes);
            drop(state);
            self.filled.notify_one();
            self.filled_async.notify_one();
        }
        true
    }

    /// Bytes not yet written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().len
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing more will be pushed.
    pub fn end(&self) {
        self.state().ended = true;
        self.filled.notify_all();
        self.filled_async.notify_one();
    }

    /// Nothing more will be taken out.
    pub fn break_off(&self) {
        let mut state = self.state();
        state.broken = true;
        state.chunks.clear();
        state.len = 0;
        drop(state);
        self.filled.notify_all();
        self.filled_async.notify_one();
        self.drained.notify_one();
    }

    /// Whether the taking side gave up.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state().broken
    }

    /// Waits until at most `limit` bytes are left, or nobody takes them any more.
    pub async fn below(&self, limit: usize) {
        loop {
            let drained = self.drained.notified();
            {
                let state = self.state();
                if state.broken || state.len <= limit {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Takes the next chunk, blocking the thread; none at the end. Call [`ByteQueue::written`] after.
    pub fn take_blocking(&self) -> Option<Bytes> {
        let mut state = self.state();
        loop {
            if let Some(bytes) = state.chunks.pop_front() {
                return Some(bytes);
            }
            if state.ended || state.broken {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the next chunk; none at the end. Call [`ByteQueue::written`] after. For one taker.
    pub async fn take(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.state();
                if let Some(bytes) = state.chunks.pop_front() {
                    return Some(bytes);
                }
                if state.ended || state.broken {
                    return None;
                }
            }
            // A push between the look and the wait leaves a permit behind.
            self.filled_async.notified().await;
        }
    }

    /// So many bytes were written.
    pub fn written(&self, len: usize) {
        let mut state = self.state();
        state.len = state.len.saturating_sub(len);
        drop(state);
        self.drained.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn below_waits_for_what_is_written_not_for_what_is_taken() {
        let queue = Arc::new(ByteQueue::new());
        assert!(queue.push(Bytes::from_static(b"12345")));
        assert_eq!(queue.take().await.unwrap(), "12345");
        assert_eq!(queue.len(), 5);
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.below(0).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        queue.written(5);
        waiting.await.unwrap();
    }

    #[test]
    fn a_thread_gets_everything_then_the_end() {
        let queue = Arc::new(ByteQueue::new());
        let taker = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                let mut all = Vec::new();
                while let Some(bytes) = queue.take_blocking() {
                    queue.written(bytes.len());
                    all.extend_from_slice(&bytes);
                }
                all
            }
        });
        for n in 0..1000_u32 {
            queue.push(Bytes::copy_from_slice(&n.to_be_bytes()));
        }
        queue.end();
        assert_eq!(taker.join().unwrap().len(), 4000);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_shortcut_is_taken_only_while_nothing_waits() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let direct = Arc::clone(&written);
        let queue = ByteQueue::with_shortcut(Box::new(move |bytes| {
            let taken = bytes.len().min(3);
            direct.lock().unwrap().extend_from_slice(&bytes[..taken]);
            taken
        }));
        queue.push(Bytes::from_static(b"ab"));
        assert!(queue.is_empty());
        queue.push(Bytes::from_static(b"cdefg"));
        // "fg" is in nobody's hands yet, and taken but not written counts as waiting too.
        queue.push(Bytes::from_static(b"h"));
        assert_eq!(queue.take().await.unwrap(), "fg");
        queue.push(Bytes::from_static(b"i"));
        assert_eq!(queue.len(), 4);
        assert_eq!(written.lock().unwrap().as_slice(), b"abcde");
        for rest in ["h", "i"] {
            assert_eq!(queue.take().await.unwrap(), rest);
        }
        queue.written(4);
        queue.push(Bytes::from_static(b"j"));
        assert_eq!(written.lock().unwrap().as_slice(), b"abcdej");
    }

    #[tokio::test]
    async fn a_broken_queue_takes_nothing_and_holds_nobody_up() {
        let queue = ByteQueue::new();
        queue.push(Bytes::from_static(b"x"));
        queue.break_off();
        assert!(!queue.push(Bytes::from_static(b"y")));
        assert!(queue.take().await.is_none());
        queue.below(0).await;
    }
}
