//! Log entries: selector, range, direction, limit, line filters and wanted fields go down; ordered batches come up.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use trilith_model::{Labels, Matcher, Result};

use crate::series::LabelRequest;
use crate::{QueryContext, ResultStream};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

/// Which entries.
#[derive(Clone, Debug)]
pub struct EntryRequest {
    /// All must hold for the stream's labels.
    pub matchers: Vec<Matcher>,
    /// Inclusive, ns.
    pub start_ns: i64,
    /// Exclusive, ns.
    pub end_ns: i64,
    pub direction: Direction,
    /// Most entries wanted after `filters`; `None` means all. Only a language that applies no further filter
    /// passes a limit; otherwise it stops by dropping the stream.
    pub limit: Option<usize>,
    /// All must hold for the raw line. A source applies every one of them exactly.
    pub filters: Vec<LineFilter>,
    pub fields: WantedFields,
}

/// One line filter of the query. With several needles any of them suffices for `Contains` and `Matches`,
/// and none may occur for the negative forms.
#[derive(Clone, Debug)]
pub struct LineFilter {
    pub op: LineFilterOp,
    pub needles: Vec<Arc<str>>,
    /// Compiled `needles` of the regex forms, RE2 semantics, unanchored.
    pub regexes: Vec<regex::bytes::Regex>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFilterOp {
    /// `|=`
    Contains,
    /// `!=`
    NotContains,
    /// `|~`
    Matches,
    /// `!~`
    NotMatches,
}

impl LineFilter {
    /// # Errors
    /// `Invalid` when a regex form has a needle that is not an RE2 expression.
    pub fn new(op: LineFilterOp, needles: Vec<Arc<str>>) -> Result<Self> {
        let regexes = match op {
            LineFilterOp::Matches | LineFilterOp::NotMatches => needles
                .iter()
                .map(|n| trilith_model::re2::bytes_regex(n))
                .collect::<Result<_>>()?,
            LineFilterOp::Contains | LineFilterOp::NotContains => Vec::new(),
        };
        Ok(LineFilter { op, needles, regexes })
    }

    pub fn matches(&self, line: &[u8]) -> bool {
        let contains = || {
            self.needles
                .iter()
                .any(|n| memchr::memmem::find(line, n.as_bytes()).is_some())
        };
        let is_match = || self.regexes.iter().any(|r| r.is_match(line));
        match self.op {
            LineFilterOp::Contains => contains(),
            LineFilterOp::NotContains => !contains(),
            LineFilterOp::Matches => is_match(),
            LineFilterOp::NotMatches => !is_match(),
        }
    }
}

/// What of an entry the language will look at. A source may leave out the rest (empty line, no metadata);
/// timestamps and streams always come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedFields {
    pub line: bool,
    /// With `line` off: whether `Entry::line_len` must be right.
    pub line_len: bool,
    pub metadata: bool,
}

impl WantedFields {
    pub const ALL: WantedFields = WantedFields {
        line: true,
        line_len: true,
        metadata: true,
    };
    pub const COUNT: WantedFields = WantedFields {
        line: false,
        line_len: false,
        metadata: false,
    };
}

/// A run of entries in the order of the request.
///
/// The order of the whole answer is total and does not depend on where entries are stored: by time, then by
/// the stream's labels, then by arrival; all of it reversed for `Backward`.
#[derive(Clone, Debug, Default)]
pub struct EntryBatch {
    /// The label sets that `Entry::stream` points to.
    pub streams: Vec<Labels>,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// Into `EntryBatch::streams`.
    pub stream: u32,
    pub ts_ns: i64,
    pub line: Bytes,
    /// Length of the stored line, also when `line` was left out.
    pub line_len: u32,
    /// Structured metadata, sorted by name.
    pub metadata: Labels,
}

/// A logs store, as LogQL sees it.
#[async_trait]
pub trait EntrySource: Send + Sync + 'static {
    fn select(&self, ctx: &QueryContext, request: EntryRequest) -> ResultStream<EntryBatch>;

    /// Label sets of streams with entries in blocks or heads overlapping the range; sorted, distinct.
    async fn streams(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<Labels>>;

    /// Sorted, distinct.
    async fn label_names(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<String>>;

    /// Sorted, distinct.
    async fn label_values(&self, ctx: &QueryContext, name: &str, request: LabelRequest) -> Result<Vec<String>>;
}
