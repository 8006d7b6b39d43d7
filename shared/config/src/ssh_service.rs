//! `ssh_service` in `teleport.yaml`: as it stands in the file, and checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use shared_types::flex::{Flag, Values};
use shared_types::resource::{CommandLabel, is_label_key};
use shared_types::{GoDuration, Labels};

use crate::ConfigError;
use crate::check::Checker;
use crate::raw::{self, Other};
use crate::teleport::ExecRecording;

/// Most labels of a host, of each sort.
const MOST_LABELS: usize = 256;

/// The section as it stands in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawSsh {
    pub(crate) enabled: Option<Flag>,
    pub(crate) listen_addr: Option<String>,
    pub(crate) public_addr: Option<Values>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) commands: Option<Vec<RawCommand>>,
    pub(crate) permit_user_env: Option<Flag>,
    pub(crate) disable_create_host_user: Option<Flag>,
    pub(crate) force_listen: Option<Flag>,
    pub(crate) port_forwarding: Option<Flag>,
    pub(crate) ssh_file_copy: Option<Flag>,
    pub(crate) pam: Other,
    pub(crate) x11: Other,
    pub(crate) enhanced_recording: Other,
    pub(crate) restricted_session: Other,
    pub(crate) exec_recording: Option<raw::ExecRecording>,
    pub(crate) recording_wait: Option<String>,
    pub(crate) recording_spool_bytes: Option<u64>,
}

/// A label whose value a command gives, as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCommand {
    pub(crate) name: String,
    pub(crate) command: Values,
    pub(crate) period: Option<String>,
}

/// The SSH service.
#[derive(Debug, Clone)]
pub struct SshConfig {
    /// Where it listens, when it does: with an agent that joined through the auth service, or with `force_listen`.
    pub listen_addr: SocketAddr,
    /// Whether it listens also when it is reached through a tunnel.
    pub force_listen: bool,
    /// Where others reach it: names, with or without a port.
    pub public_addr: Vec<String>,
    /// Labels that are written down.
    pub labels: Labels,
    /// Labels whose values commands give.
    pub commands: BTreeMap<String, CommandLabel>,
    /// Whether clients may set any variable, and `~/.tsh/environment` counts.
    pub permit_user_env: bool,
    /// Whether it forwards connections, where roles allow it.
    pub port_forwarding: bool,
    /// Whether files may be copied, where roles allow it.
    pub ssh_file_copy: bool,
    /// Ciphers offered to every client, in place of a choice by its version.
    pub ssh_ciphers: Option<Vec<String>>,
    /// How much output of commands without a terminal is recorded.
    pub exec_recording: ExecRecording,
    /// How long a session whose recording is not taken is stopped before it ends.
    pub recording_wait: GoDuration,
    /// What recordings may take on this disk.
    pub recording_spool_bytes: u64,
}

impl Checker<'_> {
    /// Checks the section; nothing where it is not enabled.
    pub(crate) fn ssh(
        &self,
        ssh: RawSsh,
        ciphers: Option<Vec<String>>,
    ) -> Result<Option<SshConfig>, ConfigError> {
        if !ssh.enabled.is_some_and(|flag| flag.0) {
            return Ok(None);
        }
        for (key, section, remedy) in [
            (
                "ssh_service.pam.enabled",
                &ssh.pam,
                "accounts are looked up by the host's name service",
            ),
            ("ssh_service.x11.enabled", &ssh.x11, "X11 is not forwarded"),
            (
                "ssh_service.enhanced_recording.enabled",
                &ssh.enhanced_recording,
                "sessions are recorded as their terminals and commands show them",
            ),
            (
                "ssh_service.restricted_session.enabled",
                &ssh.restricted_session,
                "use the host's firewall",
            ),
        ] {
            if section.enabled.is_some_and(|flag| flag.0) {
                return Err(
                    self.fault(key, format!("is not part of this version ({remedy}); expected no"))
                );
            }
        }
        if ssh.disable_create_host_user.is_some_and(|flag| !flag.0) {
            return Err(self.fault(
                "ssh_service.disable_create_host_user",
                "accounts are not created in this version; expected yes, or no such key",
            ));
        }
        let or = |flag: Option<Flag>, default| flag.map_or(default, |flag: Flag| flag.0);
        Ok(Some(SshConfig {
            listen_addr: self.listen("ssh_service.listen_addr", ssh.listen_addr, 3022)?,
            force_listen: or(ssh.force_listen, false),
            public_addr: self
                .public("ssh_service.public_addr", ssh.public_addr.map(|list| list.0))?,
            labels: self.labels("ssh_service.labels", ssh.labels.unwrap_or_default())?,
            commands: self.commands("ssh_service.commands", ssh.commands.unwrap_or_default())?,
            permit_user_env: or(ssh.permit_user_env, false),
            port_forwarding: or(ssh.port_forwarding, true),
            ssh_file_copy: or(ssh.ssh_file_copy, true),
            ssh_ciphers: ciphers,
            exec_recording: ssh.exec_recording.unwrap_or_default().into(),
            recording_wait: self.at_least_a_second(
                "ssh_service.recording_wait",
                ssh.recording_wait,
                GoDuration::from_secs(30),
            )?,
            recording_spool_bytes: ssh.recording_spool_bytes.unwrap_or(10 * 1024 * 1024 * 1024),
        }))
    }

    /// Labels that are written down, at `key`.
    pub(crate) fn labels(&self, key: &'static str, labels: Labels) -> Result<Labels, ConfigError> {
        if labels.len() > MOST_LABELS {
            return Err(self.fault(key, format!("more than {MOST_LABELS}")));
        }
        match labels.keys().find(|name| !is_label_key(name)) {
            None => Ok(labels),
            Some(bad) => Err(self.fault(key, format!("{bad:?}; {NAME}"))),
        }
    }

    /// Labels whose values commands give, at `key`.
    pub(crate) fn commands(
        &self,
        key: &'static str,
        commands: Vec<RawCommand>,
    ) -> Result<BTreeMap<String, CommandLabel>, ConfigError> {
        if commands.len() > MOST_LABELS {
            return Err(self.fault(key, format!("more than {MOST_LABELS}")));
        }
        let mut labels = BTreeMap::new();
        for RawCommand { name, command, period } in commands {
            if !is_label_key(&name) {
                return Err(self.fault(key, format!("name {name:?}; {NAME}")));
            }
            if command.0.first().is_none_or(String::is_empty) {
                return Err(self.fault(
                    key,
                    format!("the command of {name:?} is empty; expected [PROGRAM, ARGUMENT, …]"),
                ));
            }
            let period = self.at_least_a_second(key, period, GoDuration::from_secs(60))?;
            let label = CommandLabel { command: command.0, period, result: String::new() };
            if labels.insert(name.clone(), label).is_some() {
                return Err(self.fault(key, format!("{name:?} stands twice")));
            }
        }
        Ok(labels)
    }
}

const NAME: &str = "expected letters, digits and . _ - / : such as env or team/db";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TeleportConfig;

    fn parse(section: &str) -> Result<Option<SshConfig>, String> {
        let text = format!("ssh_service:\n{section}");
        TeleportConfig::parse(&text, "t.yaml")
            .map(|config| config.ssh)
            .map_err(|err| err.to_string())
    }

    #[test]
    fn as_users_write_it() {
        assert!(parse("  enabled: no\n  pam: {enabled: yes}\n").unwrap().is_none());
        let ssh = parse("  enabled: yes\n").unwrap().unwrap();
        assert_eq!(ssh.listen_addr.to_string(), "0.0.0.0:3022");
        assert!(
            ssh.port_forwarding && ssh.ssh_file_copy && !ssh.permit_user_env && !ssh.force_listen
        );
        let ssh = parse(
            "  enabled: yes\n  listen_addr: 127.0.0.1:1022\n  labels: {env: prod, team/db: \"1\"}\n  \
             commands: [{name: kernel, command: [uname, -r], period: 1h}, {name: up, command: uptime}]\n  \
             permit_user_env: yes\n  port_forwarding: no\n  pam: {enabled: no, service_name: sshd}\n  \
             exec_recording: {full: yes}\n",
        );
        let ssh = ssh.unwrap().unwrap();
        assert_eq!(ssh.listen_addr.port(), 1022);
        assert_eq!((ssh.labels["env"].as_str(), ssh.labels["team/db"].as_str()), ("prod", "1"));
        let kernel = &ssh.commands["kernel"];
        assert_eq!(
            (kernel.command.join(" "), kernel.period),
            ("uname -r".into(), GoDuration::from_hours(1))
        );
        assert_eq!(ssh.commands["up"].period, GoDuration::from_secs(60));
        assert!(ssh.permit_user_env && !ssh.port_forwarding);
        assert_eq!(ssh.exec_recording, ExecRecording::Full);
    }

    #[test]
    fn what_is_not_built_and_what_makes_no_sense_is_refused() {
        for (key, parts) in [
            ("pam: {enabled: yes}", &["t.yaml:3:", "ssh_service.pam.enabled", "expected no"][..]),
            ("x11: {enabled: yes}", &["ssh_service.x11.enabled", "X11 is not forwarded"]),
            ("enhanced_recording: {enabled: yes}", &["ssh_service.enhanced_recording.enabled"]),
            ("restricted_session: {enabled: yes}", &["ssh_service.restricted_session.enabled"]),
            ("disable_create_host_user: no", &["accounts are not created"]),
            (
                "commands: [{name: a, command: [x], period: 10ms}]",
                &["ssh_service.commands", "at least 1s"],
            ),
            ("commands: [{name: a, command: [], period: 1s}]", &["ssh_service.commands", "empty"]),
            (
                "commands: [{name: a, command: [x]}, {name: a, command: [y]}]",
                &["\"a\" stands twice"],
            ),
            ("commands: [{name: \"a b\", command: [x]}]", &["expected letters"]),
            ("labels: {\"a b\": c}", &["ssh_service.labels", "expected letters"]),
            ("lables: {a: b}", &["lables", "labels"]),
            ("listen_addr: here", &["ssh_service.listen_addr", "ADDRESS:PORT"]),
        ] {
            let shown = parse(&format!("  enabled: yes\n  {key}\n")).unwrap_err();
            for part in parts {
                assert!(shown.contains(part), "{part:?} is missing in {shown:?}");
            }
        }
    }
}
