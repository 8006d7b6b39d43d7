//! SSH and sessions in general.

use crate::macros::messages;
use crate::parts::*;

messages! {
    /// `session.start`. What the roles' `record_session` says is a member of our own.
    SessionStart {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 server: part(ServerMetadata) ~ "",
        5 connection: part(ConnectionMetadata) ~ "",
        6 size: string ? "size",
        7 kubernetes: part(KubernetesClusterMetadata) ~ "",
        8 pod: part(KubernetesPodMetadata) ~ "",
        9 initial_command: strings ? "initial_command",
        10 session_recording: string ? "session_recording",
        12 invited: strings ? "invited",
        13 reason: string ? "reason",
        1001 record_session: string ? "record_session",
    }

    /// `session.join`
    SessionJoin {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 server: part(ServerMetadata) ~ "",
        5 connection: part(ConnectionMetadata) ~ "",
        6 kubernetes: part(KubernetesClusterMetadata) ~ "",
    }

    /// `session.leave`
    SessionLeave {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 server: part(ServerMetadata) ~ "",
        5 connection: part(ConnectionMetadata) ~ "",
    }

    /// `print`: what a terminal showed. In recordings only, never in the audit log.
    SessionPrint {
        1 metadata: part(Metadata) ~ "",
        2 chunk_index: int64 = "ci",
        3 data: bytes - "",
        4 bytes: int64 = "bytes",
        5 ms: int64 = "ms",
        6 offset: int64 = "offset",
    }

    /// `resize`
    Resize {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
        6 size: string ? "size",
        7 kubernetes: part(KubernetesClusterMetadata) ~ "",
        8 pod: part(KubernetesPodMetadata) ~ "",
    }

    /// `session.end`. That it was made up, and by whom, is a member of our own.
    SessionEnd {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
        6 enhanced_recording: bool = "enhanced_recording",
        7 interactive: bool = "interactive",
        8 participants: strings = "participants",
        9 session_start: time = "session_start",
        10 session_stop: time = "session_stop",
        11 kubernetes: part(KubernetesClusterMetadata) ~ "",
        12 pod: part(KubernetesPodMetadata) ~ "",
        13 initial_command: strings ? "initial_command",
        14 session_recording: string ? "session_recording",
        1001 recovered: string ? "recovered",
    }

    /// `session.data`: byte counts of a connection.
    SessionData {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 server: part(ServerMetadata) ~ "",
        5 connection: part(ConnectionMetadata) ~ "",
        6 bytes_transmitted: uint64 = "tx",
        7 bytes_received: uint64 = "rx",
    }

    /// `session.upload`: the recording is stored. State, slices, bytes and head of its chain are our own members.
    SessionUpload {
        1 metadata: part(Metadata) ~ "",
        2 session: part(SessionMetadata) ~ "",
        5 url: string = "url",
        1001 recording_state: string ? "recording_state",
        1002 recording_slices: uint64 ? "recording_slices",
        1003 recording_bytes: uint64 ? "recording_bytes",
        1004 recording_head: string ? "recording_head",
    }

    /// `session.rejected`: a limit was hit.
    SessionReject {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 server: part(ServerMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
        5 reason: string = "reason",
        6 maximum: int64 = "max",
    }

    /// `session.connect`: a plain OpenSSH server was connected to.
    SessionConnect {
        1 metadata: part(Metadata) ~ "",
        2 server: part(ServerMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
    }

    /// `exec`: a command without a terminal.
    Exec {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 session: part(SessionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
        6 command: part(CommandMetadata) ~ "",
        7 kubernetes: part(KubernetesClusterMetadata) ~ "",
        8 pod: part(KubernetesPodMetadata) ~ "",
    }

    /// `scp`
    Scp {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 session: part(SessionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
        6 command: part(CommandMetadata) ~ "",
        7 path: string = "path",
        8 action: string = "action",
        1001 file: part(FileContent) ~ "",
        1002 name: string ? "name",
        1003 bytes_read: maybe_uint64 ? "bytes_read",
        1004 bytes_written: maybe_uint64 ? "bytes_written",
    }

    /// `subsystem`
    Subsystem {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 name: string = "name",
        5 error: string = "exitError",
        6 server: part(ServerMetadata) ~ "",
    }

    /// `sftp`: one file operation.
    Sftp {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 session: part(SessionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
        6 working_directory: string = "working_directory",
        7 path: string = "path",
        8 target_path: string ? "target_path",
        9 flags: uint32 ? "flags",
        10 attributes: maybe(SftpAttributes) ? "attributes",
        11 action: int32 = "action",
        12 error: string ? "error",
        1001 file: part(FileContent) ~ "",
        1002 bytes_read: maybe_uint64 ? "bytes_read",
        1003 bytes_written: maybe_uint64 ? "bytes_written",
    }

    /// What a request set or asked for.
    SftpAttributes {
        1 file_size: maybe_uint64 ? "file_size",
        2 uid: maybe_uint32 ? "uid",
        3 gid: maybe_uint32 ? "gid",
        4 permissions: maybe_uint32 ? "permissions",
    }

    /// What is known of a file's content after it was copied.
    FileContent {
        1 direction: string ? "direction",
        2 file_size: maybe_uint64 ? "file_size",
        3 duration_ms: maybe_uint64 ? "duration_ms",
        4 sequential: bool ? "sequential",
        5 sha256: string ? "sha256",
        6 sha256_missing: string ? "sha256_missing",
    }

    /// `sftp_summary`: what one connection moved.
    SftpSummary {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 session: part(SessionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
        6 file_transfer_stats: many(FileTransferStat) = "file_transfer_stats",
        1001 tool: string ? "tool",
        1002 command: string ? "command",
        1003 direction: string ? "direction",
        1004 part: uint32 ? "part",
        1005 last: bool ? "last",
        1006 files: maybe_uint64 ? "files",
        1007 bytes_read: maybe_uint64 ? "bytes_read",
        1008 bytes_written: maybe_uint64 ? "bytes_written",
        1009 files_unlisted: maybe_uint64 ? "files_unlisted",
        1010 operations: maybe_uint64 ? "operations",
        1011 operations_unlisted: maybe_uint64 ? "operations_unlisted",
        1012 untracked: string ? "untracked",
    }

    /// `file_transfer.untracked`: from here on the ledger does not know what a connection copies.
    FileTransferUntracked {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 session: part(SessionMetadata) ~ "",
        5 server: part(ServerMetadata) ~ "",
        6 tool: string = "tool",
        7 reason: string = "reason",
        8 ended: bool = "ended",
    }

    /// What was read from and written to one file.
    FileTransferStat {
        1 path: string = "path",
        2 bytes_read: uint64 = "bytes_read",
        3 bytes_written: uint64 = "bytes_written",
        1001 file: part(FileContent) ~ "",
        1002 error: string ? "error",
    }

    /// `port`: a forwarded connection.
    PortForward {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 status: part(Status) ~ "",
        5 addr: string = "addr",
        6 kubernetes: part(KubernetesClusterMetadata) ~ "",
        7 pod: part(KubernetesPodMetadata) ~ "",
    }

    /// `x11-forward`
    X11Forward {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 status: part(Status) ~ "",
        5 server: part(ServerMetadata) ~ "",
    }

    /// `client.disconnect`: idle time, expiry, a lock.
    ClientDisconnect {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 server: part(ServerMetadata) ~ "",
        5 reason: string = "reason",
    }

    /// `auth`: an attempt to get in that failed.
    AuthAttempt {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 connection: part(ConnectionMetadata) ~ "",
        4 status: part(Status) ~ "",
        5 server: part(ServerMetadata) ~ "",
        6 app: part(AppMetadata) ~ "",
    }

    /// `session.recording.access`: someone looked at a recording.
    SessionRecordingAccess {
        1 metadata: part(Metadata) ~ "",
        2 sid: string = "sid",
        3 user: part(UserMetadata) ~ "",
        4 session_type: string ? "session_type",
        5 format: string ? "format",
    }

    /// `session.recording.delete`: someone has a recording removed; a member of our own.
    SessionRecordingDelete {
        1 metadata: part(Metadata) ~ "",
        2 sid: string = "sid",
        3 user: part(UserMetadata) ~ "",
        4 connection: part(ConnectionMetadata) ~ "",
        5 url: string = "url",
        6 bytes: int64 = "bytes",
    }

    /// `session.recording.failed`: a recording that will not come; a member of our own.
    SessionRecordingFailed {
        1 metadata: part(Metadata) ~ "",
        2 session: part(SessionMetadata) ~ "",
        3 reason: string = "reason",
    }

    /// `unknown`: an event that has no message of its own, as text.
    Unknown {
        1 metadata: part(Metadata) ~ "",
        2 unknown_event: string = "unknown_event",
        3 unknown_code: string ? "unknown_code",
        4 data: string = "data",
    }
}
