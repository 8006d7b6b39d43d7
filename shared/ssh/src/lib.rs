//! SSH: client, server, agent and the relay with taps; the only home of russh.
//!
//! * [`wire`]: agent messages and the userauth request that an agent is asked to sign; sans-IO.
//! * [`agent`]: the embedded agent, which signs for one host, one user and one session only.
//! * [`client`]: the way of a user through the proxy to a target.
//! * [`server`], [`relay`], [`target`], [`signer`]: the recording proxy's side.
//! * [`node`]: the server on a host where users log in.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
pub mod client;
mod elastic;
pub mod fuzz;
mod guard;
pub mod node;
mod prefixed;
pub mod relay;
pub mod server;
pub mod signer;
pub mod target;
pub mod wire;

pub use russh;
