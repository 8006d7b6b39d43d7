//! Cluster configuration and audit queries.

use crate::macros::messages;
use crate::parts::*;

messages! {
    /// `auth_preference.update`
    AuthPreferenceUpdate {
        1 metadata: part(Metadata) ~ "",
        2 status: part(Status) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
        5 admin_actions_mfa_changed: int32 = "admin_actions_mfa_changed",
    }

    /// `session_recording_config.update`
    SessionRecordingConfigUpdate {
        1 metadata: part(Metadata) ~ "",
        2 status: part(Status) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
    }

    /// `cluster_networking_config.update`
    ClusterNetworkingConfigUpdate {
        1 metadata: part(Metadata) ~ "",
        2 status: part(Status) ~ "",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
    }

    /// `secreports.audit.query.run`
    AuditQueryRun {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 status: part(Status) ~ "",
        4 details: part(AuditQueryDetails) ~ "",
    }

    /// A query that was run, and what it cost.
    AuditQueryDetails {
        1 name: string = "name",
        2 query: string = "query",
        3 days: int32 = "days",
        4 total_execution_time_in_millis: int64 = "total_execution_time_in_millis",
        5 data_scanned_in_bytes: int64 = "data_scanned_in_bytes",
    }
}
