//! TCP, TLS, ALPN, protocol detection, copy and drain: what every service does with a connection before it knows
//! what is spoken on it, and after it stopped caring.
//!
//! What must stay true: nothing read from a peer is lost or read twice ([`Rewind`]); no length from a peer allocates
//! before it was checked; every wait has a limit.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
pub mod alpn;
mod copy;
pub mod handover;
mod hello;
mod peek;
mod rewind;
mod tcp;
pub mod tls;
pub mod tunnel;

pub use accept::{AcceptLimits, Drained, serve};
pub use copy::{Copied, CopyError, CopySide, copy_bidirectional};
pub use hello::{ClientHello, HelloError, client_hello};
pub use peek::{PeekError, Protocol, detect, ssh_identification};
pub use rewind::Rewind;
pub use tcp::{DialError, dial, tune};

/// Makes aws-lc-rs the process's TLS provider. Call it first in every program and test; later calls do nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
