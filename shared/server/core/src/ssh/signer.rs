//! The key that recordings of this process are signed with: made here, kept in memory, certified by the auth service
//! in the background, and replaced every day. No session waits for it.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use shared_pki::{CheckpointKey, KeyPair};
use shared_recording::Signer;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Authority, AuthorityError};

/// When the auth service is asked.
struct Pace {
    /// How often there is a new key.
    renew: Duration,
    /// How long to wait after it did not certify a key: the first time, then twice as long each time.
    retry: Duration,
    /// The longest such wait.
    retry_most: Duration,
}

/// A certificate holds for three days.
const PACE: Pace = Pace {
    renew: Duration::from_secs(24 * 3600),
    retry: Duration::from_secs(1),
    retry_most: Duration::from_secs(60),
};
/// What auth may take to sign.
const SIGN: Duration = Duration::from_secs(10);

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
enum SignerError {
    #[error("make a key")]
    Make(#[source] shared_pki::PkiError),
    #[error("ask for a certificate")]
    Ask(#[source] AuthorityError),
    #[error("auth service did not sign in time")]
    Slow,
    #[error("auth service sent a certificate that cannot be read")]
    Unreadable(#[source] shared_pki::verify::CertRefusal),
    #[error("auth service sent a certificate for another key")]
    OtherKey(#[source] shared_pki::PkiError),
}

/// The signer, and the task that keeps its key fresh; that ends with this.
pub struct RecordingSigner {
    signer: Arc<Signer>,
    _keeping: DropGuard,
}

impl RecordingSigner {
    /// Starts the task, which asks `authority` for certificates. Needs a runtime.
    pub fn start(authority: Arc<dyn Authority>) -> Self {
        let signer = Arc::new(Signer::new(Utc::now));
        let stop = CancellationToken::new();
        let (kept, stopped) = (Arc::clone(&signer), stop.clone());
        tokio::spawn(async move {
            let ask = || certified(Arc::clone(&authority));
            let _ = stopped.run_until_cancelled(keep(&kept, &PACE, ask)).await;
        });
        Self { signer, _keeping: stop.drop_guard() }
    }

    /// What each recording is signed with.
    pub fn shared(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }
}

async fn keep<F>(signer: &Signer, pace: &Pace, mut ask: impl FnMut() -> F)
where
    F: Future<Output = Result<CheckpointKey, SignerError>>,
{
    let mut wait = pace.retry;
    loop {
        match ask().await {
            Ok(key) => {
                signer.replace(key);
                wait = pace.retry;
                tokio::time::sleep(pace.renew).await;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the key for recordings could not be renewed, trying again"
                );
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(pace.retry_most);
            }
        }
    }
}

async fn certified(authority: Arc<dyn Authority>) -> Result<CheckpointKey, SignerError> {
    let key = KeyPair::generate().map_err(SignerError::Make)?;
    let public = key.public_openssh();
    let line = tokio::time::timeout(SIGN, authority.certify_recorder(&public))
        .await
        .map_err(|_| SignerError::Slow)?
        .map_err(SignerError::Ask)?;
    let certificate = shared_pki::parse_certificate_line(&line).map_err(SignerError::Unreadable)?;
    CheckpointKey::new(key, &certificate).map_err(SignerError::OtherKey)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Mutex;

    use shared_recording::{Header, Limits, SessionRecorder, Verdict, verify};
    use shared_types::SessionId;
    use tokio::time::Instant;

    use super::*;
    use crate::testing::FakeAuthority;

    fn recorded(cluster: &FakeAuthority, signer: &Arc<Signer>) -> Vec<u8> {
        let name = cluster.recording.cluster().clone();
        let header =
            Header { cluster: name, session: SessionId::random(), recorder: cluster.recorder };
        let mut recorder =
            SessionRecorder::new(header, Limits::default(), None).signed(Arc::clone(signer));
        let mut slices = Vec::new();
        recorder.finish(Utc::now(), &mut slices).unwrap();
        slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect()
    }

    fn verdict(cluster: &FakeAuthority, signer: &Arc<Signer>) -> Verdict {
        let recording = recorded(cluster, signer);
        verify(Cursor::new(recording), &cluster.recording.trusted(), None).unwrap().verdict
    }

    #[tokio::test]
    async fn recordings_are_signed_with_a_key_that_auth_certified() {
        let cluster = Arc::new(FakeAuthority::new());
        let signer = RecordingSigner::start(Arc::<FakeAuthority>::clone(&cluster)).shared();
        // The first recordings may come before the key; they are made all the same.
        assert!(matches!(
            verdict(&cluster, &signer),
            Verdict::Unvouched { signed: 0, slices: 1 } | Verdict::Intact
        ));
        let keeping = RecordingSigner::start(Arc::<FakeAuthority>::clone(&cluster));
        let deadline = Instant::now() + Duration::from_secs(20);
        while verdict(&cluster, &keeping.shared()) != Verdict::Intact {
            assert!(Instant::now() < deadline, "no key");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Away for three attempts, then there; and a new key at every turn from then on.
    #[tokio::test]
    async fn auth_is_asked_until_it_answers_and_then_again_and_again() {
        let cluster = Arc::new(FakeAuthority::new());
        let (signer, asked) = (Signer::new(Utc::now), Mutex::new(0));
        let enough = tokio::sync::Notify::new();
        let ask = || {
            let count = {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                *asked
            };
            if count == 6 {
                enough.notify_one();
            }
            let authority = Arc::<FakeAuthority>::clone(&cluster);
            async move { if count <= 3 { Err(SignerError::Slow) } else { certified(authority).await } }
        };
        let brief = Duration::from_millis(5);
        let pace = Pace { renew: brief, retry: brief / 5, retry_most: brief };
        tokio::select! {
            () = keep(&signer, &pace, ask) => panic!("it ended"),
            () = enough.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("not asked again"),
        }
        assert_eq!(verdict(&cluster, &Arc::new(signer)), Verdict::Intact);
    }
}
