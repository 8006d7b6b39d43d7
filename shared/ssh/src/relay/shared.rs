//! The channels of one client: each session with its target, forwarded connections, agents.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::inner::InnerService;
use super::pump::{self, Flow, Moved, PumpEnd, Waiting};
use super::session::{SessionChannel, SessionRelay};
use super::tap::{Ended, Tap};
use super::{connect_failed, prohibited};
use crate::server::serve::Channels;
use crate::target::Target;

/// Channels one client may have open.
const MAX_CHANNELS: usize = 128;
/// Agent channels of targets that one client serves at a time.
const MAX_AGENTS: usize = 16;
/// One client and its channels.
pub(super) struct Shared<S: InnerService> {
    pub(super) service: Arc<S>,
    user: Mutex<Option<(S::Identity, String)>>,
    sessions: Mutex<HashMap<ChannelId, Arc<SessionChannel>>>,
    channels: AtomicUsize,
    forwards: AtomicUsize,
    agents: AtomicUsize,
    /// What open channels have moved.
    moved: Mutex<Vec<Weak<Moved>>>,
    forward_target: tokio::sync::Mutex<Option<Arc<Target>>>,
    stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts something while it lives.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(counter: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let counted = counter
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now < limit).then_some(now + 1)
            })
            .is_ok();
        // Made only for what was counted: dropping one counts down.
        counted.then(|| Self(counter))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The end of a session that was announced and never reached its target.
async fn ended_early(announced: Option<Arc<dyn Tap>>, why: &str) {
    if let Some(tap) = announced {
        tap.end(Ended { cut: Some(why.to_owned()), ..Ended::default() }).await;
    }
}

impl<S: InnerService> Shared<S> {
    pub(super) fn new(service: Arc<S>, stop: CancellationToken) -> Self {
        Self {
            service,
            user: Mutex::default(),
            sessions: Mutex::default(),
            channels: AtomicUsize::new(0),
            forwards: AtomicUsize::new(0),
            agents: AtomicUsize::new(0),
            moved: Mutex::default(),
            forward_target: tokio::sync::Mutex::default(),
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
    fn counted(&self) -> Arc<Moved> {
        let counted = Arc::new(Moved::default());
        let mut moved = lock(&self.moved);
        moved.retain(|channel| channel.strong_count() > 0);
        moved.push(Arc::downgrade(&counted));
        counted
    }

    /// Bytes that were delivered on the channels that are open.
    pub(super) fn traffic(&self) -> u64 {
        let moved = lock(&self.moved);
        moved
            .iter()
            .filter_map(Weak::upgrade)
            .fold(0, |all, channel| all.wrapping_add(channel.total()))
    }

    pub(super) fn session(&self, id: ChannelId) -> Option<Arc<SessionChannel>> {
        lock(&self.sessions).get(&id).cloned()
    }

    pub(super) async fn open_session(
        self: Arc<Self>,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        handle: Handle,
    ) {
        let Some((identity, login)) = self.user() else { return };
        let Some(_counted) = Counted::new(&self.channels, MAX_CHANNELS) else {
            return reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
        };
        let _place = match self.service.session(&identity, &login).await {
            Ok(place) => place,
            Err(text) => return reply.reject(prohibited(text)).await,
        };
        let announced = tokio::select! {
            announced = self.service.announce(&identity, &login) => match announced {
                Ok(announced) => announced,
                Err(text) => return reply.reject(connect_failed(text)).await,
            },
            () = self.stop.cancelled() => return,
        };
        let connecting = async {
            let target = self.service.connect(&identity, &login).await?;
            let theirs = target.open_session().await.map_err(|err| format!("ssh: {err}"))?;
            Ok::<_, String>((target, theirs))
        };
        let (target, theirs) = tokio::select! {
            connected = connecting => match connected {
                Ok(connected) => connected,
                Err(text) => {
                    ended_early(announced, &text).await;
                    return reply.reject(connect_failed(text)).await;
                }
            },
            () = self.stop.cancelled() => return ended_early(announced, "connection ended").await,
        };
        let tap = match announced {
            Some(tap) => tap,
            None => self.service.tap(&identity, &login, &target).await,
        };
        let id = channel.id();
        let relay = SessionRelay::new(
            channel,
            handle.clone(),
            theirs,
            Arc::clone(&target),
            tap,
            self.counted(),
            self.stop.child_token(),
        );
        let session = Arc::clone(&relay.shared);
        lock(&self.sessions).insert(id, session);
        reply.accept().await;
        tokio::select! {
            () = relay.run(&self.channels) => {}
            () = self.serve_agents(&target, &handle) => {}
        }
        lock(&self.sessions).remove(&id);
    }

    /// Passes agent channels from the target to the client. Never ends by itself.
    async fn serve_agents(&self, target: &Arc<Target>, client: &Handle) {
        let mut running = futures::stream::FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(theirs) = target.next_agent() => {
                    running.push(self.serve_agent(theirs, client));
                }
                Some(()) = futures::StreamExt::next(&mut running), if !running.is_empty() => {}
                else => return std::future::pending().await,
            }
        }
    }

    async fn serve_agent(&self, theirs: Channel<russh::client::Msg>, client: &Handle) {
        let Some(_counted) = Counted::new(&self.agents, MAX_AGENTS) else { return };
        let Ok(ours) = client.channel_open_agent().await else { return };
        let Some(_channel) = Counted::new(&self.channels, MAX_CHANNELS) else { return };
        let (mut theirs, mut ours) = (theirs.into_stream(), ours.into_stream());
        let _ = tokio::io::copy_bidirectional(&mut theirs, &mut ours).await;
    }

    /// The connection that all forwarded connections share.
    async fn forward_connection(
        &self,
        identity: &S::Identity,
        login: &str,
    ) -> Result<Arc<Target>, String> {
        let mut slot = self.forward_target.lock().await;
        if let Some(target) = slot.as_ref().filter(|target| !target.is_closed()) {
            return Ok(Arc::clone(target));
        }
        let target = self.service.connect(identity, login).await?;
        *slot = Some(Arc::clone(&target));
        Ok(target)
    }

    pub(super) async fn forward(
        self: Arc<Self>,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        to: (String, u32),
        from: (String, u32),
    ) {
        let Some((identity, login)) = self.user() else { return };
        let (Some(_channel), Some(_forward)) = (
            Counted::new(&self.channels, MAX_CHANNELS),
            Counted::new(&self.forwards, MAX_CHANNELS),
        ) else {
            return reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
        };
        let connecting = async {
            let tap = match self.service.forward(&identity, &login, (&to.0, to.1)).await {
                Ok(tap) => tap,
                Err(text) => return Err(prohibited(text)),
            };
            let opened = async {
                let target = self.forward_connection(&identity, &login).await?;
                target
                    .open_direct_tcpip((&to.0, to.1), (&from.0, from.1))
                    .await
                    .map_err(|err| format!("{err}"))
            };
            match opened.await {
                Ok(theirs) => Ok((tap, theirs)),
                Err(text) => {
                    tap.end(0, 0, Some(text.clone())).await;
                    Err(connect_failed(text))
                }
            }
        };
        let (tap, theirs) = tokio::select! {
            connected = connecting => match connected {
                Ok(connected) => connected,
                Err(refusal) => return reply.reject(refusal).await,
            },
            () = self.stop.cancelled() => return,
        };
        reply.accept().await;
        let (mut client_read, client_write) = channel.split();
        let (mut target_read, target_write) = theirs.split();
        let moved = self.counted();
        let Moved { to_target, to_client } = moved.as_ref();
        let limits = pump::Limits::default();
        let relay = async {
            let (up_waits, down_waits) = (Waiting::default(), Waiting::default());
            let flow = Flow {
                siblings: &self.channels,
                moved: to_target,
                mine: &up_waits,
                opposite: &down_waits,
            };
            let up = pump::pump(&mut client_read, &target_write, flow, limits, pump::Ignore);
            let flow = Flow {
                siblings: &self.forwards,
                moved: to_client,
                mine: &down_waits,
                opposite: &up_waits,
            };
            let down = pump::pump(&mut target_read, &client_write, flow, limits, pump::Ignore);
            tokio::pin!(up, down);
            tokio::select! {
                // Whoever closes has said all; the rest of the other direction has no reader.
                end = &mut up => if end == PumpEnd::Broken { down.await } else { end },
                end = &mut down => if end == PumpEnd::Broken { up.await } else { end },
            }
        };
        let error = tokio::select! {
            end = relay => (end == PumpEnd::Overflow).then(|| "one side does not read".to_owned()),
            () = self.stop.cancelled() => None,
        };
        let closing = async {
            let _ = client_write.close().await;
            let _ = target_write.close().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
        tap.end(to_target.load(Ordering::Relaxed), to_client.load(Ordering::Relaxed), error).await;
    }

    /// Ends the connection of forwarded connections.
    pub(super) async fn end_forwards(&self) {
        if let Some(target) = self.forward_target.lock().await.take() {
            target.disconnect().await;
        }
    }
}

impl<S: InnerService> Channels for Shared<S> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_one_frees_no_place() {
        let counter = AtomicUsize::new(0);
        let first = Counted::new(&counter, 1);
        assert!(first.is_some());
        assert!(Counted::new(&counter, 1).is_none() && Counted::new(&counter, 1).is_none());
        drop(first);
        assert!(Counted::new(&counter, 1).is_some());
        assert_eq!(counter.load(Ordering::Acquire), 0);
    }
}
