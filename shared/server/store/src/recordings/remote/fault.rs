//! What an object store answers that is no success: which step, at which object, why, and what to do.
//!
//! A fault is made of the store's own code and message. Headers, signatures and whole bodies stay out of it:
//! it goes to logs.

use std::fmt;

use http::StatusCode;

/// Longest text of a store that is kept.
const DETAIL: usize = 300;

/// A step at an object store that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step} {place}: {detail}{}", Hint(*kind))]
pub struct StoreFault {
    /// What was done.
    pub step: &'static str,
    /// To what: `s3://bucket/key` or `gs://bucket/key`.
    pub place: String,
    /// What kind of fault it is.
    pub kind: FaultKind,
    /// What the store or the network said.
    pub detail: String,
}

/// What kind of fault it is; it decides the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// None, wrong or expired.
    Credentials,
    /// The credentials do not allow this step.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// The clocks differ.
    Clock,
    /// The bucket is in another region.
    Region,
    /// The asked encryption is not to be had.
    Encryption,
    /// No connection, or it broke.
    Unreachable,
    /// The store is busy or has a fault of its own.
    Busy,
    /// The store has forgotten the upload.
    UploadGone,
    /// There is no such object.
    Missing,
    /// The object is there already.
    Exists,
    /// The store cannot do this.
    NotImplemented,
    /// Anything else.
    Other,
}

impl FaultKind {
    /// What to do about it, where that is known.
    pub fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::Credentials => {
                "check the credentials in the environment of the auth service (AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, or the instance's role)"
            }
            Self::Denied => {
                "allow these credentials to list, read, write and delete objects and versions below the path"
            }
            Self::NoBucket => "create the bucket, with versioning, or correct audit_sessions_uri",
            Self::Clock => "set this host's clock by NTP",
            Self::Region => "set region in audit_sessions_uri to the bucket's region",
            Self::Encryption => {
                "correct sse_kms_key in audit_sessions_uri, or set disablesse=true to encrypt as the bucket is set"
            }
            Self::Unreachable => "check endpoint in audit_sessions_uri, DNS and the network",
            Self::Busy
            | Self::UploadGone
            | Self::Missing
            | Self::Exists
            | Self::NotImplemented
            | Self::Other => return None,
        })
    }

    /// Whether it says something of the one object, and nothing of the store.
    pub(super) fn is_of_one_object(self) -> bool {
        matches!(self, Self::UploadGone | Self::Missing | Self::Exists)
    }
}

struct Hint(FaultKind);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.remedy().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

/// Where a step happens; makes faults of what went wrong there.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) step: &'static str,
    pub(super) place: String,
}

impl At {
    pub(super) fn fault(&self, kind: FaultKind, detail: impl AsRef<str>) -> StoreFault {
        StoreFault {
            step: self.step,
            place: self.place.clone(),
            kind,
            detail: bounded(detail.as_ref()),
        }
    }

    /// An error on the way, with its causes.
    pub(super) fn failed(
        &self,
        kind: FaultKind,
        error: &(dyn std::error::Error + 'static),
    ) -> StoreFault {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            let cause = source.to_string();
            // Many errors repeat their cause.
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
            next = source.source();
        }
        self.fault(kind, text)
    }

    /// A refusal by the store.
    pub(super) fn refused(&self, status: StatusCode, code: &str, message: &str) -> StoreFault {
        let said: Vec<&str> = [code, message].into_iter().filter(|text| !text.is_empty()).collect();
        let said = if said.is_empty() { String::new() } else { format!(" {}", said.join(": ")) };
        self.fault(kind(status, code, message), format!("status {}{said}", status.as_u16()))
    }
}

fn kind(status: StatusCode, code: &str, message: &str) -> FaultKind {
    match code {
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "InvalidClientTokenId"
        | "authError" => FaultKind::Credentials,
        "RequestTimeTooSkewed" | "RequestExpired" => FaultKind::Clock,
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException" => FaultKind::Region,
        "NoSuchBucket" => FaultKind::NoBucket,
        "NoSuchUpload" => FaultKind::UploadGone,
        "NoSuchKey" | "NoSuchVersion" => FaultKind::Missing,
        "PreconditionFailed" | "conditionNotMet" => FaultKind::Exists,
        "SlowDown"
        | "ServiceUnavailable"
        | "InternalError"
        | "RequestTimeout"
        | "ConditionalRequestConflict"
        | "OperationAborted" => FaultKind::Busy,
        _ if code.to_ascii_lowercase().starts_with("kms") || message.contains("KMS") => {
            FaultKind::Encryption
        }
        "NotImplemented" | "MethodNotAllowed" => FaultKind::NotImplemented,
        _ if message.contains("bucket does not exist") => FaultKind::NoBucket,
        _ => match status.as_u16() {
            401 => FaultKind::Credentials,
            403 => FaultKind::Denied,
            301 | 307 => FaultKind::Region,
            404 => FaultKind::Missing,
            410 => FaultKind::UploadGone,
            412 => FaultKind::Exists,
            405 | 501 => FaultKind::NotImplemented,
            408 | 409 | 429 | 500 | 502..=599 => FaultKind::Busy,
            _ => FaultKind::Other,
        },
    }
}

/// One line of bounded length: what a peer says goes into logs.
fn bounded(text: &str) -> String {
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL).collect();
    if text.chars().nth(DETAIL).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stores_say_becomes_a_fault_with_its_remedy() {
        let at = At { step: "upload part 3 of", place: "s3://audit/records/x.tar".into() };
        for (status, code, message, expected) in [
            (403, "InvalidAccessKeyId", "", FaultKind::Credentials),
            (403, "SignatureDoesNotMatch", "", FaultKind::Credentials),
            (401, "", "", FaultKind::Credentials),
            (403, "RequestTimeTooSkewed", "", FaultKind::Clock),
            (400, "AuthorizationHeaderMalformed", "", FaultKind::Region),
            (301, "PermanentRedirect", "", FaultKind::Region),
            (404, "NoSuchBucket", "", FaultKind::NoBucket),
            (404, "notFound", "The specified bucket does not exist.", FaultKind::NoBucket),
            (404, "NoSuchUpload", "", FaultKind::UploadGone),
            (404, "NoSuchKey", "", FaultKind::Missing),
            (404, "", "", FaultKind::Missing),
            (412, "PreconditionFailed", "", FaultKind::Exists),
            (403, "AccessDenied", "", FaultKind::Denied),
            (400, "KMS.NotFoundException", "", FaultKind::Encryption),
            (404, "kms:KeyNotFound", "", FaultKind::Encryption),
            (501, "NotImplemented", "KMS is not configured", FaultKind::Encryption),
            (501, "NotImplemented", "", FaultKind::NotImplemented),
            (503, "SlowDown", "", FaultKind::Busy),
            (429, "", "", FaultKind::Busy),
            (400, "MalformedXML", "", FaultKind::Other),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(at.refused(status, code, message).kind, expected, "{status} {code}");
        }
        let shown =
            at.refused(StatusCode::FORBIDDEN, "InvalidAccessKeyId", "no such key").to_string();
        assert!(
            shown.starts_with(
                "upload part 3 of s3://audit/records/x.tar: status 403 InvalidAccessKeyId: no such key; check"
            ),
            "{shown}"
        );
    }

    #[test]
    fn what_a_store_says_is_one_short_line() {
        let at = At { step: "read", place: "s3://a/b".into() };
        let fault = at.fault(FaultKind::Other, format!("a\nb\u{1b}{}", "x".repeat(9999)));
        assert!(fault.detail.starts_with("a b x") && fault.detail.chars().count() == DETAIL + 1);
    }
}
