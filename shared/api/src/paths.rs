//! Paths of the API: route patterns for the server, builders for the client.

use shared_types::SessionId;
use uuid::Uuid;

/// `POST`, anonymous.
pub const LOGIN: &str = "/v1/login";
/// `POST`, anonymous: what a sign-up token is for.
pub const INVITE_INFO: &str = "/v1/invite/info";
/// `POST`, anonymous: redeems a sign-up or reset token.
pub const SIGNUP: &str = "/v1/signup";
/// `POST`, anonymous: a service joins with a token.
pub const JOIN: &str = "/v1/join";
/// `GET`, anonymous: the public halves of all authorities.
pub const AUTHORITIES: &str = "/v1/authorities";
/// `GET` `?type=`, the text of one authority.
pub const AUTHORITIES_EXPORT: &str = "/v1/authorities/export";
/// `GET`.
pub const STATUS: &str = "/v1/status";
/// `GET`: who the caller is.
pub const ME: &str = "/v1/me";
/// `GET` `?search&labels&query`: nodes the caller may reach.
pub const NODES: &str = "/v1/nodes";
/// `GET` `?after=REVISION`, role Proxy: changes of the nodes; answers when there are any, or after a while.
pub const NODE_VIEW: &str = "/v1/node-view";
/// `PUT`, role Node: the caller is there. `DELETE`: it goes.
pub const PRESENCE_NODE: &str = "/v1/presence/node";
/// `GET` `?search&labels&query`: databases the caller may reach.
pub const DATABASES: &str = "/v1/databases";
/// `PUT`, role Db: what the caller serves now. `DELETE`: it serves nothing any more.
pub const PRESENCE_DB: &str = "/v1/presence/db";
/// `POST`, role Db: a certificate by which the caller meets a database as one of its users.
pub const CERTS_DATABASE: &str = "/v1/certs/database";
/// `POST`: `tctl auth sign --format=db` and its like.
pub const CERTS_DATABASE_SERVER: &str = "/v1/certs/database-server";
/// `GET`: the processes that serve the cluster.
pub const INVENTORY: &str = "/v1/inventory";
/// `GET` lists, `POST` creates (`?force=true` replaces).
pub const RESOURCES: &str = "/v1/resources/{kind}";
/// `GET`, `PUT`, `DELETE`.
pub const RESOURCE: &str = "/v1/resources/{kind}/{name}";
/// `POST`: creates a user and an invitation.
pub const USERS_INVITE: &str = "/v1/users/invite";
/// `PATCH`.
pub const USER: &str = "/v1/users/{name}";
/// `POST`.
pub const USER_RESET: &str = "/v1/users/{name}/reset";
/// `POST`: a join token.
pub const TOKENS: &str = "/v1/tokens";
/// `POST`: `tctl auth sign --host`.
pub const CERTS_HOST: &str = "/v1/certs/host";
/// `POST`: a certificate for the caller, or for another user where the caller may.
pub const CERTS_USER: &str = "/v1/certs/user";
/// `POST`, role Proxy: the host certificate of an inner server; never carries another role than Proxy.
pub const CERTS_PROXY_HOST: &str = "/v1/certs/proxy-host";
/// `POST`, role Proxy: a certificate for one login on one node without an agent.
pub const CERTS_OPENSSH_USER: &str = "/v1/certs/openssh-user";
/// `POST`, system roles: a certificate for the key a service signs recordings with.
pub const CERTS_RECORDER: &str = "/v1/certs/recorder";
/// `POST`, system roles: a service renews its own certificates.
pub const CERTS_RENEW: &str = "/v1/certs/renew";
/// `POST`.
pub const QUERY: &str = "/v1/query";
/// `GET` `?from&to&limit&user&login&host`.
pub const RECORDINGS: &str = "/v1/recordings";
/// `GET`: the container, raw. `DELETE` removes it.
pub const RECORDING: &str = "/v1/recordings/{sid}";
/// `GET`: where sessions are recorded; what `tsh` needs to know of it.
pub const SESSION_RECORDING: &str = "/v1/session-recording";
/// `GET` `?after=REVISION`, services: answers when there is something newer, or after a while.
pub const CLUSTER_STATE: &str = "/v1/cluster-state";
/// `POST`, system roles: durable when answered.
pub const EVENTS: &str = "/v1/events";
/// `PUT`, services: one part of a recording, raw.
pub const UPLOAD_PART: &str = "/v1/uploads/{upload}/{sid}/{part}";
/// `POST`, services.
pub const SESSIONS_RENEW: &str = "/v1/sessions/renew";
/// `POST`, services.
pub const UPLOAD_COMPLETE: &str = "/v1/uploads/{upload}/{sid}/complete";

/// One path segment or query value, percent-encoded.
pub fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0')));
            }
        }
    }
    // A segment of dots alone means another place to some readers of URLs.
    if !out.is_empty() && out.bytes().all(|byte| byte == b'.') {
        out.replace('.', "%2E")
    } else {
        out
    }
}

/// Fills a pattern's `{…}` in order.
pub fn fill(pattern: &str, values: &[&str]) -> String {
    let mut out = String::with_capacity(pattern.len() + 32);
    let mut values = values.iter();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (_, after) = after.split_once('}').unwrap_or((after, ""));
        if let Some(value) = values.next() {
            out.push_str(&encode(value));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Path of one part of an upload.
pub fn upload_part(upload: Uuid, sid: &SessionId, part: u64) -> String {
    fill(UPLOAD_PART, &[&upload.to_string(), &sid.to_string(), &part.to_string()])
}

/// Path that completes an upload.
pub fn upload_complete(upload: Uuid, sid: &SessionId) -> String {
    fill(UPLOAD_COMPLETE, &[&upload.to_string(), &sid.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(
            fill(RESOURCE, &["user", "a/../b?c=d&e#f"]),
            "/v1/resources/user/a%2F..%2Fb%3Fc%3Dd%26e%23f"
        );
        assert_eq!(fill(RESOURCE, &["role", ".."]), "/v1/resources/role/%2E%2E");
        assert_eq!(fill(USER_RESET, &["jos\u{e9}@x"]), "/v1/users/jos%C3%A9%40x/reset");
    }
}
