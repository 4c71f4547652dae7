//! One series of a head.
//!
//! A series of floats costs what floats cost. The first histogram or start timestamp makes it a rich one: from then on all
//! its samples go through [`Rich`], so that write order, which decides between equal timestamps, stays that of the chain.

use std::sync::Arc;

use trilith_histogram::FloatHistogram;
use trilith_model::{Sample, SampleValue, TimeRange};

use super::pool::Pool;
use super::rich::Rich;
use crate::chunk::{OpenChunk, SealedRef, TimesMemo};
use crate::format::histogram;
use crate::samples::{AnySample, Samples, SamplesRef, last_of_each};

/// Late samples kept plain before they are sorted and sealed into a chunk of their own.
const LATE_SAMPLES_MAX: usize = 64;

/// Samples in write order, compressed: chunks of ascending samples, and apart from them those that came late. The bytes
/// are in the pool of the series' shard.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// Empty once the series is rich.
    open: OpenChunk,
    /// The newest sealed chunk.
    sealed: SealedRef,
    /// The newest sample, also right after a seal.
    last: Option<(i64, Newest)>,
    /// Rare, so it costs a pointer only.
    rare: Option<Box<Rare>>,
}

/// The value of the newest sample.
#[derive(Clone, Copy, Debug)]
enum Newest {
    /// Its bits.
    Float(u64),
    /// In [`Rich::newest`].
    Histogram,
}

#[derive(Debug)]
struct Rare {
    late_sealed: SealedRef,
    /// In write order; of equal times the later one counts. Empty once the series is rich.
    late: Vec<Sample>,
    rich: Option<Box<Rich>>,
}

/// Whether two values are the same sample pushed again.
pub(crate) fn same_value(a: &SampleValue, b: &SampleValue) -> bool {
    match (a, b) {
        (SampleValue::Float(a), SampleValue::Float(b)) => a.to_bits() == b.to_bits(),
        (SampleValue::Histogram(a), SampleValue::Histogram(b)) => histogram::same(a, b),
        _ => false,
    }
}

impl Series {
    /// The newest sample by time.
    pub(crate) fn last(&self) -> Option<(i64, SampleValue)> {
        let (t, newest) = self.last?;
        let value = match newest {
            Newest::Float(bits) => SampleValue::Float(f64::from_bits(bits)),
            Newest::Histogram => SampleValue::Histogram(self.newest_histogram()?.clone()),
        };
        Some((t, value))
    }

    fn rich(&self) -> Option<&Rich> {
        self.rare.as_ref()?.rich.as_deref()
    }

    fn newest_histogram(&self) -> Option<&Arc<FloatHistogram>> {
        self.rich()?.newest.as_ref()
    }

    /// Adds a float. One that is not newer than all others goes to the late ones, except an exact repetition of
    /// the newest, which changes nothing.
    pub(crate) fn append(&mut self, pool: &mut Pool, s: Sample) {
        if self.rich().is_some() {
            let (ts_ms, value) = (s.ts_ms, SampleValue::Float(s.value));
            return self.append_any(
                pool,
                AnySample {
                    ts_ms,
                    start_ms: 0,
                    value,
                },
            );
        }
        let bits = s.value.to_bits();
        match self.last {
            Some((t, Newest::Float(b))) if s.ts_ms == t && bits == b => {}
            Some((t, _)) if s.ts_ms <= t => {
                if s.ts_ms == t {
                    // It replaces the newest one, so it is what a repetition is measured by.
                    self.last = Some((t, Newest::Float(bits)));
                }
                self.append_late(pool, s);
            }
            _ => {
                self.open.append(pool, s.ts_ms, s.value);
                self.last = Some((s.ts_ms, Newest::Float(bits)));
                if self.open.is_full() {
                    self.sealed = self.open.seal(pool, self.sealed);
                }
            }
        }
    }

    /// As `append`, for samples of all kinds.
    pub(crate) fn append_any(&mut self, pool: &mut Pool, s: AnySample) {
        if s.start_ms == 0
            && self.rich().is_none()
            && let SampleValue::Float(value) = s.value
        {
            return self.append(pool, Sample { ts_ms: s.ts_ms, value });
        }
        let last = self.last();
        self.become_rich(pool);
        let rare = self.rare.as_mut().expect("it is rich");
        let rich = rare.rich.as_mut().expect("it is rich");
        let newest = match &s.value {
            SampleValue::Float(v) => Newest::Float(v.to_bits()),
            SampleValue::Histogram(_) => Newest::Histogram,
        };
        match last {
            Some((t, v)) if s.ts_ms == t && same_value(&v, &s.value) => {}
            Some((t, _)) if s.ts_ms <= t => {
                if s.ts_ms == t {
                    self.last = Some((t, newest));
                    rich.newest_start_ms = s.start_ms;
                    rich.newest = match &s.value {
                        SampleValue::Float(_) => None,
                        SampleValue::Histogram(h) => Some(h.clone()),
                    };
                }
                rare.late_sealed = rich.append_late(pool, s, rare.late_sealed);
            }
            _ => {
                self.last = Some((s.ts_ms, newest));
                self.sealed = rich.append(pool, &s, self.sealed);
            }
        }
    }

    fn become_rich(&mut self, pool: &mut Pool) {
        if self.rich().is_some() {
            return;
        }
        if self.open.range().is_some() {
            self.sealed = self.open.seal(pool, self.sealed);
        }
        let rare = self.rare.get_or_insert_with(Default::default);
        let mut rich = Box::<Rich>::default();
        for s in std::mem::take(&mut rare.late) {
            let (ts_ms, value) = (s.ts_ms, SampleValue::Float(s.value));
            rare.late_sealed = rich.append_late(
                pool,
                AnySample {
                    ts_ms,
                    start_ms: 0,
                    value,
                },
                rare.late_sealed,
            );
        }
        rare.rich = Some(rich);
    }

    fn append_late(&mut self, pool: &mut Pool, s: Sample) {
        let rare = self.rare.get_or_insert_with(|| {
            pool.charge(LATE_SAMPLES_MAX * size_of::<Sample>() + 64);
            Default::default()
        });
        rare.late.push(s);
        if rare.late.len() >= LATE_SAMPLES_MAX {
            let (times, values) = last_of_each(std::mem::take(&mut rare.late));
            rare.late_sealed = SealedRef::write(pool, rare.late_sealed, SamplesRef::floats_only(&times, &values));
        }
    }

    /// Calls `f` with time ranges that together hold every sample.
    pub(crate) fn for_each_range(&self, pool: &Pool, mut f: impl FnMut(TimeRange)) {
        for c in self.sealed.chain(pool) {
            f(c.range);
        }
        if let Some(range) = self.open.range() {
            f(range);
        }
        let Some(rare) = &self.rare else { return };
        for c in rare.late_sealed.chain(pool) {
            f(c.range);
        }
        for s in &rare.late {
            f(TimeRange::new(s.ts_ms, s.ts_ms));
        }
        let Some(rich) = &rare.rich else { return };
        if let Some(range) = rich.range() {
            f(range);
        }
        for s in &rich.late {
            f(TimeRange::new(s.ts_ms, s.ts_ms));
        }
    }

    /// Appends the newest sample of the range if that is the newest of all, which takes no decoding, and says whether it
    /// did.
    pub(crate) fn read_newest(&self, range: TimeRange, out: &mut Samples) -> bool {
        match self.last {
            Some((ts_ms, _)) if !range.contains(ts_ms) => false,
            Some((ts_ms, Newest::Float(bits))) if self.rare.is_none() => {
                out.push_float(ts_ms, f64::from_bits(bits));
                true
            }
            _ => {
                let Some((ts_ms, value)) = self.last() else {
                    return false;
                };
                let start_ms = self.rich().map_or(0, |r| r.newest_start_ms);
                out.push(AnySample { ts_ms, start_ms, value });
                true
            }
        }
    }

    /// Appends the samples of the range: ascending, of equal times the one written last. What `out` holds already takes
    /// part in that, as written before.
    pub(crate) fn read(&self, pool: &Pool, range: TimeRange, memo: &mut TimesMemo, out: &mut Samples) {
        let mut scratch = Samples::default();
        for c in self.sealed.chain_from(pool, range.min) {
            if range.min <= c.range.min && c.range.max <= range.max {
                c.read(memo, out);
            } else if c.range.overlaps(range) {
                read_within(&mut scratch, range, out, |to| c.read(memo, to));
            }
        }
        if self.open.range().is_some_and(|r| range.overlaps(r)) {
            self.open.for_each(pool, |s| {
                if range.contains(s.ts_ms) {
                    out.push_float(s.ts_ms, s.value);
                }
            });
        }
        let Some(rare) = &self.rare else { return };
        if let Some(rich) = &rare.rich
            && rich.range().is_some_and(|r| range.overlaps(r))
        {
            read_within(&mut scratch, range, out, |to| rich.read(to));
        }
        // Late samples come last, so that a stable sort keeps them behind the ones they replace.
        for c in rare.late_sealed.chain(pool).filter(|c| c.range.overlaps(range)) {
            read_within(&mut scratch, range, out, |to| c.read(memo, to));
        }
        for s in rare.late.iter().filter(|s| range.contains(s.ts_ms)) {
            out.push_float(s.ts_ms, s.value);
        }
        for s in rare
            .rich
            .iter()
            .flat_map(|r| &r.late)
            .filter(|s| range.contains(s.ts_ms))
        {
            out.push(s.clone());
        }
        if !out.is_sorted() {
            out.sort_last_of_each();
        }
    }
}

/// Appends what `read` gives, as far as it is in the range. What is read ascends.
fn read_within(scratch: &mut Samples, range: TimeRange, out: &mut Samples, read: impl FnOnce(&mut Samples)) {
    scratch.clear();
    read(scratch);
    let from = scratch.times.partition_point(|&t| t < range.min);
    let to = scratch.times.partition_point(|&t| t <= range.max);
    if from < to {
        out.extend(scratch.slice(from..to));
    }
}

impl Default for Rare {
    fn default() -> Self {
        Rare {
            late_sealed: SealedRef::NONE,
            late: Vec::new(),
            rich: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn reads_like_a_map(
            samples in proptest::collection::vec((0i64..400, 0u32..3), 0..900),
            ordered in any::<bool>(), a in 0i64..400, b in 0i64..400,
        ) {
            let mut samples = samples;
            if ordered {
                samples.sort_by_key(|s| s.0);
            }
            let mut series = Series::default();
            let mut pool = Pool::default();
            let mut model = BTreeMap::new();
            for &(ts_ms, v) in &samples {
                series.append(&mut pool, Sample { ts_ms, value: f64::from(v) });
                model.insert(ts_ms, f64::from(v));
            }
            let (a, b) = (a.min(b), a.max(b));
            for range in [TimeRange::ALL, TimeRange::new(a, b)] {
                let mut out = Samples::default();
                series.read(&pool, range, &mut TimesMemo::default(), &mut out);
                let mut newest = Samples::default();
                if series.read_newest(range, &mut newest) {
                    prop_assert_eq!(newest.times.last(), out.times.last());
                    prop_assert_eq!(newest.floats.last().map(|v| v.to_bits()), out.floats.last().map(|v| v.to_bits()));
                }
                let got: Vec<(i64, f64)> = out.times.into_iter().zip(out.floats).collect();
                let want: Vec<(i64, f64)> = model.range(range.min..=range.max).map(|(t, v)| (*t, *v)).collect();
                prop_assert_eq!(got, want);
            }
        }

        #[test]
        fn any_samples_read_like_a_map(
            samples in crate::arb::any_samples(300), ordered in any::<bool>(), a in 0i64..200, b in 0i64..200,
        ) {
            let mut samples = samples;
            if ordered {
                samples.sort_by_key(|s| s.ts_ms);
            }
            let (mut series, mut pool) = (Series::default(), Pool::default());
            let mut model: BTreeMap<i64, AnySample> = BTreeMap::new();
            for s in samples {
                series.append_any(&mut pool, s.clone());
                // An exact repetition of the newest sample changes nothing, not even the start.
                let newest = model.last_key_value().is_some_and(|(t, n)| *t == s.ts_ms && same_value(&n.value, &s.value));
                if !newest {
                    model.insert(s.ts_ms, s);
                }
                let (t, last) = series.last().expect("it has a sample");
                let (want_t, want) = model.last_key_value().expect("it has a sample");
                prop_assert!(t == *want_t && same_value(&last, &want.value));
            }
            let (a, b) = (a.min(b), a.max(b));
            for range in [TimeRange::ALL, TimeRange::new(a, b)] {
                let mut out = Samples::default();
                series.read(&pool, range, &mut TimesMemo::default(), &mut out);
                let mut newest = Samples::default();
                if series.read_newest(range, &mut newest) {
                    let (got, want) = (newest.as_ref().iter().next(), out.as_ref().iter().last());
                    prop_assert_eq!(got.map(|s| crate::arb::plain(&s)), want.map(|s| crate::arb::plain(&s)));
                }
                let got: Vec<_> = out.as_ref().iter().map(|s| crate::arb::plain(&s)).collect();
                let want: Vec<_> = model.range(range.min..=range.max).map(|(_, s)| crate::arb::plain(s)).collect();
                prop_assert_eq!(got, want);
            }
            let mut all = TimeRange::EMPTY;
            series.for_each_range(&pool, |r| all = all.union(r));
            for t in model.keys() {
                prop_assert!(all.contains(*t));
            }
        }
    }

    #[test]
    fn a_series_of_floats_does_not_grow() {
        assert!(size_of::<Series>() <= 120, "{} bytes", size_of::<Series>());
    }
}
