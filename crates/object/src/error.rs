//! From a backend's error to what a caller can do about it.
//!
//! `object_store` hides status codes in private types, so the text of the source chain is read; the texts are pinned
//! by tests against a real S3 server.

use std::error::Error as StdError;
use std::io;

use object_store::client::HttpError;
use trilith_model::{Error, ErrorKind};

/// Longest text of a backend that goes into a message; servers like to answer with pages of XML or HTML.
const DETAIL_CHARS_MAX: usize = 300;

/// Why one try failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub kind: ErrorKind,
    /// Another try may succeed.
    pub retry: bool,
    /// One line, without operation and path.
    pub detail: String,
}

impl Failure {
    pub fn retry(detail: impl Into<String>) -> Self {
        Failure {
            kind: ErrorKind::Unavailable,
            retry: true,
            detail: detail.into(),
        }
    }

    pub fn permanent(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Failure {
            kind,
            retry: false,
            detail: detail.into(),
        }
    }

    /// The error that a caller sees.
    pub fn into_error(self, operation: &str, path: &str) -> Error {
        let message = format!("object store: {operation} {path:?}: {}", self.detail);
        match self.kind {
            ErrorKind::Unavailable => Error::unavailable(message),
            kind => Error::new(kind, message),
        }
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let detail = one_line(&error);
        if let Some(what) = missing_bucket(&error) {
            return Failure::permanent(ErrorKind::Unavailable, what);
        }
        match &error {
            E::NotFound { .. } => Failure::permanent(ErrorKind::NotFound, "no such object"),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                Failure::permanent(ErrorKind::Unavailable, format!("access denied: {detail}"))
            }
            E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => Failure::permanent(ErrorKind::Invalid, detail),
            E::NotSupported { .. } | E::NotImplemented { .. } => Failure::permanent(ErrorKind::Unsupported, detail),
            // Where a conflict is an answer the caller has looked at it before; elsewhere it is a server that could
            // not order two requests (S3 `OperationAborted`, `ConditionalRequestConflict`).
            E::AlreadyExists { .. } | E::Precondition { .. } => Failure::retry(detail),
            _ => match status(&error) {
                Some(501) => Failure::permanent(ErrorKind::Unsupported, detail),
                Some(408 | 429 | 500..) => Failure::retry(detail),
                // An answer with success in the status and an error in the body, which S3 gives when overloaded.
                Some(200..300) => Failure::retry(detail),
                Some(_) => Failure::permanent(ErrorKind::Unavailable, detail),
                None => without_status(&error, detail),
            },
        }
    }
}

fn without_status(error: &object_store::Error, detail: String) -> Failure {
    if let Some(io) = find::<io::Error>(error)
        && find::<HttpError>(error).is_none()
    {
        return local(io, detail);
    }
    // The two backends without a network fail for good, mostly because a range lies behind the end.
    let local = matches!(error, object_store::Error::Generic { store, .. }
        if matches!(*store, "LocalFileSystem" | "InMemory"));
    if local {
        Failure::permanent(ErrorKind::Unavailable, detail)
    } else {
        // Transport errors of every kind, cut answers, credential services that are down.
        Failure::retry(detail)
    }
}

fn local(error: &io::Error, detail: String) -> Failure {
    use io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => {
            Failure::permanent(ErrorKind::Unavailable, format!("the disk is full: {error}"))
        }
        K::PermissionDenied => Failure::permanent(ErrorKind::Unavailable, format!("access denied: {error}")),
        K::ReadOnlyFilesystem => Failure::permanent(ErrorKind::Unavailable, format!("the disk is read-only: {error}")),
        // NotFound: a folder was removed as empty between its creation and its use.
        K::Interrupted | K::TimedOut | K::WouldBlock | K::ResourceBusy | K::NotFound => Failure::retry(detail),
        _ => Failure::permanent(ErrorKind::Unavailable, detail),
    }
}

/// Whether a conditional create was refused because another one is under way, which may yet fail.
pub(crate) fn is_undecided_conflict(error: &object_store::Error) -> bool {
    text(error).contains("ConditionalRequestConflict")
}

/// A missing bucket answers 404 like a missing object, but a store without its bucket is not an empty store.
pub(crate) fn missing_bucket(error: &object_store::Error) -> Option<&'static str> {
    if !matches!(error, object_store::Error::NotFound { .. }) {
        return None;
    }
    let text = text(error);
    let missing = [
        "NoSuchBucket",
        "ContainerNotFound",
        "The specified bucket does not exist",
    ];
    missing
        .iter()
        .any(|m| text.contains(m))
        .then_some("the bucket does not exist; create it first or correct its name")
}

/// HTTP status of the answer, if there was one.
pub(crate) fn status(error: &object_store::Error) -> Option<u16> {
    let mut current: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(e) = current {
        let text = e.to_string();
        if let Some(rest) = text.strip_prefix("Server returned non-2xx status code: ") {
            return rest.get(..3)?.parse().ok();
        }
        if text.starts_with("Server returned error response: ") {
            return Some(200);
        }
        current = e.source();
    }
    None
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(e) = current {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        current = e.source();
    }
    None
}

fn text(error: &object_store::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        out.push('\n');
        out.push_str(&e.to_string());
        source = e.source();
    }
    out
}

/// One line for a log: status, code and message of an XML answer, otherwise the innermost words of the chain.
pub(crate) fn one_line(error: &object_store::Error) -> String {
    let all = text(error);
    if let Some(code) = between(&all, "<Code>", "</Code>") {
        let status = status(error).map(|s| format!("{s} ")).unwrap_or_default();
        return match between(&all, "<Message>", "</Message>") {
            Some(message) => shorten(&format!("{status}{code}: {message}")),
            None => format!("{status}{}", shorten(code)),
        };
    }
    let mut innermost: &(dyn StdError + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let outer = error.to_string();
    let inner = innermost.to_string();
    let outer = outer.lines().next().unwrap_or_default();
    if outer.contains(inner.as_str()) {
        shorten(outer)
    } else {
        shorten(&format!("{outer}: {inner}"))
    }
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inside, _)| inside)
}

fn shorten(text: &str) -> String {
    let clean = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match clean.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &clean[..at]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local_error(kind: io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(io::Error::from(kind)),
        }
    }

    #[test]
    fn a_full_disk_is_unavailable_and_not_retried() {
        let f = Failure::from(local_error(io::ErrorKind::StorageFull));
        assert!(!f.retry && f.kind == ErrorKind::Unavailable, "{f:?}");
        let e = f.into_error("upload", "blocks/x");
        assert!(
            e.message.contains("disk is full") && e.message.contains("blocks/x"),
            "{e}"
        );
        assert!(e.retry_after.is_some());
    }

    #[test]
    fn local_errors_are_retried_only_where_that_helps() {
        assert!(Failure::from(local_error(io::ErrorKind::Interrupted)).retry);
        assert!(!Failure::from(local_error(io::ErrorKind::PermissionDenied)).retry);
        assert!(!Failure::from(local_error(io::ErrorKind::InvalidData)).retry);
    }

    #[test]
    fn answers_of_servers_become_one_short_line() {
        let body = format!(
            "Server returned non-2xx status code: 503 Service Unavailable: <?xml?>\n<Error><Code>SlowDown</Code>\
             <Message>reduce {}</Message></Error>",
            "x".repeat(5000)
        );
        let e = object_store::Error::Generic {
            store: "S3",
            source: Box::new(io::Error::other(body)),
        };
        let line = one_line(&e);
        assert!(line.contains("SlowDown: reduce x"), "{line}");
        assert!(line.chars().count() <= DETAIL_CHARS_MAX + 1 && !line.contains('\n'));
    }
}
