//! What this service vouches for of recordings: the keys of recorders, and, once a recording is here, what came.
//!
//! A recording is read through once when its upload is complete. Its seal is kept in the state, and goes out behind the
//! recording with every download, so that nothing but the recording CA is needed to verify it elsewhere. The stored
//! recording itself stays what the recorder wrote.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use server_store::{BackendError, Condition, Op};
use shared_api::{HostCertReply, RecorderCertRequest};
use shared_events::AuditEvent;
use shared_pki::RecorderCertSpec;
use shared_recording::format::HEADER;
use shared_recording::{ChainStatus, Decoder, EndState, Received, Seal};
use shared_types::{ClusterName, HostId, SessionId};
use tokio_util::io::SyncIoBridge;

use crate::caller::Caller;
use crate::certs::{sign_error, ssh_key};
use crate::error::{AuthError, Result};
use crate::made_up::synthesise;
use crate::service::AuthService;
use crate::state;

/// Life of a recorder's certificate; the recorder renews it every day.
const RECORDER_LIFE: Duration = Duration::from_secs(72 * 3600);
/// Recordings that are read through at a time.
const READ_AT_ONCE: usize = 2;

/// The recordings that are being read through.
pub(crate) struct Reading {
    sessions: Mutex<HashSet<SessionId>>,
    turns: tokio::sync::Semaphore,
}

impl Default for Reading {
    fn default() -> Self {
        Self { sessions: Mutex::default(), turns: tokio::sync::Semaphore::new(READ_AT_ONCE) }
    }
}

/// A session's turn; ends when dropped.
struct Turn<'a>(&'a Reading, SessionId);

impl Reading {
    /// One at a time for a session: reading a large one takes longer than its recorder waits before it asks again.
    fn begin(&self, session: SessionId) -> Option<Turn<'_>> {
        let begun = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(session);
        // Made only for whose turn it is: dropping a turn ends it.
        begun.then(|| Turn(self, session))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// What came of a recording.
pub(crate) struct Arrived {
    /// How it ends: `complete`, `truncated` or `damaged`.
    pub(crate) state: &'static str,
    /// Slices, bytes and head, where it has a whole chain.
    pub(crate) received: Option<Received>,
    /// The end of the session, where it was asked for.
    pub(crate) end: Option<AuditEvent>,
}

impl AuthService {
    /// A certificate for the key a service signs recordings with.
    pub async fn sign_recorder(
        &self,
        caller: &Caller,
        ask: RecorderCertRequest,
    ) -> Result<HostCertReply> {
        let (Some(role), Some(host_id)) = (caller.identity().system_role, caller.host_id()) else {
            return Err(AuthError::denied("access denied"));
        };
        if !caller.is_service() {
            return Err(AuthError::denied("access denied"));
        }
        let now = self.now();
        let spec = RecorderCertSpec {
            public_key: ssh_key(&ask.public_key)?,
            host_id,
            role,
            cluster: self.cluster().clone(),
            now,
            ttl: RECORDER_LIFE,
        };
        let certificate = self
            .recording_ca
            .ssh_ca()
            .and_then(|ca| ca.sign_recorder(spec))
            .map_err(|error| sign_error("public_key", error))?
            .to_openssh()
            .map_err(AuthError::at("encode certificate"))?;
        let life = chrono::Duration::from_std(RECORDER_LIFE).unwrap_or_default();
        Ok(HostCertReply { certificate, valid_until: Some(now + life) })
    }

    /// Reads a recording that has just arrived, and seals it. When that was done before, the seal stays. A recorder
    /// that did not live says so with `truncated`; then the session's end is made up where the recording has none.
    pub(crate) async fn receive(
        &self,
        session: &SessionId,
        truncated: bool,
        owner: Option<HostId>,
    ) -> Result<Arrived> {
        let _turn = self
            .reading
            .begin(*session)
            .ok_or_else(|| AuthError::unavailable("the recording is being read"))?;
        let sealed = self.seal(session).await?;
        if let Some(seal) = sealed.as_ref().filter(|_| !truncated) {
            let received = seal.received.clone();
            return Ok(Arrived {
                state: received.state.as_str(),
                received: Some(received),
                end: None,
            });
        }
        let _reader = self.reading.turns.acquire().await;
        let reader = self.open_recording(session).await?;
        let (bytes, bridge) = (reader.bytes(), SyncIoBridge::new(reader));
        let (session, cluster, now) = (*session, self.cluster().clone(), self.now());
        let read = tokio::task::spawn_blocking(move || {
            let decoder = Decoder::of_session(bridge, session);
            read_through(decoder, session, &cluster, owner, truncated)
        });
        let mut arrived = read.await.map_err(AuthError::at("read recording"))?;
        if let Some(seal) = sealed {
            arrived.received = Some(seal.received);
        } else if let Some(received) = &mut arrived.received {
            received.bytes = bytes;
            received.time = u64::try_from(now.timestamp()).unwrap_or_default();
            self.keep_seal(received.clone()).await?;
        }
        Ok(arrived)
    }

    async fn keep_seal(&self, received: Received) -> Result<()> {
        let session = received.session;
        let seal = self
            .recording_ca
            .ssh_ca()
            .and_then(|ca| Seal::sign(received, &ca))
            .map_err(AuthError::at("seal recording"))?;
        let key = state::key("seals", &session.to_string())?;
        let put = state::put(key, &hex::encode(seal.to_part()), None, Condition::Absent)?;
        match self.store().write(vec![put]).await {
            Ok(_) | Err(BackendError::AlreadyExists { .. } | BackendError::Conflict { .. }) => {
                Ok(())
            }
            Err(error) => Err(AuthError::internal("store seal", error)),
        }
    }

    /// The seal of a recording, as a part to stand behind it.
    pub(crate) async fn seal_part(&self, session: &SessionId) -> Result<Option<Bytes>> {
        let key = state::key("seals", &session.to_string())?;
        let Some(stored) = self.store().read::<String>(&key).await? else { return Ok(None) };
        let part = hex::decode(stored.value).map_err(AuthError::at("read seal"))?;
        Ok(Some(Bytes::from(part)))
    }

    /// The recording is gone, and with it what was said of it.
    pub(crate) async fn forget_seal(&self, session: &SessionId) -> Result<()> {
        let key = state::key("seals", &session.to_string())?;
        let gone = Op::Delete { key, condition: Condition::Any };
        self.store().write(vec![gone]).await.map_err(AuthError::at("remove seal"))?;
        Ok(())
    }

    async fn seal(&self, session: &SessionId) -> Result<Option<Seal>> {
        let part = self.seal_part(session).await?;
        Ok(part.and_then(|part| Seal::from_body(part.get(HEADER..)?)))
    }
}

/// Reads a recording to its end. Events are looked at only for the end that may have to be made up.
fn read_through<R: std::io::Read>(
    mut decoder: Decoder<R>,
    session: SessionId,
    cluster: &ClusterName,
    owner: Option<HostId>,
    truncated: bool,
) -> Arrived {
    let end = truncated.then(|| synthesise(&mut decoder, session, cluster.as_str())).flatten();
    // What follows a fault is nobody's, and is not sealed.
    let whole = loop {
        match decoder.next_slice() {
            Ok(true) => {}
            Ok(false) => break !decoder.has_failed(),
            Err(error) => {
                tracing::warn!(%session, error = &error as &dyn std::error::Error, "recording");
                break false;
            }
        }
    };
    let state = match decoder.chain_status() {
        ChainStatus::Intact => EndState::Complete.as_str(),
        ChainStatus::MissingEnd => EndState::Truncated.as_str(),
        ChainStatus::Broken { .. } => "damaged",
        ChainStatus::Unsigned if !whole && !truncated => "damaged",
        ChainStatus::Unsigned if truncated => EndState::Truncated.as_str(),
        ChainStatus::Unsigned => EndState::Complete.as_str(),
    };
    // A host sends what it has recorded itself.
    let foreign =
        decoder.header().is_some_and(|origin| owner.is_some_and(|owner| origin.recorder != owner));
    let state = if foreign { "damaged" } else { state };
    let here = !foreign && decoder.header().is_some_and(|origin| origin.cluster == *cluster);
    let received = decoder.head().filter(|_| whole && here).map(|(slices, head)| Received {
        session,
        state: match decoder.chain_status() {
            ChainStatus::Intact => EndState::Complete,
            _ => EndState::Truncated,
        },
        slices,
        bytes: 0,
        head,
        time: 0,
    });
    Arrived { state, received, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_turn_at_a_time() {
        let (reading, session) = (Reading::default(), SessionId::random());
        let turn = reading.begin(session).unwrap();
        assert!(reading.begin(session).is_none() && reading.begin(session).is_none());
        assert!(reading.begin(SessionId::random()).is_some());
        drop(turn);
        assert!(reading.begin(session).is_some());
    }
}
