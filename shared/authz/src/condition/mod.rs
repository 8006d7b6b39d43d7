//! `where` conditions, label expressions, and queries over nodes and databases: text → typed tree → answer.
//!
//! A condition that names something unknown does not parse; one that needs something the caller does not have
//! (a session's participants where there is no session) has no answer, which the caller treats as a refusal.

mod eval;
mod lexer;
mod parser;

pub use eval::{Queried, WhereCtx};
pub(crate) use eval::{Subject, Unknown};

use lexer::Token;

/// Why a condition was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("condition at column {column}: {what}")]
pub struct ConditionError {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

/// A parsed condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(Expr);

impl std::str::FromStr for Condition {
    type Err = ConditionError;
    fn from_str(text: &str) -> Result<Self, ConditionError> {
        parser::parse(text, false).map(Condition)
    }
}

/// A parsed query over nodes or databases, such as `labels["env"] == "prod" && search("db")`. It decides what is shown of what its
/// writer may see anyway, and never about access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Expr);

impl std::str::FromStr for Query {
    type Err = ConditionError;
    fn from_str(text: &str) -> Result<Self, ConditionError> {
        parser::parse(text, true).map(Query)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Contains(List, Text),
    ContainsAny(List, List),
    ContainsAll(List, List),
    EqualText(Text, Text),
    EqualList(List, List),
    /// Of queries: each word stands somewhere in its names, addresses or labels.
    Search(Vec<String>),
    /// Of queries: the text begins so.
    HasPrefix(Text, Text),
    /// Of queries: it has the label.
    Exists(String),
}

/// Something that is one text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    Literal(String),
    UserName,
    ResourceName,
    ResourceLabel(String),
    /// A label of the target, in label expressions and queries.
    Label(String),
    /// Of queries: its name.
    NodeName,
}

/// Something that is a list of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum List {
    Set(Vec<String>),
    UserRoles,
    UserTrait(String),
    Participants,
    TrackerParticipants,
}

#[cfg(test)]
mod tests;
