//! How a user gets in: one user name per connection, a certificate, and its signature.
//!
//! russh calls back for an offer before anything is proved, and for the certificate after the signature was verified;
//! only the latter decides. russh itself turns down certificates outside their validity, without a call.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use russh::keys::ssh_key::Certificate;
use russh::server::Auth;

/// How many unsigned offers a connection may make.
const MAX_OFFERS: u32 = 64;
/// The longest user name that is looked at.
const MAX_USER: usize = 256;

/// Decides who gets in.
#[async_trait]
pub trait AuthGate: Send + Sync + 'static {
    /// What is known of a user who got in.
    type Identity: Clone + Send + Sync + 'static;

    /// `certificate` proved its key for `login` just now. The error is the reason, for the audit log.
    async fn admit(&self, login: &str, certificate: &Certificate)
    -> Result<Self::Identity, String>;

    /// `password` was given for `login`. Nobody gets in by one where the gate does not say so.
    async fn admit_password(
        &self,
        _login: &str,
        _password: &str,
    ) -> Result<Self::Identity, String> {
        Err("a password was given, expected a user certificate".to_owned())
    }
}

/// What happened at the door of one connection.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// The user name, once given.
    pub user: Option<String>,
    /// Why the last try failed.
    pub failure: Option<String>,
    /// Whether somebody got in.
    pub admitted: bool,
    offers: u32,
}

/// Ends the connection of a client that plays with its name or with offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misbehaved {
    #[error("user name changed during authentication")]
    NameChanged,
    #[error("user name is too long")]
    NameTooLong,
    #[error("too many public keys offered")]
    TooManyOffers,
}

/// The door of one connection, shared with whoever reports on it afterwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct Door(Arc<Mutex<Login>>);

impl Door {
    fn with<T>(&self, act: impl FnOnce(&mut Login) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(crate) fn report(&self) -> Login {
        self.with(|login| login.clone())
    }

    fn note(&self, failure: impl Into<String>) {
        let failure = failure.into();
        self.with(|login| login.failure = Some(failure));
    }

    fn misbehaved(&self, how: Misbehaved) -> Misbehaved {
        self.note(how.to_string());
        how
    }

    /// Holds the user name fixed from the first request on.
    fn bind(&self, user: &str) -> Result<(), Misbehaved> {
        if user.len() > MAX_USER {
            return Err(self.misbehaved(Misbehaved::NameTooLong));
        }
        let same = self.with(|login| login.user.get_or_insert_with(|| user.to_owned()) == user);
        if same { Ok(()) } else { Err(self.misbehaved(Misbehaved::NameChanged)) }
    }

    pub(crate) fn none(&self, user: &str) -> Result<Auth, Misbehaved> {
        self.bind(user)?;
        self.with(|login| {
            login.failure.get_or_insert_with(|| {
                "no certificate that is signed and within its validity was presented".to_owned()
            });
        });
        Ok(Auth::reject())
    }

    pub(crate) fn offered(&self, user: &str) -> Result<Auth, Misbehaved> {
        self.bind(user)?;
        let offers = self.with(|login| {
            login.offers += 1;
            login.failure.get_or_insert_with(|| "a key was offered and not proved".to_owned());
            login.offers
        });
        if offers > MAX_OFFERS {
            return Err(self.misbehaved(Misbehaved::TooManyOffers));
        }
        Ok(Auth::Accept)
    }

    pub(crate) fn plain_key(&self, user: &str) -> Result<Auth, Misbehaved> {
        self.bind(user)?;
        self.note("a plain key was presented, expected a user certificate");
        Ok(Auth::reject())
    }

    pub(crate) async fn certificate<G: AuthGate + ?Sized>(
        &self,
        gate: &G,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Result<G::Identity, Auth>, Misbehaved> {
        self.bind(user)?;
        Ok(self.decided(gate.admit(user, certificate).await))
    }

    pub(crate) async fn password<G: AuthGate + ?Sized>(
        &self,
        gate: &G,
        user: &str,
        password: &str,
    ) -> Result<Result<G::Identity, Auth>, Misbehaved> {
        self.bind(user)?;
        Ok(self.decided(gate.admit_password(user, password).await))
    }

    fn decided<I>(&self, decided: Result<I, String>) -> Result<I, Auth> {
        match decided {
            Ok(identity) => {
                self.with(|login| {
                    login.admitted = true;
                    login.failure = None;
                });
                Ok(identity)
            }
            Err(reason) => {
                self.note(reason);
                Err(Auth::reject())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_first_request_stays() {
        let door = Door::default();
        assert_eq!(door.none("root").unwrap(), Auth::reject());
        assert_eq!(door.offered("root").unwrap(), Auth::Accept);
        assert_eq!(door.offered("admin").unwrap_err(), Misbehaved::NameChanged);
        let report = door.report();
        assert_eq!(report.user.as_deref(), Some("root"));
        assert_eq!(report.failure.as_deref(), Some("user name changed during authentication"));
        assert!(!report.admitted);
    }

    #[test]
    fn offers_without_a_signature_end() {
        let door = Door::default();
        let end = (0..1000).find_map(|_| door.offered("root").err());
        assert_eq!(end, Some(Misbehaved::TooManyOffers));
        assert_eq!(door.offered("root").unwrap_err(), Misbehaved::TooManyOffers);
        assert!(!door.report().admitted);
    }

    #[test]
    fn a_plain_key_is_never_enough() {
        let door = Door::default();
        assert_eq!(door.plain_key("root").unwrap(), Auth::reject());
        assert!(!door.report().admitted);
    }
}
