//! The parts that events share.

use crate::macros::messages;

messages! {
    /// What every event begins with.
    Metadata {
        1 index: int64 = "ei",
        2 event: string = "event",
        3 uid: string ? "uid",
        4 code: string ? "code",
        5 time: time = "time",
        6 cluster_name: string ? "cluster_name",
    }

    /// The session an event belongs to.
    SessionMetadata {
        1 sid: string = "sid",
        2 with_mfa: string ? "with_mfa",
        3 private_key_policy: string ? "private_key_policy",
    }

    /// Who did it.
    UserMetadata {
        1 user: string ? "user",
        2 login: string ? "login",
        3 impersonator: string ? "impersonator",
        4 aws_role_arn: string ? "aws_role_arn",
        5 access_requests: strings ? "access_requests",
        6 azure_identity: string ? "azure_identity",
        7 gcp_service_account: string ? "gcp_service_account",
        8 trusted_device: maybe(DeviceMetadata) ? "trusted_device",
        9 required_private_key_policy: string ? "required_private_key_policy",
        10 user_kind: int32 ? "user_kind",
        11 bot_name: string ? "bot_name",
        12 bot_instance_id: string ? "bot_instance_id",
        13 user_origin: int32 ? "user_origin",
        14 user_roles: strings ? "user_roles",
        15 user_traits: traits ? "user_traits",
        16 user_cluster_name: string ? "user_cluster_name",
    }

    /// The device a user came from.
    DeviceMetadata {
        1 device_id: string = "device_id",
        2 os_type: int32 ? "os_type",
        3 asset_tag: string ? "asset_tag",
        4 credential_id: string ? "credential_id",
        5 device_origin: int32 ? "device_origin",
        6 web_authentication: bool ? "web_authentication",
        8 web_authentication_id: string ? "web_authentication_id",
    }

    /// The server that did it.
    ServerMetadata {
        1 namespace: string ? "namespace",
        2 server_id: string = "server_id",
        3 server_hostname: string ? "server_hostname",
        4 server_addr: string ? "server_addr",
        5 server_labels: labels ? "server_labels",
        6 forwarded_by: string ? "forwarded_by",
        7 server_sub_kind: string ? "server_sub_kind",
        8 server_version: string ? "server_version",
    }

    /// The connection it came over.
    ConnectionMetadata {
        1 local_addr: string ? "addr.local",
        2 remote_addr: string ? "addr.remote",
        3 proto: string ? "proto",
    }

    /// The client program.
    ClientMetadata {
        1 user_agent: string ? "user_agent",
    }

    /// A Kubernetes cluster.
    KubernetesClusterMetadata {
        1 kubernetes_cluster: string ? "kubernetes_cluster",
        2 kubernetes_users: strings ? "kubernetes_users",
        3 kubernetes_groups: strings ? "kubernetes_groups",
        4 kubernetes_labels: labels ? "kubernetes_labels",
    }

    /// A Kubernetes pod.
    KubernetesPodMetadata {
        1 kubernetes_pod_name: string ? "kubernetes_pod_name",
        2 kubernetes_pod_namespace: string ? "kubernetes_pod_namespace",
        3 kubernetes_container_name: string ? "kubernetes_container_name",
        4 kubernetes_container_image: string ? "kubernetes_container_image",
        5 kubernetes_node_name: string ? "kubernetes_node_name",
    }

    /// An application.
    AppMetadata {
        1 app_uri: string ? "app_uri",
        2 app_public_addr: string ? "app_public_addr",
        3 app_labels: labels ? "app_labels",
        4 app_name: string ? "app_name",
        5 app_target_port: uint32 ? "app_target_port",
        6 sub_kind: string ? "sub_kind",
    }

    /// A database, and as whom it was used.
    DatabaseMetadata {
        1 db_service: string ? "db_service",
        2 db_protocol: string = "db_protocol",
        3 db_uri: string = "db_uri",
        4 db_name: string ? "db_name",
        5 db_user: string ? "db_user",
        6 db_labels: labels ? "db_labels",
        7 db_aws_region: string ? "db_aws_region",
        8 db_aws_redshift_cluster_id: string ? "db_aws_redshift_cluster_id",
        9 db_gcp_project_id: string ? "db_gcp_project_id",
        10 db_gcp_instance_id: string ? "db_gcp_instance_id",
        11 db_roles: strings ? "db_roles",
        12 db_type: string ? "db_type",
        13 db_origin: string ? "db_origin",
    }

    /// A command and how it ended.
    CommandMetadata {
        1 command: string = "command",
        2 exit_code: string ? "exitCode",
        3 exit_error: string ? "exitError",
    }

    /// The outcome.
    Status {
        1 success: bool = "success",
        2 error: string ? "error",
        3 message: string ? "message",
    }

    /// The resource that was changed.
    ResourceMetadata {
        1 name: string ? "name",
        2 expires: time = "expires",
        3 updated_by: string ? "updated_by",
        4 ttl: string ? "ttl",
        5 scope: string ? "scope",
    }

    /// A second factor.
    MfaDeviceMetadata {
        1 mfa_device_name: string = "mfa_device_name",
        2 mfa_device_uuid: string = "mfa_device_uuid",
        3 mfa_device_type: string = "mfa_device_type",
        4 mfa_via_browser: bool ? "mfa_via_browser",
    }

    /// What a lock is about.
    LockMetadata {
        4 target: maybe(LockTarget) ? "target",
    }

    /// Whom or what a lock stops.
    LockTarget {
        1 user: string ? "user",
        2 role: string ? "role",
        3 login: string ? "login",
        5 mfa_device: string ? "mfa_device",
        6 windows_desktop: string ? "windows_desktop",
        7 access_request: string ? "access_request",
        8 device: string ? "device",
        9 server_id: string ? "server_id",
        10 bot_instance_id: string ? "bot_instance_id",
        11 join_token: string ? "join_token",
    }

    /// A resource named in a request.
    ResourceId {
        1 cluster: string = "cluster",
        2 kind: string = "kind",
        3 name: string = "name",
        4 sub_resource: string ? "sub_resource",
    }

    /// What a certificate says of its owner.
    Identity {
        1 user: string ? "user",
        2 impersonator: string ? "impersonator",
        3 roles: strings ? "roles",
        4 usage: strings ? "usage",
        5 logins: strings ? "logins",
        6 kubernetes_groups: strings ? "kubernetes_groups",
        7 kubernetes_users: strings ? "kubernetes_users",
        8 expires: time = "expires",
        9 route_to_cluster: string ? "route_to_cluster",
        10 kubernetes_cluster: string ? "kubernetes_cluster",
        11 traits: traits ? "traits",
        12 route_to_app: maybe(RouteToApp) ? "route_to_app",
        13 teleport_cluster: string ? "teleport_cluster",
        14 route_to_database: maybe(RouteToDatabase) ? "route_to_database",
        15 database_names: strings ? "database_names",
        16 database_users: strings ? "database_users",
        17 mfa_device_uuid: string ? "mfa_device_uuid",
        18 client_ip: string ? "client_ip",
        19 aws_role_arns: strings ? "aws_role_arns",
        20 access_requests: strings ? "access_requests",
        21 disallow_reissue: bool ? "disallow_reissue",
        22 allowed_resource_ids: many(ResourceId) ? "allowed_resource_ids",
        23 prev_identity_expires: time = "prev_identity_expires",
        24 azure_identities: strings ? "azure_identities",
        25 gcp_service_accounts: strings ? "gcp_service_accounts",
        26 private_key_policy: string ? "private_key_policy",
        27 bot_name: string ? "bot_name",
        28 device_extensions: maybe(DeviceExtensions) ? "device_extensions",
        29 bot_instance_id: string ? "bot_instance_id",
        30 join_token: string ? "join_token",
        33 bot_internal: bool = "bot_internal",
    }

    /// The device in a certificate.
    DeviceExtensions {
        1 device_id: string ? "device_id",
        2 asset_tag: string ? "asset_tag",
        3 credential_id: string ? "credential_id",
    }

    /// The application a certificate is for.
    RouteToApp {
        1 name: string ? "name",
        2 session_id: string ? "session_id",
        3 public_addr: string ? "public_addr",
        4 cluster_name: string ? "cluster_name",
        5 aws_role_arn: string ? "aws_role_arn",
        6 azure_identity: string ? "azure_identity",
        7 gcp_service_account: string ? "gcp_service_account",
        8 uri: string ? "uri",
        9 target_port: uint32 ? "target_port",
    }

    /// The database a certificate is for.
    RouteToDatabase {
        1 service_name: string ? "service_name",
        2 protocol: string ? "protocol",
        3 username: string ? "username",
        4 database: string ? "database",
        5 roles: strings ? "roles",
    }

    /// The authority that signed a certificate.
    CertificateAuthorityMetadata {
        1 authority_type: string ? "type",
        2 domain: string ? "domain",
        3 subject_key_id: string ? "subject_key_id",
    }
}
