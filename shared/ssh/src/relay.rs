//! The relay between a client and a target, and what it shows to a [`Tap`].
//!
//! What must stay true:
//! * Nothing passes that is not in the [`table`].
//! * Output is shown to the tap before the client gets it; a slow tap or a slow client stops the target.
//! * A session whose tap wants a [`Filter`] passes both ways through it, from the program's first byte on.
//! * Each session channel has a connection of its own to the target, because russh opens a window again on receipt and
//!   one unread channel stalls its whole connection. Memory that stands for a reader who does not read is bounded.
//! * Callbacks of russh hand over and return. Only the requests that start a program wait for the target's answer
//!   there, with a limit: russh keeps one "wants reply" per channel, so that a later answer would go to another request.
//!
//! Who may do what is decided by the [`InnerService`]; this module asks and obeys.

pub(crate) mod filter;
pub(crate) mod gate;
mod inner;
pub(crate) mod pump;
pub(crate) mod session;
pub(crate) mod shared;
pub mod table;
mod tap;

pub use filter::Filter;
pub use gate::Gate;
pub use inner::{InnerService, serve_inner};
pub use pump::{CHANNEL_CAP, SMALL_BUFFER};
pub use tap::{Ended, ForwardTap, Program, PtyInfo, Size, Start, Stream, Tap, Watch};

/// How the first channel tells a client that the target cannot be had; OpenSSH shows `connect failed: TEXT`.
pub fn connect_failed(text: impl Into<String>) -> russh::ChannelOpenFailure {
    russh::ChannelOpenFailure::Other { code: 2, reason: text.into() }
}

/// The refusal of a channel for a reason of policy.
pub(crate) fn prohibited(text: impl Into<String>) -> russh::ChannelOpenFailure {
    russh::ChannelOpenFailure::Other { code: 1, reason: text.into() }
}

/// The refusal of a channel type that is not in the table.
pub(crate) fn unknown_channel_type(name: &str) -> russh::ChannelOpenFailure {
    russh::ChannelOpenFailure::Other { code: 3, reason: format!("unknown channel type: {name}") }
}

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
