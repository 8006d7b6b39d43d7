//! The one verifier. Nothing else in the workspace decides whether a certificate is to be believed.
//!
//! Order of the checks (the first that fails names the refusal): form; type; not signed by a certificate; an authority
//! of the right kind; signature; validity; principals; critical options; what the certificate says.
//! Locks, revocation and roles come after this crate.

mod pattern;
mod recorder;
mod refusal;
mod ssh;
mod tls;
mod tls_server;

pub use pattern::host_principal_matches;
pub use recorder::RecorderIdentity;
pub use refusal::CertRefusal;
pub use ssh::{HostRole, SshVerifier};
pub use tls::{ClientVerifier, TlsVerifier, tls_peer};
pub use tls_server::ServerVerifier;

#[cfg(test)]
mod database_tests;
#[cfg(test)]
mod ssh_tests;
#[cfg(test)]
mod tls_tests;
