//! Logins on SSH targets.

use crate::address::{self, AddressClass};
use crate::condition::{Subject as Where, WhereCtx};
use crate::decision::{Decision, DenyReason, RuleId};
use crate::label::Subject;
use crate::role_set::{CompiledRole, RoleSet};
use shared_types::{Labels, Login};
use std::net::IpAddr;

/// A target of an SSH connection.
#[derive(Debug, Clone, Copy)]
pub struct SshTarget<'a> {
    /// The name as the user typed it.
    pub host: &'a str,
    /// The address that will be dialled; `None` is accepted for address literals and for registered hosts.
    pub resolved: Option<IpAddr>,
    /// The port that will be dialled.
    pub port: u16,
    /// Labels of a registered host; empty for others.
    pub labels: &'a Labels,
    /// Whether it is a node of the cluster. One says where it is, and is known by its certificate: it needs no address,
    /// and no role has to name the address it has.
    pub registered: bool,
    /// Whether address and port are one of the cluster's own.
    pub protected: bool,
}

impl<'a> SshTarget<'a> {
    /// An unregistered host.
    pub fn unregistered(host: &'a str, resolved: IpAddr, port: u16) -> Self {
        static NONE: Labels = Labels::new();
        SshTarget {
            host,
            resolved: Some(resolved),
            port,
            labels: &NONE,
            registered: false,
            protected: false,
        }
    }

    /// A node of the cluster, at its address where it has one of its own.
    pub fn registered(
        host: &'a str,
        resolved: Option<IpAddr>,
        port: u16,
        labels: &'a Labels,
    ) -> Self {
        SshTarget { host, resolved, port, labels, registered: true, protected: false }
    }
}

struct Judged<'a> {
    subject: Subject<'a>,
    address: Option<IpAddr>,
    class: AddressClass,
}

impl RoleSet {
    /// Checks a login on a target.
    pub fn check_ssh(&self, login: &Login, target: &SshTarget<'_>) -> Decision {
        match self.ssh_rules(login, target) {
            Ok(rules) => Decision::Allow { rules },
            Err(reason) => Decision::Deny { reason },
        }
    }

    /// Whether some login is allowed on a target, so that its user may know of it.
    pub fn reaches(&self, target: &SshTarget<'_>) -> bool {
        self.logins().iter().any(|login| self.ssh_rules(login, target).is_ok())
    }

    fn ssh_rules(&self, login: &Login, target: &SshTarget<'_>) -> Result<Vec<RuleId>, DenyReason> {
        let address = target.resolved.or_else(|| target.host.parse().ok()).map(address::canonical);
        if address.is_none() && !target.registered {
            return Err(DenyReason::Unresolved);
        }
        let host = target.host.trim_end_matches('.').to_ascii_lowercase();
        let address_text = address.map(|address| address.to_string());
        let port = target.port.to_string();
        let class = match address {
            _ if target.protected => AddressClass::Cluster,
            _ if target.registered => AddressClass::Ordinary,
            Some(address) => address::classify(address),
            None => AddressClass::Ordinary,
        };
        let subject = Subject {
            labels: target.labels,
            host: Some(&host),
            address: address_text.as_deref(),
            port: Some(&port),
        };
        let judged = Judged { subject, address, class };

        if let Some(rule) = self.login_denied(login).or_else(|| self.host_denied(&judged)) {
            return Err(DenyReason::DeniedBy { rule });
        }
        self.ssh_allowed(login, &judged)
    }

    fn host_denied(&self, target: &Judged<'_>) -> Option<RuleId> {
        let denies = |role: &CompiledRole| {
            if role
                .deny
                .node_labels
                .as_ref()
                .is_none_or(|matcher| matcher.matches_subject(target.subject, true))
            {
                return Some("spec.deny.node_labels");
            }
            let expression = role.deny.node_expression.as_ref()?;
            let holds = |condition| self.expression(condition, target) != Ok(false);
            expression.as_ref().is_none_or(holds).then_some("spec.deny.node_labels_expression")
        };
        self.roles.iter().find_map(|role| denies(role).map(|path| RuleId::new(&role.name, path)))
    }

    fn expression(
        &self,
        condition: &crate::Condition,
        target: &Judged<'_>,
    ) -> Result<bool, crate::condition::Unknown> {
        let ctx = WhereCtx::none();
        let labels = Some(target.subject.labels);
        condition.holds(&Where {
            user: self.user.as_str(),
            roles: &self.names,
            traits: &self.traits,
            ctx: &ctx,
            labels,
            queried: None,
        })
    }

    fn ssh_allowed(&self, login: &Login, target: &Judged<'_>) -> Result<Vec<RuleId>, DenyReason> {
        // The most telling reason wins: a host that needs a literal, then a login that is missing there.
        let mut reason = DenyReason::NoHost;
        let mut rules = Vec::new();
        for role in &self.roles {
            let Some(path) = self.admits(role, target) else { continue };
            if target.class.needs_literal() && !self.names_address(role, target) {
                reason = DenyReason::NeedsLiteral { class: target.class };
                continue;
            }
            if !role.allow.logins.iter().flatten().any(|allowed| allowed == login.as_str()) {
                if reason == DenyReason::NoHost {
                    reason = DenyReason::NoLogin { login: login.clone() };
                }
                continue;
            }
            rules.push(RuleId::new(&role.name, path));
        }
        if rules.is_empty() {
            return Err(reason);
        }
        match self.unmet() {
            Some(rule) => Err(DenyReason::Unmet { rule }),
            None => Ok(rules),
        }
    }

    /// The path of what admits the host, if the role does. A map and an expression must both match.
    fn admits(&self, role: &CompiledRole, target: &Judged<'_>) -> Option<&'static str> {
        let labels = role.allow.node_labels.as_ref()?;
        match (&role.allow.node_expression, labels.is_empty()) {
            (None, _) => {
                labels.matches_subject(target.subject, false).then_some("spec.allow.node_labels")
            }
            (Some(expression), empty) => {
                let condition = expression.as_ref()?;
                let both = empty || labels.matches_subject(target.subject, false);
                (both && self.expression(condition, target) == Ok(true))
                    .then_some("spec.allow.node_labels_expression")
            }
        }
    }

    fn names_address(&self, role: &CompiledRole, target: &Judged<'_>) -> bool {
        let labels = role.allow.node_labels.as_ref();
        target
            .address
            .is_some_and(|address| labels.is_some_and(|labels| labels.names_address(address)))
    }
}

#[cfg(test)]
mod tests;
