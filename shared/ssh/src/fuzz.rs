//! Entry points for fuzzing; also run as tests. They panic when a promise is broken.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chrono::DateTime;
use shared_pki::{CaKind, CertAuthority, KeyPair, TrustedAuthority, UserCertSpec};
use shared_types::{ClusterName, HostName, Login, UserName};

use crate::agent::{AgentKey, EmbeddedAgent, Policy};
use crate::server::Subsystem;
use crate::wire::{Reply, UserAuthRequest, encode_userauth, parse_reply, parse_request};

/// A moment for everything here.
const MOMENT: i64 = 1_790_000_000;

/// A key and whom its agent believes.
static KEY: LazyLock<Option<(Arc<AgentKey>, Vec<TrustedAuthority>)>> = LazyLock::new(|| {
    let now = DateTime::from_timestamp(MOMENT, 0)?;
    let cluster = ClusterName::new("example.com").ok()?;
    let authority = CertAuthority::generate(CaKind::User, &cluster, now).ok()?;
    let hosts = CertAuthority::generate(CaKind::Host, &cluster, now).ok()?;
    let key = KeyPair::generate().ok()?;
    let logins = vec![Login::new("root").ok()?];
    let user = UserName::new("joe").ok()?;
    let spec = UserCertSpec::new(
        key.public().clone(),
        user,
        logins,
        cluster,
        now,
        Duration::from_secs(3600),
    );
    let certificate = authority.ssh_ca().ok()?.sign_user(spec).ok()?;
    let key = AgentKey::new(key.private().clone(), certificate, "fuzz").ok()?;
    Some((Arc::new(key), vec![authority.trusted(), hosts.trusted()]))
});

/// Any bytes as agent messages, as a sequence of them, and as a request to sign: no panic, what is read is what was
/// written, and nothing is listed or signed, for no host of the cluster took part.
pub fn agent(data: &[u8]) {
    let _ = parse_request(data);
    if let Ok(reply) = parse_reply(data) {
        assert_eq!(parse_reply(&reply.encode()).as_ref(), Ok(&reply));
    }
    if let Ok(request) = UserAuthRequest::parse(data) {
        assert_eq!(encode_userauth(&request), data);
    }
    let (Some((key, authorities)), Ok(host), Ok(login)) =
        (KEY.as_ref(), HostName::new("db"), Login::new("root"))
    else {
        return;
    };
    let Some(now) = DateTime::from_timestamp(MOMENT, 0) else { return };
    let agent = EmbeddedAgent::new(Arc::clone(key), Policy::new(host, login, authorities.clone()));
    let Some(mut channel) = agent.channel() else { return };
    let mut closed = false;
    for message in std::iter::once(data).chain(data.split(|byte| *byte == 0xff)) {
        let answer = channel.handle(message, now);
        assert_eq!(answer.reply, Reply::Failure);
        assert!(answer.close || !closed, "a closed channel answers");
        closed = answer.close;
        assert!(channel.bound().is_none());
    }
}

/// Any bytes as the name of a subsystem: no panic, and neither a host that passes nor a text that refuses can do harm.
pub fn proxy_request(data: &[u8]) {
    match Subsystem::parse(&String::from_utf8_lossy(data)) {
        Ok(Subsystem::Proxy(request)) => {
            let host = request.host.to_string();
            assert!(!host.is_empty() && !host.starts_with('-'), "{host:?}");
            assert!(
                host.chars().all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c)),
                "{host:?}"
            );
            assert_ne!(request.port, Some(0));
        }
        Ok(Subsystem::ProxySites) => assert_eq!(data, b"proxysites"),
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
            assert!(text.len() < 64 * 1024, "a refusal of {} bytes", text.len());
        }
    }
}
