//! Login with a password.
//!
//! Order: locked out? password right? account usable? sign, record, answer. A name that does not exist
//! takes the same way, the same time and gets the same words as a wrong password.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use server_store::Condition;
use shared_api::{ApiError, LoginReply, LoginRequest};
use shared_types::{Resource, ResourceKind, User, UserName};

use crate::certs::{Keys, Subject, client_ip, secret_text};
use crate::error::{AuthError, Result};
use crate::events;
use crate::invites::bad_password;
use crate::lockout::Attempts;
use crate::service::AuthService;
use crate::state;

/// Logins of one name wait for each other, so that guesses in parallel are counted one by one.
#[derive(Default)]
pub(crate) struct Turns([tokio::sync::Mutex<()>; 32]);

impl Turns {
    async fn take(&self, user: &UserName) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        let slot = usize::try_from(hasher.finish() % 32).unwrap_or(0);
        match self.0.get(slot) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }
}

const WRONG: &str = "invalid username or password";
const LOCKED: &str = "the user is locked for 30 minutes after too many failed logins";

impl AuthService {
    /// Checks the password and signs the user's certificates.
    pub async fn login(&self, ask: LoginRequest, from: SocketAddr) -> Result<LoginReply> {
        if !self.current_state().auth_preference.spec.allow_local_auth {
            return Err(AuthError::denied("login with a password is switched off on this cluster"));
        }
        let keys = Keys::parse(&ask.ssh_public_key, &ask.tls_public_key)?;
        let user = self.check_password(&ask, from).await?;
        let name = ask.user;
        let now = self.now();
        if user.is_locked(now)
            || user.is_expired(now)
            || user.spec.expires.is_some_and(|end| end <= now)
        {
            self.record(vec![events::user_login(
                &name,
                Err("the account is locked or has expired"),
                from,
            )])
            .await?;
            return Err(ApiError::locked("the account is locked or has expired").into());
        }
        let subject = Subject {
            user: name.clone(),
            roles: user.spec.roles,
            traits: user.spec.traits,
            address: Some(client_ip(from)),
            not_after: user.spec.expires,
        };
        let (reply, created) = match self.issue_user(subject, &keys, ask.ttl_seconds) {
            Ok(issued) => issued,
            Err(error) => {
                if let AuthError::Answer(answer) = &error {
                    self.record(vec![events::user_login(&name, Err(&answer.message), from)])
                        .await?;
                }
                return Err(error);
            }
        };
        self.record(vec![created, events::user_login(&name, Ok(()), from)]).await?;
        tracing::info!(user = %name, from = %from.ip(), until = %reply.valid_until, "login");
        Ok(reply)
    }

    /// The account, when the password is its.
    async fn check_password(&self, ask: &LoginRequest, from: SocketAddr) -> Result<User> {
        let name = &ask.user;
        let attempts_key = state::hashed_key("attempts", name.as_str())?;
        let _turn = self.turns().take(name).await;
        let mut attempts = self
            .store()
            .read::<Attempts>(&attempts_key)
            .await?
            .map(|stored| stored.value)
            .unwrap_or_default();
        if attempts.locked(self.now()).is_some() {
            self.record(vec![events::user_login(name, Err(LOCKED), from)]).await?;
            return Err(ApiError::locked(LOCKED)
                .with_hint("wait, or ask an administrator for: tctl users reset")
                .into());
        }
        let hash = self.store().read::<String>(&state::key("passwords", name.as_str())?).await?;
        let account = self.store().resource(ResourceKind::User, name.as_str()).await?;
        let (account, hash) = match account {
            Some(Resource::User(user)) => (Some(user), hash.map(|hash| hash.value)),
            _ => (None, None),
        };
        let right = self
            .passwords()
            .verify(secret_text(&ask.password), hash)
            .await
            .map_err(bad_password)?;
        if let (true, Some(account)) = (right, account) {
            if attempts != Attempts::default() {
                let forget = vec![state::delete(attempts_key, Condition::Any)];
                self.store().write(forget).await.map_err(AuthError::at("forget failed logins"))?;
            }
            return Ok(account);
        }
        let locked = attempts.fail(self.now());
        let note = state::put(attempts_key, &attempts, attempts.expires(), Condition::Any)?;
        self.store().write(vec![note]).await.map_err(AuthError::at("count failed login"))?;
        self.record(vec![events::user_login(name, Err(WRONG), from)]).await?;
        tracing::info!(user = %name, from = %from.ip(), locked, "login refused");
        Err(AuthError::unauthenticated(WRONG))
    }
}
