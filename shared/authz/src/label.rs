//! Label matching.
//!
//! All keys of a map must match; of a key's values any may. A value is an exact text, a glob with `*`, or a
//! regular expression between `^` and `$`; globs and expressions match the whole value. `'*': '*'` matches
//! everything, also what has no labels; an empty map matches nothing.
//!
//! A value that came out of a template is taken literally when it allows: a user's attribute cannot widen
//! the role. When it denies it is also taken as a pattern.

use crate::template::{Template, TemplateError};
use shared_types::{Labels, Traits, resource::LabelMap};

/// The pseudo label that carries a target's name or address.
pub(crate) const HOST: &str = "teleport.dev/host";
/// The pseudo label that carries a target's port.
pub(crate) const PORT: &str = "teleport.dev/port";

/// Why a label value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The regular expression does not compile.
    #[error("regular expression {0:?} does not compile")]
    Regex(String),
    /// The template cannot be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The key is `*`, which takes only the value `*`.
    #[error("the key '*' takes only the value '*'")]
    Wildcard,
}

/// Compiles with a bound on the program's size, so that a role cannot exhaust memory.
pub(crate) fn bounded_regex(text: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(1 << 20).dfa_size_limit(1 << 20).build()
}

#[derive(Debug, Clone)]
enum Pattern {
    Any,
    Exact(String),
    Glob(Vec<String>),
    Regex(regex::Regex),
}

impl Pattern {
    fn parse(text: &str, ignore_case: bool) -> Result<Pattern, PatternError> {
        if text == "*" {
            return Ok(Pattern::Any);
        }
        if let Some(inner) = text.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) {
            // Anchored outside a group: `^a|b$` must not match `ax`.
            let case = if ignore_case { "(?i)" } else { "" };
            let whole = format!("{case}\\A(?:{inner})\\z");
            return bounded_regex(&whole)
                .map(Pattern::Regex)
                .map_err(|_| PatternError::Regex(text.chars().take(128).collect()));
        }
        let text = if ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        if text.contains('*') {
            return Ok(Pattern::Glob(text.split('*').map(str::to_owned).collect()));
        }
        Ok(Pattern::Exact(text))
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Exact(text) => text == value,
            Pattern::Glob(parts) => glob(parts, value),
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }
}

/// The parts between the stars, in order: the first is a prefix, the last a suffix, each other the earliest hit.
fn glob(parts: &[String], value: &str) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(mut rest) = value.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        match rest.find(part.as_str()).and_then(|at| rest.get(at + part.len()..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

#[derive(Debug, Clone)]
struct Value {
    pattern: Pattern,
    /// The text as written, if it holds no template.
    written: Option<String>,
}

/// What labels are compared with: a host's labels, and the spellings of its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) labels: &'a Labels,
    /// The name as typed, in lower case and without the trailing dot.
    pub(crate) host: Option<&'a str>,
    /// The address to be dialled, in canonical form.
    pub(crate) address: Option<&'a str>,
    pub(crate) port: Option<&'a str>,
}

/// A compiled label map.
#[derive(Debug, Clone, Default)]
pub struct LabelMatcher {
    keys: Vec<(String, Vec<Value>)>,
    everything: bool,
}

impl LabelMatcher {
    /// Compiles a map that allows: what comes from a template is literal.
    pub fn allowing(map: &LabelMap, traits: &Traits) -> Result<LabelMatcher, PatternError> {
        Self::compile(map, traits, false)
    }

    /// Compiles a map that denies: what comes from a template also counts as a pattern.
    pub fn denying(map: &LabelMap, traits: &Traits) -> Result<LabelMatcher, PatternError> {
        Self::compile(map, traits, true)
    }

    fn compile(
        map: &LabelMap,
        traits: &Traits,
        denying: bool,
    ) -> Result<LabelMatcher, PatternError> {
        let mut matcher = LabelMatcher::default();
        for (key, texts) in map {
            if key == "*" {
                if texts.is_empty() || texts.iter().any(|text| text != "*") {
                    return Err(PatternError::Wildcard);
                }
                matcher.everything = true;
                continue;
            }
            let ignore_case = key == HOST;
            let mut values = Vec::new();
            for text in texts.iter() {
                let template = Template::parse(text)?;
                if template.is_literal() {
                    values.push(Value {
                        pattern: Pattern::parse(text, ignore_case)?,
                        written: Some(text.clone()),
                    });
                    continue;
                }
                for expanded in template.expand(traits) {
                    if denying && let Ok(pattern) = Pattern::parse(&expanded, ignore_case) {
                        values.push(Value { pattern, written: None });
                    }
                    let exact = if ignore_case { expanded.to_ascii_lowercase() } else { expanded };
                    values.push(Value { pattern: Pattern::Exact(exact), written: None });
                }
            }
            matcher.keys.push((key.clone(), values));
        }
        Ok(matcher)
    }

    /// Whether the map has no keys and so matches nothing.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.everything
    }

    /// Whether labels match.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_subject(Subject { labels, host: None, address: None, port: None }, false)
    }

    /// Whether a target matches. When `denying`, a pattern for addresses also sees the typed name.
    pub(crate) fn matches_subject(&self, subject: Subject<'_>, denying: bool) -> bool {
        !self.is_empty()
            && self.keys.iter().all(|(key, values)| {
                values.iter().any(|value| value.matches(key, subject, denying))
            })
    }

    /// Whether the map names this very address.
    pub(crate) fn names_address(&self, address: std::net::IpAddr) -> bool {
        let written = self
            .keys
            .iter()
            .filter(|(key, _)| key == HOST)
            .flat_map(|(_, values)| values)
            .filter_map(|v| v.written.as_deref());
        let mut addresses = written.filter_map(|text| text.parse::<std::net::IpAddr>().ok());
        addresses.any(|named| crate::address::canonical(named) == address)
    }
}

impl Value {
    fn matches(&self, key: &str, subject: Subject<'_>, denying: bool) -> bool {
        let pattern = &self.pattern;
        match key {
            HOST => {
                let address = subject.address.is_some_and(|address| self.matches_address(address));
                // `10.*` means addresses: a name like 10.attacker.example must not come in by it.
                let by_name = denying || subject.address.is_none() || !self.is_about_addresses();
                address || (by_name && subject.host.is_some_and(|host| pattern.matches(host)))
            }
            PORT => subject.port.is_some_and(|port| pattern.matches(port)),
            _ => subject.labels.get(key).is_some_and(|value| pattern.matches(value)),
        }
    }

    fn matches_address(&self, address: &str) -> bool {
        if let Pattern::Exact(text) = &self.pattern
            && let (Ok(named), Ok(dialled)) =
                (text.parse::<std::net::IpAddr>(), address.parse::<std::net::IpAddr>())
        {
            return crate::address::canonical(named) == dialled;
        }
        self.pattern.matches(address)
    }

    fn is_about_addresses(&self) -> bool {
        match &self.pattern {
            Pattern::Any => false,
            Pattern::Exact(text) => text.parse::<std::net::IpAddr>().is_ok(),
            Pattern::Glob(parts) => looks_numeric(&parts.concat()),
            Pattern::Regex(regex) => {
                let text = regex.as_str().replace("(?i)", "").replace("\\A", "").replace("\\z", "");
                looks_numeric(&text.replace("\\d", "0"))
            }
        }
    }
}

/// Digits and no letter: only an address can be meant.
fn looks_numeric(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_digit()) && !text.chars().any(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared_types::flex::Values;

    fn map(entries: &[(&str, &[&str])]) -> LabelMap {
        let values = |texts: &[&str]| Values(texts.iter().map(|text| (*text).to_owned()).collect());
        entries.iter().map(|(key, texts)| ((*key).to_owned(), values(texts))).collect()
    }

    fn labels(entries: &[(&str, &str)]) -> Labels {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn matches(entries: &[(&str, &[&str])], host: &[(&str, &str)]) -> bool {
        LabelMatcher::allowing(&map(entries), &Traits::new()).unwrap().matches(&labels(host))
    }

    #[test]
    fn all_keys_any_value() {
        let host = [("env", "prod"), ("team", "db")];
        assert!(matches(&[("env", &["prod"])], &host));
        assert!(matches(&[("env", &["dev", "prod"]), ("team", &["db"])], &host));
        assert!(!matches(&[("env", &["prod"]), ("team", &["web"])], &host));
        assert!(!matches(&[("env", &[])], &host));
        assert!(!matches(&[("other", &["*"])], &host));
        assert!(!matches(&[], &host));
        assert!(matches(&[("*", &["*"])], &[]));
        assert!(!matches(&[("*", &["*"]), ("env", &["dev"])], &host));
    }

    #[test]
    fn globs_and_expressions_match_the_whole_value() {
        for (pattern, value, expected) in [
            ("prod-*", "prod-1", true),
            ("prod-*", "xprod-1", false),
            ("*-db", "a-db", true),
            ("*-db", "a-db-2", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("*aa", "aaa", true),
            ("a*a", "a", false),
            ("**", "", true),
            ("^prod|dev$", "prod", true),
            ("^prod|dev$", "production", false),
            ("^[0-9]+$", "12", true),
            ("^[0-9]+$", "12\n", false),
            ("^.*$", "a\nb", false),
            ("a.c", "abc", false),
            ("^prod", "^prod", true),
        ] {
            assert_eq!(
                matches(&[("k", &[pattern])], &[("k", value)]),
                expected,
                "{pattern} {value}"
            );
        }
        assert!(LabelMatcher::allowing(&map(&[("k", &["^($"])]), &Traits::new()).is_err());
        assert!(
            LabelMatcher::allowing(&map(&[("k", &["^(a{1000}){1000}$"])]), &Traits::new()).is_err()
        );
        assert!(LabelMatcher::allowing(&map(&[("*", &["x"])]), &Traits::new()).is_err());
    }

    #[test]
    fn a_trait_is_literal_when_it_allows_and_a_pattern_when_it_denies() {
        let traits: Traits = [("env".to_owned(), vec!["*".to_owned()])].into();
        let map = map(&[("env", &["{{external.env}}"])]);
        assert!(
            !LabelMatcher::allowing(&map, &traits).unwrap().matches(&labels(&[("env", "prod")]))
        );
        assert!(LabelMatcher::denying(&map, &traits).unwrap().matches(&labels(&[("env", "prod")])));
    }

    proptest! {
        #[test]
        fn glob_agrees_with_an_expression(pattern in "[ab*]{1,6}", value in "[ab]{0,8}") {
            let regex = regex::Regex::new(&format!("\\A{}\\z", pattern.replace('*', ".*"))).unwrap();
            let found = matches(&[("k", &[pattern.as_str()])], &[("k", value.as_str())]);
            prop_assert_eq!(found, regex.is_match(&value));
        }

        #[test]
        fn an_exact_value_matches_itself_only(key in "[a-z]{1,5}", one in "[a-z0-9]{1,6}", other in "[a-z0-9]{1,6}") {
            let found = matches(&[(key.as_str(), &[one.as_str()])], &[(key.as_str(), other.as_str())]);
            prop_assert_eq!(found, one == other);
        }

        #[test]
        fn another_key_never_widens(value in "[a-z*]{1,4}", extra in "[a-z*]{1,4}", x in "[a-z]{1,3}", y in "[a-z]{1,3}") {
            let host = [("x", x.as_str()), ("y", y.as_str())];
            let narrow = matches(&[("x", &[value.as_str()]), ("y", &[extra.as_str()])], &host);
            prop_assert!(!narrow || matches(&[("x", &[value.as_str()])], &host));
        }

        #[test]
        fn never_panics(pattern in "\\PC{0,20}", value in "\\PC{0,20}") {
            if let Ok(matcher) = LabelMatcher::allowing(&map(&[("k", &[pattern.as_str()])]), &Traits::new()) {
                let _ = matcher.matches(&labels(&[("k", value.as_str())]));
            }
        }
    }
}
