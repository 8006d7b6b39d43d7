//! The ledger of one file copy: what passes is shown to an observer, and what that tells becomes events.
//!
//! What must stay true:
//! * Events wait in a bounded number: where the audit log is behind, the copy waits.
//! * A forbidden request is told, and answered in the server's place; it never reaches the server.

mod account;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use shared_authz::MergedOptions;
use shared_ssh::relay::Filter;
use shared_transfer::{Limits, Observer, Policy, Settings, Tool, Totals};
use shared_types::SessionId;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::account::Account;
use super::events::Party;
use super::tap::Recording;

/// Records that may wait before the copy does.
const MAX_WAITING: usize = 4096;
/// Records that are told at once.
const BATCH: usize = 128;
/// How long records wait for more.
const GATHER: Duration = Duration::from_millis(250);

/// What a user's roles let be copied.
pub fn policy(options: &MergedOptions) -> Policy {
    Policy { upload: options.file_upload, download: options.file_download }
}

/// The ledger of one program that copies files.
pub(super) struct Ledger {
    seen: Arc<Seen>,
    writing: JoinHandle<()>,
}

impl Ledger {
    /// For a program that is about to start.
    pub(super) fn begin(
        sid: SessionId,
        tool: &Tool,
        command: Option<&str>,
        party: Party,
        recording: Recording,
    ) -> Self {
        let settings =
            Settings { policy: recording.transfers, hash: true, limits: Limits::default() };
        let seen = Arc::new(Seen {
            observer: Mutex::new(Observer::new(tool, settings)),
            began: Instant::now(),
            some: Notify::new(),
            many: Notify::new(),
            room: Notify::new(),
            replies: Notify::new(),
            ended: CancellationToken::new(),
        });
        let account = Account::new(sid, tool, command, party);
        let writing = tokio::spawn(write(Arc::clone(&seen), account, recording));
        Self { seen, writing }
    }

    /// What everything passes through.
    pub(super) fn filter(&self) -> Arc<dyn Filter> {
        Arc::clone(&self.seen) as Arc<dyn Filter>
    }

    /// The program has ended: tells the rest, and answers what it was.
    pub(super) async fn finish(self) -> Totals {
        self.seen.ended.cancel();
        if let Err(err) = self.writing.await {
            tracing::error!(error = %err, "the ledger of a file copy is not complete");
        }
        self.seen.lock().totals()
    }
}

/// The observer, and who waits for what of it.
struct Seen {
    observer: Mutex<Observer>,
    began: Instant,
    /// There are records.
    some: Notify,
    /// There are enough of them.
    many: Notify,
    /// They were taken.
    room: Notify,
    /// The client may have to be answered.
    replies: Notify,
    ended: CancellationToken,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Observer> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever takes records; waits while there are too many.
    async fn noted(&self, waiting: usize) {
        if waiting == 0 {
            return;
        }
        self.some.notify_one();
        if waiting >= BATCH {
            self.many.notify_one();
        }
        if waiting < MAX_WAITING {
            return;
        }
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.lock().waiting() < MAX_WAITING {
                return;
            }
            room.await;
        }
    }
}

#[async_trait]
impl Filter for Seen {
    async fn input(&self, data: Bytes) -> Result<Vec<Bytes>, String> {
        let (onward, waiting, owes) = {
            let mut observer = self.lock();
            let onward = observer.input(data, self.began.elapsed());
            (onward, observer.waiting(), observer.owes_reply())
        };
        if owes {
            self.replies.notify_one();
        }
        self.noted(waiting).await;
        onward.map_err(|forbidden| forbidden.0)
    }

    async fn output(&self, data: Bytes) -> Result<Vec<Bytes>, String> {
        let (onward, waiting) = {
            let mut observer = self.lock();
            (observer.output(data, self.began.elapsed()), observer.waiting())
        };
        self.noted(waiting).await;
        onward.map_err(|forbidden| forbidden.0)
    }

    async fn reply(&self) -> Bytes {
        loop {
            // Where the server is in the middle of a packet, its end brings the reply.
            if let Some(reply) = self.lock().reply() {
                return reply;
            }
            self.replies.notified().await;
        }
    }
}

/// Makes events of records until the program has ended.
async fn write(seen: Arc<Seen>, mut account: Account, recording: Recording) {
    loop {
        let more = async {
            seen.some.notified().await;
            tokio::select! {
                () = seen.many.notified() => {}
                () = tokio::time::sleep(GATHER) => {}
            }
        };
        let last = tokio::select! {
            () = more => false,
            () = seen.ended.cancelled() => true,
        };
        let (records, folder, totals) = {
            let mut observer = seen.lock();
            let folder = observer.working_directory().to_owned();
            if last {
                observer.finish(seen.began.elapsed());
            }
            (observer.take(), folder, observer.totals())
        };
        seen.room.notify_waiters();
        let mut events = Vec::new();
        for record in records {
            account.add(record, &folder, &mut events);
            if events.len() >= BATCH {
                recording.emit(std::mem::take(&mut events)).await;
            }
        }
        if last {
            events.push(account.close(totals));
        }
        if !events.is_empty() {
            recording.emit(events).await;
        }
        if last {
            return;
        }
    }
}
