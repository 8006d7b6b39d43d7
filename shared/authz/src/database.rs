//! Users of databases.

use crate::condition::{Condition, Subject as Where, Unknown, WhereCtx};
use crate::decision::{Decision, DenyReason, RuleId};
use crate::role_set::{CompiledRole, RoleSet, name_matches};
use shared_types::{DbProtocol, Labels};
use std::collections::BTreeSet;

/// What stands for every user or name.
const ANY: &str = "*";

/// A user of a database on the way to it.
#[derive(Debug, Clone, Copy)]
pub struct DbTarget<'a> {
    /// The database's name as a resource.
    pub service: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// What it speaks.
    pub protocol: DbProtocol,
    /// As whom.
    pub user: &'a str,
    /// The database on the server; `None` where it is not known yet. Looked at only where the protocol has such names.
    pub name: Option<&'a str>,
}

/// Users or names that roles allow for a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// What is allowed, sorted; `*` alone is everything but `denied`.
    pub allowed: Vec<String>,
    /// What is denied as it is written, sorted; empty where `allowed` has no `*`.
    pub denied: Vec<String>,
}

impl RoleSet {
    /// Checks a user of a database.
    pub fn check_database(&self, target: &DbTarget<'_>) -> Decision {
        match self.database_rules(target) {
            Ok(rules) => Decision::Allow { rules },
            Err(reason) => Decision::Deny { reason },
        }
    }

    /// Whether some user of a database with these labels is allowed, so that the roles' holder may know of it.
    pub fn reaches_database(&self, labels: &Labels) -> bool {
        self.unmet().is_none() && !self.database_users(labels).allowed.is_empty()
    }

    /// The users of a database with these labels that are allowed.
    pub fn database_users(&self, labels: &Labels) -> Names {
        self.names(labels, |role| &role.allow.db_users, |role| &role.deny.db_users)
    }

    /// The databases on a server with these labels that are allowed.
    pub fn database_names(&self, labels: &Labels) -> Names {
        self.names(labels, |role| &role.allow.db_names, |role| &role.deny.db_names)
    }

    fn database_rules(&self, target: &DbTarget<'_>) -> Result<Vec<RuleId>, DenyReason> {
        let name = target.name.filter(|_| target.protocol.has_names());
        let denied = self
            .database_denied(target.labels)
            .or_else(|| self.name_denied(target.user, "spec.deny.db_users", |r| &r.deny.db_users))
            .or_else(|| self.name_denied(name?, "spec.deny.db_names", |role| &role.deny.db_names));
        if let Some(rule) = denied {
            return Err(DenyReason::DeniedBy { rule });
        }
        // The most telling reason wins: a name that is missing, then a user, then the database.
        let (mut user_allowed, mut admitted) = (false, false);
        let mut rules = Vec::new();
        for role in &self.roles {
            let Some(path) = self.admits_database(role, target.labels) else { continue };
            admitted = true;
            if !allows(&role.allow.db_users, target.user) {
                continue;
            }
            user_allowed = true;
            if name.is_none_or(|name| allows(&role.allow.db_names, name)) {
                rules.push(RuleId::new(&role.name, path));
            }
        }
        if rules.is_empty() {
            return Err(match name {
                Some(name) if user_allowed => DenyReason::NoDbName { name: name.to_owned() },
                _ if admitted => DenyReason::NoDbUser { user: target.user.to_owned() },
                _ => DenyReason::NoDatabase,
            });
        }
        match self.unmet() {
            Some(rule) => Err(DenyReason::Unmet { rule }),
            None => Ok(rules),
        }
    }

    fn database_denied(&self, labels: &Labels) -> Option<RuleId> {
        let denies = |role: &CompiledRole| {
            let side = &role.deny;
            if side.db_labels.as_ref().is_none_or(|matcher| matcher.matches(labels)) {
                return Some("spec.deny.db_labels");
            }
            let expression = side.db_expression.as_ref()?;
            let holds = |condition| self.labels_hold(condition, labels) != Ok(false);
            expression.as_ref().is_none_or(holds).then_some("spec.deny.db_labels_expression")
        };
        self.roles.iter().find_map(|role| denies(role).map(|path| RuleId::new(&role.name, path)))
    }

    fn name_denied(
        &self,
        name: &str,
        path: &str,
        of: impl Fn(&CompiledRole) -> &Option<Vec<String>>,
    ) -> Option<RuleId> {
        let denies = |role: &CompiledRole| match of(role) {
            Some(patterns) => patterns.iter().any(|pattern| name_matches(pattern, name)),
            None => true,
        };
        self.roles.iter().find(|role| denies(role)).map(|role| RuleId::new(&role.name, path))
    }

    /// The path of what admits the database, if the role does. A map and an expression must both match.
    fn admits_database(&self, role: &CompiledRole, labels: &Labels) -> Option<&'static str> {
        let matcher = role.allow.db_labels.as_ref()?;
        match &role.allow.db_expression {
            None => matcher.matches(labels).then_some("spec.allow.db_labels"),
            Some(expression) => {
                let condition = expression.as_ref()?;
                let both = matcher.is_empty() || matcher.matches(labels);
                (both && self.labels_hold(condition, labels) == Ok(true))
                    .then_some("spec.allow.db_labels_expression")
            }
        }
    }

    fn labels_hold(&self, condition: &Condition, labels: &Labels) -> Result<bool, Unknown> {
        condition.holds(&Where {
            user: self.user.as_str(),
            roles: &self.names,
            traits: &self.traits,
            ctx: &WhereCtx::none(),
            labels: Some(labels),
            queried: None,
        })
    }

    fn names(
        &self,
        labels: &Labels,
        allow: impl Fn(&CompiledRole) -> &Option<Vec<String>>,
        deny: impl Fn(&CompiledRole) -> &Option<Vec<String>>,
    ) -> Names {
        if self.database_denied(labels).is_some() {
            return Names::default();
        }
        let mut denied = BTreeSet::new();
        for role in &self.roles {
            match deny(role) {
                Some(patterns) => denied.extend(patterns.iter().map(String::as_str)),
                // What cannot be read denies everything.
                None => return Names::default(),
            }
        }
        if denied.contains(ANY) {
            return Names::default();
        }
        let admitting =
            self.roles.iter().filter(|role| self.admits_database(role, labels).is_some());
        let allowed: BTreeSet<&str> =
            admitting.flat_map(|role| allow(role).iter().flatten()).map(String::as_str).collect();
        let owned = |texts: BTreeSet<&str>| texts.into_iter().map(str::to_owned).collect();
        if allowed.contains(ANY) {
            return Names { allowed: vec![ANY.to_owned()], denied: owned(denied) };
        }
        let open = allowed
            .into_iter()
            .filter(|name| !denied.iter().any(|pattern| name_matches(pattern, name)))
            .collect();
        Names { allowed: owned(open), denied: Vec::new() }
    }
}

/// Whether an allowed list names it. Only a lone star stands for more than itself.
fn allows(list: &Option<Vec<String>>, name: &str) -> bool {
    list.iter().flatten().any(|allowed| allowed == ANY || allowed == name)
}

#[cfg(test)]
mod tests;
