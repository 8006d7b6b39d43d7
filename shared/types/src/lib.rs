//! Names, ids, labels and resources; no I/O.
//!
//! Everything here is parsed into a type that cannot be wrong: a name that came through is safe in a path,
//! a log line or a command, and a resource that came through has only fields this release knows.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod duration;
pub mod flex;
mod id;
mod labels;
mod name;
pub mod resource;
mod system_role;

pub use duration::{DurationError, GoDuration};
pub use id::{HostId, IdError, SessionId};
pub use labels::{LabelsError, parse_labels};
pub use name::{ClusterName, HostName, Login, NameError, RoleName, UserName};
pub use resource::{
    ClusterAuthPreference, ClusterNetworkingConfig, Database, DatabaseServer, DbProtocol, Lock,
    Metadata, Node, ProvisionToken, RecordingMode, Resource, ResourceError, ResourceKind, Role,
    SessionRecordingConfig, Strictness, User,
};
pub use system_role::{SystemRole, UnknownSystemRole};

/// Labels of a resource: key to value.
pub type Labels = std::collections::BTreeMap<String, String>;

/// A user's attributes: name to values.
pub type Traits = std::collections::BTreeMap<String, Vec<String>>;
