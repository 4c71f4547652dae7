//! Metric samples as they go from a push to the store.

use std::ops::Range;

use crate::labels::LabelsRef;

/// The bit pattern that marks the end of a series (Prometheus `model/value`). It is a NaN, so it must be
/// compared by bits and stored bit-exactly.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub ts_ms: i64,
    pub value: f64,
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
    pub metadata: Vec<MetricMetadata>,
}

/// A series of a batch: its packed labels and its run of samples, in the order received.
#[derive(Clone, Debug)]
struct BatchSeries {
    labels: Range<u32>,
    samples: Range<u32>,
}

impl MetricBatch {
    /// Adds a series; its samples are those pushed to `samples` since the last call.
    ///
    /// # Panics
    /// When the batch holds more than `u32::MAX` bytes of labels or samples; request limits lie far below.
    pub fn finish_series(&mut self, labels: LabelsRef<'_>) {
        let from = u32::try_from(self.arena.len()).expect("request limits keep a batch below 4 GiB");
        self.arena.extend_from_slice(labels.as_packed());
        let to = u32::try_from(self.arena.len()).expect("request limits keep a batch below 4 GiB");
        let first = self.series.last().map_or(0, |s| s.samples.end);
        let end = u32::try_from(self.samples.len()).expect("request limits keep a batch below 4 G samples");
        self.series.push(BatchSeries {
            labels: from..to,
            samples: first..end,
        });
    }

    /// Drops the samples pushed since the last `finish_series`.
    pub fn abandon_series(&mut self) {
        let first = self.series.last().map_or(0, |s| s.samples.end);
        self.samples.truncate(first as usize);
    }

    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty() && self.metadata.is_empty()
    }

    pub fn series(&self) -> impl ExactSizeIterator<Item = (LabelsRef<'_>, &[Sample])> {
        self.series.iter().map(|s| {
            let labels = LabelsRef::from_packed_trusted(&self.arena[s.labels.start as usize..s.labels.end as usize]);
            (labels, &self.samples[s.samples.start as usize..s.samples.end as usize])
        })
    }
}
