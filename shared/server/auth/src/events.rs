//! The events this service makes.

use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use shared_api::JoinRequest;
use shared_events::{
    AuditEvent, AuditQueryDetails, AuditQueryRun, AuthAttempt, AuthPreferenceUpdate,
    CertificateAuthorityMetadata, CertificateCreate, ClusterNetworkingConfigUpdate,
    ConnectionMetadata, Identity, InstanceJoin, LockCreate, LockDelete, LockMetadata, LockTarget,
    Metadata, NodeCreate, NodeDelete, NodeUpdate, ProvisionTokenCreate, ResourceMetadata,
    RoleCreate, RoleDelete, RoleUpdate, ServerMetadata, SessionMetadata, SessionRecordingAccess,
    SessionRecordingConfigUpdate, SessionRecordingDelete, SessionUpload, Status, UPLOAD_INDEX,
    UserCreate, UserDelete, UserLogin, UserMetadata, UserPasswordChange, UserTokenCreate,
    UserUpdate,
};
use shared_types::resource::Lock;
use shared_types::{Node, ProvisionToken, Resource, SessionId, User, UserName};

use crate::caller::Caller;
use crate::seals::Arrived;

mod databases;

pub(crate) use databases::route;

/// A human who logs in here.
const HUMAN: i32 = 1;
/// A user of the cluster itself.
const LOCAL: i32 = 1;
/// A service or the local administrator.
const SYSTEM: i32 = 3;

/// Who asked.
pub(crate) fn by(caller: &Caller) -> UserMetadata {
    UserMetadata {
        user: caller.name().to_owned(),
        user_kind: if caller.is_user() { HUMAN } else { SYSTEM },
        user_origin: if caller.is_user() { LOCAL } else { 0 },
        user_cluster_name: caller.cluster().to_string(),
        ..UserMetadata::default()
    }
}

fn named(user: &str) -> UserMetadata {
    UserMetadata {
        user: user.to_owned(),
        user_kind: HUMAN,
        user_origin: LOCAL,
        ..UserMetadata::default()
    }
}

fn from(address: SocketAddr) -> ConnectionMetadata {
    ConnectionMetadata { remote_addr: address.to_string(), ..ConnectionMetadata::default() }
}

fn success() -> Status {
    Status { success: true, ..Status::default() }
}

fn about(name: &str, expires: Option<DateTime<Utc>>, caller: &Caller) -> ResourceMetadata {
    ResourceMetadata {
        name: name.to_owned(),
        expires: expires.into(),
        updated_by: caller.name().to_owned(),
        ..ResourceMetadata::default()
    }
}

/// A login that worked, or why it did not.
pub(crate) fn user_login(
    user: &UserName,
    outcome: Result<(), &str>,
    address: SocketAddr,
) -> AuditEvent {
    let status = match outcome {
        Ok(()) => success(),
        Err(error) => Status { success: false, error: error.to_owned(), message: error.to_owned() },
    };
    UserLogin {
        user: named(user.as_str()),
        status,
        method: "local".to_owned(),
        connection: from(address),
        ..UserLogin::default()
    }
    .into()
}

/// A request of somebody who has a certificate, and is stopped all the same.
pub(crate) fn refused(
    identity: &shared_pki::Identity,
    error: &str,
    address: SocketAddr,
) -> AuditEvent {
    let user = identity.user.as_str();
    AuthAttempt {
        user: match identity.system_role {
            None => named(user),
            Some(_) => UserMetadata { user_kind: SYSTEM, user_origin: 0, ..named(user) },
        },
        connection: from(address),
        status: Status { error: error.to_owned(), message: error.to_owned(), success: false },
        ..AuthAttempt::default()
    }
    .into()
}

/// A certificate for a user, by the authority of this kind.
pub(crate) fn cert_create(authority: &str, identity: Identity) -> AuditEvent {
    let authority = CertificateAuthorityMetadata {
        authority_type: authority.to_owned(),
        domain: identity.teleport_cluster.clone(),
        ..CertificateAuthorityMetadata::default()
    };
    CertificateCreate {
        cert_type: "user".to_owned(),
        identity,
        certificate_authority: Some(authority),
        ..CertificateCreate::default()
    }
    .into()
}

pub(crate) fn user_create(user: &User, caller: &Caller) -> AuditEvent {
    UserCreate {
        user: by(caller),
        resource: about(user.name(), user.spec.expires, caller),
        roles: user.spec.roles.iter().map(ToString::to_string).collect(),
        connector: "local".to_owned(),
        connection: from(caller.address()),
        ..UserCreate::default()
    }
    .into()
}

pub(crate) fn user_update(user: &User, caller: &Caller) -> AuditEvent {
    UserUpdate {
        user: by(caller),
        resource: about(user.name(), user.spec.expires, caller),
        roles: user.spec.roles.iter().map(ToString::to_string).collect(),
        connector: "local".to_owned(),
        connection: from(caller.address()),
        ..UserUpdate::default()
    }
    .into()
}

pub(crate) fn user_token_create(
    user: &UserName,
    expires: DateTime<Utc>,
    ttl: String,
    caller: &Caller,
) -> AuditEvent {
    let resource = ResourceMetadata { ttl, ..about(user.as_str(), Some(expires), caller) };
    UserTokenCreate { user: by(caller), resource, ..UserTokenCreate::default() }.into()
}

pub(crate) fn password_change(user: &UserName, address: SocketAddr) -> AuditEvent {
    UserPasswordChange {
        user: named(user.as_str()),
        connection: from(address),
        ..UserPasswordChange::default()
    }
    .into()
}

fn token_create(token: &ProvisionToken, caller: &Caller) -> AuditEvent {
    ProvisionTokenCreate {
        user: by(caller),
        resource: about(&crate::tokens::masked(token.name()), token.metadata.expires, caller),
        roles: token.spec.roles.iter().map(ToString::to_string).collect(),
        join_method: "token".to_owned(),
        ..ProvisionTokenCreate::default()
    }
    .into()
}

fn lock_target(lock: &Lock) -> LockMetadata {
    let target = &lock.spec.target;
    let text = |value: Option<String>| value.unwrap_or_default();
    let target = LockTarget {
        user: text(target.user.as_ref().map(ToString::to_string)),
        role: text(target.role.as_ref().map(ToString::to_string)),
        login: text(target.login.as_ref().map(ToString::to_string)),
        server_id: text(target.server_id.map(|id| id.to_string())),
        ..LockTarget::default()
    };
    LockMetadata { target: Some(target) }
}

/// A lock was made, or made anew: the catalogue has no event for a change.
fn lock_created(lock: &Lock, caller: &Caller) -> AuditEvent {
    LockCreate {
        resource: about(lock.name(), lock.spec.expires, caller),
        user: by(caller),
        lock: lock_target(lock),
        ..LockCreate::default()
    }
    .into()
}

fn node_server(node: &Node) -> ServerMetadata {
    ServerMetadata {
        server_id: node.name().to_owned(),
        server_hostname: node.spec.hostname.clone(),
        server_addr: node.spec.addr.clone(),
        server_labels: node.all_labels(),
        ..ServerMetadata::default()
    }
}

/// A resource was written; a proxy never is.
pub(crate) fn resource_written(
    resource: &Resource,
    created: bool,
    caller: &Caller,
) -> Option<AuditEvent> {
    let (user, connection, status) = (by(caller), from(caller.address()), success());
    Some(match resource {
        Resource::Role(role) if created => {
            let resource = about(role.name(), role.metadata.expires, caller);
            RoleCreate { user, resource, connection, ..RoleCreate::default() }.into()
        }
        Resource::Role(role) => {
            let resource = about(role.name(), role.metadata.expires, caller);
            RoleUpdate { user, resource, connection, ..RoleUpdate::default() }.into()
        }
        Resource::User(account) if created => user_create(account, caller),
        Resource::User(account) => user_update(account, caller),
        Resource::Token(token) => token_create(token, caller),
        Resource::Lock(lock) => lock_created(lock, caller),
        Resource::Node(node) => {
            let resource = about(node.name(), node.metadata.expires, caller);
            let server = node_server(node);
            if created {
                NodeCreate { user, resource, connection, server, ..NodeCreate::default() }.into()
            } else {
                NodeUpdate { user, resource, connection, server, ..NodeUpdate::default() }.into()
            }
        }
        Resource::Db(database) => databases::written(database, created, caller),
        Resource::Proxy(_) | Resource::DbServer(_) => return None,
        Resource::SessionRecordingConfig(_) => SessionRecordingConfigUpdate {
            user,
            connection,
            status,
            ..SessionRecordingConfigUpdate::default()
        }
        .into(),
        Resource::ClusterAuthPreference(_) => {
            AuthPreferenceUpdate { user, connection, status, ..AuthPreferenceUpdate::default() }
                .into()
        }
        Resource::ClusterNetworkingConfig(_) => ClusterNetworkingConfigUpdate {
            user,
            connection,
            status,
            ..ClusterNetworkingConfigUpdate::default()
        }
        .into(),
    })
}

/// A resource was removed. The catalogue has no event for a deleted token; a configuration that is
/// removed goes back to its defaults, which is an update.
pub(crate) fn resource_deleted(stored: &Resource, caller: &Caller) -> Option<AuditEvent> {
    let (user, connection, status) = (by(caller), from(caller.address()), success());
    let resource = about(stored.name(), None, caller);
    Some(match stored {
        Resource::Role(_) => {
            RoleDelete { user, resource, connection, ..RoleDelete::default() }.into()
        }
        Resource::User(_) => {
            UserDelete { user, resource, connection, ..UserDelete::default() }.into()
        }
        Resource::Lock(lock) => {
            LockDelete { user, resource, lock: lock_target(lock), ..LockDelete::default() }.into()
        }
        // That a proxy went is told by the lock on it.
        Resource::Node(node) => {
            let server = node_server(node);
            NodeDelete { user, resource, connection, server, ..NodeDelete::default() }.into()
        }
        Resource::Db(database) => databases::deleted(database, caller),
        Resource::Token(_) | Resource::Proxy(_) | Resource::DbServer(_) => return None,
        Resource::SessionRecordingConfig(_) => SessionRecordingConfigUpdate {
            user,
            connection,
            status,
            ..SessionRecordingConfigUpdate::default()
        }
        .into(),
        Resource::ClusterAuthPreference(_) => {
            AuthPreferenceUpdate { user, connection, status, ..AuthPreferenceUpdate::default() }
                .into()
        }
        Resource::ClusterNetworkingConfig(_) => ClusterNetworkingConfigUpdate {
            user,
            connection,
            status,
            ..ClusterNetworkingConfigUpdate::default()
        }
        .into(),
    })
}

/// A service joined, or was refused.
pub(crate) fn instance_join(
    ask: &JoinRequest,
    outcome: Result<Option<DateTime<Utc>>, &str>,
    address: SocketAddr,
) -> AuditEvent {
    let (status, expires) = match outcome {
        Ok(expires) => (success(), expires),
        Err(error) => {
            (Status { success: false, error: error.to_owned(), ..Status::default() }, None)
        }
    };
    InstanceJoin {
        status,
        host_id: ask.host_id.to_string(),
        node_name: ask.node_name.chars().take(256).collect(),
        role: ask.role.to_string(),
        method: "token".to_owned(),
        token_name: crate::tokens::masked(ask.token.expose()),
        token_expires: expires.into(),
        connection: from(address),
        roles: vec![ask.role.to_string()],
        ..InstanceJoin::default()
    }
    .into()
}

/// A recording is complete. Its id follows from the upload's, so that a repeated completion counts once.
pub(crate) fn session_upload(
    session: &SessionId,
    url: String,
    uid: String,
    arrived: Option<&Arrived>,
) -> AuditEvent {
    let received = arrived.and_then(|arrived| arrived.received.as_ref());
    SessionUpload {
        metadata: Metadata { index: UPLOAD_INDEX, uid, ..Metadata::default() },
        session: SessionMetadata { sid: session.to_string(), ..SessionMetadata::default() },
        url,
        recording_state: arrived.map(|arrived| arrived.state.to_owned()).unwrap_or_default(),
        recording_slices: received.map_or(0, |received| received.slices),
        recording_bytes: received.map_or(0, |received| received.bytes),
        recording_head: received.map(|received| hex::encode(received.head)).unwrap_or_default(),
    }
    .into()
}

/// Somebody fetched a recording.
pub(crate) fn recording_access(session: &SessionId, caller: &Caller) -> AuditEvent {
    SessionRecordingAccess {
        sid: session.to_string(),
        user: by(caller),
        session_type: "ssh".to_owned(),
        ..SessionRecordingAccess::default()
    }
    .into()
}

/// Somebody has a recording removed.
pub(crate) fn recording_delete(
    session: &SessionId,
    url: String,
    bytes: u64,
    caller: &Caller,
) -> AuditEvent {
    SessionRecordingDelete {
        sid: session.to_string(),
        user: by(caller),
        connection: from(caller.address()),
        url,
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        ..SessionRecordingDelete::default()
    }
    .into()
}

/// Somebody asked the audit log a question.
pub(crate) fn query_run(
    sql: &str,
    days: u32,
    millis: i64,
    outcome: Result<(), &str>,
    caller: &Caller,
) -> AuditEvent {
    let status = match outcome {
        Ok(()) => success(),
        Err(error) => Status { success: false, error: error.to_owned(), ..Status::default() },
    };
    AuditQueryRun {
        user: by(caller),
        status,
        details: AuditQueryDetails {
            query: sql.to_owned(),
            days: i32::try_from(days).unwrap_or(i32::MAX),
            total_execution_time_in_millis: millis,
            ..AuditQueryDetails::default()
        },
        ..AuditQueryRun::default()
    }
    .into()
}
