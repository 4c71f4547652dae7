//! What a failed disk operation means to a client.

use std::io;

use trilith_model::Error;

/// The answer to every push while the disk refuses. Names the cause and what the operator does, not the path.
pub(crate) fn refused(e: &io::Error) -> Error {
    Error::unavailable(match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk of the data directory is full; nothing was written; writes resume by themselves when there is space".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "the data directory is read-only; nothing was written; writes resume by themselves when it is writable".to_owned()
        }
        _ => format!("the write-ahead log cannot be written: {e}; the server tries again with a later request"),
    })
}

/// A failure at start, where it is fatal.
pub(crate) fn fatal(what: &str, e: &io::Error) -> Error {
    if e.kind() == io::ErrorKind::WouldBlock {
        return Error::unavailable("the data directory is in use by another process");
    }
    Error::unavailable(format!("{what}: {e}"))
}
