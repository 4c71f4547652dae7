//! The words that every other crate speaks: tenants, times, labels, matchers, the batches that a push
//! becomes, limits, errors, and the injected sources of time, randomness and tasks.
//!
//! This crate knows no wire format, no file format and no storage. Everything here is plain data plus
//! the few rules that hold everywhere: label sets are sorted and free of duplicates, a tenant id is a
//! valid path component, times are `i64` counts since the Unix epoch.

pub mod error;
pub mod labels;
pub mod limits;
pub mod log;
pub mod matcher;
pub mod metric;
pub mod otlp;
pub mod re2;
pub mod rng;
pub mod sink;
pub mod task;
pub mod tenant;
pub mod time;
pub mod trace;

pub use error::{Error, ErrorKind, Result};
pub use labels::{Label, Labels, LabelsBuilder, LabelsRef};
pub use limits::{Limits, LimitsProvider, StaticLimits};
pub use log::{LogBatch, LogEntry, LogStream};
pub use matcher::{MatchOp, Matcher};
pub use metric::{
    BatchSeriesView, Exemplar, HistogramSample, MetricBatch, MetricMetadata, MetricType, STALE_NAN_BITS, Sample,
    SampleValue,
};
pub use otlp::{DeltaTemporality, OtlpMetrics, Promotion, TranslationStrategy};
pub use sink::{Appended, LogSink, MetricAdmin, MetricSink, Rejection, TraceSink};
pub use tenant::TenantId;
pub use time::{Clock, SystemClock, TimeRange, TimestampMs, TimestampNs};
pub use trace::{SpanId, TraceBatch, TraceId};
pub use trilith_histogram::FloatHistogram;

/// The three kinds of data that Trilith stores. The number is part of the WAL and manifest formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Signal {
    Metrics = 1,
    Logs = 2,
    Traces = 3,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    /// The name used in object paths, flags and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
            Signal::Traces => "traces",
        }
    }

    pub const fn from_u8(n: u8) -> Option<Signal> {
        match n {
            1 => Some(Signal::Metrics),
            2 => Some(Signal::Logs),
            3 => Some(Signal::Traces),
            _ => None,
        }
    }
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
