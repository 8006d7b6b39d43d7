//! Answers a condition.

use super::{Condition, Expr, List, Query, Text};
use shared_types::{Database, Labels, Node, Traits};

/// What a check knows beside the user. What is `None` is not known, and a condition on it refuses.
#[derive(Debug, Clone, Copy, Default)]
pub struct WhereCtx<'a> {
    /// The resource's name.
    pub resource_name: Option<&'a str>,
    /// The resource's labels.
    pub resource_labels: Option<&'a Labels>,
    /// Who took part in the recorded session.
    pub participants: Option<&'a [String]>,
    /// Who takes part in the live session.
    pub tracker_participants: Option<&'a [String]>,
}

impl<'a> WhereCtx<'a> {
    /// Nothing is known.
    pub fn none() -> Self {
        Self::default()
    }

    /// A resource.
    pub fn resource(metadata: &'a shared_types::Metadata) -> Self {
        WhereCtx {
            resource_name: Some(&metadata.name),
            resource_labels: Some(&metadata.labels),
            ..Self::default()
        }
    }

    /// A recorded session.
    pub fn session(participants: &'a [String]) -> Self {
        WhereCtx { participants: Some(participants), ..Self::default() }
    }
}

/// The condition needs something that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unknown;

/// Everything a condition may look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) user: &'a str,
    pub(crate) roles: &'a [String],
    pub(crate) traits: &'a Traits,
    pub(crate) ctx: &'a WhereCtx<'a>,
    /// Labels of the target; none for rules.
    pub(crate) labels: Option<&'a Labels>,
    /// What a query is about.
    pub(crate) queried: Option<&'a dyn Queried>,
}

impl Condition {
    pub(crate) fn holds(&self, subject: &Subject<'_>) -> Result<bool, Unknown> {
        self.0.holds(subject)
    }
}

/// What a query can be about.
pub trait Queried: std::fmt::Debug {
    /// Its name as a resource.
    fn id(&self) -> &str;
    /// The name users know it by.
    fn known_as(&self) -> &str;
    /// Whether each of the words stands somewhere in it.
    fn contains_all(&self, words: &[String]) -> bool;
}

impl Queried for Node {
    fn id(&self) -> &str {
        self.name()
    }

    fn known_as(&self) -> &str {
        &self.spec.hostname
    }

    fn contains_all(&self, words: &[String]) -> bool {
        Node::contains_all(self, words)
    }
}

impl Queried for Database {
    fn id(&self) -> &str {
        self.name()
    }

    fn known_as(&self) -> &str {
        self.name()
    }

    fn contains_all(&self, words: &[String]) -> bool {
        Database::contains_all(self, words)
    }
}

impl Query {
    /// Whether something with these labels is asked for.
    pub fn matches(&self, queried: &dyn Queried, labels: &Labels) -> bool {
        let ctx = WhereCtx {
            resource_name: Some(queried.id()),
            resource_labels: Some(labels),
            ..WhereCtx::none()
        };
        let traits = Traits::new();
        let subject = Subject {
            user: "",
            roles: &[],
            traits: &traits,
            ctx: &ctx,
            labels: Some(labels),
            queried: Some(queried),
        };
        self.0.holds(&subject) == Ok(true)
    }
}

impl Expr {
    fn holds(&self, subject: &Subject<'_>) -> Result<bool, Unknown> {
        Ok(match self {
            Expr::Not(inner) => !inner.holds(subject)?,
            Expr::And(left, right) => left.holds(subject)? && right.holds(subject)?,
            Expr::Or(left, right) => left.holds(subject)? || right.holds(subject)?,
            Expr::Contains(list, item) => {
                let item = item.value(subject)?;
                list.values(subject)?.contains(&item)
            }
            Expr::ContainsAny(list, items) => {
                let list = list.values(subject)?;
                items.values(subject)?.iter().any(|item| list.contains(item))
            }
            Expr::ContainsAll(list, items) => {
                let list = list.values(subject)?;
                let items = items.values(subject)?;
                // "All of nothing" would be true for everybody.
                !items.is_empty() && items.iter().all(|item| list.contains(item))
            }
            Expr::EqualText(left, right) => left.value(subject)? == right.value(subject)?,
            Expr::EqualList(left, right) => left.values(subject)? == right.values(subject)?,
            Expr::Search(words) => subject.queried.ok_or(Unknown)?.contains_all(words),
            Expr::HasPrefix(text, start) => text.value(subject)?.starts_with(start.value(subject)?),
            Expr::Exists(label) => subject.labels.ok_or(Unknown)?.contains_key(label),
        })
    }
}

impl Text {
    fn value<'a>(&'a self, subject: &Subject<'a>) -> Result<&'a str, Unknown> {
        // A label that is not there is an empty text, as in the expressions people know.
        let label = |labels: Option<&'a Labels>, name: &String| {
            labels
                .map(|labels| labels.get(name).map(String::as_str).unwrap_or_default())
                .ok_or(Unknown)
        };
        match self {
            Text::Literal(text) => Ok(text),
            Text::UserName => Ok(subject.user),
            Text::ResourceName => subject.ctx.resource_name.ok_or(Unknown),
            Text::ResourceLabel(name) => label(subject.ctx.resource_labels, name),
            Text::Label(name) => label(subject.labels, name),
            Text::NodeName => subject.queried.map(Queried::known_as).ok_or(Unknown),
        }
    }
}

impl List {
    fn values<'a>(&'a self, subject: &Subject<'a>) -> Result<Vec<&'a str>, Unknown> {
        let list = match self {
            List::Set(items) => items.as_slice(),
            List::UserRoles => subject.roles,
            List::UserTrait(name) => {
                subject.traits.get(name).map(Vec::as_slice).unwrap_or_default()
            }
            List::Participants => subject.ctx.participants.ok_or(Unknown)?,
            List::TrackerParticipants => subject.ctx.tracker_participants.ok_or(Unknown)?,
        };
        Ok(list.iter().map(String::as_str).collect())
    }
}
