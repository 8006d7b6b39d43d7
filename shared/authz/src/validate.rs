//! Checks a role before it is stored, so that a mistake is told to its author and not found by a user.

use crate::condition::Condition;
use crate::label::LabelMatcher;
use crate::template::Template;
use shared_types::resource::RoleConditions;
use shared_types::{Role, Traits};

/// What is wrong with a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("role {role:?}: {path}")]
pub struct RoleFault {
    /// The role.
    pub role: String,
    /// The path of the field.
    pub path: String,
    /// Why.
    #[source]
    pub source: Fault,
}

/// Why a field of a role was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A template or an expression in it.
    #[error(transparent)]
    Template(#[from] crate::TemplateError),
    /// A label value.
    #[error(transparent)]
    Label(#[from] crate::PatternError),
    /// A condition.
    #[error(transparent)]
    Condition(#[from] crate::ConditionError),
}

/// Checks everything in a role that is a language of its own: templates, patterns, conditions.
pub fn validate_role(role: &Role) -> Result<(), RoleFault> {
    for (side, conditions) in [("spec.allow", &role.spec.allow), ("spec.deny", &role.spec.deny)] {
        check(conditions).map_err(|(path, source)| RoleFault {
            role: role.metadata.name.clone(),
            path: format!("{side}.{path}"),
            source,
        })?;
    }
    Ok(())
}

fn check(conditions: &RoleConditions) -> Result<(), (String, Fault)> {
    let templates = [
        ("logins", &conditions.logins),
        ("windows_desktop_logins", &conditions.windows_desktop_logins),
        ("kubernetes_groups", &conditions.kubernetes_groups),
        ("kubernetes_users", &conditions.kubernetes_users),
        ("db_users", &conditions.db_users),
        ("db_names", &conditions.db_names),
        ("db_roles", &conditions.db_roles),
        ("aws_role_arns", &conditions.aws_role_arns),
        ("azure_identities", &conditions.azure_identities),
        ("gcp_service_accounts", &conditions.gcp_service_accounts),
        ("host_groups", &conditions.host_groups),
    ];
    for (name, texts) in templates {
        for (index, text) in texts.iter().enumerate() {
            Template::parse(text).map_err(|fault| (format!("{name}[{index}]"), fault.into()))?;
        }
    }
    for (name, map) in conditions.label_maps() {
        LabelMatcher::allowing(map, &Traits::new())
            .map_err(|fault| (name.to_owned(), fault.into()))?;
    }
    for (name, text) in [
        ("node_labels_expression", &conditions.node_labels_expression),
        ("db_labels_expression", &conditions.db_labels_expression),
    ] {
        if let Some(text) = text.as_deref().filter(|text| !text.trim().is_empty()) {
            text.parse::<Condition>().map_err(|fault| (name.to_owned(), fault.into()))?;
        }
    }
    for (index, rule) in conditions.rules.iter().enumerate() {
        if let Some(text) = rule.r#where.as_deref().filter(|text| !text.trim().is_empty()) {
            text.parse::<Condition>()
                .map_err(|fault| (format!("rules[{index}].where"), fault.into()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use shared_types::Resource;

    fn fault(spec: Value) -> String {
        let document =
            json!({"kind": "role", "version": "v7", "metadata": {"name": "dev"}, "spec": spec});
        let Resource::Role(role) = Resource::from_json(document).unwrap() else {
            panic!("not a role")
        };
        let fault = validate_role(&role).unwrap_err();
        format!("{fault}: {}", fault.source)
    }

    #[test]
    fn names_the_field() {
        assert_eq!(
            fault(json!({"allow": {"logins": ["root", "{{internal.frob}}"]}})),
            "role \"dev\": spec.allow.logins[1]: internal.frob is not a known trait"
        );
        assert_eq!(
            fault(json!({"deny": {"node_labels": {"env": "^($"}}})),
            "role \"dev\": spec.deny.node_labels: regular expression \"^($\" does not compile"
        );
        assert_eq!(
            fault(json!({"deny": {"db_labels_expression": "labels.env =="}})).split(": ").nth(1),
            Some("spec.deny.db_labels_expression")
        );
        assert_eq!(
            fault(
                json!({"allow": {"rules": [{"resources": ["session"], "verbs": ["list"], "where": "contains(x, y)"}]}})
            ),
            "role \"dev\": spec.allow.rules[0].where: condition at column 10: unknown identifier \"x\""
        );
    }

    #[test]
    fn presets_are_sound() {
        for role in Role::presets() {
            validate_role(&role).unwrap();
        }
    }
}
