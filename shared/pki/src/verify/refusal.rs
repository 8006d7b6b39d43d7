//! Why a certificate was refused. The texts are those users of such proxies know; they say nothing about who or what
//! exists in the cluster.

use crate::CaKind;
use shared_types::SystemRole;

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertRefusal {
    /// A bare key where a certificate has to be; the text is the one a host earns.
    #[error("remote host presented a public key, expected a host certificate")]
    NotCertificate,
    /// The bytes are no certificate in the one form that is read.
    #[error("malformed certificate: {0}")]
    Malformed(&'static str),
    /// A host certificate shown by a user, or the other way round.
    #[error("certificate is a {found} certificate, expected a {expected} certificate")]
    WrongType {
        /// What was expected.
        expected: &'static str,
        /// What was shown.
        found: &'static str,
    },
    /// The signing key is itself a certificate.
    #[error("the certificate is signed by a certificate, not by an authority")]
    SignedByCertificate,
    /// No authority has this signing key.
    #[error("the certificate signed by untrusted CA")]
    UnknownAuthority,
    /// An authority of the cluster signed, but not one that vouches for this.
    #[error("the certificate signed by untrusted CA: the {0} CA does not vouch for it")]
    WrongAuthority(CaKind),
    /// The signature does not fit.
    #[error("certificate signature is invalid")]
    BadSignature,
    /// The certificate has ended.
    #[error("cert has expired")]
    Expired,
    /// The certificate has not begun.
    #[error("cert is not yet valid")]
    NotYetValid,
    /// There are no principals, which older readers take for all.
    #[error("need a valid principal for key {0}")]
    EmptyPrincipals(String),
    /// The key id, which names the user, is empty.
    #[error("need a valid key for key {0}")]
    EmptyKeyId(String),
    /// The wanted principal is not in the certificate.
    #[error("principal {0:?} not in the set of valid principals for given certificate")]
    Principal(String),
    /// A critical option that is not known, or not allowed here.
    #[error("unsupported critical option {0:?} in certificate")]
    UnknownCriticalOption(String),
    /// The certificate may not be used from where the peer is.
    #[error("certificate is not valid for the source address")]
    SourceAddress,
    /// The certified key is of a kind that is not taken.
    #[error("unsupported key type: {0}")]
    UnsupportedKey(String),
    /// The holder's role is missing, unknown or not the expected one.
    #[error("host certificate is for role {}, expected {expected}", .found.map_or("none", SystemRole::as_str))]
    WrongRole {
        /// What was expected.
        expected: &'static str,
        /// What the certificate says.
        found: Option<SystemRole>,
    },
    /// The certificate names another cluster than the one whose authority signed.
    #[error("certificate is for another cluster")]
    WrongCluster,
    /// The certificate is limited to another use than this, or is for any use where it has to be for this one.
    #[error("certificate is not for this use")]
    Usage,
    /// What the certificate says about its holder is not readable.
    #[error("certificate without a usable identity")]
    Identity,
}

impl CertRefusal {
    /// A stable word for logs, metrics and events.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotCertificate => "not_certificate",
            Self::Malformed(_) => "malformed",
            Self::WrongType { .. } => "wrong_type",
            Self::SignedByCertificate => "signed_by_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::WrongAuthority(_) => "wrong_authority",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::EmptyPrincipals(_) => "empty_principals",
            Self::EmptyKeyId(_) => "empty_key_id",
            Self::Principal(_) => "principal",
            Self::UnknownCriticalOption(_) => "unknown_critical_option",
            Self::SourceAddress => "source_address",
            Self::UnsupportedKey(_) => "unsupported_key",
            Self::WrongRole { .. } => "wrong_role",
            Self::WrongCluster => "wrong_cluster",
            Self::Usage => "usage",
            Self::Identity => "identity",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users' scripts and guides quote these; a change here is a change for them.
    #[test]
    fn texts() {
        let key = || "SHA256:x".to_owned();
        let table = [
            (
                CertRefusal::NotCertificate,
                "not_certificate",
                "remote host presented a public key, expected a host certificate",
            ),
            (CertRefusal::Malformed("truncated"), "malformed", "malformed certificate: truncated"),
            (
                CertRefusal::WrongType { expected: "host", found: "user" },
                "wrong_type",
                "certificate is a user certificate, expected a host certificate",
            ),
            (
                CertRefusal::SignedByCertificate,
                "signed_by_certificate",
                "the certificate is signed by a certificate, not by an authority",
            ),
            (
                CertRefusal::UnknownAuthority,
                "unknown_authority",
                "the certificate signed by untrusted CA",
            ),
            (
                CertRefusal::WrongAuthority(CaKind::Host),
                "wrong_authority",
                "the certificate signed by untrusted CA: the host CA does not vouch for it",
            ),
            (CertRefusal::BadSignature, "bad_signature", "certificate signature is invalid"),
            (CertRefusal::Expired, "expired", "cert has expired"),
            (CertRefusal::NotYetValid, "not_yet_valid", "cert is not yet valid"),
            (
                CertRefusal::EmptyPrincipals(key()),
                "empty_principals",
                "need a valid principal for key SHA256:x",
            ),
            (CertRefusal::EmptyKeyId(key()), "empty_key_id", "need a valid key for key SHA256:x"),
            (
                CertRefusal::Principal("a\x1bb".to_owned()),
                "principal",
                "principal \"a\\u{1b}b\" not in the set of valid principals for given certificate",
            ),
            (
                CertRefusal::UnknownCriticalOption("force-command".to_owned()),
                "unknown_critical_option",
                "unsupported critical option \"force-command\" in certificate",
            ),
            (
                CertRefusal::SourceAddress,
                "source_address",
                "certificate is not valid for the source address",
            ),
            (
                CertRefusal::UnsupportedKey("ssh-dss".to_owned()),
                "unsupported_key",
                "unsupported key type: ssh-dss",
            ),
            (
                CertRefusal::WrongRole { expected: "Node", found: None },
                "wrong_role",
                "host certificate is for role none, expected Node",
            ),
            (CertRefusal::WrongCluster, "wrong_cluster", "certificate is for another cluster"),
            (CertRefusal::Usage, "usage", "certificate is not for this use"),
            (CertRefusal::Identity, "identity", "certificate without a usable identity"),
        ];
        for (refusal, code, text) in table {
            assert_eq!((refusal.code(), refusal.to_string().as_str()), (code, text));
        }
    }
}
