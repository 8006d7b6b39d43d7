//! `events.OneOf`: any event, on the wire and in JSON.

use chrono::{DateTime, Utc};
use prost::Message as _;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost::encoding::{encoded_len_varint, key_len};
use serde::de;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::columns::Column;
use crate::events::*;
use crate::value::{Message, Object};
use crate::{Metadata, Timestamp, codes};

/// The largest event that fits a record: 64 KiB less the most its envelope adds.
pub const MAX_RECORD: usize = 65_531;

/// Bytes or JSON that are no event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The envelope has no member.
    #[error("event record without an event")]
    Empty,
    /// The member is longer than the record.
    #[error("event is longer than its record")]
    Overrun,
    /// The bytes are no protobuf.
    #[error("event record is malformed")]
    Malformed(#[source] prost::DecodeError),
    /// The text is no JSON, or a key has the wrong type.
    #[error("event is not valid JSON")]
    Json(#[source] serde_json::Error),
}

/// A member of the envelope that has no struct here: newer, or not needed so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtherEvent {
    /// The envelope's field number; 0 when read from JSON.
    pub number: u32,
    /// The member's bytes.
    pub raw: Bytes,
    /// What every event begins with.
    pub metadata: Metadata,
    /// The keys besides the metadata, when read from JSON.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// Keeps the cause in the text, since serde errors have no source.
pub(crate) fn describe<E: de::Error>(error: &dyn std::error::Error) -> E {
    match error.source() {
        Some(source) => E::custom(format_args!("{error}: {source}")),
        None => E::custom(error),
    }
}

type AddColumns = fn(&mut Vec<&'static str>, &mut Vec<Column>);

macro_rules! catalogue {
    ($($number:literal $name:ident $kind:literal $(/ $other:literal if $test:expr,)? $code:expr;)*) => {
        /// Any event. The variants are the envelope's members that have a struct.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AuditEvent {
            $( #[doc = concat!("`", $kind, "`")] $name($name), )*
            /// Any other member.
            Other(OtherEvent),
        }

        $(
            impl $name {
                /// The event type, or the first of them.
                pub const KIND: &'static str = $kind;
                /// The member's number in the envelope.
                pub const NUMBER: u32 = $number;

                /// The event type that fits what the event says.
                #[must_use]
                pub fn kind(&self) -> &'static str {
                    $(
                        let other: fn(&Self) -> bool = $test;
                        if other(self) {
                            return $other;
                        }
                    )?
                    Self::KIND
                }
            }

            impl From<$name> for AuditEvent {
                fn from(event: $name) -> Self {
                    Self::$name(event)
                }
            }
        )*

        /// Every event type and how to list its columns.
        pub(crate) const KINDS: &[(&str, AddColumns)] =
            &[$(
                ($kind, <$name as Message>::columns as AddColumns),
                $( ($other, <$name as Message>::columns as AddColumns), )?
            )*];

        impl AuditEvent {
            /// The event type of the variant that fits what it says; `unknown` for members without a struct.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $( Self::$name(event) => event.kind(), )*
                    Self::Other(_) => "unknown",
                }
            }

            /// What every event begins with.
            #[must_use]
            pub fn metadata(&self) -> &Metadata {
                match self {
                    $( Self::$name(event) => &event.metadata, )*
                    Self::Other(event) => &event.metadata,
                }
            }

            /// The same, to change.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
                match self {
                    $( Self::$name(event) => &mut event.metadata, )*
                    Self::Other(event) => &mut event.metadata,
                }
            }

            /// The part of this type, where the event has one: its [`SessionMetadata`](crate::SessionMetadata),
            /// [`DatabaseMetadata`](crate::DatabaseMetadata) and so on.
            #[must_use]
            pub fn part<T: 'static>(&self) -> Option<&T> {
                match self {
                    $( Self::$name(event) => Message::part(event), )*
                    Self::Other(_) => None,
                }
            }

            /// The code that fits what the event says.
            #[must_use]
            pub fn default_code(&self) -> &'static str {
                match self {
                    $( Self::$name(event) => { let code: fn(&$name) -> &'static str = $code; code(event) } )*
                    Self::Other(_) => codes::UNKNOWN,
                }
            }

            /// Length of the event without its envelope.
            #[must_use]
            pub fn inner_len(&self) -> usize {
                match self {
                    $( Self::$name(event) => event.encoded_len(), )*
                    Self::Other(event) => event.raw.len(),
                }
            }

            fn number(&self) -> u32 {
                match self {
                    $( Self::$name(_) => $number, )*
                    Self::Other(event) => event.number,
                }
            }

            fn encode_inner(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$name(event) => event.encode_raw(out), )*
                    Self::Other(event) => out.extend_from_slice(&event.raw),
                }
            }

            fn decode_member(number: u32, raw: &[u8]) -> Result<Self, prost::DecodeError> {
                match number {
                    $( $number => $name::decode(raw).map(Self::$name), )*
                    _ => Self::decode_other(number, raw),
                }
            }

            fn read_object(kind: &str, object: &mut Object) -> Result<Self, crate::value::FieldError> {
                Ok(match kind {
                    $( $kind $(| $other)? => {
                        let mut event = $name::default();
                        event.read(object)?;
                        Self::$name(event)
                    } )*
                    _ => {
                        let mut event = OtherEvent::default();
                        event.metadata.read(object)?;
                        event.fields = std::mem::take(object);
                        Self::Other(event)
                    }
                })
            }

            /// Cuts every text of the event to at most `max` bytes.
            fn shorten(&mut self, max: usize) {
                match self {
                    $( Self::$name(event) => Message::shorten(event, max), )*
                    Self::Other(_) => {}
                }
            }
        }

        impl Serialize for AuditEvent {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $( Self::$name(event) => event.serialize(serializer), )*
                    Self::Other(event) => {
                        let mut map = serializer.serialize_map(None)?;
                        event.metadata.write(&mut map)?;
                        for (key, value) in &event.fields {
                            map.serialize_entry(key, value)?;
                        }
                        map.end()
                    }
                }
            }
        }
    };
}

/// One of two codes.
fn pick(success: bool, good: &'static str, bad: &'static str) -> &'static str {
    if success { good } else { bad }
}

fn succeeded(command: &crate::CommandMetadata) -> bool {
    command.exit_error.is_empty() && matches!(command.exit_code.as_str(), "" | "0")
}

fn scp_code(event: &Scp) -> &'static str {
    let good = succeeded(&event.command);
    if event.action == "upload" {
        pick(good, codes::SCP_UPLOAD, codes::SCP_UPLOAD_FAILURE)
    } else {
        pick(good, codes::SCP_DOWNLOAD, codes::SCP_DOWNLOAD_FAILURE)
    }
}

catalogue! {
    1 UserLogin "user.login" |e| pick(e.status.success, codes::USER_LOCAL_LOGIN, codes::USER_LOCAL_LOGIN_FAILURE);
    2 UserCreate "user.create" |_| codes::USER_CREATE;
    3 UserDelete "user.delete" |_| codes::USER_DELETE;
    4 UserPasswordChange "user.password_change" |_| codes::USER_PASSWORD_CHANGE;
    5 SessionStart "session.start" |_| codes::SESSION_START;
    6 SessionJoin "session.join" |_| codes::SESSION_JOIN;
    7 SessionPrint "print" |_| "";
    8 SessionReject "session.rejected" |_| codes::SESSION_REJECTED;
    9 Resize "resize" |_| codes::TERMINAL_RESIZE;
    10 SessionEnd "session.end" |_| codes::SESSION_END;
    14 SessionData "session.data" |_| codes::SESSION_DATA;
    15 SessionLeave "session.leave" |_| codes::SESSION_LEAVE;
    16 PortForward "port" |e| pick(e.status.success, codes::PORT_FORWARD, codes::PORT_FORWARD_FAILURE);
    17 X11Forward "x11-forward" |e| pick(e.status.success, codes::X11_FORWARD, codes::X11_FORWARD_FAILURE);
    18 Scp "scp" scp_code;
    19 Exec "exec" |e| pick(succeeded(&e.command), codes::EXEC, codes::EXEC_FAILURE);
    20 Subsystem "subsystem" |e| pick(e.error.is_empty(), codes::SUBSYSTEM, codes::SUBSYSTEM_FAILURE);
    21 ClientDisconnect "client.disconnect" |_| codes::CLIENT_DISCONNECT;
    22 AuthAttempt "auth" |_| codes::AUTH_ATTEMPT_FAILURE;
    24 UserTokenCreate "reset_password_token.create" |_| codes::RESET_PASSWORD_TOKEN_CREATE;
    25 RoleCreate "role.created" |_| codes::ROLE_CREATED;
    26 RoleDelete "role.deleted" |_| codes::ROLE_DELETED;
    40 DatabaseSessionStart "db.session.start" |e| pick(e.status.success, codes::DATABASE_SESSION_START, codes::DATABASE_SESSION_START_FAILURE);
    41 DatabaseSessionEnd "db.session.end" |_| codes::DATABASE_SESSION_END;
    42 DatabaseSessionQuery "db.session.query" / "db.session.query.failed" if |e| !e.status.success, |e| pick(e.status.success, codes::DATABASE_SESSION_QUERY, codes::DATABASE_SESSION_QUERY_FAILURE);
    43 SessionUpload "session.upload" |_| codes::SESSION_UPLOAD;
    49 LockCreate "lock.created" |_| codes::LOCK_CREATED;
    50 LockDelete "lock.deleted" |_| codes::LOCK_DELETED;
    53 DatabaseCreate "db.create" |_| codes::DATABASE_CREATE;
    54 DatabaseUpdate "db.update" |_| codes::DATABASE_UPDATE;
    55 DatabaseDelete "db.delete" |_| codes::DATABASE_DELETE;
    61 PostgresParse "db.session.postgres.statements.parse" |_| codes::POSTGRES_PARSE;
    62 PostgresBind "db.session.postgres.statements.bind" |_| codes::POSTGRES_BIND;
    63 PostgresExecute "db.session.postgres.statements.execute" |_| codes::POSTGRES_EXECUTE;
    64 PostgresClose "db.session.postgres.statements.close" |_| codes::POSTGRES_CLOSE;
    65 PostgresFunctionCall "db.session.postgres.function" |_| codes::POSTGRES_FUNCTION_CALL;
    67 SessionConnect "session.connect" |_| codes::SESSION_CONNECT;
    68 CertificateCreate "cert.create" |_| codes::CERTIFICATE_CREATED;
    72 MySqlStatementPrepare "db.session.mysql.statements.prepare" |_| codes::MYSQL_STATEMENT_PREPARE;
    73 MySqlStatementExecute "db.session.mysql.statements.execute" |_| codes::MYSQL_STATEMENT_EXECUTE;
    74 MySqlStatementSendLongData "db.session.mysql.statements.send_long_data" |_| codes::MYSQL_STATEMENT_SEND_LONG_DATA;
    75 MySqlStatementClose "db.session.mysql.statements.close" |_| codes::MYSQL_STATEMENT_CLOSE;
    76 MySqlStatementReset "db.session.mysql.statements.reset" |_| codes::MYSQL_STATEMENT_RESET;
    77 MySqlStatementFetch "db.session.mysql.statements.fetch" |_| codes::MYSQL_STATEMENT_FETCH;
    78 MySqlStatementBulkExecute "db.session.mysql.statements.bulk_execute" |_| codes::MYSQL_STATEMENT_BULK_EXECUTE;
    80 Unknown "unknown" |_| codes::UNKNOWN;
    81 MySqlInitDb "db.session.mysql.init_db" |_| codes::MYSQL_INIT_DB;
    82 MySqlCreateDb "db.session.mysql.create_db" |_| codes::MYSQL_CREATE_DB;
    83 MySqlDropDb "db.session.mysql.drop_db" |_| codes::MYSQL_DROP_DB;
    84 MySqlShutDown "db.session.mysql.shut_down" |_| codes::MYSQL_SHUT_DOWN;
    85 MySqlProcessKill "db.session.mysql.process_kill" |_| codes::MYSQL_PROCESS_KILL;
    86 MySqlDebug "db.session.mysql.debug" |_| codes::MYSQL_DEBUG;
    87 MySqlRefresh "db.session.mysql.refresh" |_| codes::MYSQL_REFRESH;
    90 DatabaseSessionMalformedPacket "db.session.malformed_packet" |_| codes::DATABASE_SESSION_MALFORMED_PACKET;
    91 Sftp "sftp" |e| codes::sftp(e.action, !e.error.is_empty());
    94 SessionRecordingAccess "session.recording.access" |_| codes::SESSION_RECORDING_ACCESS;
    109 DynamoDbRequest "db.session.dynamodb.request" |e| pick(e.status_code < 400, codes::DYNAMODB_REQUEST, codes::DYNAMODB_REQUEST_FAILURE);
    111 InstanceJoin "instance.join" |e| pick(e.status.success, codes::INSTANCE_JOIN, codes::INSTANCE_JOIN_FAILURE);
    125 ProvisionTokenCreate "join_token.create" |_| codes::PROVISION_TOKEN_CREATED;
    134 AuditQueryRun "secreports.audit.query.run" |_| codes::AUDIT_QUERY_RUN;
    139 RoleUpdate "role.updated" |_| codes::ROLE_UPDATED;
    140 UserUpdate "user.update" |_| codes::USER_UPDATE;
    152 AuthPreferenceUpdate "auth_preference.update" |_| codes::AUTH_PREFERENCE_UPDATE;
    153 SessionRecordingConfigUpdate "session_recording_config.update" |_| codes::SESSION_RECORDING_CONFIG_UPDATE;
    154 ClusterNetworkingConfigUpdate "cluster_networking_config.update" |_| codes::CLUSTER_NETWORKING_CONFIG_UPDATE;
    159 DatabaseSessionCommandResult "db.session.result" |_| codes::DATABASE_SESSION_RESULT;
    191 SftpSummary "sftp_summary" |_| codes::SFTP_SUMMARY;
    1001 SessionRecordingDelete "session.recording.delete" |_| codes::SESSION_RECORDING_DELETE;
    1002 SessionRecordingFailed "session.recording.failed" |_| codes::SESSION_RECORDING_FAILED;
    1010 FileTransferUntracked "file_transfer.untracked" |_| codes::FILE_TRANSFER_UNTRACKED;
    1020 NodeCreate "node.created" |_| codes::NODE_CREATED;
    1021 NodeUpdate "node.updated" |_| codes::NODE_UPDATED;
    1022 NodeDelete "node.deleted" |_| codes::NODE_DELETED;
}

/// The one field that all members have in common.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyEvent {
    #[prost(message, required, tag = "1")]
    metadata: Metadata,
}

impl AuditEvent {
    /// The event type: what the event says, or else what its variant is.
    #[must_use]
    pub fn event_type(&self) -> &str {
        match self.metadata().event.as_str() {
            "" => self.kind(),
            event => event,
        }
    }

    /// Whether the event belongs into recordings only.
    #[must_use]
    pub fn is_recording_only(&self) -> bool {
        self.is_output() || matches!(self, Self::DatabaseSessionCommandResult(_))
    }

    /// Whether the event is what a screen showed.
    fn is_output(&self) -> bool {
        matches!(self, Self::SessionPrint(_)) || self.event_type() == "desktop.recording"
    }

    /// Whether the event stands for a recording in a listing: the session is over.
    #[must_use]
    pub fn ends_recording(&self) -> bool {
        matches!(self, Self::SessionEnd(_) | Self::DatabaseSessionEnd(_))
    }

    /// Fills what every event must have and the caller left empty: type, code, id, time (UTC, whole
    /// milliseconds), cluster. Prints get neither code nor id.
    pub fn prepare(&mut self, now: DateTime<Utc>, cluster: &str) {
        let (kind, code) = (self.kind(), self.default_code());
        let output = self.is_output();
        let metadata = self.metadata_mut();
        if metadata.event.is_empty() {
            metadata.event = kind.into();
        }
        if metadata.code.is_empty() {
            metadata.code = code.into();
        }
        if metadata.uid.is_empty() && !output {
            metadata.uid = uuid::Uuid::new_v4().to_string();
        }
        metadata.time = Timestamp::rounded(metadata.time.get().unwrap_or(now));
        if metadata.cluster_name.is_empty() {
            metadata.cluster_name = cluster.into();
        }
    }

    /// Shortens long texts until the event fits a record. Returns whether it fits now; the data of
    /// a print is never shortened.
    pub fn trim(&mut self) -> bool {
        for max in [16_384, 4_096, 1_024, 256, 64] {
            if self.inner_len() <= MAX_RECORD {
                break;
            }
            self.shorten(max);
        }
        self.inner_len() <= MAX_RECORD
    }

    /// The event as one line of JSON, keys in declaration order.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Maps with string keys, strings and numbers: nothing that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads an event from JSON. An event type without a struct becomes [`AuditEvent::Other`].
    pub fn from_json(text: &str) -> Result<Self, EventError> {
        Self::from_object(serde_json::from_str(text).map_err(EventError::Json)?)
            .map_err(EventError::Json)
    }

    fn from_object(mut object: Object) -> Result<Self, serde_json::Error> {
        let kind = object.get("event").and_then(|kind| kind.as_str()).unwrap_or("").to_owned();
        Self::read_object(&kind, &mut object).map_err(|error| describe(&error))
    }

    /// The event in its envelope.
    #[must_use]
    pub fn encode_one_of(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.one_of_len());
        self.encode_one_of_into(&mut out);
        out
    }

    /// Appends the event in its envelope.
    pub fn encode_one_of_into(&self, out: &mut Vec<u8>) {
        if self.number() == 0 {
            return;
        }
        encode_key(self.number(), WireType::LengthDelimited, out);
        encode_varint(self.inner_len() as u64, out);
        self.encode_inner(out);
    }

    /// Length of the event in its envelope.
    #[must_use]
    pub fn one_of_len(&self) -> usize {
        if self.number() == 0 {
            return 0;
        }
        let inner = self.inner_len();
        key_len(self.number()) + encoded_len_varint(inner as u64) + inner
    }

    /// Reads an envelope. Members without a struct, and members of a known number whose texts are
    /// not UTF-8, become [`AuditEvent::Other`].
    pub fn decode_one_of(mut bytes: &[u8]) -> Result<Self, EventError> {
        let mut found = None;
        while bytes.has_remaining() {
            let (number, wire_type) = decode_key(&mut bytes).map_err(EventError::Malformed)?;
            if wire_type != WireType::LengthDelimited {
                prost::encoding::skip_field(wire_type, number, &mut bytes, Default::default())
                    .map_err(EventError::Malformed)?;
                continue;
            }
            let length = decode_varint(&mut bytes).map_err(EventError::Malformed)?;
            let cut = usize::try_from(length).ok().and_then(|at| bytes.split_at_checked(at));
            let (member, rest) = cut.ok_or(EventError::Overrun)?;
            found = Some((number, member));
            bytes = rest;
        }
        let (number, member) = found.ok_or(EventError::Empty)?;
        Self::decode_member(number, member)
            .or_else(|_| Self::decode_other(number, member))
            .map_err(EventError::Malformed)
    }

    fn decode_other(number: u32, raw: &[u8]) -> Result<Self, prost::DecodeError> {
        let metadata = AnyEvent::decode(raw)?.metadata;
        let raw = Bytes::copy_from_slice(raw);
        Ok(Self::Other(OtherEvent { number, raw, metadata, fields: Object::new() }))
    }
}

impl<'de> serde::Deserialize<'de> for AuditEvent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_object(Object::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod database_tests;
#[cfg(test)]
mod tests;
