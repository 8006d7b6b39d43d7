//! Roles × resources × actions → a decision with its reason.
//!
//! Pure: no clock, no sockets, no storage. What must stay true: nothing is allowed that no role allows, and a
//! deny of any role wins. A rule that cannot be read (a template, an expression, a condition on something not
//! known here) allows nothing and denies everything it could. Turning a decision into an access is not done
//! here; `server-core` does it, after the event is durable.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
mod condition;
mod database;
mod decision;
mod label;
mod options;
mod role_set;
mod ssh;
mod template;
mod validate;
mod verb;

pub use address::AddressClass;
pub use condition::{Condition, ConditionError, Queried, Query, WhereCtx};
pub use database::{DbTarget, Names};
pub use decision::{Decision, DenyReason, RuleId};
pub use label::{LabelMatcher, PatternError};
pub use options::MergedOptions;
pub use role_set::RoleSet;
pub use shared_types::Strictness;
pub use ssh::SshTarget;
pub use template::{Template, TemplateError};
pub use validate::{Fault, RoleFault, validate_role};
pub use verb::{UnknownVerb, Verb};
