//! Keys, SSH and X.509 certificates, identity and its certificate, one verifier.
//!
//! * [`KeyPair`], [`TlsKey`]: private keys; Ed25519 for SSH, ECDSA P-256 for TLS.
//! * [`CertAuthority`]: a cluster's authority of one kind with its private keys; [`TrustedAuthority`]: what others
//!   trust of it, and the lines that `sshd` and `ssh` read.
//! * [`CheckpointKey`]: signs a recording's checkpoints, certified by the recording CA.
//! * [`SshCa`], [`TlsCa`]: issue certificates. What they refuse to issue never has to be refused later.
//! * [`Identity`], [`HostIdentity`]: what a certificate says, after it was verified.
//! * [`verify`]: the one place where a certificate is believed or refused.
//! * [`web`]: a self-signed certificate for the proxy's web listener.
//!
//! What must stay true: nothing here reads the clock, a file or a socket; private keys are wiped when dropped and
//! never printed; no input from outside makes this crate panic.
//!
//! TLS authorities and certificates use ECDSA P-256, not Ed25519: browsers, Schannel and LibreSSL do not take
//! Ed25519 in TLS certificates, while every client we meet takes P-256.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod authority;
mod cidr;
mod database;
mod der;
mod error;
mod extension;
pub mod fuzz;
mod identity;
mod keys;
mod openssh_user;
mod pem;
mod pin;
mod recorder;
mod ssh_ca;
mod ssh_parse;
mod subject;
mod tls_ca;
mod tls_key;
pub mod verify;
pub mod web;

#[cfg(test)]
mod testing;

pub use authority::{CaKind, CertAuthority, TrustedAuthority};
pub use cidr::{Cidr, CidrError};
pub use database::{DatabaseRoute, DbClientSpec, DbServerSpec, USAGE_DATABASE};
pub use error::PkiError;
pub use extension::{SOURCE_ADDRESS, X_TELEPORT_AUTHORITY, X_TELEPORT_ROLE};
pub use identity::{HostIdentity, Identity, Permits};
pub use keys::KeyPair;
pub use openssh_user::OpensshUserSpec;
pub use pem::pem_encode;
pub use pin::{CaPin, ca_pin};
pub use recorder::{CheckpointKey, RecorderCertSpec, SIGNATURE, verify_detached};
pub use russh::keys::ssh_key;
pub use ssh_ca::{HostCertSpec, SshCa, UserCertSpec, has_wildcard};
pub use ssh_parse::{MAX_CERTIFICATE, parse_certificate, parse_certificate_line, parse_public_key};
pub use tls_ca::{HostTlsSpec, TlsCa, TlsCert, TlsIdentity};
pub use tls_key::{TlsKey, TlsPublicKey};

/// How far two clocks may be apart, in seconds: certificates start this much before they are issued, and one that
/// starts this much in the future is already taken.
pub const SKEW_SECONDS: i64 = 60;
