//! The events, by what they are about.

mod access;
mod cluster;
mod session;

pub use access::*;
pub use cluster::*;
pub use session::*;
