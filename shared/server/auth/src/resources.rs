//! Resources as documents: list, read, create, replace, delete.
//!
//! The right comes first, then the question whether the thing exists. A document that was read and is
//! written back carries its revision, and the write fails if somebody else was quicker.

use serde_json::Value;
use server_store::{BackendError, Condition, Op};
use shared_api::{ApiError, ResourceList, ResourceReply};
use shared_authz::{Verb, WhereCtx, validate_role};
use shared_types::{Database, Resource, ResourceKind};

use crate::caller::Caller;
use crate::error::{AuthError, Result, chain};
use crate::events;
use crate::init::{self, CONFIG_FILE, DYNAMIC};
use crate::service::AuthService;
use crate::state;
use crate::tokens::{check_token, forget, masked, remember};

fn kind_of(text: &str) -> Result<ResourceKind> {
    text.parse().map_err(|error: shared_types::resource::ParseKindError| {
        AuthError::bad_request(error.to_string())
    })
}

fn missing(kind: ResourceKind, name: &str) -> AuthError {
    let shown = shown_name(kind, name);
    AuthError::not_found(format!("{kind} \"{shown}\" is not found"))
}

/// A token's name is its secret.
fn shown_name(kind: ResourceKind, name: &str) -> String {
    if kind == ResourceKind::Token { masked(name) } else { name.chars().take(256).collect() }
}

impl AuthService {
    /// All of a kind that the caller may see, secrets left out where it may not see those.
    pub async fn list_resources(&self, caller: &Caller, kind: &str) -> Result<ResourceList> {
        let kind = kind_of(kind)?;
        self.check_some(caller, kind, Verb::List)?;
        let mut items = Vec::new();
        for resource in self.all_of(kind).await? {
            if resource.metadata().expires.is_some_and(|end| end <= self.now()) {
                continue;
            }
            let about = WhereCtx::resource(resource.metadata());
            if !self.allowed(caller, kind.as_str(), Verb::List, &about) {
                continue;
            }
            if let Some(visible) = self.visible(caller, resource) {
                items.push(visible.to_json());
            }
        }
        Ok(ResourceList { items })
    }

    /// One of a kind.
    pub async fn read_resource(&self, caller: &Caller, kind: &str, name: &str) -> Result<Value> {
        let kind = kind_of(kind)?;
        self.check_some(caller, kind, Verb::ReadNoSecrets)?;
        let name = kind.singleton().unwrap_or(name);
        let found = self.one_of(kind, name).await?;
        let visible = found.and_then(|resource| self.visible(caller, resource));
        visible.map(|resource| resource.to_json()).ok_or_else(|| missing(kind, name))
    }

    /// What of a resource the caller may read: all, all but secrets, nothing.
    fn visible(&self, caller: &Caller, mut resource: Resource) -> Option<Resource> {
        let kind = resource.kind().as_str();
        let about = WhereCtx::resource(resource.metadata());
        if self.allowed(caller, kind, Verb::Read, &about) {
            return Some(resource);
        }
        if !self.allowed(caller, kind, Verb::ReadNoSecrets, &about) {
            return None;
        }
        if let Resource::Token(token) = &mut resource {
            token.metadata.name = masked(&token.metadata.name);
        }
        Some(resource)
    }

    /// Creates; with `force` replaces what has that name.
    pub async fn create_resource(
        &self,
        caller: &Caller,
        kind: &str,
        document: Value,
        force: bool,
    ) -> Result<ResourceReply> {
        let kind = kind_of(kind)?;
        // Who may neither create nor update learns nothing about the document.
        self.check_some(caller, kind, Verb::Create)?;
        let mut resource = self.parse(kind, document)?;
        self.check_about(
            caller,
            kind.as_str(),
            Verb::Create,
            &WhereCtx::resource(resource.metadata()),
        )?;
        let _one = self.changes.lock().await;
        let stored = self.store().resource(kind, resource.name()).await?;
        // A configuration is always there; as long as nobody set it, setting it is creating it.
        let fresh = stored.as_ref().is_none_or(|stored| {
            kind.singleton().is_some() && init::origin(stored.metadata()) == init::DEFAULTS
        });
        if let Some(stored) = &stored {
            if !fresh && !force {
                let shown = shown_name(kind, resource.name());
                return Err(ApiError::already_exists(format!("{kind} \"{shown}\" already exists"))
                    .with_hint("replace it with: tctl create --force")
                    .into());
            }
            self.check_about(
                caller,
                kind.as_str(),
                Verb::Update,
                &WhereCtx::resource(stored.metadata()),
            )?;
            keep_to_origin(stored, force)?;
        }
        self.check_node_write(&resource, stored.as_ref()).await?;
        if let Resource::Lock(lock) = &mut resource {
            self.check_lock_count()?;
            self.complete_lock(lock, stored.as_ref(), caller);
        }
        let condition = match &stored {
            None => Condition::Absent,
            Some(_) => state::condition_of(resource.metadata().revision.as_deref())?
                .unwrap_or(Condition::Present),
        };
        self.write_resource(caller, resource, condition, stored.is_none() || fresh).await
    }

    /// Replaces what is there.
    pub async fn update_resource(
        &self,
        caller: &Caller,
        kind: &str,
        name: &str,
        document: Value,
        force: bool,
    ) -> Result<ResourceReply> {
        let kind = kind_of(kind)?;
        self.check_some(caller, kind, Verb::Update)?;
        let mut resource = self.parse(kind, document)?;
        let name = kind.singleton().unwrap_or(name);
        if resource.name() != name {
            return Err(AuthError::bad_request(format!("the name of a {kind} cannot change")));
        }
        let _one = self.changes.lock().await;
        let Some(stored) = self.store().resource(kind, name).await? else {
            return Err(missing(kind, name));
        };
        // What a caller may not see does not exist for it.
        if !self.allowed(
            caller,
            kind.as_str(),
            Verb::Update,
            &WhereCtx::resource(stored.metadata()),
        ) {
            return Err(missing(kind, name));
        }
        // Nobody changes a resource into one that it may not change.
        self.check_about(
            caller,
            kind.as_str(),
            Verb::Update,
            &WhereCtx::resource(resource.metadata()),
        )?;
        keep_to_origin(&stored, force)?;
        self.check_node_write(&resource, Some(&stored)).await?;
        if let Resource::Lock(lock) = &mut resource {
            self.complete_lock(lock, Some(&stored), caller);
        }
        let condition = state::condition_of(resource.metadata().revision.as_deref())?
            .unwrap_or(Condition::Present);
        self.write_resource(caller, resource, condition, false).await
    }

    /// Removes; a configuration goes back to its defaults.
    pub async fn delete_resource(&self, caller: &Caller, kind: &str, name: &str) -> Result<()> {
        let kind = kind_of(kind)?;
        self.check_some(caller, kind, Verb::Delete)?;
        let name = kind.singleton().unwrap_or(name);
        let _one = self.changes.lock().await;
        let stored = self.one_of(kind, name).await?;
        let stored = stored.filter(|stored| {
            self.allowed(
                caller,
                kind.as_str(),
                Verb::Delete,
                &WhereCtx::resource(stored.metadata()),
            )
        });
        let Some(stored) = stored else { return Err(missing(kind, name)) };
        let mut ops = Vec::new();
        let mut made = None;
        match init::default_of(kind) {
            Some(default) => {
                keep_to_origin(&stored, false)?;
                ops.push(state::put_resource(&default, Condition::Present)?);
            }
            None if kind == ResourceKind::Proxy => {
                let (evict, lock) = self.remove_proxy(name, caller)?;
                ops.extend(evict);
                made = Some(lock);
            }
            None if kind == ResourceKind::Node => {
                let (remove, lock) = self.remove_node(name, caller).await?;
                ops.extend(remove);
                made = lock;
            }
            None if kind == ResourceKind::DbServer => {
                match self.remove_db_agent(name, caller).await? {
                    Some((evict, lock)) => {
                        ops.extend(evict);
                        made = Some(lock);
                    }
                    None => return self.remove_database_servers(name, caller).await,
                }
            }
            None => {
                if kind == ResourceKind::Role {
                    self.check_unused(name).await?;
                }
                ops.push(state::delete(state::resource_key(kind, name)?, Condition::Present));
                if kind == ResourceKind::User {
                    ops.extend(self.user_leftovers(name)?);
                }
                if kind == ResourceKind::Token {
                    ops.push(forget(name)?);
                }
            }
        }
        self.store().write(ops).await.map_err(|error| match error {
            BackendError::NotFound { .. } | BackendError::Conflict { .. } => missing(kind, name),
            other => AuthError::internal("delete resource", other),
        })?;
        self.refresh_after(kind, name).await?;
        if made.is_some() {
            self.refresh().await?;
            self.refresh_host(name).await?;
            self.refresh_proxies().await?;
        }
        let mut told: Vec<_> = events::resource_deleted(&stored, caller).into_iter().collect();
        told.extend(made.and_then(|lock| events::resource_written(&lock, true, caller)));
        if told.is_empty() {
            let name = shown_name(kind, name);
            tracing::info!(by = caller.name(), %kind, name, "deleted");
        }
        self.record(told).await
    }

    async fn write_resource(
        &self,
        caller: &Caller,
        mut resource: Resource,
        condition: Condition,
        created: bool,
    ) -> Result<ResourceReply> {
        if resource.kind().singleton().is_some() {
            init::set_origin(resource.metadata_mut(), DYNAMIC);
        }
        let kind = resource.kind();
        let mut ops: Vec<Op> = vec![state::put_resource(&resource, condition)?];
        ops.extend(remember(&resource)?);
        if kind == ResourceKind::User && condition == Condition::Absent {
            // A new user does not come with the password of an earlier one of that name.
            ops.extend(self.user_leftovers(resource.name())?);
        }
        let what = format!("{kind} \"{}\"", shown_name(kind, resource.name()));
        let revision =
            self.store().write(ops).await.map_err(|error| state::conflict(&what, error))?;
        self.refresh_after(kind, resource.name()).await?;
        self.record(events::resource_written(&resource, created, caller).into_iter().collect())
            .await?;
        resource.metadata_mut().revision = Some(revision.0.to_string());
        Ok(ResourceReply { resource: resource.to_json(), created })
    }

    /// A document that is safe to store.
    fn parse(&self, kind: ResourceKind, document: Value) -> Result<Resource> {
        let why = match kind {
            ResourceKind::Proxy => Some("a proxy joins with a token, it is not created"),
            ResourceKind::DbServer => Some(
                "an agent says itself which databases it serves; a database is written as kind db",
            ),
            _ => None,
        };
        if let Some(why) = why {
            return Err(AuthError::bad_request(why));
        }
        let resource = Resource::from_json_of(kind, document)
            .map_err(|error| AuthError::bad_request(chain(&error)))?;
        if resource.metadata().expires.is_some_and(|end| end <= self.now()) {
            return Err(AuthError::bad_request("metadata.expires is in the past"));
        }
        // Whatever is decided by it would change silently on that day; a role that denies something most of all.
        if resource.metadata().expires.is_some()
            && !matches!(kind, ResourceKind::User | ResourceKind::Token | ResourceKind::Node)
        {
            let instead = if kind == ResourceKind::Lock { ", see spec.expires" } else { "" };
            return Err(AuthError::bad_request(format!(
                "metadata.expires: a {kind} has no end{instead}"
            )));
        }
        match &resource {
            Resource::Role(role) => {
                validate_role(role).map_err(|error| AuthError::bad_request(chain(&error)))?
            }
            Resource::User(user) => self.check_roles(&user.spec.roles)?,
            Resource::Token(token) => check_token(token)?,
            Resource::Db(database) => check_database(database)?,
            Resource::Lock(lock) if lock.spec.expires.is_some_and(|end| end <= self.now()) => {
                return Err(AuthError::bad_request("spec.expires is in the past"));
            }
            _ => {}
        }
        Ok(resource)
    }

    /// A role that somebody has stays.
    async fn check_unused(&self, role: &str) -> Result<()> {
        for resource in self.store().resources(ResourceKind::User).await? {
            if let Resource::User(user) = resource
                && user.spec.roles.iter().any(|held| held.as_str() == role)
            {
                return Err(AuthError::bad_request(format!(
                    "role \"{role}\" is in use by user \"{}\"",
                    user.name()
                )));
            }
        }
        Ok(())
    }

    /// Refuses a caller that has the verb on no resource of this kind at all.
    fn check_some(&self, caller: &Caller, kind: ResourceKind, verb: Verb) -> Result<()> {
        if self.may_some(caller, kind.as_str(), verb) {
            return Ok(());
        }
        self.check(caller, kind.as_str(), verb)
    }
}

/// Whoever may write a database decides about the cluster, and not about commands on its agents.
fn check_database(database: &Database) -> Result<()> {
    if database.spec.dynamic_labels.values().any(|label| !label.command.is_empty()) {
        return Err(AuthError::Answer(
            ApiError::bad_request("spec.dynamic_labels: commands are not taken from a resource")
                .with_hint(
                    "write the database into db_service.databases of the agent's teleport.yaml",
                ),
        ));
    }
    Ok(())
}

/// What stands in the configuration file is not silently overwritten: the next start would undo it.
fn keep_to_origin(stored: &Resource, force: bool) -> Result<()> {
    if init::origin(stored.metadata()) != CONFIG_FILE || force {
        return Ok(());
    }
    let kind = stored.kind();
    Err(AuthError::Answer(
        ApiError::bad_request(format!("{kind} is set in the configuration file of the auth service"))
            .with_hint("change teleport.yaml and restart, or repeat with --confirm --force to overwrite it until then"),
    ))
}
