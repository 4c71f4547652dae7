//! What a push may ask of a store. The mirror of the `query` crate's sources.
//!
//! Contract of every `append`: when it returns `Ok`, everything it counts as accepted is durable and visible
//! to the next query, and nothing else of the batch is. When it returns `Err`, nothing of the batch is kept.

use async_trait::async_trait;

use crate::error::{ErrorKind, Result};
use crate::log::LogBatch;
use crate::matcher::Matcher;
use crate::metric::MetricBatch;
use crate::tenant::TenantId;
use crate::time::TimeRange;
use crate::trace::TraceBatch;

/// Items refused for one reason while others of the batch were kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// `LimitExceeded` (429), `Invalid` (400) or `TooLarge`.
    pub kind: ErrorKind,
    /// Machine-readable reason, the upstream name where there is one (`out_of_bounds`, `stream_limit`).
    pub reason: &'static str,
    /// For people: names the first series, stream or trace concerned and the setting to change.
    pub message: String,
    pub count: u64,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Appended {
    /// Samples (histograms included), entries or spans kept, exact duplicates of kept ones included.
    pub accepted: u64,
    /// How many of `accepted` are histograms.
    pub histograms: u64,
    /// Exemplars kept, not part of `accepted`; exact duplicates included. One that is not kept is no rejection.
    pub exemplars: u64,
    pub rejections: Vec<Rejection>,
}

#[async_trait]
pub trait MetricSink: Send + Sync + 'static {
    async fn append(&self, tenant: &TenantId, batch: MetricBatch) -> Result<Appended>;
}

/// What an administrator may do to stored metrics.
#[async_trait]
pub trait MetricAdmin: Send + Sync + 'static {
    /// Deletes the samples and exemplars of `range` (inclusive) of every series that satisfies all matchers of one of the
    /// selectors. When it returns, no query shows them any more; samples appended after the call are never
    /// concerned.
    ///
    /// # Errors
    /// Those of the store. After `Unavailable` the outcome is unknown; deleting again is harmless.
    async fn delete_series(&self, tenant: &TenantId, selectors: &[Vec<Matcher>], range: TimeRange) -> Result<()>;

    /// Frees the space of what is deleted.
    async fn clean_tombstones(&self, tenant: &TenantId) -> Result<()>;

    /// Copies everything, or everything but the most recent samples, to a new folder of the store. Returns its name.
    async fn snapshot(&self, tenant: &TenantId, skip_head: bool) -> Result<String>;
}

#[async_trait]
pub trait LogSink: Send + Sync + 'static {
    async fn append(&self, tenant: &TenantId, batch: LogBatch) -> Result<Appended>;
}

#[async_trait]
pub trait TraceSink: Send + Sync + 'static {
    async fn append(&self, tenant: &TenantId, batch: TraceBatch) -> Result<Appended>;
}
