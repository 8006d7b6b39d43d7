//! Users: created with an invitation, updated, reset.

use chrono::Duration;
use serde_json::Value;
use server_store::{Condition, Op};
use shared_api::{
    ApiError, InviteUserRequest, ResetUserRequest, UpdateUserRequest, UserTokenReply,
};
use shared_authz::Verb;
use shared_types::resource::{CreatedBy, CreatedByUser, UserSpec};
use shared_types::{GoDuration, Resource, ResourceKind, RoleName, User, UserName};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::invites::{NewInvite, current_key};
use crate::service::AuthService;
use crate::state;

impl AuthService {
    /// Creates a user without a password, and the invitation with which one is set.
    pub async fn invite_user(
        &self,
        caller: &Caller,
        ask: InviteUserRequest,
    ) -> Result<UserTokenReply> {
        self.check(caller, "user", Verb::Create)?;
        let now = self.now();
        // No role goes between being looked at and being given.
        let _one = self.changes.lock().await;
        self.check_roles(&ask.roles)?;
        let spec = UserSpec {
            roles: ask.roles,
            traits: ask.traits,
            created_by: Some(CreatedBy {
                time: Some(now),
                user: Some(CreatedByUser { name: caller.name().to_owned() }),
                ..CreatedBy::default()
            }),
            ..UserSpec::default()
        };
        let user = User::new(ask.user.as_str(), spec);
        user.check().map_err(|error| AuthError::bad_request(crate::error::chain(&error)))?;
        let resource = Resource::from(user.clone());
        let invite = NewInvite::new(&ask.user, false, ask.ttl_seconds, now)?;
        let mut ops = vec![state::put_resource(&resource, Condition::Absent)?];
        // A new user does not come with the password of an earlier one of that name.
        ops.extend(password_leftovers(&ask.user)?);
        ops.extend(invite.ops);
        self.store().write(ops).await.map_err(|error| match error {
            server_store::BackendError::AlreadyExists { .. } => ApiError::already_exists(format!(
                "user \"{}\" already exists",
                ask.user
            ))
            .with_hint(
                "change roles with: tctl users update; make a new link with: tctl users reset",
            )
            .into(),
            other => state::conflict("user", other),
        })?;
        self.refresh_after(ResourceKind::User, ask.user.as_str()).await?;
        self.record(vec![
            events::user_create(&user, caller),
            events::user_token_create(&ask.user, invite.expires, life_text(invite.life), caller),
        ])
        .await?;
        Ok(UserTokenReply {
            user: ask.user,
            token: invite.token,
            expires: invite.expires,
            proxy: self.proxy_address().await,
        })
    }

    /// A new password link; the old password stops working at once.
    pub async fn reset_user(
        &self,
        caller: &Caller,
        name: &UserName,
        ask: ResetUserRequest,
    ) -> Result<UserTokenReply> {
        self.check(caller, "user", Verb::Update)?;
        let invite = NewInvite::new(name, true, ask.ttl_seconds, self.now())?;
        let mut ops = vec![Op::Check {
            key: state::resource_key(ResourceKind::User, name.as_str())?,
            condition: Condition::Present,
        }];
        ops.extend(password_leftovers(name)?);
        ops.extend(invite.ops);
        self.store().write(ops).await.map_err(|error| match error {
            server_store::BackendError::NotFound { .. }
            | server_store::BackendError::Conflict { .. } => {
                AuthError::not_found(format!("user \"{name}\" is not found"))
            }
            other => AuthError::internal("store reset", other),
        })?;
        self.record(vec![events::user_token_create(
            name,
            invite.expires,
            life_text(invite.life),
            caller,
        )])
        .await?;
        Ok(UserTokenReply {
            user: name.clone(),
            token: invite.token,
            expires: invite.expires,
            proxy: self.proxy_address().await,
        })
    }

    /// Replaces roles and the named traits.
    pub async fn update_user(
        &self,
        caller: &Caller,
        name: &UserName,
        ask: UpdateUserRequest,
    ) -> Result<Value> {
        self.check(caller, "user", Verb::Update)?;
        let _one = self.changes.lock().await;
        let Some(Resource::User(mut user)) =
            self.store().resource(ResourceKind::User, name.as_str()).await?
        else {
            return Err(AuthError::not_found(format!("user \"{name}\" is not found")));
        };
        if let Some(roles) = ask.roles {
            self.check_roles(&roles)?;
            user.spec.roles = roles;
        }
        for (key, values) in ask.traits {
            if values.is_empty() {
                user.spec.traits.remove(&key);
            } else {
                user.spec.traits.insert(key, values);
            }
        }
        user.check().map_err(|error| AuthError::bad_request(crate::error::chain(&error)))?;
        let condition =
            state::condition_of(user.metadata.revision.as_deref())?.unwrap_or(Condition::Present);
        let mut resource = Resource::from(user.clone());
        let revision = self
            .store()
            .write(vec![state::put_resource(&resource, condition)?])
            .await
            .map_err(|error| state::conflict("user", error))?;
        resource.metadata_mut().revision = Some(revision.0.to_string());
        self.refresh_after(ResourceKind::User, name.as_str()).await?;
        self.record(vec![events::user_update(&user, caller)]).await?;
        Ok(resource.to_json())
    }

    /// At least one role, and each exists.
    pub(crate) fn check_roles(&self, roles: &[RoleName]) -> Result<()> {
        if roles.is_empty() {
            return Err(AuthError::bad_request("a user has at least one role"));
        }
        let state = self.current_state();
        match roles.iter().find(|role| !state.roles.contains_key(*role)) {
            Some(missing) => {
                Err(AuthError::bad_request(format!("role \"{missing}\" does not exist")))
            }
            None => Ok(()),
        }
    }

    /// What goes with a user who is deleted, or whose name is given to a new one.
    pub(crate) fn user_leftovers(&self, name: &str) -> Result<Vec<Op>> {
        let user =
            UserName::new(name).map_err(|error| AuthError::bad_request(error.to_string()))?;
        let mut ops = password_leftovers(&user)?;
        ops.push(state::delete(current_key(&user)?, Condition::Any));
        Ok(ops)
    }
}

fn password_leftovers(user: &UserName) -> Result<Vec<Op>> {
    Ok(vec![
        state::delete(state::key("passwords", user.as_str())?, Condition::Any),
        state::delete(state::hashed_key("attempts", user.as_str())?, Condition::Any),
    ])
}

fn life_text(life: Duration) -> String {
    GoDuration::from(life.to_std().unwrap_or_default()).to_string()
}
