//! `teleport.yaml` as it stands in the file. Unknown keys are refused; keys of services that are not
//! built are taken only as far as they switch the service off.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use shared_types::GoDuration;
use shared_types::flex::{Flag, Values};

use crate::db_service::RawDb;
use crate::ssh_service::RawSsh;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) version: Option<String>,
    pub(crate) teleport: Global,
    pub(crate) auth_service: Auth,
    pub(crate) proxy_service: Proxy,
    pub(crate) ssh_service: RawSsh,
    pub(crate) kubernetes_service: Other,
    pub(crate) app_service: Other,
    pub(crate) db_service: RawDb,
    pub(crate) windows_desktop_service: Other,
    pub(crate) discovery_service: Other,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Global {
    pub(crate) nodename: Option<String>,
    pub(crate) data_dir: Option<String>,
    pub(crate) pid_file: Option<String>,
    pub(crate) auth_token: Option<String>,
    pub(crate) join_params: Option<JoinParams>,
    pub(crate) auth_server: Option<String>,
    pub(crate) auth_servers: Option<Values>,
    pub(crate) proxy_server: Option<String>,
    pub(crate) ca_pin: Option<Values>,
    pub(crate) advertise_ip: Option<String>,
    pub(crate) diag_addr: Option<String>,
    pub(crate) log: Option<Log>,
    pub(crate) ciphers: Option<Values>,
    pub(crate) shutdown_delay: Option<String>,
    pub(crate) storage: Option<Storage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Storage {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) audit_sessions_uri: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinParams {
    pub(crate) method: Option<String>,
    pub(crate) token_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) output: Option<String>,
    pub(crate) severity: Option<String>,
    pub(crate) format: Option<LogFormat>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogFormat {
    pub(crate) output: Option<String>,
    #[serde(rename = "extra_fields")]
    pub(crate) _extra_fields: Option<Values>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    pub(crate) enabled: Option<Flag>,
    pub(crate) cluster_name: Option<String>,
    pub(crate) listen_addr: Option<String>,
    pub(crate) public_addr: Option<Values>,
    pub(crate) tokens: Option<Values>,
    pub(crate) session_recording: Option<String>,
    pub(crate) upload_completer_period: Option<String>,
    pub(crate) session_tracker_ttl: Option<String>,
    pub(crate) upload_grace_period: Option<String>,
    pub(crate) audit_sessions_uri: Option<String>,
    pub(crate) proxy_checks_host_keys: Option<Flag>,
    pub(crate) proxy_listener_mode: Option<String>,
    pub(crate) client_idle_timeout: Option<String>,
    pub(crate) disconnect_expired_cert: Option<Flag>,
    pub(crate) keep_alive_interval: Option<String>,
    pub(crate) keep_alive_count_max: Option<u32>,
    pub(crate) ssh_dial_timeout: Option<String>,
    pub(crate) routing_strategy: Option<String>,
    pub(crate) case_insensitive_routing: Option<Flag>,
    pub(crate) authentication: Option<Authentication>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Authentication {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) second_factor: Option<String>,
    pub(crate) local_auth: Option<Flag>,
    pub(crate) default_session_ttl: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Proxy {
    pub(crate) enabled: Option<Flag>,
    pub(crate) web_listen_addr: Option<String>,
    pub(crate) listen_addr: Option<String>,
    pub(crate) tunnel_listen_addr: Option<String>,
    pub(crate) tunnel_public_addr: Option<Values>,
    pub(crate) public_addr: Option<Values>,
    pub(crate) ssh_public_addr: Option<Values>,
    pub(crate) postgres_listen_addr: Option<String>,
    pub(crate) postgres_public_addr: Option<Values>,
    pub(crate) mysql_listen_addr: Option<String>,
    pub(crate) mysql_public_addr: Option<Values>,
    pub(crate) mysql_server_version: Option<String>,
    pub(crate) https_keypairs: Option<Vec<Keypair>>,
    pub(crate) https_keypairs_reload_interval: Option<GoDuration>,
    pub(crate) acme: Other,
    pub(crate) ssh_ciphers: Option<Values>,
    pub(crate) exec_recording: Option<ExecRecording>,
    pub(crate) recording_wait: Option<String>,
    pub(crate) recording_spool_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keypair {
    pub(crate) key_file: String,
    pub(crate) cert_file: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExecRecording {
    pub(crate) full: Option<Flag>,
    pub(crate) burst_bytes: Option<u64>,
    pub(crate) bytes_per_second: Option<u64>,
}

/// A section that has to be off. What else it says is not looked at: off is off.
#[derive(Debug, Default)]
pub(crate) struct Other {
    pub(crate) enabled: Option<Flag>,
}

impl<'de> Deserialize<'de> for Other {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OtherVisitor;
        impl<'de> Visitor<'de> for OtherVisitor {
            type Value = Other;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a section of keys, such as enabled: no")
            }
            fn visit_unit<E>(self) -> Result<Other, E> {
                Ok(Other::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Other, A::Error> {
                let mut section = Other::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "enabled" {
                        section.enabled = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(section)
            }
        }
        deserializer.deserialize_any(OtherVisitor)
    }
}
