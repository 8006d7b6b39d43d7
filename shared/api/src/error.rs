//! The one error body of the API, and its HTTP status.

use serde::{Deserialize, Serialize};

/// Whose fault an error is, and what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is malformed or asks for something impossible.
    BadRequest,
    /// No certificate, an expired one, or a wrong password.
    Unauthenticated,
    /// The caller is known and may not.
    Denied,
    /// No such thing, or the caller may not know that there is one.
    NotFound,
    /// A thing of that name is there already.
    AlreadyExists,
    /// The account is locked.
    Locked,
    /// Try again later.
    Unavailable,
    /// A fault of the service; details are in its log. Kinds of newer services read as this too.
    #[serde(other)]
    Internal,
}

impl ErrorKind {
    /// The HTTP status of a reply with this kind.
    pub fn status(self) -> http::StatusCode {
        use http::StatusCode as S;
        match self {
            Self::BadRequest => S::BAD_REQUEST,
            Self::Unauthenticated => S::UNAUTHORIZED,
            Self::Denied => S::FORBIDDEN,
            Self::NotFound => S::NOT_FOUND,
            Self::AlreadyExists => S::CONFLICT,
            Self::Locked => S::LOCKED,
            Self::Unavailable => S::SERVICE_UNAVAILABLE,
            Self::Internal => S::INTERNAL_SERVER_ERROR,
        }
    }

    /// The kind a bare status stands for, where the body says nothing.
    pub fn from_status(status: http::StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthenticated,
            403 => Self::Denied,
            404 => Self::NotFound,
            409 => Self::AlreadyExists,
            423 => Self::Locked,
            408 | 429 | 502 | 503 | 504 => Self::Unavailable,
            400..=499 => Self::BadRequest,
            _ => Self::Internal,
        }
    }

    /// True where the same request may succeed later, unchanged.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Internal)
    }
}

/// What a failed request gets; its text is written for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// One sentence for the caller.
    pub message: String,
    /// What to do next, where there is something to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// [`ApiError`] as it stands in a reply: `{"error":{…}}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

impl ApiError {
    /// An error of `kind` with a text for the caller.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same with the next thing to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// [`ErrorKind::BadRequest`].
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }

    /// [`ErrorKind::Unauthenticated`].
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unauthenticated, message)
    }

    /// [`ErrorKind::Denied`].
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::AlreadyExists`].
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::AlreadyExists, message)
    }

    /// [`ErrorKind::Locked`].
    pub fn locked(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Locked, message)
    }

    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Internal`]; the details belong into the service's log, not here.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The body to send.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.clone() }
    }

    /// What a reply's status and body say; never fails, whatever the bytes.
    pub fn from_reply(status: http::StatusCode, body: &[u8]) -> Self {
        if let Ok(body) = serde_json::from_slice::<ErrorBody>(body) {
            return body.error;
        }
        Self::new(ErrorKind::from_status(status), format!("the service answered {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_shape() {
        let err = ApiError::denied("access denied").with_hint("ask an administrator");
        let json = serde_json::to_string(&err.body()).unwrap();
        assert_eq!(
            json,
            r#"{"error":{"kind":"denied","message":"access denied","hint":"ask an administrator"}}"#
        );
        assert_eq!(ApiError::from_reply(http::StatusCode::FORBIDDEN, json.as_bytes()), err);
    }

    #[test]
    fn foreign_replies_are_read_by_status() {
        for (status, kind) in [
            (404, ErrorKind::NotFound),
            (503, ErrorKind::Unavailable),
            (418, ErrorKind::BadRequest),
            (500, ErrorKind::Internal),
        ] {
            let status = http::StatusCode::from_u16(status).unwrap();
            assert_eq!(ApiError::from_reply(status, b"<html>").kind, kind);
        }
        let newer = br#"{"error":{"kind":"quota","message":"m"}}"#;
        assert_eq!(
            ApiError::from_reply(http::StatusCode::FORBIDDEN, newer).kind,
            ErrorKind::Internal
        );
    }

    #[test]
    fn statuses_come_back_as_their_kind() {
        for kind in [
            ErrorKind::BadRequest,
            ErrorKind::Unauthenticated,
            ErrorKind::Denied,
            ErrorKind::NotFound,
            ErrorKind::AlreadyExists,
            ErrorKind::Locked,
            ErrorKind::Unavailable,
            ErrorKind::Internal,
        ] {
            assert_eq!(ErrorKind::from_status(kind.status()), kind);
        }
    }
}
