//! Event codes: letters for the area, digits, then `I` information or success, `W` warning or
//! failure, `E` error, `S` stop. Scripts and alert rules match on them.

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident $code:literal)*) => {
        $( #[doc = concat!("`", $code, "`")] $(#[$meta])* pub const $name: &str = $code; )*
    };
}

codes! {
    USER_LOCAL_LOGIN "T1000I"
    USER_LOCAL_LOGIN_FAILURE "T1000W"
    USER_CREATE "T1002I"
    USER_UPDATE "T1003I"
    USER_DELETE "T1004I"
    USER_PASSWORD_CHANGE "T1005I"
    RESET_PASSWORD_TOKEN_CREATE "T6000I"
    SESSION_START "T2000I"
    SESSION_JOIN "T2001I"
    TERMINAL_RESIZE "T2002I"
    SESSION_LEAVE "T2003I"
    SESSION_END "T2004I"
    SESSION_UPLOAD "T2005I"
    SESSION_DATA "T2006I"
    SESSION_CONNECT "T2010I"
    SESSION_RECORDING_ACCESS "T2012I"
    SESSION_RECORDING_DELETE "GH2001I"
    SESSION_RECORDING_FAILED "GH2002E"
    SESSION_REJECTED "T1006W"
    SUBSYSTEM "T3001I"
    SUBSYSTEM_FAILURE "T3001E"
    EXEC "T3002I"
    EXEC_FAILURE "T3002E"
    PORT_FORWARD "T3003I"
    PORT_FORWARD_STOP "T3003S"
    PORT_FORWARD_FAILURE "T3003E"
    SCP_DOWNLOAD "T3004I"
    SCP_DOWNLOAD_FAILURE "T3004E"
    SCP_UPLOAD "T3005I"
    SCP_UPLOAD_FAILURE "T3005E"
    SCP_DISALLOWED "T3010E"
    CLIENT_DISCONNECT "T3006I"
    AUTH_ATTEMPT_FAILURE "T3007W"
    X11_FORWARD "T3008I"
    X11_FORWARD_FAILURE "T3008W"
    SFTP_OPEN "TS001I"
    SFTP_OPEN_FAILURE "TS001E"
    SFTP_DISALLOWED "TS020E"
    SFTP_SUMMARY "TS021I"
    ROLE_CREATED "T9000I"
    ROLE_DELETED "T9001I"
    ROLE_UPDATED "T9002I"
    LOCK_CREATED "TLK00I"
    LOCK_DELETED "TLK01I"
    CERTIFICATE_CREATED "TC000I"
    PROVISION_TOKEN_CREATED "TJT00I"
    INSTANCE_JOIN "TJ002I"
    INSTANCE_JOIN_FAILURE "TJ002E"
    AUTH_PREFERENCE_UPDATE "TCAUTH001I"
    CLUSTER_NETWORKING_CONFIG_UPDATE "TCNET002I"
    SESSION_RECORDING_CONFIG_UPDATE "TCREC003I"
    AUDIT_QUERY_RUN "SRE001I"
    UNKNOWN "TCC00E"
}

/// The code of an `sftp` event: the action decides the number, the outcome the letter.
#[must_use]
pub fn sftp(action: i32, failed: bool) -> &'static str {
    match (action, failed) {
        (1, false) => SFTP_OPEN,
        (1, true) => SFTP_OPEN_FAILURE,
        (7, false) => "TS007I",
        (7, true) => "TS007E",
        (9, false) => "TS009I",
        (9, true) => "TS009E",
        (10, false) => "TS010I",
        (10, true) => "TS010E",
        (11, false) => "TS011I",
        (11, true) => "TS011E",
        (12, false) => "TS012I",
        (12, true) => "TS012E",
        (13, false) => "TS013I",
        (13, true) => "TS013E",
        (16, false) => "TS016I",
        (16, true) => "TS016E",
        (18, false) => "TS018I",
        (18, true) => "TS018E",
        (19, false) => "TS019I",
        (19, true) => "TS019E",
        _ => SFTP_DISALLOWED,
    }
}
