//! What can go wrong when keys and certificates are made, read or stored.

use crate::CaKind;

/// Why a key or a certificate could not be made, read or stored.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The random number generator or the key generation failed.
    #[error("generate a key")]
    Generate,
    /// A private key could not be read; the cause is left out, since it may quote the key.
    #[error("private key is not readable")]
    PrivateKey,
    /// A private key could not be written.
    #[error("encode a private key")]
    EncodeKey,
    /// A public key could not be read.
    #[error("public key is not readable")]
    PublicKey,
    /// A public key of a kind that is not certified.
    #[error("unsupported key type: {0}")]
    UnsupportedKey(String),
    /// An authority was asked for what its kind does not sign.
    #[error("the {0} CA does not sign {1} certificates")]
    WrongAuthority(CaKind, &'static str),
    /// The authority has no key of the kind needed.
    #[error("the {0} CA has no {1} key")]
    NoKey(CaKind, &'static str),
    /// A certificate without principals would be valid for nobody or, in older readers, for everybody.
    #[error("a certificate needs at least one principal")]
    NoPrincipals,
    /// A principal that cannot stand in a certificate.
    #[error("invalid principal {0:?}")]
    Principal(String),
    /// More principals than OpenSSH reads.
    #[error("more than {0} principals")]
    TooManyPrincipals(usize),
    /// The lifetime is zero or beyond what a certificate can say.
    #[error("invalid certificate lifetime")]
    Lifetime,
    /// A name that is not usable in a certificate.
    #[error("invalid name {0:?} for a certificate")]
    Name(String),
    /// An SSH certificate could not be built.
    #[error("sign an SSH certificate")]
    SshSign(#[source] crate::ssh_key::Error),
    /// An X.509 certificate could not be built.
    #[error("sign an X.509 certificate")]
    X509Sign(#[source] rcgen::Error),
    /// The bytes are not an X.509 certificate.
    #[error("X.509 certificate is not readable")]
    X509Read,
    /// A certificate and a private key that do not belong together.
    #[error("certificate and private key do not belong together")]
    KeyMismatch,
    /// A CA pin in a form other than `sha256:` and 64 hexadecimal digits.
    #[error("invalid CA pin, expected sha256: and 64 hexadecimal digits")]
    Pin,
    /// A stored value could not be written or read as JSON.
    #[error("encode identity")]
    Json(#[source] serde_json::Error),
    /// The certificate lacks something an identity needs, or says it twice.
    #[error("certificate without a usable {0}")]
    Identity(&'static str),
}
