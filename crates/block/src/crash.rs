//! Points at which a test lets the process die.
//!
//! The black-box kill tests start the real binary with `TRILITH_CRASH_POINT=<name>:<n>`; the process aborts, without
//! flushing or unwinding anything, when it passes the named point for the n-th time (`:1` may be left out). Without
//! the variable a point costs one load. Names:
//!
//! | name | where |
//! |---|---|
//! | `cut-encoded` | a frozen head is encoded, nothing is uploaded |
//! | `cut-uploading` | one file of a cut is uploaded, perhaps not the last |
//! | `cut-uploaded` | all blocks of a cut are uploaded, the delta is not written |
//! | `manifest-put` | a delta is written (any kind), the writer has not seen the answer |
//! | `cut-committed` | the delta of a cut is written, the view still shows the head |
//! | `merge-uploading` | one file of a merge is uploaded, perhaps not the last |
//! | `merge-uploaded` | all files of a merge are uploaded, the delta is not written |
//! | `merge-committed` | the delta of a merge is written, no input is deleted |
//! | `expire-committed` | the delta that drops expired blocks is written, the view still has them |
//! | `tombstone-committed` | the delta of a tombstone is written, the view does not mask yet |
//! | `tombstones-cleaning` | one masked block is written anew, perhaps not the last |
//! | `gc-deleting` | one object of a removed block is deleted, perhaps not the last |
//! | `snapshot-put` | a snapshot is written, what it replaces is not deleted |

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the environment variable.
pub const VARIABLE: &str = "TRILITH_CRASH_POINT";

struct Armed {
    name: String,
    left: AtomicU64,
}

/// Aborts the process if the environment asks for it.
pub fn point(name: &'static str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let (name, nth) = parse(&std::env::var(VARIABLE).ok()?)?;
        Some(Armed {
            name,
            left: AtomicU64::new(nth),
        })
    });
    if let Some(armed) = armed
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        tracing::error!(point = name, "crash point reached, aborting");
        std::process::abort();
    }
}

/// `None` for what is not `name` or `name:n` with n ≥ 1; a misspelt point never fires.
fn parse(value: &str) -> Option<(String, u64)> {
    let (name, nth) = match value.split_once(':') {
        Some((name, nth)) => (name, nth.parse().ok()?),
        None => (value, 1),
    };
    (!name.is_empty() && nth > 0).then(|| (name.to_owned(), nth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_variable() {
        assert_eq!(parse("cut-uploaded"), Some(("cut-uploaded".to_owned(), 1)));
        assert_eq!(parse("cut-uploaded:3"), Some(("cut-uploaded".to_owned(), 3)));
        for bad in ["", ":1", "x:0", "x:-1", "x:y"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn does_nothing_unless_asked() {
        point("cut-uploaded");
    }
}
