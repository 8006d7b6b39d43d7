//! The envelope all resources share, and the enum over them.
//!
//! A document is refused when it has a field this release does not know: a misspelt `deny` would otherwise
//! silently allow.

use super::{
    ClusterAuthPreference, ClusterNetworkingConfig, Database, DatabaseServer, Lock, Node,
    ProvisionToken, ProxyServer, ResourceKind, Role, SessionRecordingConfig, User,
};
use crate::{Labels, NameError, flex};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Why a document is not a resource.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The document has no `kind`.
    #[error("resource has no kind, expected one of {}", kinds())]
    NoKind,
    /// The kind is not known.
    #[error(transparent)]
    Kind(#[from] super::ParseKindError),
    /// The document has another kind than asked for.
    #[error("kind is {found:?}, expected {expected}")]
    WrongKind {
        /// What was found.
        found: String,
        /// What was expected.
        expected: ResourceKind,
    },
    /// The version is not one of the kind's.
    #[error("{kind} has no version {found:?}, expected one of {}", .expected.join(", "))]
    Version {
        /// The kind.
        kind: ResourceKind,
        /// What was found.
        found: String,
        /// What is accepted.
        expected: &'static [&'static str],
    },
    /// The resource has no name.
    #[error("{0} has no metadata.name")]
    NoName(ResourceKind),
    /// The name is not allowed.
    #[error("metadata.name of {kind}")]
    Name {
        /// The kind.
        kind: ResourceKind,
        /// Why.
        #[source]
        source: NameError,
    },
    /// A resource of which there is one has another name.
    #[error("{kind} is named {expected:?}, not {found:?}")]
    SingletonName {
        /// The kind.
        kind: ResourceKind,
        /// The given name.
        found: String,
        /// The only name.
        expected: &'static str,
    },
    /// A field of the specification makes no sense.
    #[error("{field}: {why}")]
    Field {
        /// The path of the field.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The document does not have the resource's shape.
    #[error("{kind} document")]
    Shape {
        /// The kind.
        kind: ResourceKind,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

fn kinds() -> String {
    ResourceKind::ALL.map(ResourceKind::as_str).join(", ")
}

/// Name, labels and life time of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// The name, unique within the kind. Of a token it is the secret.
    pub name: String,
    /// Text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// When the resource ceases to exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
    /// Changes with every write; a write that gives one succeeds only if it is still current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Written by old releases; read and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Written by old releases; read and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What a specification type says about its kind.
pub trait Spec: Serialize + DeserializeOwned + Clone {
    /// The kind.
    const KIND: ResourceKind;
    /// Accepted versions.
    const VERSIONS: &'static [&'static str];
    /// The version of a document that names none.
    const DEFAULT_VERSION: &'static str;
    /// Whether the name is a secret and stays out of debug output.
    const SECRET_NAME: bool = false;

    /// Whether the name is allowed.
    fn check_name(name: &str) -> Result<(), NameError>;

    /// Whether the fields make sense together.
    fn check(&self) -> Result<(), ResourceError> {
        Ok(())
    }

    /// Whether the specification goes with the sub kind and the metadata.
    fn check_object(_object: &Object<Self>) -> Result<(), ResourceError> {
        Ok(())
    }

    /// The name of a document that has none; its sub kind is known.
    fn name_where_missing(_sub_kind: Option<&str>) -> Option<String> {
        Self::KIND.singleton().map(str::to_owned)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<S> {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub_kind: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    metadata: Metadata,
    spec: S,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
}

/// A resource: an envelope around a specification.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Envelope<S>", into = "Envelope<S>", bound = "S: Spec")]
pub struct Object<S> {
    /// Sub kind, if the kind has any.
    pub sub_kind: Option<String>,
    /// Version of the document's form.
    pub version: String,
    /// Name, labels, life time.
    pub metadata: Metadata,
    /// What the resource says.
    pub spec: S,
    /// State that the cluster reports.
    pub status: Option<Value>,
}

impl<S: Spec> Object<S> {
    /// A resource with a name and a specification.
    pub fn new(name: impl Into<String>, spec: S) -> Self {
        Object {
            sub_kind: None,
            version: S::DEFAULT_VERSION.to_owned(),
            metadata: Metadata { name: name.into(), ..Metadata::default() },
            spec,
            status: None,
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Whether the resource's life is over at `now`.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.metadata.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether version, name and specification are acceptable. Reading a document has checked this; code that
    /// builds a resource from a user's input calls it.
    pub fn check(&self) -> Result<(), ResourceError> {
        let kind = S::KIND;
        if !S::VERSIONS.contains(&self.version.as_str()) {
            let found = self.version.chars().take(64).collect();
            return Err(ResourceError::Version { kind, found, expected: S::VERSIONS });
        }
        if self.metadata.name.is_empty() {
            return Err(ResourceError::NoName(kind));
        }
        match kind.singleton() {
            Some(expected) if self.metadata.name != expected => {
                let found = self.metadata.name.chars().take(64).collect();
                return Err(ResourceError::SingletonName { kind, found, expected });
            }
            _ => S::check_name(&self.metadata.name)
                .map_err(|source| ResourceError::Name { kind, source })?,
        }
        self.spec.check()?;
        S::check_object(self)
    }
}

impl<S: std::fmt::Debug + Spec> std::fmt::Debug for Object<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct(S::KIND.as_str());
        if S::SECRET_NAME {
            out.field("name", &"<secret>");
        } else {
            out.field("metadata", &self.metadata);
        }
        out.field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl<S: Spec> TryFrom<Envelope<S>> for Object<S> {
    type Error = ChainText;
    fn try_from(envelope: Envelope<S>) -> Result<Self, ChainText> {
        if envelope.kind.parse::<ResourceKind>().ok() != Some(S::KIND) {
            let found = envelope.kind.chars().take(64).collect();
            return Err(ChainText(ResourceError::WrongKind { found, expected: S::KIND }));
        }
        let mut object = Object {
            sub_kind: envelope.sub_kind.filter(|text| !text.is_empty()),
            version: envelope.version.unwrap_or_else(|| S::DEFAULT_VERSION.to_owned()),
            metadata: envelope.metadata,
            spec: envelope.spec,
            status: envelope.status,
        };
        if object.metadata.name.is_empty()
            && let Some(name) = S::name_where_missing(object.sub_kind.as_deref())
        {
            object.metadata.name = name;
        }
        object.check().map_err(ChainText)?;
        Ok(object)
    }
}

impl<S: Spec> From<Object<S>> for Envelope<S> {
    fn from(object: Object<S>) -> Self {
        Envelope {
            kind: S::KIND.as_str().to_owned(),
            sub_kind: object.sub_kind,
            version: Some(object.version),
            metadata: object.metadata,
            spec: object.spec,
            status: object.status,
        }
    }
}

/// serde keeps only an error's text, so causes are joined here.
struct ChainText(ResourceError);

impl std::fmt::Display for ChainText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Any resource.
#[expect(clippy::large_enum_variant, reason = "one or two live at a time")]
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// A role.
    Role(Role),
    /// A user.
    User(User),
    /// A join token.
    Token(ProvisionToken),
    /// A lock.
    Lock(Lock),
    /// A proxy that joined.
    Proxy(ProxyServer),
    /// An SSH server.
    Node(Node),
    /// A database.
    Db(Database),
    /// A database that an agent serves.
    DbServer(DatabaseServer),
    /// How sessions are recorded.
    SessionRecordingConfig(SessionRecordingConfig),
    /// How users authenticate.
    ClusterAuthPreference(ClusterAuthPreference),
    /// Time-outs and routing.
    ClusterNetworkingConfig(ClusterNetworkingConfig),
}

macro_rules! each {
    ($self:expr, $object:ident => $body:expr) => {
        match $self {
            Resource::Role($object) => $body,
            Resource::User($object) => $body,
            Resource::Token($object) => $body,
            Resource::Lock($object) => $body,
            Resource::Proxy($object) => $body,
            Resource::Node($object) => $body,
            Resource::Db($object) => $body,
            Resource::DbServer($object) => $body,
            Resource::SessionRecordingConfig($object) => $body,
            Resource::ClusterAuthPreference($object) => $body,
            Resource::ClusterNetworkingConfig($object) => $body,
        }
    };
}

impl Resource {
    /// The kind.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Resource::Role(_) => ResourceKind::Role,
            Resource::User(_) => ResourceKind::User,
            Resource::Token(_) => ResourceKind::Token,
            Resource::Lock(_) => ResourceKind::Lock,
            Resource::Proxy(_) => ResourceKind::Proxy,
            Resource::Node(_) => ResourceKind::Node,
            Resource::Db(_) => ResourceKind::Db,
            Resource::DbServer(_) => ResourceKind::DbServer,
            Resource::SessionRecordingConfig(_) => ResourceKind::SessionRecordingConfig,
            Resource::ClusterAuthPreference(_) => ResourceKind::ClusterAuthPreference,
            Resource::ClusterNetworkingConfig(_) => ResourceKind::ClusterNetworkingConfig,
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.metadata().name
    }

    /// Name, labels, life time.
    pub fn metadata(&self) -> &Metadata {
        each!(self, object => &object.metadata)
    }

    /// Name, labels, life time.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        each!(self, object => &mut object.metadata)
    }

    /// Reads a document of any kind.
    pub fn from_json(document: Value) -> Result<Resource, ResourceError> {
        let kind = match document.get("kind") {
            Some(Value::String(kind)) => kind.parse()?,
            _ => return Err(ResourceError::NoKind),
        };
        Self::from_json_of(kind, document)
    }

    /// Reads a document that must be of one kind.
    pub fn from_json_of(kind: ResourceKind, document: Value) -> Result<Resource, ResourceError> {
        fn read<S: Spec>(document: Value) -> Result<Object<S>, ResourceError> {
            serde_json::from_value(document)
                .map_err(|source| ResourceError::Shape { kind: S::KIND, source })
        }
        Ok(match kind {
            ResourceKind::Role => Resource::Role(read(document)?),
            ResourceKind::User => Resource::User(read(document)?),
            ResourceKind::Token => Resource::Token(read(document)?),
            ResourceKind::Lock => Resource::Lock(read(document)?),
            ResourceKind::Proxy => Resource::Proxy(read(document)?),
            ResourceKind::Node => Resource::Node(read(document)?),
            ResourceKind::Db => Resource::Db(read(document)?),
            ResourceKind::DbServer => Resource::DbServer(read(document)?),
            ResourceKind::SessionRecordingConfig => {
                Resource::SessionRecordingConfig(read(document)?)
            }
            ResourceKind::ClusterAuthPreference => Resource::ClusterAuthPreference(read(document)?),
            ResourceKind::ClusterNetworkingConfig => {
                Resource::ClusterNetworkingConfig(read(document)?)
            }
        })
    }

    /// The document, `kind` first.
    pub fn to_json(&self) -> Value {
        // Serialising plain data with string keys cannot fail.
        each!(self, object => serde_json::to_value(object).unwrap_or(Value::Null))
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        each!(self, object => object.serialize(serializer))
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Value::deserialize(deserializer)?;
        Resource::from_json(document).map_err(|error| serde::de::Error::custom(ChainText(error)))
    }
}

macro_rules! into_resource {
    ($($variant:ident($object:ty)),* $(,)?) => {$(
        impl From<$object> for Resource {
            fn from(object: $object) -> Resource {
                Resource::$variant(object)
            }
        }
    )*};
}

into_resource!(
    Role(Role),
    User(User),
    Token(ProvisionToken),
    Lock(Lock),
    Proxy(ProxyServer),
    Node(Node),
    Db(Database),
    DbServer(DatabaseServer),
    SessionRecordingConfig(SessionRecordingConfig),
    ClusterAuthPreference(ClusterAuthPreference),
    ClusterNetworkingConfig(ClusterNetworkingConfig),
);
