//! Why a client is not led to a database, and how it reads that in its own protocol.

use server_core::AccessRefused;
use shared_pki::verify::CertRefusal;
use shared_wire::postgres::sqlstate;
use shared_wire::{http, mysql, postgres, redis};

use super::Speaks;

/// The error of AWS's protocols that clients try again.
const UNAVAILABLE: &str = "com.amazon.coral.service#ServiceUnavailableException";

/// Why a client is not led to a database. The text is for the client, and says nothing of what it may not see.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Refusal {
    /// It broke its protocol; how.
    #[error("{0}")]
    Protocol(String),
    /// It showed no certificate.
    #[error(
        "a client certificate is needed: connect through `tsh proxy db`, or with the certificate that `tsh db login` \
         made and TLS required"
    )]
    NoCertificate,
    /// Its certificate is not believed.
    #[error("{}", certificate_text(.0))]
    Certificate(CertRefusal),
    /// The user may do nothing.
    #[error("{}", .0.peer_text())]
    User(AccessRefused),
    /// The certificate is for a database that speaks something else.
    #[error(
        "the certificate is for a database that speaks {0}, and this is not how one asks for such a one"
    )]
    OtherProtocol(String),
    /// There is no such database, or the user may not see it.
    #[error(
        "database {0:?} does not exist or your roles do not admit you to it; `tsh db ls` lists what they do"
    )]
    Unknown(String),
    /// No agent that serves it is reached.
    #[error(
        "no agent that serves database {0:?} can be reached now; it may be restarting, try again in a moment"
    )]
    Offline(String),
    /// The user has as many connections as there may be.
    #[error("too many connections: one user may have {0} at a time")]
    TooMany(u64),
}

fn certificate_text(refusal: &CertRefusal) -> String {
    match refusal {
        CertRefusal::Expired => {
            "the certificate has expired; `tsh db login` or `tsh login` makes a new one".to_owned()
        }
        CertRefusal::Usage => {
            "the certificate is not for a database; `tsh db login` makes one that is".to_owned()
        }
        // Which authority signed, and what for, is nobody's business who cannot prove to be a user.
        CertRefusal::UnknownAuthority
        | CertRefusal::WrongAuthority(_)
        | CertRefusal::WrongCluster => {
            "the certificate is not one of this cluster's users; `tsh login` makes one".to_owned()
        }
        other => other.to_string(),
    }
}

/// What a refusal is, in the codes of two protocols: PostgreSQL's SQLSTATE, MySQL's number and SQLSTATE.
struct Codes(&'static str, u16, &'static str);

impl Refusal {
    fn codes(&self) -> Codes {
        match self {
            // ER_MALFORMED_PACKET
            Self::Protocol(_) => Codes(sqlstate::PROTOCOL, 1835, "HY000"),
            // ER_BAD_DB_ERROR
            Self::Unknown(_) => Codes(sqlstate::NO_DATABASE, 1049, "42000"),
            // ER_CONNECT_TO_FOREIGN_DATA_SOURCE
            Self::Offline(_) => Codes(sqlstate::UNREACHABLE, 1429, "HY000"),
            // ER_CON_COUNT_ERROR
            Self::TooMany(_) => Codes(sqlstate::TOO_MANY, 1040, "08004"),
            // ER_ACCESS_DENIED_ERROR
            Self::NoCertificate | Self::Certificate(_) | Self::User(_) | Self::OtherProtocol(_) => {
                Codes(sqlstate::NOT_ALLOWED, 1045, "28000")
            }
        }
    }

    /// The refusal as a client reads it that speaks `speaks`; `sequence` is the number of MySQL's packet.
    pub(super) fn bytes(&self, speaks: Speaks, sequence: u8) -> Vec<u8> {
        let (text, Codes(state, number, mysql_state)) = (self.to_string(), self.codes());
        match speaks {
            Speaks::Postgres => postgres::refuse(state, &text),
            Speaks::Mysql => mysql::refuse(sequence, number, mysql_state, &text),
            Speaks::Redis => redis::refuse(&text),
            // Clients try again what may pass.
            Speaks::Dynamodb if matches!(self, Self::Offline(_) | Self::TooMany(_)) => {
                http::refuse(503, UNAVAILABLE, &text)
            }
            Speaks::Dynamodb => http::refuse(400, http::aws::ACCESS_DENIED, &text),
        }
    }

    /// The whole reason, for the log and the audit log.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Certificate(refusal) => refusal.to_string(),
            Self::User(refusal) => refusal.to_string(),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_codes_and_words_in_every_protocol() {
        let unknown = Refusal::Unknown("main".to_owned());
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for speaks in [Speaks::Postgres, Speaks::Mysql, Speaks::Redis, Speaks::Dynamodb] {
            let text = shown(&unknown.bytes(speaks, 3));
            assert!(text.contains("main") && text.contains("tsh db ls"), "{text}");
        }
        assert!(shown(&unknown.bytes(Speaks::Postgres, 0)).contains("C3D000\0"));
        let mysql = unknown.bytes(Speaks::Mysql, 3);
        assert_eq!(
            (mysql[3], &mysql[4..7], &mysql[7..13]),
            (3, &[0xff, 0x19, 0x04][..], &b"#42000"[..])
        );
        assert!(shown(&Refusal::NoCertificate.bytes(Speaks::Postgres, 0)).contains("C28000\0"));
        let expired = Refusal::Certificate(CertRefusal::Expired);
        assert!(expired.to_string().contains("expired") && expired.reason() == "cert has expired");
    }
}
