//! Sign-up and reset tokens: 16 random bytes, stored as their hash, good for one use and a limited time.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use server_store::{Condition, Key, Op, Revision};
use shared_api::{InviteInfo, Secret, SignupReply, SignupRequest};
use shared_types::{ResourceKind, UserName};
use std::net::SocketAddr;
use zeroize::Zeroizing;

use crate::error::{AuthError, Result};
use crate::events;
use crate::password::{self, PasswordError};
use crate::service::AuthService;
use crate::state;

/// Default and longest life of an invitation.
const INVITE_LIFE: (i64, i64) = (3600, 48 * 3600);
/// Default and longest life of a reset.
const RESET_LIFE: (i64, i64) = (8 * 3600, 24 * 3600);

/// What a token stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Invite {
    user: UserName,
    reset: bool,
    expires: DateTime<Utc>,
}

/// A token that is good.
struct Found {
    key: Key,
    invite: Invite,
    /// The revision of what says that it is the one that counts.
    current: Revision,
}

/// A new token, not yet stored.
pub(crate) struct NewInvite {
    pub(crate) token: Secret,
    pub(crate) expires: DateTime<Utc>,
    pub(crate) life: Duration,
    /// What stores it, and lets go of an earlier one of the same user.
    pub(crate) ops: Vec<Op>,
}

impl NewInvite {
    pub(crate) fn new(
        user: &UserName,
        reset: bool,
        ttl_seconds: Option<u64>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let (usual, longest) = if reset { RESET_LIFE } else { INVITE_LIFE };
        let seconds = match ttl_seconds {
            None => usual,
            Some(asked) => match i64::try_from(asked) {
                Ok(asked) if (1..=longest).contains(&asked) => asked,
                _ => {
                    let hours = longest / 3600;
                    return Err(AuthError::bad_request(format!(
                        "the ttl must be between 1s and {hours}h"
                    )));
                }
            },
        };
        let life = Duration::seconds(seconds);
        let expires = now + life;
        let token = random_token();
        let key = invite_key(&token)?;
        let invite = Invite { user: user.clone(), reset, expires };
        let ops = vec![
            state::put(key.clone(), &invite, Some(expires), Condition::Absent)?,
            state::put(current_key(user)?, &key.as_str(), Some(expires), Condition::Any)?,
        ];
        Ok(Self { token, expires, life, ops })
    }
}

/// 16 random bytes as 32 hex digits.
pub(crate) fn random_token() -> Secret {
    let bytes: Zeroizing<[u8; 16]> = Zeroizing::new(rand::random());
    Secret::new(hex::encode(*bytes))
}

fn invite_key(token: &Secret) -> Result<Key> {
    state::hashed_key("invites", token.expose())
}

/// Holds the key of the only invite of this user that counts.
pub(crate) fn current_key(user: &UserName) -> Result<Key> {
    state::key("invite_of", user.as_str())
}

fn unknown() -> AuthError {
    AuthError::not_found("the link is not known, was used already, or has expired")
}

impl AuthService {
    /// What a token is for; whoever has it may know.
    pub async fn invite_info(&self, token: &Secret) -> Result<InviteInfo> {
        let Found { invite, .. } = self.find_invite(token).await?;
        Ok(InviteInfo {
            user: invite.user,
            cluster: self.cluster().clone(),
            expires: invite.expires,
            reset: invite.reset,
        })
    }

    /// Sets the password and uses the token up, in one step.
    pub async fn signup(&self, ask: SignupRequest, from: SocketAddr) -> Result<SignupReply> {
        let Found { key, invite, current } = self.find_invite(&ask.token).await?;
        password::check_rules(ask.password.expose()).map_err(bad_password)?;
        let secret = Zeroizing::new(ask.password.expose().to_owned());
        let hash = self.passwords().hash(secret).await.map_err(bad_password)?;
        let user = invite.user;
        let ops = vec![
            state::delete(key, Condition::Present),
            // A reset that came while the password was hashed has made another link the one that counts.
            state::delete(current_key(&user)?, Condition::Revision(current)),
            Op::Check {
                key: state::resource_key(ResourceKind::User, user.as_str())?,
                condition: Condition::Present,
            },
            state::put(state::key("passwords", user.as_str())?, &hash, None, Condition::Any)?,
            state::delete(state::hashed_key("attempts", user.as_str())?, Condition::Any),
        ];
        match self.store().write(ops).await {
            Ok(_) => {}
            // Used by somebody else a moment ago, or the user is gone.
            Err(
                server_store::BackendError::NotFound { .. }
                | server_store::BackendError::Conflict { .. },
            ) => return Err(unknown()),
            Err(error) => return Err(AuthError::internal("store password", error)),
        }
        self.record(vec![events::password_change(&user, from)]).await?;
        tracing::info!(%user, "password set");
        Ok(SignupReply { user, cluster: self.cluster().clone() })
    }

    async fn find_invite(&self, token: &Secret) -> Result<Found> {
        let key = invite_key(token)?;
        let invite = self.store().read::<Invite>(&key).await?.ok_or_else(unknown)?.value;
        if invite.expires <= self.now() {
            return Err(unknown());
        }
        let current = self.store().read::<String>(&current_key(&invite.user)?).await?;
        match current {
            Some(current) if current.value == key.as_str() => {
                Ok(Found { key, invite, current: current.revision })
            }
            _ => Err(unknown()),
        }
    }
}

/// A password error as the caller reads it.
pub(crate) fn bad_password(error: PasswordError) -> AuthError {
    match error {
        PasswordError::Length => AuthError::bad_request(error.to_string()),
        PasswordError::Busy => AuthError::unavailable(error.to_string()),
        PasswordError::Hash(_) => AuthError::internal("hash password", error),
    }
}
