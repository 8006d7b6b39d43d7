//! The roles of one user, compiled.

use crate::condition::{Condition, Subject, WhereCtx};
use crate::decision::{Decision, DenyReason, RuleId};
use crate::label::{LabelMatcher, bounded_regex};
use crate::options::MergedOptions;
use crate::template::Template;
use crate::verb::Verb;
use shared_types::resource::{LabelMap, RoleConditions, Rule};
use shared_types::{Login, Role, Traits, UserName};
use std::collections::BTreeSet;
use std::time::Duration;

/// The roles of one user. The caller leaves out roles that have expired.
#[derive(Debug, Clone)]
pub struct RoleSet {
    pub(crate) user: UserName,
    pub(crate) traits: Traits,
    pub(crate) names: Vec<String>,
    pub(crate) roles: Vec<CompiledRole>,
    options: MergedOptions,
}

#[derive(Debug, Clone)]
pub(crate) struct CompiledRole {
    pub(crate) name: String,
    pub(crate) allow: Side,
    pub(crate) deny: Side,
    /// The path of a demand that this release cannot meet.
    pub(crate) unmet: Option<&'static str>,
}

/// One side of a role. What did not compile is `None`: it allows nothing, and denies everything.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) logins: Option<Vec<String>>,
    pub(crate) node_labels: Option<LabelMatcher>,
    pub(crate) node_expression: Option<Option<Condition>>,
    pub(crate) db_labels: Option<LabelMatcher>,
    pub(crate) db_expression: Option<Option<Condition>>,
    pub(crate) db_users: Option<Vec<String>>,
    pub(crate) db_names: Option<Vec<String>>,
    rules: Vec<CompiledRule>,
}

#[derive(Debug, Clone)]
struct CompiledRule {
    resources: Vec<String>,
    verbs: Vec<String>,
    /// `None`: no condition; `Some(None)`: one that does not parse.
    condition: Option<Option<Condition>>,
}

fn parse_condition(text: Option<&str>) -> Option<Option<Condition>> {
    text.filter(|text| !text.trim().is_empty()).map(|text| text.parse().ok())
}

fn expand(texts: &[String], traits: &Traits) -> Option<Vec<String>> {
    let mut out = Vec::new();
    for text in texts {
        out.extend(Template::parse(text).ok()?.expand(traits));
    }
    Some(out)
}

/// Allowed names: an entry that does not parse is left out, the others count.
fn expand_allowed(texts: &[String], traits: &Traits) -> Vec<String> {
    texts
        .iter()
        .filter_map(|text| Template::parse(text).ok())
        .flat_map(|template| template.expand(traits))
        .collect()
}

impl Side {
    fn new(conditions: &RoleConditions, traits: &Traits, denying: bool) -> Side {
        let compile = |map: &LabelMap| match denying {
            true => LabelMatcher::denying(map, traits),
            false => LabelMatcher::allowing(map, traits),
        };
        let rule = |rule: &Rule| CompiledRule {
            resources: rule.resources.clone(),
            verbs: rule.verbs.clone(),
            condition: parse_condition(rule.r#where.as_deref()),
        };
        let names = |texts: &[String]| match denying {
            true => expand(texts, traits),
            false => Some(expand_allowed(texts, traits)),
        };
        Side {
            logins: names(&conditions.logins),
            node_labels: compile(&conditions.node_labels).ok(),
            node_expression: parse_condition(conditions.node_labels_expression.as_deref()),
            db_labels: compile(&conditions.db_labels).ok(),
            db_expression: parse_condition(conditions.db_labels_expression.as_deref()),
            db_users: names(&conditions.db_users),
            db_names: names(&conditions.db_names),
            rules: conditions.rules.iter().map(rule).collect(),
        }
    }
}

fn unmet(role: &Role) -> Option<&'static str> {
    // Ignoring a demand would be weaker than what the administrator wrote.
    let options = &role.spec.options;
    if options.require_session_mfa.is_some_and(|mfa| mfa != shared_types::resource::SessionMfa::No)
    {
        return Some("spec.options.require_session_mfa");
    }
    if options.device_trust_mode.as_deref().is_some_and(|mode| mode.starts_with("required")) {
        return Some("spec.options.device_trust_mode");
    }
    let demand = role.spec.allow.require_session_join.as_ref()?;
    (demand.as_array().is_none_or(|list| !list.is_empty()) && !demand.is_null())
        .then_some("spec.allow.require_session_join")
}

impl RoleSet {
    /// Compiles a user's roles.
    pub fn new(roles: Vec<Role>, traits: &Traits, user: &UserName) -> RoleSet {
        let roles: Vec<Role> = roles.into_iter().map(Role::with_version_defaults).collect();
        let compiled = roles.iter().map(|role| CompiledRole {
            name: role.metadata.name.clone(),
            allow: Side::new(&role.spec.allow, traits, false),
            deny: Side::new(&role.spec.deny, traits, true),
            unmet: unmet(role),
        });
        RoleSet {
            user: user.clone(),
            traits: traits.clone(),
            names: roles.iter().map(|role| role.metadata.name.clone()).collect(),
            options: MergedOptions::of(roles.iter()),
            roles: compiled.collect(),
        }
    }

    /// The user.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// Names of the roles.
    pub fn role_names(&self) -> &[String] {
        &self.names
    }

    /// The merged options.
    pub fn options(&self) -> &MergedOptions {
        &self.options
    }

    /// Longest life of a certificate.
    pub fn max_session_ttl(&self) -> Duration {
        self.options.max_session_ttl
    }

    /// All logins that some role allows and no role denies, sorted. Values that are no valid login are left out.
    pub fn logins(&self) -> Vec<Login> {
        let allowed = self.roles.iter().flat_map(|role| role.allow.logins.iter().flatten());
        let valid: BTreeSet<Login> =
            allowed.filter_map(|text| Login::new(text.as_str()).ok()).collect();
        valid.into_iter().filter(|login| self.login_denied(login).is_none()).collect()
    }

    /// A demand of any role that cannot be met: it counts as any role's strictest option does.
    pub(crate) fn unmet(&self) -> Option<RuleId> {
        self.roles.iter().find_map(|role| role.unmet.map(|path| RuleId::new(&role.name, path)))
    }

    pub(crate) fn login_denied(&self, login: &Login) -> Option<RuleId> {
        let path = "spec.deny.logins";
        let denies = |role: &CompiledRole| match &role.deny.logins {
            Some(logins) => logins.iter().any(|pattern| name_matches(pattern, login.as_str())),
            None => true,
        };
        self.roles.iter().find(|role| denies(role)).map(|role| RuleId::new(&role.name, path))
    }

    /// Checks an action on a kind of resource.
    pub fn check_rule(&self, resource: &str, verb: Verb, ctx: &WhereCtx<'_>) -> Decision {
        let subject = Subject {
            user: self.user.as_str(),
            roles: &self.names,
            traits: &self.traits,
            ctx,
            labels: None,
            queried: None,
        };
        let about =
            |rule: &CompiledRule| rule.resources.iter().any(|kind| kind == "*" || kind == resource);
        for role in &self.roles {
            for (index, rule) in role.deny.rules.iter().enumerate() {
                let applies = about(rule)
                    && rule.verbs.iter().any(|written| verb.denied_by(written))
                    && match &rule.condition {
                        None => true,
                        // No answer, or no readable condition: it denies.
                        Some(condition) => condition
                            .as_ref()
                            .is_none_or(|condition| condition.holds(&subject) != Ok(false)),
                    };
                if applies {
                    let rule = RuleId::new(&role.name, format_args!("spec.deny.rules[{index}]"));
                    return Decision::Deny { reason: DenyReason::DeniedBy { rule } };
                }
            }
        }
        let mut rules = Vec::new();
        for role in &self.roles {
            for (index, rule) in role.allow.rules.iter().enumerate() {
                let applies = about(rule)
                    && rule.verbs.iter().any(|written| verb.granted_by(written))
                    && match &rule.condition {
                        None => true,
                        Some(condition) => condition
                            .as_ref()
                            .is_some_and(|condition| condition.holds(&subject) == Ok(true)),
                    };
                if applies {
                    rules.push(RuleId::new(&role.name, format_args!("spec.allow.rules[{index}]")));
                }
            }
        }
        if rules.is_empty() {
            return Decision::Deny {
                reason: DenyReason::NoRule { resource: resource.to_owned(), verb },
            };
        }
        Decision::Allow { rules }
    }

    /// Whether some resource of the kind could pass the check, whatever its conditions say: the question before
    /// a list is filtered entry by entry.
    pub fn may_some(&self, resource: &str, verb: Verb) -> bool {
        let about =
            |rule: &CompiledRule| rule.resources.iter().any(|kind| kind == "*" || kind == resource);
        let denied = |rule: &CompiledRule| {
            rule.condition.is_none() && about(rule) && rule.verbs.iter().any(|w| verb.denied_by(w))
        };
        let allowed = |rule: &CompiledRule| {
            about(rule) && rule.verbs.iter().any(|written| verb.granted_by(written))
        };
        !self.roles.iter().any(|role| role.deny.rules.iter().any(denied))
            && self.roles.iter().any(|role| role.allow.rules.iter().any(allowed))
    }
}

/// A denied name may be written as a glob or an expression; deny is greedy.
pub(crate) fn name_matches(pattern: &str, name: &str) -> bool {
    if pattern == name {
        return true;
    }
    if let Some(inner) = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) {
        return bounded_regex(&format!("(?s)\\A(?:{inner})\\z"))
            .map_or(true, |regex| regex.is_match(name));
    }
    if !pattern.contains('*') {
        return false;
    }
    let escaped: Vec<String> = pattern.split('*').map(regex::escape).collect();
    bounded_regex(&format!("(?s)\\A{}\\z", escaped.join(".*")))
        .map_or(true, |regex| regex.is_match(name))
}
