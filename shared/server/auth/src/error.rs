//! Errors of the auth service: what the caller may read, and what only the log may.

use std::error::Error;

use shared_api::{ApiError, ErrorKind};

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Written for whoever asked.
    #[error(transparent)]
    Answer(#[from] ApiError),
    /// Our fault, or the disk's; the caller learns no more than that.
    #[error("{step}")]
    Internal {
        /// What was being done.
        step: &'static str,
        /// Why it did not work.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl AuthError {
    /// A fault of our own at `step`.
    pub(crate) fn internal(
        step: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Internal { step, source: source.into() }
    }

    /// For `map_err`: a fault of our own at `step`.
    pub(crate) fn at<E: Into<Box<dyn Error + Send + Sync>>>(
        step: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::internal(step, source)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        ApiError::bad_request(message).into()
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        ApiError::denied(message).into()
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        ApiError::not_found(message).into()
    }

    pub(crate) fn unauthenticated(message: impl Into<String>) -> Self {
        ApiError::unauthenticated(message).into()
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        ApiError::unavailable(message).into()
    }

    /// The kind of the answer.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Answer(answer) => answer.kind,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// The answer. What is internal goes to the log here, and nowhere else.
    pub fn into_answer(self) -> ApiError {
        match self {
            Self::Answer(answer) => answer,
            Self::Internal { step, source } => {
                tracing::error!(step, error = %chain(source.as_ref()), "request failed");
                ApiError::internal("internal error of the auth service")
            }
        }
    }
}

/// An error and its sources as one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// What this crate's functions give.
pub(crate) type Result<T, E = AuthError> = std::result::Result<T, E>;
