//! Join tokens: made by administrators, or standing in the configuration.

use chrono::{DateTime, Duration, Utc};
use server_store::{BackendError, Condition};
use shared_api::{ApiError, CreateTokenReply, CreateTokenRequest, Secret};
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

/// A token that lets a service in.
pub(crate) struct Ticket {
    /// When it ends, if it does.
    pub(crate) expires: Option<DateTime<Utc>>,
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
            TokenSpec { roles: ask.roles.clone(), ..TokenSpec::default() },
        );
        token.metadata.expires = Some(expires);
        token.metadata.labels = ask.labels;
        check_token(&token)?;
        let resource = Resource::from(token);
        let op = state::put_resource(&resource, Condition::Absent)?;
        self.store().write(vec![op]).await.map_err(|error| match error {
            BackendError::AlreadyExists { .. } => ApiError::already_exists(
                "a token of this name already exists, please use another name",
            )
            .into(),
            other => state::conflict("token", other),
        })?;
        self.record(events::resource_written(&resource, true, caller).into_iter().collect())
            .await?;
        Ok(CreateTokenReply { token: secret, roles: ask.roles, expires, ca_pins: self.ca_pins()? })
    }

    /// Whether the token lets a service of this role in. One answer for every reason not to.
    pub(crate) async fn redeem(&self, token: &Secret, role: SystemRole) -> Result<Option<Ticket>> {
        let presented = token.expose();
        for fixed in self.static_tokens() {
            if same(fixed.token.expose(), presented) && fixed.roles.contains(&role) {
                return Ok(Some(Ticket { expires: None }));
            }
        }
        let Some(Resource::Token(stored)) =
            self.store().resource(ResourceKind::Token, presented).await?
        else {
            return Ok(None);
        };
        let fits = stored.spec.roles.contains(&role) && !stored.is_expired(self.now());
        Ok(fits.then_some(Ticket { expires: stored.metadata.expires }))
    }
}

/// What a token must be to be stored.
pub(crate) fn check_token(token: &ProvisionToken) -> Result<()> {
    token.check().map_err(|error| AuthError::bad_request(crate::error::chain(&error)))?;
    if token.spec.roles.is_empty() {
        return Err(AuthError::bad_request("a token is for at least one role"));
    }
    match token.spec.roles.iter().find(|role| !matches!(role, SystemRole::Proxy | SystemRole::Node))
    {
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
