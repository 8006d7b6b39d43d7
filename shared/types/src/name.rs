//! Validated names.
//!
//! Each type is made only by parsing. What parsed holds no control character, blank, quote, slash or shell
//! sign and does not start with a dash, so it may stand in a path, an argument, a log line or a terminal.

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{what} is empty")]
    Empty {
        /// What kind of name it is.
        what: &'static str,
    },
    /// The name is longer than its kind allows.
    #[error("{what} is longer than {max} characters")]
    TooLong {
        /// What kind of name it is.
        what: &'static str,
        /// The longest that is accepted.
        max: usize,
    },
    /// The first character is not one a name of this kind starts with.
    #[error("{what} may not start with {:?}", .character)]
    Start {
        /// What kind of name it is.
        what: &'static str,
        /// The offending character.
        character: char,
    },
    /// A character that is not allowed; printed escaped.
    #[error("{what} may not contain {:?}", .character)]
    Character {
        /// What kind of name it is.
        what: &'static str,
        /// The offending character.
        character: char,
    },
    /// The name is nothing but dots, which is a folder and not a name.
    #[error("{what} may not consist of dots only")]
    Dots {
        /// What kind of name it is.
        what: &'static str,
    },
}

struct Rule {
    what: &'static str,
    max: usize,
    also: &'static str,
    start: fn(char) -> bool,
    dots: bool,
}

fn not_dash(character: char) -> bool {
    character != '-'
}

fn alphanumeric(character: char) -> bool {
    character.is_ascii_alphanumeric()
}

fn check(rule: &Rule, text: &str) -> Result<(), NameError> {
    let what = rule.what;
    let first = text.chars().next().ok_or(NameError::Empty { what })?;
    if let Some(character) =
        text.chars().find(|c| !c.is_ascii_alphanumeric() && !rule.also.contains(*c))
    {
        return Err(NameError::Character { what, character });
    }
    // Every accepted character is ASCII, so bytes and characters are the same number here.
    if text.len() > rule.max {
        return Err(NameError::TooLong { what, max: rule.max });
    }
    if !(rule.start)(first) {
        return Err(NameError::Start { what, character: first });
    }
    if !rule.dots && text.chars().all(|c| c == '.') {
        return Err(NameError::Dots { what });
    }
    Ok(())
}

/// Whether a text may serve as a secret that people copy: printable ASCII without blanks and slashes.
pub(crate) fn check_secret(what: &'static str, text: &str) -> Result<(), NameError> {
    const MAX: usize = 256;
    let first = text.chars().next().ok_or(NameError::Empty { what })?;
    if let Some(character) = text.chars().find(|c| !c.is_ascii_graphic() || "/\\'\"`".contains(*c))
    {
        return Err(NameError::Character { what, character });
    }
    if text.len() > MAX {
        return Err(NameError::TooLong { what, max: MAX });
    }
    if first == '-' {
        return Err(NameError::Start { what, character: first });
    }
    Ok(())
}

/// Whether a text may name a database.
pub(crate) fn check_database(text: &str) -> Result<(), NameError> {
    let rule =
        Rule { what: "database name", max: 128, also: "-_.", start: alphanumeric, dots: false };
    check(&rule, text)
}

/// Whether a text may name a lock.
pub(crate) fn check_lock(text: &str) -> Result<(), NameError> {
    let rule = Rule { what: "lock name", max: 128, also: "-_.@+:", start: not_dash, dots: false };
    check(&rule, text)
}

/// Whether a text may be the id of a host, in the form ids are written in.
pub(crate) fn check_host_id(text: &str) -> Result<(), NameError> {
    check(&Rule { what: "host id", max: 36, also: "-", start: alphanumeric, dots: false }, text)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            const RULE: Rule = $rule;

            /// Parses a name.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check(&Self::RULE, &text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }
    };
}

name!(
    /// A user of the cluster.
    UserName,
    Rule { what: "user name", max: 128, also: "-_.@+", start: not_dash, dots: false }
);
name!(
    /// An operating system login on a target.
    Login,
    Rule { what: "login", max: 64, also: "-_.@\\$+", start: not_dash, dots: false }
);
name!(
    /// The name of a role.
    RoleName,
    Rule { what: "role name", max: 128, also: "-_.@+:", start: not_dash, dots: false }
);
name!(
    /// The name of a cluster, in the form of a DNS name.
    ClusterName,
    Rule { what: "cluster name", max: 253, also: "-_.", start: alphanumeric, dots: false }
);
name!(
    /// A target as a user typed it: a DNS name or an address literal without brackets.
    HostName,
    Rule { what: "host name", max: 255, also: "-_.:", start: not_dash, dots: false }
);

impl HostName {
    /// The address, if the name is an address literal.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        self.0.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_names_people_use() {
        for name in ["joe", "alice@example.com", "bot-1", "a", "first.last+tag", "_x"] {
            assert!(UserName::new(name).is_ok(), "{name}");
        }
        for login in ["root", "ec2-user", "DOMAIN\\joe", "svc$"] {
            assert!(Login::new(login).is_ok(), "{login}");
        }
        for host in
            ["db-7", "10.0.0.1", "fe80::1", "::ffff:127.0.0.1", "a.example.com.", "0x7f000001"]
        {
            assert!(HostName::new(host).is_ok(), "{host}");
        }
    }

    #[test]
    fn refuses_what_could_hurt() {
        let hostile = [
            "",
            "-oProxyCommand=x",
            "a b",
            "a;b",
            "$(id)",
            "a\nb",
            "%h",
            "\x1b[2J",
            "../x",
            "a/b",
            "..",
            ".",
            "a'b",
            "a\"b",
            "a`b",
            "a\0b",
            "ä",
            "a|b",
            "a&b",
            "a>b",
            "{x}",
            "~root",
        ];
        for text in hostile {
            assert!(UserName::new(text).is_err(), "user {text:?}");
            assert!(HostName::new(text).is_err(), "host {text:?}");
            assert!(ClusterName::new(text).is_err(), "cluster {text:?}");
            assert!(RoleName::new(text).is_err(), "role {text:?}");
            assert!(Login::new(text).is_err(), "login {text:?}");
        }
        assert_eq!(
            UserName::new("a".repeat(129)).unwrap_err().to_string(),
            "user name is longer than 128 characters"
        );
        assert_eq!(
            UserName::new("a\u{1b}").unwrap_err().to_string(),
            "user name may not contain '\\u{1b}'"
        );
        assert_eq!(
            HostName::new("-x").unwrap_err().to_string(),
            "host name may not start with '-'"
        );
    }

    #[test]
    fn serde_checks() {
        assert!(serde_json::from_str::<UserName>("\"joe\"").is_ok());
        let error = serde_json::from_str::<UserName>("\"-joe\"").unwrap_err().to_string();
        assert!(error.starts_with("user name may not start with '-'"), "{error}");
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same_and_is_plain(text in "\\PC{0,40}") {
            if let Ok(name) = HostName::new(text.clone()) {
                prop_assert_eq!(name.to_string(), text.clone());
                let plain = text.chars().all(|c| c.is_ascii_graphic() && !"/;$`'\"%&|<>(){}~*?!#\\".contains(c));
                prop_assert!(plain, "{:?}", text);
            }
        }
    }
}
