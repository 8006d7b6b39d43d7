//! Passwords of local users: rules, Argon2id hashes, and a bound on how many are computed at once.
//!
//! A hash costs 19 MiB and tens of milliseconds, so it runs off the async workers and at most
//! [`PARALLEL`] at a time; further callers wait a little and are then told to come back.
//! A login of a user who does not exist computes a hash too: its time tells nothing.

use std::sync::Arc;
use std::time::Duration;

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Shortest password, in characters.
pub(crate) const MIN_CHARS: usize = 12;
/// Longest password, in characters.
pub(crate) const MAX_CHARS: usize = 128;
/// How many hashes are computed at once.
const PARALLEL: usize = 4;
/// How long a caller waits for its turn.
const WAIT: Duration = Duration::from_secs(10);

/// Why a password was not hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It does not keep the rules.
    #[error("a password has between {MIN_CHARS} and {MAX_CHARS} characters")]
    Length,
    /// Too many at once.
    #[error("too many logins at the moment")]
    Busy,
    /// The hash in the store cannot be read, or the worker died.
    #[error("password hash: {0}")]
    Hash(String),
}

/// Hashes and checks passwords with bounded concurrency.
#[derive(Clone)]
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    /// Hash of a random password: what an unknown user's login is checked against.
    decoy: Arc<str>,
}

impl Passwords {
    /// Computes the decoy hash, so call it once at start.
    pub(crate) fn new() -> Result<Self, PasswordError> {
        let random: [u8; 16] = rand::random();
        let decoy = hash_now(&Zeroizing::new(hex::encode(random)))?;
        Ok(Self { turns: Arc::new(Semaphore::new(PARALLEL)), decoy: decoy.into() })
    }

    /// The PHC string of a new password.
    pub(crate) async fn hash(&self, password: Zeroizing<String>) -> Result<String, PasswordError> {
        check_rules(&password)?;
        self.run(move || hash_now(&password)).await
    }

    /// Whether the password belongs to the hash; `None` (no such user, no password yet) costs the same and is false.
    pub(crate) async fn verify(
        &self,
        password: Zeroizing<String>,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.to_string());
        let matches = self
            .run(move || {
                // An over-long password is not hashed at all, for known and unknown users alike.
                if password.chars().count() > MAX_CHARS {
                    return Ok(false);
                }
                let parsed =
                    PasswordHash::new(&hash).map_err(|e| PasswordError::Hash(e.to_string()))?;
                Ok(Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
            })
            .await?;
        Ok(matches && known)
    }

    /// Every turn there is, so that nobody else gets one.
    #[cfg(test)]
    pub(crate) async fn all_turns(&self) -> tokio::sync::OwnedSemaphorePermit {
        Arc::clone(&self.turns).acquire_many_owned(PARALLEL as u32).await.unwrap()
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = tokio::time::timeout(WAIT, self.turns.clone().acquire_owned())
            .await
            .map_err(|_| PasswordError::Busy)?
            .map_err(|_| PasswordError::Busy)?;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
        .map_err(|e| PasswordError::Hash(e.to_string()))?
    }
}

/// Length only: a rule that people can keep.
pub(crate) fn check_rules(password: &str) -> Result<(), PasswordError> {
    let chars = password.chars().count();
    if (MIN_CHARS..=MAX_CHARS).contains(&chars) { Ok(()) } else { Err(PasswordError::Length) }
}

fn hash_now(password: &str) -> Result<String, PasswordError> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|e| PasswordError::Hash(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash(secret("correct horse battery")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"));
        assert!(
            passwords.verify(secret("correct horse battery"), Some(hash.clone())).await.unwrap()
        );
        assert!(!passwords.verify(secret("correct horse batterz"), Some(hash)).await.unwrap());
        assert!(!passwords.verify(secret("correct horse battery"), None).await.unwrap());
    }

    #[test]
    fn length_counts_characters() {
        assert!(check_rules("short").is_err());
        assert!(check_rules("twelve chars").is_ok());
        assert!(check_rules(&"é".repeat(128)).is_ok());
        assert!(check_rules(&"é".repeat(129)).is_err());
    }
}
