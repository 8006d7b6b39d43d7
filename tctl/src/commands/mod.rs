//! One file per noun.

pub mod audit;
pub mod auth;
pub mod completion;
pub mod db;
pub mod inventory;
pub mod lock;
pub mod nodes;
pub mod recordings;
pub mod resources;
pub mod status;
pub mod tokens;
pub mod users;
pub mod version;
