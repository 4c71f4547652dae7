//! Metric samples as they go from a push to the store.

use std::ops::Range;
use std::sync::Arc;

use trilith_histogram::FloatHistogram;

use crate::labels::{Labels, LabelsRef};

/// The bit pattern that marks the end of a series (Prometheus `model/value`). It is a NaN, so it must be
/// compared by bits and stored bit-exactly.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub ts_ms: i64,
    pub value: f64,
}

/// A native histogram at a time. A staleness marker is a float sample, never a histogram.
#[derive(Clone, Debug)]
pub struct HistogramSample {
    pub ts_ms: i64,
    /// When counting began, ms; 0 when unknown.
    pub start_ms: i64,
    pub histogram: Arc<FloatHistogram>,
}

/// The value of a sample of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// An observation that stands for others, with labels of its own (`trace_id`).
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    pub labels: Labels,
    pub value: f64,
    pub ts_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricType {
    Unknown,
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
}

impl MetricType {
    pub const fn as_str(self) -> &'static str {
        match self {
            MetricType::Unknown => "unknown",
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::GaugeHistogram => "gaugehistogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::StateSet => "stateset",
        }
    }
}

/// What `/api/v1/metadata` answers for a metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricMetadata {
    pub family: String,
    pub kind: MetricType,
    pub help: String,
    pub unit: String,
}

/// One checked push: label sets in one arena, samples in one vector, so that decoding a request of
/// thousands of series costs a handful of allocations.
#[derive(Clone, Debug, Default)]
pub struct MetricBatch {
    arena: Vec<u8>,
    series: Vec<BatchSeries>,
    pub samples: Vec<Sample>,
    /// When counting began for each of `samples`, ms, 0 when unknown. Empty when no sample of the batch has one,
    /// otherwise as long as `samples`; see [`MetricBatch::push_started`].
    pub starts: Vec<i64>,
    pub histograms: Vec<HistogramSample>,
    pub exemplars: Vec<Exemplar>,
    pub metadata: Vec<MetricMetadata>,
}

/// A series of a batch: its packed labels and its runs of samples, in the order received.
#[derive(Clone, Debug)]
struct BatchSeries {
    labels: Range<u32>,
    /// Ends of its runs; each begins where the series before ends.
    samples: u32,
    histograms: u32,
    exemplars: u32,
}

/// Everything a batch holds of one series.
#[derive(Clone, Copy, Debug)]
pub struct BatchSeriesView<'a> {
    pub labels: LabelsRef<'a>,
    pub samples: &'a [Sample],
    /// Empty, or as long as `samples`.
    pub starts: &'a [i64],
    pub histograms: &'a [HistogramSample],
    pub exemplars: &'a [Exemplar],
}

impl MetricBatch {
    /// Adds a sample with the time at which counting began (0: unknown) to the series at hand.
    pub fn push_started(&mut self, sample: Sample, start_ms: i64) {
        if start_ms != 0 || !self.starts.is_empty() {
            self.starts.resize(self.samples.len(), 0);
            self.starts.push(start_ms);
        }
        self.samples.push(sample);
    }

    /// Adds a series; what belongs to it was pushed to `samples`, `histograms` and `exemplars` since the last call.
    ///
    /// # Panics
    /// When the batch holds more than `u32::MAX` bytes of labels or samples; request limits lie far below.
    pub fn finish_series(&mut self, labels: LabelsRef<'_>) {
        let len = |n: usize| u32::try_from(n).expect("request limits keep a batch below 4 G items");
        let from = len(self.arena.len());
        self.arena.extend_from_slice(labels.as_packed());
        if !self.starts.is_empty() {
            self.starts.resize(self.samples.len(), 0);
        }
        self.series.push(BatchSeries {
            labels: from..len(self.arena.len()),
            samples: len(self.samples.len()),
            histograms: len(self.histograms.len()),
            exemplars: len(self.exemplars.len()),
        });
    }

    /// Drops what was pushed since the last `finish_series`.
    pub fn abandon_series(&mut self) {
        let (samples, histograms, exemplars) = self.ends();
        self.samples.truncate(samples);
        self.starts.truncate(samples);
        self.histograms.truncate(histograms);
        self.exemplars.truncate(exemplars);
    }

    fn ends(&self) -> (usize, usize, usize) {
        self.series.last().map_or((0, 0, 0), |s| {
            (s.samples as usize, s.histograms as usize, s.exemplars as usize)
        })
    }

    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Float samples and histograms.
    pub fn sample_count(&self) -> usize {
        self.samples.len() + self.histograms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty() && self.metadata.is_empty()
    }

    /// Series with their float samples.
    pub fn series(&self) -> impl ExactSizeIterator<Item = (LabelsRef<'_>, &[Sample])> {
        self.views().map(|s| (s.labels, s.samples))
    }

    /// Series with all they have.
    pub fn views(&self) -> impl ExactSizeIterator<Item = BatchSeriesView<'_>> {
        let mut from = (0, 0, 0);
        self.series.iter().map(move |s| {
            let to = (s.samples as usize, s.histograms as usize, s.exemplars as usize);
            let (samples, histograms, exemplars) = from;
            from = to;
            BatchSeriesView {
                labels: LabelsRef::from_packed_trusted(&self.arena[s.labels.start as usize..s.labels.end as usize]),
                samples: &self.samples[samples..to.0],
                starts: if self.starts.is_empty() {
                    &[]
                } else {
                    &self.starts[samples..to.0]
                },
                histograms: &self.histograms[histograms..to.1],
                exemplars: &self.exemplars[exemplars..to.2],
            }
        })
    }
}
