//! Join tokens: made by administrators, or standing in the configuration.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use server_store::{BackendError, Condition, Op, Revision};
use shared_api::{ApiError, CreateTokenReply, CreateTokenRequest, ErrorKind, Secret};
use shared_authz::Verb;
use shared_types::resource::TokenSpec;
use shared_types::{ProvisionToken, Resource, ResourceKind, SystemRole};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::invites::random_token;
use crate::service::AuthService;
use crate::state;

/// Life of a token without a ttl, in seconds.
const USUAL_LIFE: u64 = 30 * 60;
/// Longest life, in seconds.
const LONGEST_LIFE: u64 = 365 * 24 * 3600;
/// Shortest token that a caller may choose.
const MIN_CHARS: usize = 16;

/// A token from the configuration file: no end, known to this process only.
#[derive(Clone)]
pub struct StaticToken {
    /// What may join with it.
    pub roles: Vec<SystemRole>,
    /// The token.
    pub token: Secret,
}

/// How long it is known that a token was one.
const REMEMBERED_DAYS: i64 = 30;
/// What whoever presents a token that was for one service, and has let one in, reads.
pub(crate) const ALREADY_USED: &str = "token already used";

/// A token that lets a service in.
pub(crate) struct Ticket {
    /// When it ends, if it does.
    pub(crate) expires: Option<DateTime<Utc>>,
    /// What uses it up, where it is for one service only.
    pub(crate) spend: Vec<Op>,
}

/// What is remembered of a token beyond its life, by its hash: only who presents it learns of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Spent {
    used: bool,
}

impl AuthService {
    /// Makes a join token.
    pub async fn create_token(
        &self,
        caller: &Caller,
        ask: CreateTokenRequest,
    ) -> Result<CreateTokenReply> {
        self.check(caller, "token", Verb::Create)?;
        let seconds = ask.ttl_seconds.unwrap_or(USUAL_LIFE);
        if !(1..=LONGEST_LIFE).contains(&seconds) {
            return Err(AuthError::bad_request("the ttl must be between 1s and 8760h"));
        }
        let expires = self.now() + Duration::seconds(i64::try_from(seconds).unwrap_or(0));
        let secret = match ask.value {
            Some(value) if value.expose().len() < MIN_CHARS => {
                return Err(AuthError::bad_request(format!(
                    "a token has at least {MIN_CHARS} characters"
                )));
            }
            Some(value) => value,
            None => random_token(),
        };
        let mut token = ProvisionToken::new(
            secret.expose(),
            TokenSpec {
                roles: ask.roles.clone(),
                single_use: ask.single_use,
                ..TokenSpec::default()
            },
        );
        token.metadata.expires = Some(expires);
        token.metadata.labels = ask.labels;
        check_token(&token)?;
        let resource = Resource::from(token);
        let mut ops = vec![state::put_resource(&resource, Condition::Absent)?];
        ops.extend(remember(&resource)?);
        self.store().write(ops).await.map_err(|error| match error {
            BackendError::AlreadyExists { .. } => ApiError::already_exists(
                "a token of this name already exists, please use another name",
            )
            .into(),
            other => state::conflict("token", other),
        })?;
        self.record(events::resource_written(&resource, true, caller).into_iter().collect())
            .await?;
        Ok(CreateTokenReply {
            token: secret,
            roles: ask.roles,
            expires,
            ca_pins: self.ca_pins()?,
            auth: self.settings.address.clone(),
            proxy: self.proxy_address().await,
        })
    }

    /// The ticket of a service of this role. A stranger who guesses learns of no token; who presents one that was good
    /// once is told what became of it.
    pub(crate) async fn redeem(&self, token: &Secret, role: SystemRole) -> Result<Ticket> {
        let presented = token.expose();
        for fixed in self.static_tokens() {
            if same(fixed.token.expose(), presented) {
                check_role(&fixed.roles, role)?;
                return Ok(Ticket { expires: None, spend: Vec::new() });
            }
        }
        let stored = match self.store().resource(ResourceKind::Token, presented).await? {
            Some(Resource::Token(stored)) if !stored.is_expired(self.now()) => stored,
            Some(_) => return Err(expired()),
            None => return Err(self.what_became_of(presented).await?),
        };
        check_role(&stored.spec.roles, role)?;
        let spend = if stored.spec.single_use { self.spend(&stored)? } else { Vec::new() };
        Ok(Ticket { expires: stored.metadata.expires, spend })
    }

    async fn what_became_of(&self, token: &str) -> Result<AuthError> {
        let found = self.store().read::<Spent>(&spent_key(token)?).await?;
        Ok(match found.map(|found| found.value.used) {
            None => refusal("token not recognized", None),
            Some(false) => expired(),
            Some(true) => refusal(ALREADY_USED, Some("make another one: tctl tokens add")),
        })
    }

    /// Removes the token as it is now, so that of two that present it one gets in.
    fn spend(&self, token: &ProvisionToken) -> Result<Vec<Op>> {
        let revision = token.metadata.revision.as_deref().and_then(|text| text.parse().ok());
        let condition = revision.map_or(Condition::Present, |at| Condition::Revision(Revision(at)));
        let end = self.now() + Duration::days(REMEMBERED_DAYS);
        Ok(vec![
            state::delete(state::resource_key(ResourceKind::Token, token.name())?, condition),
            state::put(spent_key(token.name())?, &Spent { used: true }, Some(end), Condition::Any)?,
        ])
    }
}

/// What remembers a token that has an end beyond it.
pub(crate) fn remember(resource: &Resource) -> Result<Option<Op>> {
    let (Resource::Token(token), Some(end)) = (resource, resource.metadata().expires) else {
        return Ok(None);
    };
    let end = end.checked_add_signed(Duration::days(REMEMBERED_DAYS)).unwrap_or(end);
    let key = spent_key(token.name())?;
    state::put(key, &Spent { used: false }, Some(end), Condition::Any).map(Some)
}

/// What forgets a token that was removed.
pub(crate) fn forget(token: &str) -> Result<Op> {
    Ok(state::delete(spent_key(token)?, Condition::Any))
}

fn spent_key(token: &str) -> Result<server_store::Key> {
    state::hashed_key("spent_tokens", token)
}

fn check_role(roles: &[SystemRole], role: SystemRole) -> Result<()> {
    if roles.contains(&role) {
        return Ok(());
    }
    let word = role.as_str().to_ascii_lowercase();
    let hint = format!("make one that is: tctl tokens add --type={word}");
    Err(refusal(&format!("the token is not for role {role}"), Some(&hint)))
}

fn expired() -> AuthError {
    refusal("token expired", Some("make another one: tctl tokens add"))
}

fn refusal(message: &str, hint: Option<&str>) -> AuthError {
    let hint = hint.map(str::to_owned);
    ApiError { kind: ErrorKind::Denied, message: message.to_owned(), hint }.into()
}

/// What a token must be to be stored.
pub(crate) fn check_token(token: &ProvisionToken) -> Result<()> {
    token.check().map_err(|error| AuthError::bad_request(crate::error::chain(&error)))?;
    if token.spec.roles.is_empty() {
        return Err(AuthError::bad_request("a token is for at least one role"));
    }
    match token.spec.roles.iter().find(|role| !role.joins()) {
        Some(role) => Err(AuthError::bad_request(format!("nothing joins with role {role}"))),
        None => Ok(()),
    }
}

/// All but the last quarter as stars.
pub(crate) fn masked(token: &str) -> String {
    let chars: Vec<char> = token.chars().take(256).collect();
    let shown = chars.len() / 4;
    let hidden = chars.len() - shown;
    let mut text = "*".repeat(hidden);
    text.extend(chars.iter().skip(hidden));
    text
}

/// Compares without telling where the first difference is.
fn same(left: &str, right: &str) -> bool {
    use sha2::{Digest, Sha256};
    let (left, right) = (Sha256::digest(left.as_bytes()), Sha256::digest(right.as_bytes()));
    left.iter().zip(right.iter()).fold(0u8, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_all_but_the_last_quarter() {
        assert_eq!(masked("0123456789abcdef"), "************cdef");
        assert_eq!(masked("abc"), "***");
        assert_eq!(masked(""), "");
        assert!(same("a", "a") && !same("a", "b") && !same("a", ""));
    }
}
