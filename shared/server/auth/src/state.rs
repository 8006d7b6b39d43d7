//! Typed access to the backend: where each thing lives, JSON in and out, conflicts as answers.
//!
//! | key | what |
//! |---|---|
//! | `/cluster/name` | name of the cluster, fixed at the first start |
//! | `/authorities/KIND` | a CA with its private keys |
//! | `/resources/KIND/NAME` | roles, users, tokens, locks, nodes, databases, configurations |
//! | `/passwords/USER` | Argon2id hash |
//! | `/attempts/HASH` | failed logins of a name |
//! | `/invites/HASH` | sign-up and reset tokens, by SHA-256 of the token |
//! | `/invite_of/USER` | the one token of that user that still counts |
//! | `/presence/db/UUID` | databases that a host serves |
//! | `/hosts/UUID[.ROLE]` | services that joined |
//! | `/signed_names/HASH` | names in host certificates that were signed by hand |
//! | `/spent_tokens/HASH` | join tokens that were good once |
//! | `/endings/SESSION` | what became of a recording |
//! | `/uploads/UUID` | which host an upload belongs to |

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use server_store::{Backend, BackendError, Condition, Item, Key, Op, Revision};
use sha2::{Digest, Sha256};
use shared_api::ApiError;
use shared_types::{Resource, ResourceKind};

use crate::error::{AuthError, Result};

/// A value with the revision it was read at.
#[derive(Debug, Clone)]
pub(crate) struct Stored<T> {
    /// The value.
    pub(crate) value: T,
    /// For the next compare-and-swap.
    pub(crate) revision: Revision,
}

/// The backend with types.
#[derive(Clone)]
pub(crate) struct Store {
    backend: Arc<dyn Backend>,
}

impl Store {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<Stored<T>>> {
        match self.backend.get(key).await {
            Ok(Some(item)) => decode(&item).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(AuthError::internal("read state", error)),
        }
    }

    pub(crate) async fn list<T: DeserializeOwned>(&self, folder: &Key) -> Result<Vec<Stored<T>>> {
        let items = self.backend.all(folder).await.map_err(AuthError::at("read state"))?;
        items.iter().map(decode).collect()
    }

    /// All or nothing; a condition that does not hold gives the backend's error.
    pub(crate) async fn write(&self, ops: Vec<Op>) -> Result<Revision, BackendError> {
        self.backend.transact(ops).await
    }

    /// A resource with its revision in the metadata.
    pub(crate) async fn resource(
        &self,
        kind: ResourceKind,
        name: &str,
    ) -> Result<Option<Resource>> {
        // A name that cannot be a key cannot be stored either.
        let Ok(key) = resource_key(kind, name) else { return Ok(None) };
        Ok(self.read::<Resource>(&key).await?.map(with_revision))
    }

    /// All resources of a kind, by name.
    pub(crate) async fn resources(&self, kind: ResourceKind) -> Result<Vec<Resource>> {
        let folder = folder(["resources", kind.as_str()])?;
        let stored = self.list::<Resource>(&folder).await?;
        Ok(stored.into_iter().map(with_revision).collect())
    }
}

fn with_revision(stored: Stored<Resource>) -> Resource {
    let mut resource = stored.value;
    resource.metadata_mut().revision = Some(stored.revision.0.to_string());
    resource
}

fn decode<T: DeserializeOwned>(item: &Item) -> Result<Stored<T>> {
    let value = serde_json::from_slice(&item.value).map_err(AuthError::at("decode state"))?;
    Ok(Stored { value, revision: item.revision })
}

/// A put of a value as JSON.
pub(crate) fn put(
    key: Key,
    value: &impl Serialize,
    expires: Option<DateTime<Utc>>,
    condition: Condition,
) -> Result<Op> {
    let value = serde_json::to_vec(value).map_err(AuthError::at("encode state"))?;
    Ok(Op::Put { key, value: Bytes::from(value), expires, condition })
}

/// A put of a resource; the revision is not stored, the key has it.
pub(crate) fn put_resource(resource: &Resource, condition: Condition) -> Result<Op> {
    let mut resource = resource.clone();
    resource.metadata_mut().revision = None;
    let expires = match &resource {
        // A lock says itself when it ends.
        Resource::Lock(lock) => lock.spec.expires,
        other => other.metadata().expires,
    };
    let key = resource_key(resource.kind(), resource.name())?;
    put(key, &resource, expires, condition)
}

/// A delete.
pub(crate) fn delete(key: Key, condition: Condition) -> Op {
    Op::Delete { key, condition }
}

/// The condition a resource's own revision asks for.
pub(crate) fn condition_of(revision: Option<&str>) -> Result<Option<Condition>> {
    match revision.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(Condition::Revision(Revision(number)))),
            Err(_) => Err(AuthError::bad_request(
                "metadata.revision is not one of this cluster's revisions",
            )),
        },
    }
}

/// A key out of fixed words.
pub(crate) fn folder<const N: usize>(segments: [&str; N]) -> Result<Key> {
    Key::new(segments).map_err(AuthError::at("make a key"))
}

/// A key whose last segment came from outside.
pub(crate) fn key(folder: &str, name: &str) -> Result<Key> {
    Key::new([folder, name]).map_err(|error| AuthError::bad_request(format!("name: {error}")))
}

/// Where a resource lives.
pub(crate) fn resource_key(kind: ResourceKind, name: &str) -> Result<Key> {
    Key::new(["resources", kind.as_str(), name])
        .map_err(|error| AuthError::bad_request(format!("metadata.name: {error}")))
}

/// A key for what must not stand in the store as text.
pub(crate) fn hashed_key(folder: &str, secret: &str) -> Result<Key> {
    key(folder, &hex::encode(Sha256::digest(secret.as_bytes())))
}

/// A failed condition as the caller reads it.
pub(crate) fn conflict(what: &str, error: BackendError) -> AuthError {
    match error {
        BackendError::AlreadyExists { .. } => {
            ApiError::already_exists(format!("{what} already exists")).into()
        }
        BackendError::NotFound { .. } => AuthError::not_found(format!("{what} is not found")),
        BackendError::Conflict { .. } => AuthError::Answer(
            ApiError::already_exists(format!(
                "{what} was changed by somebody else in the meantime"
            ))
            .with_hint("read it again and repeat the change"),
        ),
        BackendError::TooLarge { bytes, max, .. } => {
            AuthError::bad_request(format!("{what} has {bytes} bytes, more than {max}"))
        }
        other => AuthError::internal("write state", other),
    }
}
