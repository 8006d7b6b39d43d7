//! The protocol of Redis and Valkey, versions 2 and 3 (RESP; <https://redis.io/docs/latest/develop/reference/protocol-spec/>).
//!
//! Scanners look at bytes that pass by, cut anywhere, and keep a bounded part of them, so that a value of any size goes
//! through without being held. Where servers read leniently, these read strictly: what a server might understand in two
//! ways is malformed here, and no command can hide in it. [`Due`] knows which replies are still to come, so that an
//! answer of our own arrives in its turn, and an error is told apart from the command that it belongs to.

mod command;
mod due;
mod encode;
pub mod fuzz;
mod inline;
mod number;
mod reply;
mod secret;
mod text;

pub use command::{Arg, Command, Commands, INLINE_LIMIT, KEPT_ARGS, KEPT_BYTES};
pub use due::{Due, Got};
pub use encode::{encode, error, refuse};
pub use reply::{Kind, Replies, Reply};

/// Bytes that are no RESP, or RESP that servers read in more ways than one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A number of arguments or elements that is none.
    #[error("invalid multibulk length")]
    Count,
    /// A length that is none, or too large.
    #[error("invalid bulk length")]
    Length,
    /// An argument that does not begin with `$`.
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    Mark(u8),
    /// A line or a value that does not end in CR LF.
    #[error("expected CR LF after {0}")]
    LineEnd(&'static str),
    /// An inline command longer than [`INLINE_LIMIT`].
    #[error("too big inline request")]
    InlineTooLong,
    /// An inline command with a NUL byte.
    #[error("a NUL byte in an inline request")]
    InlineNul,
    /// An inline command whose quotes do not close.
    #[error("unbalanced quotes in request")]
    Quotes,
    /// A reply of a type that RESP does not have.
    #[error("unknown reply type '{}'", .0.escape_ascii())]
    Type(u8),
    /// A reply with more elements than can be counted.
    #[error("a reply with too many elements")]
    Elements,
}
