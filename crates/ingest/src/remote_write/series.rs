//! What both versions collect a request into.

use trilith_model::{ErrorKind, Limits, MetricBatch, MetricMetadata, MetricType, Result, STALE_NAN_BITS, Sample};

use super::histogram::{HistogramError, HistogramReader};
use super::labels::{BadLabels, Packer, RawLabels, text};
use super::{Version, Write};
use crate::body::Budget;
use crate::rejections::Rejections;
use crate::wire::Fields;

pub(super) struct Collector<'a, 'l> {
    pub batch: MetricBatch,
    pub rejections: Rejections,
    pub budget: Budget,
    pub packer: Packer<'l>,
    /// Labels of the series at hand.
    pub labels: Vec<(&'a [u8], &'a [u8])>,
    pub exemplars_dropped: u64,
    version: Version,
    histograms: HistogramReader,
    /// Of the series at hand; nearly always empty.
    bad_histograms: Vec<HistogramError>,
    /// Staleness markers among the samples that came as histograms: in all, and before the series at hand.
    markers: u64,
    markers_before: u64,
    /// Ends of what belongs to the series before.
    ends: (usize, usize, usize),
}

impl<'a, 'l> Collector<'a, 'l> {
    pub fn new(limits: &'l Limits, version: Version, body_bytes: usize) -> Self {
        Collector {
            batch: MetricBatch::default(),
            rejections: Rejections::default(),
            budget: Budget::for_body(body_bytes),
            packer: Packer::new(limits, version),
            labels: Vec::new(),
            exemplars_dropped: 0,
            version,
            histograms: HistogramReader::default(),
            bad_histograms: Vec::new(),
            markers: 0,
            markers_before: 0,
            ends: (0, 0, 0),
        }
    }

    pub fn into_write(self, bytes: usize) -> Write {
        Write {
            version: self.version,
            batch: self.batch,
            rejections: self.rejections.into_vec(),
            bytes: bytes as u64,
            exemplars_dropped: self.exemplars_dropped,
            histogram_markers: self.markers,
        }
    }

    pub fn histogram(&mut self, fields: Fields<'a>) -> Result<()> {
        let reader = &mut self.histograms;
        reader.read(fields, &mut self.budget)?;
        let (ts_ms, start_ms) = (reader.ts_ms, reader.start_ms);
        match reader.build() {
            Ok(_) if reader.is_marker() => {
                self.markers += 1;
                let value = f64::from_bits(STALE_NAN_BITS);
                self.batch.push_started(Sample { ts_ms, value }, start_ms);
            }
            Ok(histogram) => self.batch.histograms.push(trilith_model::HistogramSample {
                ts_ms,
                start_ms,
                histogram: histogram.into(),
            }),
            Err(e) => {
                self.budget.charge::<HistogramError>()?;
                self.bad_histograms.push(e);
            }
        }
        Ok(())
    }

    /// Whether the series at hand has brought a sample or a histogram, good or bad.
    pub fn has_samples(&self) -> bool {
        self.samples() > 0
    }

    fn samples(&self) -> usize {
        self.batch.samples.len() - self.ends.0 + self.batch.histograms.len() - self.ends.1 + self.bad_histograms.len()
    }

    fn exemplars(&self) -> usize {
        self.batch.exemplars.len() - self.ends.2
    }

    /// Ends the series at hand: into the batch if its labels are good. False when they are not.
    pub fn finish(&mut self) -> bool {
        match self.packer.pack(&self.labels) {
            Ok(labels) => {
                let ends = (
                    self.batch.samples.len(),
                    self.batch.histograms.len(),
                    self.batch.exemplars.len(),
                );
                if ends != self.ends {
                    self.batch.finish_series(labels);
                    self.ends = ends;
                }
                self.markers_before = self.markers;
                if !self.bad_histograms.is_empty() {
                    self.refuse_histograms();
                }
                true
            }
            Err(bad) => {
                self.refuse(bad);
                false
            }
        }
    }

    #[cold]
    fn refuse_histograms(&mut self) {
        let labels: &RawLabels<'_> = &self.labels;
        for e in self.bad_histograms.drain(..) {
            self.rejections
                .add(ErrorKind::Invalid, "native_histogram_invalid", 1, || {
                    format!("{e} for series {}", text(labels))
                });
        }
    }

    /// Drops the series at hand and says why. One that brought nothing but exemplars fails only a 2.0 request.
    #[cold]
    pub fn refuse(&mut self, bad: BadLabels) {
        let samples = self.samples() as u64;
        self.abandon();
        if samples > 0 || self.version == Version::V2 {
            // An empty series is one item for the sender.
            let count = samples.max(1);
            self.rejections
                .add(ErrorKind::Invalid, bad.reason, count, || bad.message);
        }
    }

    fn abandon(&mut self) {
        self.exemplars_dropped += self.exemplars() as u64;
        self.bad_histograms.clear();
        self.markers = self.markers_before;
        self.batch.abandon_series();
    }

    pub fn metadata(&mut self, kind: u64, family: &[u8], help: &[u8], unit: &[u8]) -> Result<()> {
        if family.is_empty() {
            return Ok(());
        }
        self.budget.charge::<MetricMetadata>()?;
        self.budget.charge_bytes(family.len() + help.len() + unit.len())?;
        // Help texts come from source code in all encodings: readable is better than refused.
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        self.batch.metadata.push(MetricMetadata {
            family: text(family),
            kind: metric_type(kind),
            help: text(help),
            unit: text(unit),
        });
        Ok(())
    }
}

/// The numbers are the same in both versions.
pub(super) fn metric_type(n: u64) -> MetricType {
    match n {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    }
}
