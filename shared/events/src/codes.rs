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
    FILE_TRANSFER_UNTRACKED "GH3001W"
    NODE_CREATED "GH4001I"
    NODE_UPDATED "GH4002I"
    NODE_DELETED "GH4003I"
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
    /// By action, 1 to 19: as it should be, and failed.
    const BY_ACTION: [(&str, &str); 19] = [
        (SFTP_OPEN, SFTP_OPEN_FAILURE),
        ("TS002I", "TS002E"),
        ("TS003I", "TS003E"),
        ("TS004I", "TS004E"),
        ("TS005I", "TS005E"),
        ("TS006I", "TS006E"),
        ("TS007I", "TS007E"),
        ("TS008I", "TS008E"),
        ("TS009I", "TS009E"),
        ("TS010I", "TS010E"),
        ("TS011I", "TS011E"),
        ("TS012I", "TS012E"),
        ("TS013I", "TS013E"),
        ("TS014I", "TS014E"),
        ("TS015I", "TS015E"),
        ("TS016I", "TS016E"),
        ("TS017I", "TS017E"),
        ("TS018I", "TS018E"),
        ("TS019I", "TS019E"),
    ];
    let at = usize::try_from(action).ok().and_then(|action| action.checked_sub(1));
    let codes = at.and_then(|at| BY_ACTION.get(at));
    codes.map_or(SFTP_DISALLOWED, |(good, bad)| if failed { bad } else { good })
}
