//! What new connections show to the proxy, kept fresh.
//!
//! A certificate that has ended is never used: whoever comes then waits for a new one if it can be had without asking
//! anybody, and is told what to do if not. One renews at a time, and a failure counts for a moment, so that a client
//! that tries again and again does not hammer the cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use rustls::ClientConfig;

/// A certificate that ends sooner than this is replaced.
const MARGIN: Duration = Duration::from_secs(5);
/// How long a failure to renew counts.
const FAILURE_COUNTS: Duration = Duration::from_secs(1);
/// How often [`Keeper::keep`] looks at the clock: machines sleep, and timers with them.
const LOOK: Duration = Duration::from_secs(10);

/// TLS towards the proxy, and how long its certificate holds.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The set-up with the certificate in it.
    pub tls: Arc<ClientConfig>,
    /// When the certificate ends; never where the client brings its own.
    pub ends: Option<SystemTime>,
}

impl Credentials {
    fn good_at(&self, now: SystemTime) -> bool {
        self.ends.is_none_or(|ends| now + MARGIN < ends)
    }
}

/// Gets new credentials.
#[async_trait]
pub trait Renew: Send + Sync + 'static {
    /// New credentials without asking anybody, or what a person at a database client should read. May begin to ask at
    /// the terminal, but does not wait for the answer.
    async fn renew(&self) -> Result<Credentials, String>;
}

/// The credentials of a listener.
pub struct Keeper {
    current: Mutex<Credentials>,
    renew: Box<dyn Renew>,
    turn: tokio::sync::Mutex<Option<(Instant, String)>>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// Starts with `first`.
    pub fn new(first: Credentials, renew: Box<dyn Renew>) -> Self {
        Self { current: Mutex::new(first), renew, turn: tokio::sync::Mutex::default() }
    }

    fn current(&self) -> Credentials {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a new connection uses; else the text for its client.
    pub async fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let current = self.current();
        if current.good_at(SystemTime::now()) {
            return Ok(current.tls);
        }
        let mut failed = self.turn.lock().await;
        // Whoever had the turn before may have brought them.
        let current = self.current();
        if current.good_at(SystemTime::now()) {
            return Ok(current.tls);
        }
        if let Some((at, text)) = failed.as_ref()
            && at.elapsed() < FAILURE_COUNTS
        {
            return Err(text.clone());
        }
        match self.renew.renew().await {
            Ok(fresh) => {
                *failed = None;
                let tls = Arc::clone(&fresh.tls);
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
                Ok(tls)
            }
            Err(text) => {
                *failed = Some((Instant::now(), text.clone()));
                Err(text)
            }
        }
    }

    /// Renews when the certificate ends, whether or not anybody connects; does not return.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(text) = self.tls().await {
                tracing::debug!(text, "no new certificate yet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::upstream::Upstream;

    struct Script {
        asked: Arc<AtomicUsize>,
        answers: Mutex<Vec<Result<Credentials, String>>>,
    }

    #[async_trait]
    impl Renew for Script {
        async fn renew(&self) -> Result<Credentials, String> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.answers.lock().unwrap().pop().unwrap_or_else(|| Err("log in again".to_owned()))
        }
    }

    fn lasting(seconds: u64) -> Credentials {
        shared_transport::install_crypto();
        let tls = Upstream::tls(&[], b"x", None).unwrap();
        Credentials { tls, ends: Some(SystemTime::now() + Duration::from_secs(seconds)) }
    }

    fn keeper(
        first: Credentials,
        answers: Vec<Result<Credentials, String>>,
    ) -> (Arc<Keeper>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let script = Script { asked: Arc::clone(&asked), answers: Mutex::new(answers) };
        (Arc::new(Keeper::new(first, Box::new(script))), asked)
    }

    #[tokio::test]
    async fn one_renews_and_all_who_wait_are_served() {
        let fresh = lasting(3600);
        let (keeper, asked) = keeper(lasting(0), vec![Ok(fresh.clone())]);
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let keeper = Arc::clone(&keeper);
                tokio::spawn(async move { keeper.tls().await })
            })
            .collect();
        for one in waiting {
            assert!(Arc::ptr_eq(&one.await.unwrap().unwrap(), &fresh.tls));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failure_is_told_and_counts_for_a_moment() {
        let fresh = lasting(3600);
        let (keeper, asked) = keeper(lasting(0), vec![Ok(fresh), Err("log in again".to_owned())]);
        for _ in 0..5 {
            assert_eq!(keeper.tls().await.unwrap_err(), "log in again");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::sleep(FAILURE_COUNTS).await;
        assert!(keeper.tls().await.is_ok());
    }

    #[tokio::test]
    async fn what_is_good_is_used_and_what_has_no_end_stays() {
        let (valid, asked) = keeper(lasting(3600), Vec::new());
        assert!(valid.tls().await.is_ok());
        let (endless, _) = keeper(Credentials { ends: None, ..lasting(0) }, Vec::new());
        assert!(endless.tls().await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }
}
