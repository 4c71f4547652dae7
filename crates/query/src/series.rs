//! Series in: matchers, range, hints. Series out: batches that share timestamp vectors.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use trilith_model::{Exemplar, Labels, Matcher, MetricMetadata, Result, SampleValue};

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
    /// Only the newest sample of each series in the range is looked at: an instant selector at one time. A source may
    /// leave out older ones.
    pub newest_only: bool,
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
/// buffer per kind, one contiguous run per column.
///
/// Invariants: a vector is not empty and strictly ascending, within the request's range; a column's run is as
/// long as its vector; a series appears in one batch of the answer only, as one column that holds all its samples.
#[derive(Clone, Debug, Default)]
pub struct SeriesBatch {
    /// Distinct timestamp vectors, ms.
    pub times: Vec<Arc<[i64]>>,
    /// Ordered by `times_idx`.
    pub columns: Vec<BatchColumn>,
    /// The values of all float columns.
    pub floats: Vec<f64>,
    /// The values of all mixed columns.
    pub mixed: Vec<SampleValue>,
    /// Start timestamps of the columns that have any, ms; 0 where unknown.
    pub starts: Vec<i64>,
}

/// One series of a batch.
#[derive(Clone, Debug)]
pub struct BatchColumn {
    pub labels: Labels,
    /// Into `SeriesBatch::times`.
    pub times_idx: u32,
    pub values: ValueColumn,
    /// When counting began, one per sample: a run of `SeriesBatch::starts`.
    pub starts: Option<Range<usize>>,
}

/// Where the values of a column are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueColumn {
    /// Floats only: a run of `SeriesBatch::floats`. Staleness markers are among the values, bit-exact.
    Float(Range<usize>),
    /// With at least one native histogram: a run of `SeriesBatch::mixed`. Staleness markers are floats in it.
    Mixed(Range<usize>),
}

/// The values of one column.
#[derive(Clone, Copy, Debug)]
pub enum ColumnValues<'a> {
    Float(&'a [f64]),
    Mixed(&'a [SampleValue]),
}

impl SeriesBatch {
    pub fn times_of(&self, column: &BatchColumn) -> &Arc<[i64]> {
        &self.times[column.times_idx as usize]
    }

    pub fn values_of(&self, column: &BatchColumn) -> ColumnValues<'_> {
        match &column.values {
            ValueColumn::Float(run) => ColumnValues::Float(&self.floats[run.clone()]),
            ValueColumn::Mixed(run) => ColumnValues::Mixed(&self.mixed[run.clone()]),
        }
    }

    /// Empty, or as long as the column.
    pub fn starts_of(&self, column: &BatchColumn) -> &[i64] {
        column.starts.as_ref().map_or(&[], |run| &self.starts[run.clone()])
    }

    /// Float columns with their timestamps and values; mixed columns are left out.
    pub fn float_columns(&self) -> impl Iterator<Item = (&Labels, &Arc<[i64]>, &[f64])> {
        self.columns.iter().filter_map(|c| match self.values_of(c) {
            ColumnValues::Float(values) => Some((&c.labels, self.times_of(c), values)),
            ColumnValues::Mixed(_) => None,
        })
    }

    pub fn sample_count(&self) -> usize {
        self.floats.len() + self.mixed.len()
    }
}

/// Exemplars of the series that match one of the sets.
#[derive(Clone, Debug)]
pub struct ExemplarRequest {
    /// Alternatives; within one set all matchers must hold. Empty means nothing.
    pub matcher_sets: Vec<Vec<Matcher>>,
    /// Inclusive, ms.
    pub start_ms: i64,
    pub end_ms: i64,
}

/// The exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    pub labels: Labels,
    /// Ascending in time.
    pub exemplars: Vec<Exemplar>,
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
    /// Batches in an order of the source's own, the same for the same data. Series without a sample in the range do not
    /// appear.
    fn select(&self, ctx: &QueryContext, request: SeriesRequest) -> ResultStream<SeriesBatch>;

    /// Label sets of series that have samples in blocks or heads overlapping the range; sorted, distinct.
    async fn series(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<Labels>>;

    /// Sorted, distinct.
    async fn label_names(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<String>>;

    /// Sorted, distinct, never empty strings.
    async fn label_values(&self, ctx: &QueryContext, name: &str, request: LabelRequest) -> Result<Vec<String>>;

    /// Sorted by labels; series without an exemplar in the range do not appear.
    async fn exemplars(&self, ctx: &QueryContext, request: ExemplarRequest) -> Result<Vec<SeriesExemplars>>;

    /// Metric metadata by family, sorted by family; several entries for a family when sources disagree.
    async fn metadata(&self, ctx: &QueryContext, family: Option<&str>) -> Result<Vec<MetricMetadata>>;
}
