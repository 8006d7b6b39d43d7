//! Users, roles, tokens, certificates.

use crate::macros::messages;
use crate::parts::*;

messages! {
    /// `user.login`
    UserLogin {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 status: part(Status) ~ "",
        4 method: string ? "method",
        5 attributes: object ? "attributes",
        6 mfa_device: maybe(MfaDeviceMetadata) ? "mfa_device",
        7 client: part(ClientMetadata) ~ "",
        8 connection: part(ConnectionMetadata) ~ "",
        9 applied_login_rules: strings ? "applied_login_rules",
        10 connector_id: string ? "connector_id",
    }

    /// `user.create`
    UserCreate {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 resource: part(ResourceMetadata) ~ "",
        4 roles: strings = "roles",
        5 connector: string = "connector",
        6 connection: part(ConnectionMetadata) ~ "",
    }

    /// `user.update`
    UserUpdate {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 resource: part(ResourceMetadata) ~ "",
        4 roles: strings = "roles",
        5 connector: string = "connector",
        6 connection: part(ConnectionMetadata) ~ "",
    }

    /// `user.delete`
    UserDelete {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 resource: part(ResourceMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
    }

    /// `user.password_change`
    UserPasswordChange {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
    }

    /// `reset_password_token.create`: an invitation or a reset.
    UserTokenCreate {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
    }

    /// `role.created`
    RoleCreate {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
    }

    /// `role.updated`
    RoleUpdate {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
    }

    /// `role.deleted`
    RoleDelete {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
    }

    /// `join_token.create`
    ProvisionTokenCreate {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 roles: strings ? "roles",
        5 join_method: string ? "join_method",
    }

    /// `instance.join`
    InstanceJoin {
        1 metadata: part(Metadata) ~ "",
        2 status: part(Status) ~ "",
        3 host_id: string = "host_id",
        4 node_name: string ? "node_name",
        5 role: string ? "role",
        6 method: string ? "method",
        7 token_name: string ? "token_name",
        8 attributes: object ? "attributes",
        9 token_expires: time = "token_expires",
        10 connection: part(ConnectionMetadata) ~ "",
        11 scope: string ? "scope",
        12 roles: strings ? "roles",
    }

    /// `node.created`: somebody registered a server without an agent.
    NodeCreate {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
    }

    /// `node.updated`
    NodeUpdate {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
    }

    /// `node.deleted`: a node was removed; of an agent, a lock tells that it stays out.
    NodeDelete {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
    }

    /// `cert.create`
    CertificateCreate {
        1 metadata: part(Metadata) ~ "",
        2 cert_type: string ? "cert_type",
        3 identity: part(Identity) = "identity",
        4 client: part(ClientMetadata) ~ "",
        5 certificate_authority: maybe(CertificateAuthorityMetadata) ? "certificate_authority",
    }

    /// `lock.created`
    LockCreate {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 target: maybe(LockTarget) ? "target",
        5 lock: part(LockMetadata) = "lock",
    }

    /// `lock.deleted`
    LockDelete {
        1 metadata: part(Metadata) ~ "",
        2 resource: part(ResourceMetadata) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 lock: part(LockMetadata) = "lock",
    }
}
