//! The samples of one series in columns: floats, native histograms, start timestamps.
//!
//! Floats stand one per timestamp; where a histogram stands, the float is a placeholder. A series of floats alone has
//! nothing but its times and values, so that it costs what it did before there were histograms.

use std::ops::Range;
use std::sync::Arc;

use trilith_histogram::FloatHistogram;
use trilith_model::{Sample, SampleValue, TimeRange};

/// The float that stands where a histogram is.
const PLACEHOLDER: f64 = 0.0;

/// One sample of either kind.
#[derive(Clone, Debug)]
pub(crate) struct AnySample {
    pub(crate) ts_ms: i64,
    /// 0 when unknown.
    pub(crate) start_ms: i64,
    pub(crate) value: SampleValue,
}

/// Owned columns; times ascend unless something was appended that did not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    pub(crate) times: Vec<i64>,
    pub(crate) floats: Vec<f64>,
    /// By position in `times`, ascending.
    pub(crate) histograms: Vec<(u32, Arc<FloatHistogram>)>,
    /// Empty when no sample has one, otherwise as long as `times`; 0 where unknown.
    pub(crate) starts: Vec<i64>,
}

/// A part of [`Samples`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SamplesRef<'a> {
    pub(crate) times: &'a [i64],
    pub(crate) floats: &'a [f64],
    histograms: &'a [(u32, Arc<FloatHistogram>)],
    /// What positions of `histograms` count from.
    base: u32,
    pub(crate) starts: &'a [i64],
}

impl Samples {
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.truncate(0);
    }

    /// Keeps the first `n`.
    pub(crate) fn truncate(&mut self, n: usize) {
        self.times.truncate(n);
        self.floats.truncate(n);
        self.starts.truncate(n);
        let kept = self.histograms.partition_point(|(at, _)| (*at as usize) < n);
        self.histograms.truncate(kept);
    }

    pub(crate) fn as_ref(&self) -> SamplesRef<'_> {
        SamplesRef {
            times: &self.times,
            floats: &self.floats,
            histograms: &self.histograms,
            base: 0,
            starts: &self.starts,
        }
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> SamplesRef<'_> {
        self.as_ref().slice(range)
    }

    #[inline]
    pub(crate) fn push_float(&mut self, ts_ms: i64, value: f64) {
        self.times.push(ts_ms);
        self.floats.push(value);
        if !self.starts.is_empty() {
            self.starts.push(0);
        }
    }

    pub(crate) fn push(&mut self, s: AnySample) {
        self.push_start(s.start_ms);
        match s.value {
            SampleValue::Float(v) => self.floats.push(v),
            SampleValue::Histogram(h) => {
                self.histograms.push((self.times.len() as u32, h));
                self.floats.push(PLACEHOLDER);
            }
        }
        self.times.push(s.ts_ms);
    }

    /// The start of the sample that is added next.
    fn push_start(&mut self, start_ms: i64) {
        if start_ms != 0 || !self.starts.is_empty() {
            self.starts.resize(self.times.len(), 0);
            self.starts.push(start_ms);
        }
    }

    pub(crate) fn extend(&mut self, from: SamplesRef<'_>) {
        let at = self.times.len();
        self.times.extend_from_slice(from.times);
        self.floats.extend_from_slice(from.floats);
        let moved = from.histograms().map(|(i, h)| ((at + i) as u32, h.clone()));
        self.histograms.extend(moved);
        self.extend_starts(at, from.starts);
    }

    /// As `extend`, without the samples whose times, which ascend, are in `dead` (ascending, apart from each other).
    pub(crate) fn extend_outside(&mut self, from: SamplesRef<'_>, dead: &[TimeRange]) {
        let mut at = 0;
        for range in dead {
            let to = from.times.partition_point(|&t| t < range.min);
            self.extend(from.slice(at.min(to)..to));
            at = from.times.partition_point(|&t| t <= range.max);
        }
        self.extend(from.slice(at..from.len()));
    }

    /// Adds the starts of samples that were added from position `at` on; none when `starts` is empty.
    pub(crate) fn extend_starts(&mut self, at: usize, starts: &[i64]) {
        if starts.is_empty() && self.starts.is_empty() {
            return;
        }
        self.starts.resize(at, 0);
        self.starts.extend_from_slice(starts);
        self.starts.resize(self.times.len(), 0);
    }

    pub(crate) fn is_sorted(&self) -> bool {
        self.times.is_sorted_by(|a, b| a < b)
    }

    /// Sorts by time; of equal times the last one stays.
    pub(crate) fn sort_last_of_each(&mut self) {
        if self.histograms.is_empty() && self.starts.is_empty() {
            let all = self.times.drain(..).zip(self.floats.drain(..));
            let (times, floats) = last_of_each(all.map(|(ts_ms, value)| Sample { ts_ms, value }).collect());
            (self.times, self.floats) = (times, floats);
            return;
        }
        let mut all: Vec<AnySample> = self.as_ref().iter().collect();
        all.sort_by_key(|s| s.ts_ms);
        self.clear();
        let mut rest = all.into_iter().peekable();
        while let Some(s) = rest.next() {
            if rest.peek().is_none_or(|next| next.ts_ms != s.ts_ms) {
                self.push(s);
            }
        }
    }

    /// Drops samples before `min`. Times must ascend.
    pub(crate) fn retain_from(&mut self, min: i64) {
        let n = self.times.partition_point(|&t| t < min);
        if n == 0 {
            return;
        }
        self.times.drain(..n);
        self.floats.drain(..n);
        self.starts.drain(..n.min(self.starts.len()));
        self.histograms.retain(|(at, _)| *at as usize >= n);
        for (at, _) in &mut self.histograms {
            *at -= n as u32;
        }
    }
}

impl<'a> SamplesRef<'a> {
    pub(crate) fn floats_only(times: &'a [i64], floats: &'a [f64]) -> Self {
        SamplesRef {
            times,
            floats,
            ..SamplesRef::default()
        }
    }

    pub(crate) fn len(self) -> usize {
        self.times.len()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.times.is_empty()
    }

    pub(crate) fn has_starts(self) -> bool {
        self.starts.iter().any(|&s| s != 0)
    }

    pub(crate) fn histogram_count(self) -> usize {
        self.histograms.len()
    }

    /// By position in this part.
    pub(crate) fn histograms(self) -> impl Iterator<Item = (usize, &'a Arc<FloatHistogram>)> {
        self.histograms
            .iter()
            .map(move |(at, h)| ((*at - self.base) as usize, h))
    }

    pub(crate) fn slice(self, range: Range<usize>) -> Self {
        let (start, end) = (self.base as usize + range.start, self.base as usize + range.end);
        let from = self.histograms.partition_point(|(at, _)| (*at as usize) < start);
        let to = self.histograms.partition_point(|(at, _)| (*at as usize) < end);
        SamplesRef {
            times: &self.times[range.clone()],
            floats: &self.floats[range.clone()],
            histograms: &self.histograms[from..to],
            base: start as u32,
            starts: if self.starts.is_empty() {
                &[]
            } else {
                &self.starts[range]
            },
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = AnySample> + 'a {
        let mut histograms = self.histograms().peekable();
        (0..self.len()).map(move |i| AnySample {
            ts_ms: self.times[i],
            start_ms: self.starts.get(i).copied().unwrap_or(0),
            value: match histograms.next_if(|(at, _)| *at == i) {
                Some((_, h)) => SampleValue::Histogram(h.clone()),
                None => SampleValue::Float(self.floats[i]),
            },
        })
    }

    /// The values of all samples of the part; use with histograms in it.
    pub(crate) fn values(self) -> impl Iterator<Item = SampleValue> + 'a {
        self.iter().map(|s| s.value)
    }
}

/// Approximate heap bytes of a decoded histogram; shared bounds count as its own.
pub(crate) fn histogram_bytes(h: &FloatHistogram) -> usize {
    let side = |b: &trilith_histogram::Buckets| size_of_val(b.spans.as_slice()) + size_of_val(b.counts.as_slice());
    size_of::<FloatHistogram>()
        + 16
        + side(&h.positive)
        + side(&h.negative)
        + h.custom_bounds.as_deref().map_or(0, size_of_val)
}

/// Sorts by time; of equal times the last one given stays.
pub(crate) fn last_of_each(mut samples: Vec<Sample>) -> (Vec<i64>, Vec<f64>) {
    samples.sort_by_key(|s| s.ts_ms);
    let mut times: Vec<i64> = Vec::with_capacity(samples.len());
    let mut values: Vec<f64> = Vec::with_capacity(samples.len());
    for s in samples {
        if times.last() == Some(&s.ts_ms) {
            values.pop();
            times.pop();
        }
        times.push(s.ts_ms);
        values.push(s.value);
    }
    (times, values)
}
