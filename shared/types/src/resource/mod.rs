//! Resources: what `tctl get` prints and `tctl create` reads.

mod auth_preference;
mod conditions;
mod database;
mod kind;
mod lock;
mod networking;
mod node;
mod object;
mod options;
mod preset;
mod recording;
mod role;
mod server;
mod token;
mod user;

pub use auth_preference::{AuthPreferenceSpec, ClusterAuthPreference};
pub use conditions::{KubernetesResource, LabelMap, RoleConditions, Rule};
pub use database::{
    AwsOptions, Database, DatabaseServer, DatabaseServerSpec, DatabaseSpec, DatabaseTls, DbHealth,
    DbProtocol, DbTlsMode, HealthStatus, MysqlOptions, UnknownDbProtocol,
};
pub use kind::{ParseKindError, ResourceKind, ResourceRef};
pub use lock::{Lock, LockSpec, LockSubject, LockTarget};
pub use networking::{ClusterNetworkingConfig, NetworkingSpec, TunnelStrategy};
pub use node::{CommandLabel, Node, NodeSpec, host_of, is_label_key};
pub use object::{Metadata, Object, Resource, ResourceError, Spec};
pub use options::{
    CertExtension, CertFormat, ForwardSwitch, RecordSession, RoleOptions, SessionMfa,
    SshPortForwarding, Strictness, TransferDirection,
};
pub use recording::{RecordingMode, RecordingSpec, SessionRecordingConfig, UnknownRecordingMode};
pub use role::{Role, RoleSpec};
pub use server::{ProxyServer, ServerSpec};
pub use token::{ProvisionToken, TokenSpec};
pub use user::{CreatedBy, CreatedByUser, User, UserSpec, UserStatus};

#[cfg(test)]
mod tests;
