//! Templates in roles: `{{internal.logins}}`, `prefix-{{external["team name"]}}`,
//! `{{email.local(external.email)}}`, `{{regexp.replace(external.x, "expr", "$1")}}`.
//!
//! A template expands to one text per value of the trait it names; without values it vanishes.

use crate::label::bounded_regex;
use shared_types::Traits;

/// A text with at most one expression in it.
#[derive(Debug, Clone)]
pub struct Template {
    prefix: String,
    expression: Option<Expression>,
    suffix: String,
}

#[derive(Debug, Clone)]
enum Expression {
    Trait(String),
    EmailLocal(Box<Expression>),
    Replace { inner: Box<Expression>, pattern: regex::Regex, with: String },
}

/// Why a template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Braces that do not enclose one expression.
    #[error("{0:?} has unbalanced or several {{{{…}}}}, expected one expression")]
    Braces(String),
    /// The expression is not one of the known forms.
    #[error(
        "{0:?} is not an expression, expected internal.NAME, external.NAME, email.local(…) or regexp.replace(…)"
    )]
    Expression(String),
    /// A trait that only the cluster itself sets is not known.
    #[error("internal.{0} is not a known trait")]
    Internal(String),
    /// The regular expression does not compile.
    #[error("regular expression {0:?} does not compile")]
    Regex(String),
}

const INTERNAL: [&str; 13] = [
    "logins",
    "windows_logins",
    "kubernetes_groups",
    "kubernetes_users",
    "db_names",
    "db_users",
    "db_roles",
    "aws_role_arns",
    "azure_identities",
    "gcp_service_accounts",
    "jwt",
    "github_orgs",
    "mcp_tools",
];

fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

impl Template {
    /// Parses a text that may hold an expression.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let Some((prefix, rest)) = text.split_once("{{") else {
            if text.contains("}}") {
                return Err(TemplateError::Braces(clip(text)));
            }
            return Ok(Template {
                prefix: text.to_owned(),
                expression: None,
                suffix: String::new(),
            });
        };
        let (inside, suffix) =
            rest.split_once("}}").ok_or_else(|| TemplateError::Braces(clip(text)))?;
        if suffix.contains("{{") || suffix.contains("}}") || inside.contains("{{") {
            return Err(TemplateError::Braces(clip(text)));
        }
        let expression = expression(inside.trim(), 0)?;
        Ok(Template {
            prefix: prefix.to_owned(),
            expression: Some(expression),
            suffix: suffix.to_owned(),
        })
    }

    /// Whether the text is fixed.
    pub fn is_literal(&self) -> bool {
        self.expression.is_none()
    }

    /// All texts it stands for.
    pub fn expand(&self, traits: &Traits) -> Vec<String> {
        match &self.expression {
            None => vec![self.prefix.clone()],
            Some(expression) => {
                let around = |value: String| format!("{}{value}{}", self.prefix, self.suffix);
                expression
                    .values(traits)
                    .into_iter()
                    .filter(|value| !value.is_empty())
                    .map(around)
                    .collect()
            }
        }
    }
}

impl Expression {
    fn values(&self, traits: &Traits) -> Vec<String> {
        match self {
            Expression::Trait(name) => traits.get(name).cloned().unwrap_or_default(),
            Expression::EmailLocal(inner) => inner
                .values(traits)
                .iter()
                // Not an address: dropped, like an expression that does not match.
                .filter_map(|value| value.rsplit_once('@').map(|(local, _)| local.to_owned()))
                .collect(),
            Expression::Replace { inner, pattern, with } => inner
                .values(traits)
                .iter()
                .filter(|value| pattern.is_match(value))
                .map(|value| pattern.replace_all(value, with.as_str()).into_owned())
                .collect(),
        }
    }
}

fn expression(text: &str, depth: u8) -> Result<Expression, TemplateError> {
    let bad = || TemplateError::Expression(clip(text));
    if depth > 4 {
        return Err(bad());
    }
    if let Some(inner) = text.strip_prefix("email.local(").and_then(|rest| rest.strip_suffix(')')) {
        return Ok(Expression::EmailLocal(Box::new(expression(inner.trim(), depth + 1)?)));
    }
    if let Some(inner) =
        text.strip_prefix("regexp.replace(").and_then(|rest| rest.strip_suffix(')'))
    {
        let parts = arguments(inner).ok_or_else(bad)?;
        let [inner, pattern, with] = parts.as_slice() else { return Err(bad()) };
        let pattern = unquote(pattern).ok_or_else(bad)?;
        let with = unquote(with).ok_or_else(bad)?;
        let pattern = bounded_regex(&pattern).map_err(|_| TemplateError::Regex(clip(&pattern)))?;
        return Ok(Expression::Replace {
            inner: Box::new(expression(inner.trim(), depth + 1)?),
            pattern,
            with,
        });
    }
    let (scope, name) = if let Some(name) = text.strip_prefix("internal.") {
        ("internal", name.to_owned())
    } else if let Some(name) = text.strip_prefix("external.") {
        ("external", name.to_owned())
    } else {
        let inside = |scope: &str| {
            text.strip_prefix(scope)?
                .strip_prefix('[')?
                .strip_suffix(']')
                .and_then(|t| unquote(t.trim()))
        };
        match (inside("internal"), inside("external")) {
            (Some(name), _) => ("internal", name),
            (_, Some(name)) => return Ok(Expression::Trait(name)),
            _ => return Err(bad()),
        }
    };
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "_-".contains(c)) {
        return Err(bad());
    }
    if scope == "internal" && !INTERNAL.contains(&name.as_str()) {
        return Err(TemplateError::Internal(clip(&name)));
    }
    Ok(Expression::Trait(name))
}

/// Splits at commas outside quotes and parentheses.
fn arguments(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let (mut quote, mut escaped, mut depth) = (None, false, 0i32);
    for character in text.chars() {
        match (quote, character) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quote = Some(character),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            (None, _) => {}
        }
        parts.last_mut()?.push(character);
    }
    (quote.is_none() && depth == 0).then_some(parts)
}

/// The text inside double quotes (with escapes) or backquotes (without).
pub(crate) fn unquote(text: &str) -> Option<String> {
    let text = text.trim();
    if let Some(raw) = text.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return (!raw.contains('`')).then(|| raw.to_owned());
    }
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => match characters.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                other @ ('"' | '\\') => out.push(other),
                // `"\d"` is an error in Go; people write it and mean the expression.
                other => out.extend(['\\', other]),
            },
            other => out.push(other),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn traits() -> Traits {
        let list =
            |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        [
            ("logins".to_owned(), list(&["root", "ubuntu"])),
            ("email".to_owned(), list(&["joe@example.com", "nobody"])),
            ("team name".to_owned(), list(&["a"])),
            ("empty".to_owned(), list(&[""])),
        ]
        .into()
    }

    #[test]
    fn expands() {
        for (text, expected) in [
            ("root", vec!["root"]),
            ("{{internal.logins}}", vec!["root", "ubuntu"]),
            ("{{ external.logins }}", vec!["root", "ubuntu"]),
            ("adm-{{internal.logins}}-x", vec!["adm-root-x", "adm-ubuntu-x"]),
            ("{{external[\"team name\"]}}", vec!["a"]),
            ("{{email.local(external.email)}}", vec!["joe"]),
            ("{{regexp.replace(external.email, \"^(.*)@example.com$\", \"$1\")}}", vec!["joe"]),
            ("{{external.missing}}", vec![]),
            ("{{external.empty}}", vec![]),
        ] {
            assert_eq!(Template::parse(text).unwrap().expand(&traits()), expected, "{text}");
        }
    }

    #[test]
    fn refuses() {
        for text in [
            "{{internal.logins",
            "internal.logins}}",
            "{{internal.frob}}",
            "{{frob.x}}",
            "{{}}",
            "{{internal.a}}{{internal.b}}",
            "{{external.}}",
            "{{regexp.replace(external.x, \"(\", \"\")}}",
            "{{regexp.replace(external.x)}}",
            "{{external[x]}}",
            "{{exec(\"id\")}}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\{\\{)?[a-z.\\[\\]\"()`, \\\\]{0,30}(\\}\\})?") {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.expand(&traits());
            }
        }
    }
}
