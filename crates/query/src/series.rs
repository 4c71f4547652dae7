//! Series in: matchers, range, hints. Series out: batches that share timestamp vectors.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use trilith_model::{Labels, Matcher, MetricMetadata, Result};

use crate::{QueryContext, ResultStream};

/// Which samples of which series. All matchers must hold.
#[derive(Clone, Debug)]
pub struct SeriesRequest {
    pub matchers: Vec<Matcher>,
    /// First timestamp wanted, inclusive, ms.
    pub start_ms: i64,
    /// Last timestamp wanted, inclusive, ms.
    pub end_ms: i64,
    pub hints: SelectHints,
}

/// What the language will do with the samples. A source may use it to read less; the answer must be the
/// same for the language.
#[derive(Clone, Debug, Default)]
pub struct SelectHints {
    /// Evaluation step, ms; 0 for an instant query.
    pub step_ms: i64,
    /// Width of the range selector, ms; 0 for an instant selector.
    pub range_ms: i64,
    /// Innermost function or aggregation applied to the selector (`rate`, `sum`), empty when unknown.
    pub func: String,
    /// Labels of the surrounding aggregation; `None` when there is none.
    pub grouping: Option<Grouping>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    pub labels: Vec<String>,
    /// `by` when true, `without` when false.
    pub by: bool,
}

/// Many series at a time.
///
/// Timestamps stand in `times`, each vector once; columns that have the same times point to the same vector and
/// lie next to each other, so that an evaluator computes window bounds once per vector. Values stand in one
/// buffer, one contiguous run per column.
///
/// Invariants: a vector is not empty and strictly ascending, within the request's range; a column's run is as
/// long as its vector; a series appears in one batch of the answer only, as one column that holds all its samples.
#[derive(Clone, Debug, Default)]
pub struct SeriesBatch {
    /// Distinct timestamp vectors, ms.
    pub times: Vec<Arc<[i64]>>,
    /// Ordered by `times_idx`.
    pub columns: Vec<BatchColumn>,
    /// The float values of all float columns.
    pub floats: Vec<f64>,
}

/// One series of a batch.
#[derive(Clone, Debug)]
pub struct BatchColumn {
    pub labels: Labels,
    /// Into `SeriesBatch::times`.
    pub times_idx: u32,
    pub values: ValueColumn,
}

/// Where the values of a column are. Histogram columns join here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueColumn {
    /// A run of `SeriesBatch::floats`. Staleness markers are among the values, bit-exact.
    Float(Range<usize>),
}

impl SeriesBatch {
    /// Columns with their timestamps and float values.
    pub fn float_columns(&self) -> impl Iterator<Item = (&Labels, &Arc<[i64]>, &[f64])> {
        self.columns.iter().map(|c| {
            let ValueColumn::Float(run) = &c.values;
            (&c.labels, &self.times[c.times_idx as usize], &self.floats[run.clone()])
        })
    }

    pub fn sample_count(&self) -> usize {
        self.floats.len()
    }
}

/// Which label names or values, or which series.
#[derive(Clone, Debug)]
pub struct LabelRequest {
    /// Alternatives (several `match[]`); empty means every series. Within one set all matchers must hold.
    pub matcher_sets: Vec<Vec<Matcher>>,
    /// Inclusive, in the signal's unit (ms for metrics, ns for logs).
    pub start: i64,
    pub end: i64,
    /// Most items wanted; 0 means all. The answer is the first ones in order.
    pub limit: usize,
}

/// A metrics store, as PromQL sees it.
#[async_trait]
pub trait SeriesSource: Send + Sync + 'static {
    /// Batches in no particular order. Series without a sample in the range do not appear.
    fn select(&self, ctx: &QueryContext, request: SeriesRequest) -> ResultStream<SeriesBatch>;

    /// Label sets of series that have samples in blocks or heads overlapping the range; sorted, distinct.
    async fn series(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<Labels>>;

    /// Sorted, distinct.
    async fn label_names(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<String>>;

    /// Sorted, distinct, never empty strings.
    async fn label_values(&self, ctx: &QueryContext, name: &str, request: LabelRequest) -> Result<Vec<String>>;

    /// Metric metadata by family, sorted by family; several entries for a family when sources disagree.
    async fn metadata(&self, ctx: &QueryContext, family: Option<&str>) -> Result<Vec<MetricMetadata>>;
}
