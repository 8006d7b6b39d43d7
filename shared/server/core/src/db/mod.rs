//! What a proxy and a database service share: what one says to the other of a connection.

mod preamble;

pub use preamble::{Preamble, PreambleError};
