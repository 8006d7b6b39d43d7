//! Requests and replies, grouped by who asks.

mod admin;
mod audit;
mod cluster;
mod databases;
mod identity;
mod nodes;

pub use admin::*;
pub use audit::*;
pub use cluster::*;
pub use databases::*;
pub use identity::*;
pub use nodes::*;
