//! One error type for the seams between crates: what went wrong, told by what the caller can do about it.

use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do. The API layer turns a kind into a status code; nothing else decides on text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong (HTTP 400).
    Invalid,
    /// The request is well formed but cannot be evaluated (Prometheus 422 `execution`).
    Execution,
    NotFound,
    /// A rate or a count of the tenant is exhausted; may pass later (429).
    LimitExceeded,
    /// One item is larger than the tenant's limit; retrying is useless (413 or 400).
    TooLarge,
    /// Try again later: disk full, store unreachable, starting, stopping (503).
    Unavailable,
    /// Another writer took over.
    Fenced,
    /// Stored bytes do not check out.
    Corrupt,
    /// The caller went away or asked to stop (499/503).
    Cancelled,
    /// The deadline passed (503/504).
    Timeout,
    /// The operation or language feature does not exist here (501 or 400 by protocol).
    Unsupported,
    Internal,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    /// For `LimitExceeded` and `Unavailable`: when a retry may succeed.
    pub retry_after: Option<Duration>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Error {
            kind: ErrorKind::Unavailable,
            message: message.into(),
            retry_after: Some(Duration::from_secs(1)),
        }
    }

    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub fn limit(message: impl Into<String>, retry_after: Duration) -> Self {
        Error {
            kind: ErrorKind::LimitExceeded,
            message: message.into(),
            retry_after: Some(retry_after),
        }
    }

    /// Puts context in front of the message; kind and retry hint stay.
    pub fn context(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}
