//! The events, by what they are about.

mod access;
mod cluster;
mod database;
mod session;

pub use access::*;
pub use cluster::*;
pub use database::*;
pub use session::*;
