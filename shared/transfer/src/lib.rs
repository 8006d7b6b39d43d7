//! What file copies move, seen from the middle, and what a role forbids of it.
//!
//! An [`Observer`] is shown both directions of one program: an SFTP server (`draft-ietf-secsh-filexfer-02`, version 3,
//! with OpenSSH's extensions), `scp` in its old protocol, or `rsync`. It tells what happened as [`Record`]s: one for
//! each operation, one for each file with its size, time and SHA-256. It does no I/O and knows no clock.
//!
//! What must stay true:
//! * Memory is bounded by [`Limits`], whatever the two sides send. Over a limit, and where a side breaks the protocol,
//!   the observer says that it lost track ([`Record::Untracked`]). With a policy that forbids something it then ends
//!   the session instead.
//! * What the policy forbids does not reach the server. A forbidden SFTP request is left out of the stream and
//!   answered in the server's place; request ids make that possible.
//! * File content is neither kept nor copied. It is hashed as it passes.
//! * How the stream is cut into pieces changes nothing.
//!
//! The SFTP packets are read here and not by a library: those that exist decode whole packets, which copies every
//! data packet, and take handles for text, which they are not. Only heads are read here, and nothing is written but
//! refusals.

mod command;
pub mod fuzz;
mod observer;
mod record;
mod scp;
mod sequence;
mod sftp;
mod stream;
#[cfg(test)]
mod testing;
mod text;

pub use command::Tool;
pub use observer::{Forbidden, Limits, Observer, Policy, Settings};
pub use record::{Action, Attributes, FileRecord, Missing, Operation, Record, Totals};
pub use shared_types::resource::TransferDirection as Direction;
