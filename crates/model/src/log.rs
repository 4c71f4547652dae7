//! Log entries as they go from a push to the store.

use bytes::Bytes;

use crate::labels::Labels;

/// One line. `line` holds the exact bytes pushed; it usually is a slice of the request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub ts_ns: i64,
    pub line: Bytes,
    /// Structured metadata, sorted by name. Empty for most lines.
    pub metadata: Labels,
}

/// Entries of one label set, in the order in which they were pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct LogStream {
    pub labels: Labels,
    pub entries: Vec<LogEntry>,
}

/// One checked push.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogBatch {
    pub streams: Vec<LogStream>,
}

impl LogBatch {
    pub fn entry_count(&self) -> usize {
        self.streams.iter().map(|s| s.entries.len()).sum()
    }
}
