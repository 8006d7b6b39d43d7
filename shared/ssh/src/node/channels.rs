//! The channels of one client of a node: sessions, forwarded connections, listeners.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::remote::Listeners;
use super::service::NodeService;
use super::session::{Session, SessionRun};
use crate::relay::pump::Moved;
use crate::relay::shared::Counted;
use crate::server::serve;

/// Channels one client may have open.
pub(super) const MAX_CHANNELS: usize = 128;
/// Connections to agent sockets that one client serves at a time.
pub(super) const MAX_AGENTS: usize = 16;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client and its channels.
pub(super) struct Channels<S: NodeService> {
    pub(super) service: Arc<S>,
    user: Mutex<Option<(S::Identity, String)>>,
    sessions: Mutex<HashMap<ChannelId, Arc<Session>>>,
    /// Counts the channels that are open.
    pub(super) open: AtomicUsize,
    pub(super) agents: AtomicUsize,
    pub(super) listeners: Listeners,
    /// What open channels have moved.
    moved: Mutex<Vec<Weak<Moved>>>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl<S: NodeService> Channels<S> {
    pub(super) fn new(service: Arc<S>, stop: CancellationToken) -> Self {
        Self {
            service,
            user: Mutex::default(),
            sessions: Mutex::default(),
            open: AtomicUsize::new(0),
            agents: AtomicUsize::new(0),
            listeners: Listeners::default(),
            moved: Mutex::default(),
            stop,
            tasks: TaskTracker::new(),
        }
    }

    pub(super) fn admitted(&self, identity: S::Identity, login: &str) {
        *lock(&self.user) = Some((identity, login.to_owned()));
    }

    /// Who got in, and as whom.
    pub(super) fn user(&self) -> Option<(S::Identity, String)> {
        lock(&self.user).clone()
    }

    /// Counts what one more channel moves.
    pub(super) fn counted(&self) -> Arc<Moved> {
        let counted = Arc::new(Moved::default());
        let mut moved = lock(&self.moved);
        moved.retain(|channel| channel.strong_count() > 0);
        moved.push(Arc::downgrade(&counted));
        counted
    }

    /// Bytes that were delivered on the channels that are open.
    fn traffic(&self) -> u64 {
        let moved = lock(&self.moved);
        let open = moved.iter().filter_map(Weak::upgrade);
        open.fold(0, |all, channel| all.wrapping_add(channel.total()))
    }

    pub(super) fn session(&self, id: ChannelId) -> Option<Arc<Session>> {
        lock(&self.sessions).get(&id).cloned()
    }

    /// `session` (RFC 4254 §6.1).
    pub(super) async fn open_session(
        self: Arc<Self>,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        handle: Handle,
    ) {
        let Some((identity, login)) = self.user() else { return };
        let Some(_counted) = Counted::new(&self.open, MAX_CHANNELS) else {
            return reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
        };
        let opened = tokio::select! {
            opened = self.service.session(&identity, &login) => opened,
            () = self.stop.cancelled() => return,
        };
        let service = match opened {
            Ok(service) => service,
            Err(refusal) => return reply.reject(refusal.into()).await,
        };
        let id = channel.id();
        let run = SessionRun::new(
            channel,
            handle.clone(),
            service,
            self.counted(),
            self.stop.child_token(),
        );
        let session = Arc::clone(&run.session);
        lock(&self.sessions).insert(id, Arc::clone(&session));
        reply.accept().await;
        let agents = async {
            let socket = session.agent_socket().await;
            self.serve_agents(socket.as_ref(), &handle).await;
        };
        tokio::select! {
            () = run.run(&self.open) => {}
            () = agents => {}
        }
        lock(&self.sessions).remove(&id);
    }
}

impl<S: NodeService> serve::Channels for Channels<S> {
    fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    async fn ended(&self) -> String {
        match self.user() {
            Some((identity, _)) => self.service.ended(&identity, &|| self.traffic()).await,
            None => std::future::pending().await,
        }
    }

    async fn end_all(&self, text: &str) {
        let sessions: Vec<_> = lock(&self.sessions).values().cloned().collect();
        futures::future::join_all(sessions.iter().map(|session| session.end_with(text))).await;
    }
}
