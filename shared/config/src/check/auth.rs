//! `auth_service`.

use shared_types::{ClusterName, GoDuration, RecordingMode, SystemRole};

use super::{Checker, join_token};
use crate::sessions_uri::{SessionsUri, SessionsUriError};
use crate::teleport::{AuthConfig, ListenerMode, RoutingStrategy, StaticToken};
use crate::{ConfigError, raw};

impl Checker<'_> {
    pub(super) fn auth(
        &self,
        auth: raw::Auth,
        sessions: Option<String>,
    ) -> Result<AuthConfig, ConfigError> {
        let mode = match auth.session_recording.as_deref() {
            None => None,
            Some(text) => Some(self.mode(text)?),
        };
        let authentication = auth.authentication.unwrap_or_default();
        if authentication.kind.as_deref().is_some_and(|kind| kind != "local") {
            return Err(self.fault("auth_service.authentication.type", "expected local"));
        }
        if authentication.second_factor.as_deref().is_some_and(|factor| factor != "off") {
            return Err(self.fault(
                "auth_service.authentication.second_factor",
                "second factors are not part of this version; expected off",
            ));
        }
        if authentication.local_auth.is_some_and(|flag| !flag.0) {
            return Err(self.fault("auth_service.authentication.local_auth", "expected yes"));
        }
        if let Some(Err(error)) = auth.cluster_name.as_deref().map(ClusterName::new) {
            return Err(self.fault(
                "auth_service.cluster_name",
                format!("{error}; expected a name such as example.com"),
            ));
        }
        let tokens = auth.tokens.map(|list| list.0).unwrap_or_default();
        Ok(AuthConfig {
            cluster_name: auth.cluster_name,
            listen_addr: self.listen("auth_service.listen_addr", auth.listen_addr, 3025)?,
            public_addr: self
                .public("auth_service.public_addr", auth.public_addr.map(|list| list.0))?,
            tokens: tokens.iter().map(|text| self.static_token(text)).collect::<Result<_, _>>()?,
            session_recording: mode,
            upload_completer_period: self.at_least_a_second(
                "auth_service.upload_completer_period",
                auth.upload_completer_period,
                GoDuration::from_secs(5 * 60),
            )?,
            session_tracker_ttl: self.at_least_a_second(
                "auth_service.session_tracker_ttl",
                auth.session_tracker_ttl,
                GoDuration::from_secs(30 * 60),
            )?,
            upload_grace_period: self.at_least_a_second(
                "auth_service.upload_grace_period",
                auth.upload_grace_period,
                GoDuration::from_hours(24),
            )?,
            audit_sessions_uri: self.sessions_uri(auth.audit_sessions_uri, sessions)?,
            proxy_checks_host_keys: auth.proxy_checks_host_keys.map(|flag| flag.0),
            default_session_ttl: self.duration(
                "auth_service.authentication.default_session_ttl",
                authentication.default_session_ttl,
            )?,
            client_idle_timeout: self
                .duration("auth_service.client_idle_timeout", auth.client_idle_timeout)?,
            disconnect_expired_cert: auth.disconnect_expired_cert.map(|flag| flag.0),
            keep_alive_interval: self
                .duration("auth_service.keep_alive_interval", auth.keep_alive_interval)?,
            keep_alive_count_max: auth.keep_alive_count_max,
            ssh_dial_timeout: self
                .duration("auth_service.ssh_dial_timeout", auth.ssh_dial_timeout)?,
            proxy_listener_mode: self.listener_mode(auth.proxy_listener_mode.as_deref())?,
            routing_strategy: self.routing(auth.routing_strategy.as_deref())?,
            case_insensitive_routing: auth.case_insensitive_routing.map(|flag| flag.0),
        })
    }

    fn listener_mode(&self, text: Option<&str>) -> Result<Option<ListenerMode>, ConfigError> {
        match text {
            None => Ok(None),
            Some("separate") => Ok(Some(ListenerMode::Separate)),
            Some("multiplex") => Ok(Some(ListenerMode::Multiplex)),
            Some(_) => {
                Err(self
                    .fault("auth_service.proxy_listener_mode", "expected separate or multiplex"))
            }
        }
    }

    fn routing(&self, text: Option<&str>) -> Result<Option<RoutingStrategy>, ConfigError> {
        match text {
            None => Ok(None),
            Some("unambiguous_match") => Ok(Some(RoutingStrategy::UnambiguousMatch)),
            Some("most_recent") => Ok(Some(RoutingStrategy::MostRecent)),
            Some(_) => Err(self.fault(
                "auth_service.routing_strategy",
                "expected unambiguous_match or most_recent",
            )),
        }
    }

    fn mode(&self, text: &str) -> Result<RecordingMode, ConfigError> {
        const KEY: &str = "auth_service.session_recording";
        text.parse().map_err(|_| {
            self.fault(
                KEY,
                format!(
                    "session recording mode must be one of node,proxy,off,node-sync,proxy-sync; got {text:?}"
                ),
            )
        })
    }

    /// It stands under `auth_service`, or where it is documented, under `teleport.storage`.
    fn sessions_uri(
        &self,
        here: Option<String>,
        in_storage: Option<String>,
    ) -> Result<Option<SessionsUri>, ConfigError> {
        const KEY: &str = "auth_service.audit_sessions_uri";
        const STORAGE_KEY: &str = "teleport.storage.audit_sessions_uri";
        let (key, text) = match (here, in_storage) {
            (Some(_), Some(_)) => {
                return Err(self.fault(KEY, "stands in teleport.storage too; expected one of them"));
            }
            (Some(text), None) => (KEY, text),
            (None, Some(text)) => (STORAGE_KEY, text),
            (None, None) => return Ok(None),
        };
        text.parse().map(Some).map_err(|error: SessionsUriError| self.fault(key, error.to_string()))
    }

    fn static_token(&self, text: &str) -> Result<StaticToken, ConfigError> {
        const KEY: &str = "auth_service.tokens";
        let expected =
            || self.fault(KEY, "expected role,role:TOKEN, where TOKEN may be an absolute path");
        let (roles, token) = text.split_once(':').ok_or_else(expected)?;
        let known = [SystemRole::Auth, SystemRole::Proxy, SystemRole::Node, SystemRole::Db];
        let roles = roles
            .split(',')
            .map(|word| {
                known
                    .into_iter()
                    .find(|role| role.to_string().eq_ignore_ascii_case(word.trim()))
                    .ok_or_else(expected)
            })
            .collect::<Result<_, _>>()?;
        if token.trim().is_empty() {
            return Err(expected());
        }
        Ok(StaticToken { roles, token: join_token(token.trim().to_owned()) })
    }
}
