//! The series of one request: equal label sets become one entry however their points are spread over the request.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet, HashTable};
use trilith_model::{
    Error, ErrorKind, Exemplar, HistogramSample, LabelsRef, MetricBatch, MetricMetadata, Result, Sample,
};

use crate::body::Budget;

/// Packed labels of one request. A histogram of N bounds with long attributes becomes N label sets that repeat them, so
/// the body's size alone bounds nothing.
const LABEL_BYTES_MAX: usize = 256 << 20;

/// Index of a series within the table.
pub type SeriesIdx = u32;

/// With the start time.
type SampleRow = (SeriesIdx, Sample, i64);

pub struct SeriesTable {
    arena: Vec<u8>,
    /// Ends in `arena`.
    ends: Vec<u32>,
    by_labels: HashTable<SeriesIdx>,
    hasher: RandomState,
    samples: Vec<SampleRow>,
    histograms: Vec<(SeriesIdx, HistogramSample)>,
    exemplars: Vec<(SeriesIdx, Exemplar)>,
    metadata: HashMap<String, MetricMetadata, RandomState>,
    /// For rows: a quantile of two bytes becomes one of thirty-two.
    budget: Budget,
    /// Points of `target_info` so far: resources may share one.
    target_info: HashSet<(SeriesIdx, i64), RandomState>,
}

impl SeriesTable {
    /// For a message of `bytes` with so many points.
    pub fn new(bytes: usize, points: usize) -> Self {
        SeriesTable {
            arena: Vec::new(),
            ends: Vec::new(),
            by_labels: HashTable::new(),
            hasher: RandomState::default(),
            // A point takes more bytes on the wire than its row here.
            samples: Vec::with_capacity(points.min(bytes / size_of::<SampleRow>())),
            histograms: Vec::new(),
            exemplars: Vec::new(),
            metadata: HashMap::default(),
            budget: Budget::for_body(bytes),
            target_info: HashSet::default(),
        }
    }

    /// The entry of a packed label set.
    ///
    /// # Errors
    /// `TooLarge` when the label sets of the request take more than [`LABEL_BYTES_MAX`].
    pub fn series(&mut self, packed: &[u8]) -> Result<SeriesIdx> {
        let hash = self.hasher.hash_one(packed);
        let (arena, ends, hasher) = (&self.arena, &self.ends, &self.hasher);
        let of = |i: SeriesIdx| {
            let i = i as usize;
            let from = if i == 0 { 0 } else { ends[i - 1] as usize };
            &arena[from..ends[i] as usize]
        };
        if let Some(&i) = self.by_labels.find(hash, |&i| of(i) == packed) {
            return Ok(i);
        }
        if self.arena.len() + packed.len() > LABEL_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("request too large: its series take more than {LABEL_BYTES_MAX} bytes of labels"),
            ));
        }
        let idx = self.ends.len() as SeriesIdx;
        self.by_labels.insert_unique(hash, idx, |&i| hasher.hash_one(of(i)));
        self.arena.extend_from_slice(packed);
        self.ends.push(self.arena.len() as u32);
        Ok(idx)
    }

    /// # Errors
    /// `TooLarge` when the request expands beyond measure; so do the following.
    pub fn sample(&mut self, series: SeriesIdx, sample: Sample, start_ms: i64) -> Result<()> {
        self.budget.charge::<SampleRow>()?;
        self.samples.push((series, sample, start_ms));
        Ok(())
    }

    pub fn histogram(&mut self, series: SeriesIdx, sample: HistogramSample) -> Result<()> {
        self.budget.charge::<(SeriesIdx, HistogramSample)>()?;
        self.budget.charge_bytes(sample.histogram.size_bytes())?;
        self.histograms.push((series, sample));
        Ok(())
    }

    pub fn exemplar(&mut self, series: SeriesIdx, exemplar: Exemplar) -> Result<()> {
        self.budget.charge::<(SeriesIdx, Exemplar)>()?;
        self.exemplars.push((series, exemplar));
        Ok(())
    }

    /// A sample of `target_info`, unless the request had it already.
    pub fn target_info(&mut self, series: SeriesIdx, ts_ms: i64) -> Result<()> {
        if self.target_info.insert((series, ts_ms)) {
            self.sample(series, Sample { ts_ms, value: 1.0 }, 0)?;
        }
        Ok(())
    }

    /// The last word on a family wins.
    pub fn metadata(&mut self, metadata: MetricMetadata) {
        match self.metadata.get_mut(&metadata.family) {
            Some(known) => *known = metadata,
            None => {
                self.metadata.insert(metadata.family.clone(), metadata);
            }
        }
    }

    pub fn into_batch(mut self) -> MetricBatch {
        let mut batch = MetricBatch::default();
        sort(&mut self.samples, |s| s.0);
        sort(&mut self.histograms, |h| h.0);
        sort(&mut self.exemplars, |e| e.0);
        batch.samples.reserve_exact(self.samples.len());
        let mut samples = self.samples.into_iter().peekable();
        let mut histograms = self.histograms.into_iter().peekable();
        let mut exemplars = self.exemplars.into_iter().peekable();
        let mut from = 0;
        for (i, end) in self.ends.iter().enumerate() {
            let i = i as SeriesIdx;
            let labels = LabelsRef::from_packed_trusted(&self.arena[from..*end as usize]);
            from = *end as usize;
            let mut any = false;
            while let Some((_, sample, start_ms)) = samples.next_if(|s| s.0 == i) {
                batch.push_started(sample, start_ms);
                any = true;
            }
            while let Some((_, histogram)) = histograms.next_if(|h| h.0 == i) {
                batch.histograms.push(histogram);
                any = true;
            }
            while let Some((_, exemplar)) = exemplars.next_if(|e| e.0 == i) {
                batch.exemplars.push(exemplar);
            }
            if any {
                batch.finish_series(labels);
            } else {
                batch.abandon_series();
            }
        }
        batch.metadata = self.metadata.into_values().collect();
        batch.metadata.sort_unstable_by(|a, b| a.family.cmp(&b.family));
        batch
    }
}

/// By series, points of one series in the order received. Most requests have every series once, in order.
fn sort<T>(rows: &mut [T], key: impl Fn(&T) -> SeriesIdx) {
    if !rows.is_sorted_by_key(&key) {
        rows.sort_by_key(key);
    }
}
