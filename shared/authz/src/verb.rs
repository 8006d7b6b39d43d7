//! Actions on the cluster's own resources.

/// An action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// See which there are.
    List,
    /// Make a new one.
    Create,
    /// Read it with its secrets.
    Read,
    /// Read it without its secrets.
    ReadNoSecrets,
    /// Change it.
    Update,
    /// Remove it.
    Delete,
    /// Replace keys.
    Rotate,
    /// Run it.
    Use,
    /// Enrol a device.
    Enroll,
    /// Make a token that enrols a device.
    CreateEnrollToken,
}

/// The text names no verb.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown verb {0:?}")]
pub struct UnknownVerb(String);

impl Verb {
    /// All verbs.
    pub const ALL: [Verb; 10] = [
        Verb::List,
        Verb::Create,
        Verb::Read,
        Verb::ReadNoSecrets,
        Verb::Update,
        Verb::Delete,
        Verb::Rotate,
        Verb::Use,
        Verb::Enroll,
        Verb::CreateEnrollToken,
    ];

    /// The name in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::List => "list",
            Verb::Create => "create",
            Verb::Read => "read",
            Verb::ReadNoSecrets => "readnosecrets",
            Verb::Update => "update",
            Verb::Delete => "delete",
            Verb::Rotate => "rotate",
            Verb::Use => "use",
            Verb::Enroll => "enroll",
            Verb::CreateEnrollToken => "create_enroll_token",
        }
    }

    /// Whether a verb of an allow rule grants this one: reading includes reading without secrets.
    pub(crate) fn granted_by(self, written: &str) -> bool {
        written == "*"
            || written == self.as_str()
            || (self == Verb::ReadNoSecrets && written == "read")
    }

    /// Whether a verb of a deny rule takes this one away: who may not read at all may not read secrets, and the
    /// other way round nobody reads with secrets what they may not read without.
    pub(crate) fn denied_by(self, written: &str) -> bool {
        self.granted_by(written) || (self == Verb::Read && written == "readnosecrets")
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Verb {
    type Err = UnknownVerb;
    fn from_str(text: &str) -> Result<Self, UnknownVerb> {
        Self::ALL
            .into_iter()
            .find(|verb| verb.as_str() == text)
            .ok_or_else(|| UnknownVerb(text.chars().take(64).collect()))
    }
}
