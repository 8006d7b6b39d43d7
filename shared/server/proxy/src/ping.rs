//! What the proxy tells anybody about the cluster: the documented ping document.

use serde_json::{Value, json};
use shared_api::ClusterState;

use crate::settings::ProxySettings;

/// `proxy_listener_mode` of a cluster whose proxies serve everything on one port.
const MULTIPLEX: u8 = 1;

/// The addresses the proxy listens on.
#[derive(Debug, Clone)]
pub(crate) struct ListenAddrs {
    pub(crate) web: String,
    pub(crate) ssh: Option<String>,
    pub(crate) tunnel: Option<String>,
    pub(crate) postgres: Option<String>,
    pub(crate) mysql: Option<String>,
}

/// The document of `/webapi/ping` and, with less about authentication, `/webapi/find`.
pub(crate) fn document(
    state: &ClusterState,
    settings: &ProxySettings,
    listen: &ListenAddrs,
    whole: bool,
) -> Value {
    let first = |addrs: &[String]| addrs.first().cloned().unwrap_or_default();
    // A proxy without a port for SSH has it on this one, whatever the cluster says of others.
    let one_port = listen.ssh.is_none() || state.networking.spec.proxy_listener_mode == MULTIPLEX;
    let mut auth = json!({
        "type": "local",
        "second_factor": "off",
        "preferred_local_mfa": "",
        "allow_passwordless": false,
        "allow_headless": false,
        "local": { "name": "" },
        "private_key_policy": "none",
        "device_trust": {},
        "has_motd": false,
        "load_all_cas": false,
        "default_session_ttl": "12h0m0s",
        "signature_algorithm_suite": "balanced-v1",
    });
    if !whole {
        auth =
            json!({ "type": "", "private_key_policy": "", "device_trust": {}, "has_motd": false });
    }
    json!({
        "auth": auth,
        "proxy": {
            "kube": { "enabled": false },
            "ssh": {
                "listen_addr": listen.ssh.as_deref().unwrap_or_default(),
                "tunnel_listen_addr": listen.tunnel.as_deref().unwrap_or_default(),
                "web_listen_addr": listen.web,
                "public_addr": first(&settings.public.web),
                "ssh_public_addr": first(&settings.public.ssh),
                "ssh_tunnel_public_addr": first(&settings.public.tunnel),
                "dial_timeout": i64::try_from(settings.timeouts.dial.as_nanos()).unwrap_or(i64::MAX),
            },
            "db": databases(settings, listen),
            "tls_routing_enabled": one_port,
        },
        "server_version": env!("CARGO_PKG_VERSION"),
        "min_client_version": env!("CARGO_PKG_VERSION"),
        "cluster_name": state.cluster.to_string(),
        "edition": "oss",
        "fips": false,
        "automatic_upgrades": false,
        "auto_update": { "tools_version": env!("CARGO_PKG_VERSION"), "tools_auto_update": false },
        // Beyond the documented keys: clients ask for it before they decide how to check the target's key.
        "session_recording": state.recording.spec.mode,
        "proxy_checks_host_keys": state.recording.spec.proxy_checks_host_keys,
    })
}

/// The ports that databases have of their own; what there is none of has no key.
fn databases(settings: &ProxySettings, listen: &ListenAddrs) -> Value {
    let mut keys = serde_json::Map::new();
    for (name, listen, public) in [
        ("postgres", &listen.postgres, &settings.public.postgres),
        ("mysql", &listen.mysql, &settings.public.mysql),
    ] {
        let Some(listen) = listen else { continue };
        keys.insert(format!("{name}_listen_addr"), listen.as_str().into());
        if let Some(public) = public.first() {
            keys.insert(format!("{name}_public_addr"), public.as_str().into());
        }
    }
    keys.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_databases_are_named_where_there_are_any() {
        let mut settings = ProxySettings::new("/x".into(), shared_types::HostId::random(), "n");
        let mut listen = ListenAddrs {
            web: "w:1".to_owned(),
            ssh: None,
            tunnel: None,
            postgres: None,
            mysql: None,
        };
        assert_eq!(databases(&settings, &listen), json!({}));
        settings.public.mysql = vec!["gate.test:3036".to_owned()];
        assert_eq!(databases(&settings, &listen), json!({}), "nobody listens there");
        listen.postgres = Some("0.0.0.0:5432".to_owned());
        listen.mysql = Some("0.0.0.0:3036".to_owned());
        let wanted = json!({
            "postgres_listen_addr": "0.0.0.0:5432",
            "mysql_listen_addr": "0.0.0.0:3036",
            "mysql_public_addr": "gate.test:3036",
        });
        assert_eq!(databases(&settings, &listen), wanted);
    }
}
