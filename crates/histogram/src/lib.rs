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
//! Source: Prometheus, "Native Histograms" specification (prometheus.io/docs/specs/native_histograms).

use std::sync::Arc;

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
