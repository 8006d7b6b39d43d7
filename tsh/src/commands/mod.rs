//! One file per command.

pub mod agent;
pub mod completion;
pub mod config;
pub mod db;
pub mod login;
pub mod logout;
pub mod ls;
pub mod play;
pub mod proxy;
pub mod recordings;
pub mod scp;
pub mod signup;
pub mod ssh;
pub mod status;
pub mod version;
