//! What a check answers.

use crate::{AddressClass, Verb};
use shared_types::Login;

/// A rule of a role: the role's name and the path within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub String);

impl RuleId {
    pub(crate) fn new(role: &str, path: impl std::fmt::Display) -> Self {
        RuleId(format!("{role}: {path}"))
    }
}

impl std::fmt::Display for RuleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A decision with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It is allowed, by these rules.
    Allow {
        /// The rules that allow it; never empty.
        rules: Vec<RuleId>,
    },
    /// It is not allowed.
    Deny {
        /// Why.
        reason: DenyReason,
    },
}

impl Decision {
    /// Whether it is allowed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }

    /// The rules that allow it, or why it is denied.
    pub fn into_result(self) -> Result<Vec<RuleId>, DenyReason> {
        match self {
            Decision::Allow { rules } => Ok(rules),
            Decision::Deny { reason } => Err(reason),
        }
    }
}

/// Why something is denied. The text is for the audit log and for administrators; a peer reads
/// [`DenyReason::peer_text`], which does not say what exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenyReason {
    /// A rule denies it.
    #[error("denied by {rule}")]
    DeniedBy {
        /// The rule.
        rule: RuleId,
    },
    /// No role allows the action on the kind.
    #[error("no role allows {verb} on {resource}")]
    NoRule {
        /// The kind.
        resource: String,
        /// The action.
        verb: Verb,
    },
    /// No role that admits the host allows the login.
    #[error("no role allows the login {login} there")]
    NoLogin {
        /// The login.
        login: Login,
    },
    /// No role admits the host.
    #[error("no role admits the host")]
    NoHost,
    /// No role admits the database.
    #[error("no role admits the database")]
    NoDatabase,
    /// No role that admits the database allows the user of it.
    #[error("no role allows the database user {user:?} there")]
    NoDbUser {
        /// The user.
        user: String,
    },
    /// No role that admits the database and the user allows the name.
    #[error("no role allows the database name {name:?} there")]
    NoDbName {
        /// The name.
        name: String,
    },
    /// The host's address was not looked up.
    #[error("the host's address is not known")]
    Unresolved,
    /// The address is one that a role has to name.
    #[error("{class} addresses need the literal address in a role")]
    NeedsLiteral {
        /// What kind of address it is.
        class: AddressClass,
    },
    /// A role asks for something that this release cannot do, so it is refused rather than ignored.
    #[error("{rule} cannot be met")]
    Unmet {
        /// The demand.
        rule: RuleId,
    },
}

impl DenyReason {
    /// What a peer may read: the same text whatever the reason.
    pub fn peer_text(&self) -> &'static str {
        "access denied"
    }
}
