//! Native histograms: the value type that metrics samples and query results share, and its arithmetic.
//!
//! A [`FloatHistogram`] counts observations in buckets. Populations are floats everywhere, as in query results; the
//! integer populations that clients send are exact in `f64` up to 2⁵³.
//!
//! - Schema n in −4…8 (exponential): bucket index i covers `(2^((i−1)·2^−n), 2^(i·2^−n)]`, negative buckets mirrored, and
//!   the zero bucket `[−zero_threshold, zero_threshold]`.
//! - Schema −53 (custom buckets): bucket i covers `(custom_bounds[i−1], custom_bounds[i]]`, the first begins at −∞, the
//!   one after the last bound is the overflow bucket up to +∞. No negative buckets, no zero bucket.
//!
//! | module | what |
//! |---|---|
//! | `buckets`, `bounds` | walking over buckets with their bounds |
//! | `validate` | what a histogram from outside must fulfil |
//! | `resolution` | coarser schemas |
//! | `arithmetic`, `cells` | `+ - * /`; schemas, zero buckets and custom bounds brought together |
//! | `sum` | compensated sums and means of many |
//! | `compare` | equality, counter resets |
//! | `estimate` | quantile, fraction, mean, variance |
//! | `trim` | `</` and `>/` |
//! | `classic` | custom buckets out of classic ones |
//! | `text` | as Go prints it |
//!
//! Invariants: no operation panics or runs long on any histogram, valid or not. Spans never lead past the counts, and
//! every walk is bounded by the counts. Buckets of different histograms that mean the same have the same index.
//!
//! Source: Prometheus, "Native Histograms" specification (prometheus.io/docs/specs/native_histograms).

mod arithmetic;
mod bounds;
mod buckets;
mod cells;
mod classic;
mod compare;
mod estimate;
pub mod fuzzing;
mod resolution;
mod sum;
mod text;
mod trim;
mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use arithmetic::{IncompatibleSchemas, Merged};
pub use bounds::exponential_bound;
pub use buckets::{Bucket, BucketIter, BucketsBuilder};
pub use classic::ClassicBuckets;
pub use estimate::NanEffect;
pub use sum::{HistogramMean, HistogramSum};
pub use text::format_g;
pub use trim::Trim;
pub use validate::HistogramError;

/// The schema of histograms with custom buckets.
pub const CUSTOM_SCHEMA: i32 = -53;
/// The coarsest and the finest exponential schema.
pub const SCHEMA_MIN: i32 = -4;
pub const SCHEMA_MAX: i32 = 8;

/// What the producer knows about counter resets before a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResetHint {
    #[default]
    Unknown = 0,
    Reset = 1,
    NotReset = 2,
    /// Not a counter at all.
    Gauge = 3,
}

impl ResetHint {
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(ResetHint::Unknown),
            1 => Some(ResetHint::Reset),
            2 => Some(ResetHint::NotReset),
            3 => Some(ResetHint::Gauge),
            _ => None,
        }
    }
}

/// A run of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The index of the first bucket for the first span; later the gap to the span before. In the numbering of the
    /// specification and of remote write: bucket 0 has the upper bound 1.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}

/// One side of a histogram: `counts` holds the absolute populations of the spans' buckets, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    pub spans: Vec<Span>,
    pub counts: Vec<f64>,
}

/// A native histogram sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatHistogram {
    pub reset_hint: ResetHint,
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: f64,
    /// All observations, NaN ones included, so it may exceed the sum of the buckets.
    pub count: f64,
    /// Its bits are those of the staleness marker when the sample is one.
    pub sum: f64,
    pub positive: Buckets,
    pub negative: Buckets,
    /// Finite, strictly ascending upper bounds; only for [`CUSTOM_SCHEMA`]. Shared: they seldom change.
    pub custom_bounds: Option<Arc<[f64]>>,
}

/// The bits of the staleness marker.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

impl FloatHistogram {
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// The upper bounds of custom buckets, the last one's +∞ left out.
    pub fn custom_bounds(&self) -> &[f64] {
        self.custom_bounds.as_deref().unwrap_or(&[])
    }

    /// Whether this marks the end of a series rather than a sample.
    pub fn is_stale(&self) -> bool {
        self.sum.to_bits() == STALE_BITS
    }

    /// Bytes in memory, as Prometheus counts them for its limits.
    pub fn size_bytes(&self) -> usize {
        let spans = self.positive.spans.len() + self.negative.spans.len();
        let counts = self.positive.counts.len() + self.negative.counts.len();
        168 + 8 * (spans + counts + self.custom_bounds().len())
    }

    /// How many float samples this one counts for in the limit of samples per query.
    pub fn sample_cost(&self) -> usize {
        (self.size_bytes() + 8) / 16
    }
}
