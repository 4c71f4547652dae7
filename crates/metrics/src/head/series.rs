//! One series of a head.

use trilith_model::{Sample, TimeRange};

use super::pool::Pool;
use crate::chunk::{OpenChunk, SealedRef};

/// Late samples kept plain before they are sorted and sealed into a chunk of their own.
const LATE_SAMPLES_MAX: usize = 64;

/// Samples in write order, compressed: chunks of ascending samples, and apart from them those that came late. The bytes
/// are in the pool of the series' shard.
#[derive(Debug, Default)]
pub(crate) struct Series {
    open: OpenChunk,
    /// The newest sealed chunk.
    sealed: SealedRef,
    /// The newest sample, also right after a seal.
    last: Option<(i64, u64)>,
    /// Rare, so it costs a pointer only.
    late: Option<Box<Late>>,
}

#[derive(Debug)]
struct Late {
    sealed: SealedRef,
    /// In write order; of equal times the later one counts.
    open: Vec<Sample>,
}

impl Series {
    /// The newest sample by time: (ms, value bits).
    pub(crate) fn last(&self) -> Option<(i64, u64)> {
        self.last
    }

    /// Adds a sample. One that is not newer than all others goes to the late ones, except an exact repetition of
    /// the newest, which changes nothing.
    pub(crate) fn append(&mut self, pool: &mut Pool, s: Sample) {
        let bits = s.value.to_bits();
        match self.last {
            Some((t, b)) if s.ts_ms == t && bits == b => {}
            Some((t, _)) if s.ts_ms <= t => {
                if s.ts_ms == t {
                    // It replaces the newest one, so it is what a repetition is measured by.
                    self.last = Some((t, bits));
                }
                self.append_late(pool, s);
            }
            _ => {
                self.open.append(pool, s.ts_ms, s.value);
                self.last = Some((s.ts_ms, bits));
                if self.open.is_full() {
                    self.sealed = self.open.seal(pool, self.sealed);
                }
            }
        }
    }

    fn append_late(&mut self, pool: &mut Pool, s: Sample) {
        let late = self.late.get_or_insert_with(|| {
            pool.charge(LATE_SAMPLES_MAX * size_of::<Sample>() + 64);
            Box::new(Late {
                sealed: SealedRef::NONE,
                open: Vec::new(),
            })
        });
        late.open.push(s);
        if late.open.len() >= LATE_SAMPLES_MAX {
            let (times, values) = last_of_each(std::mem::take(&mut late.open));
            late.sealed = SealedRef::write(pool, late.sealed, &times, &values);
        }
    }

    /// Calls `f` with time ranges that together hold every sample.
    pub(crate) fn for_each_range(&self, pool: &Pool, mut f: impl FnMut(TimeRange)) {
        let late = self.late.as_deref();
        let late_sealed = late.map_or(SealedRef::NONE, |l| l.sealed);
        for c in self.sealed.chain(pool).chain(late_sealed.chain(pool)) {
            f(c.range);
        }
        if let Some(range) = self.open.range() {
            f(range);
        }
        for s in late.map_or(&[][..], |l| &l.open) {
            f(TimeRange::new(s.ts_ms, s.ts_ms));
        }
    }

    /// Appends the samples of the range to `times` and `values`: ascending, of equal times the one written last.
    pub(crate) fn read(&self, pool: &Pool, range: TimeRange, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        let (from, values_from) = (times.len(), values.len());
        let mut put = |s: Sample| {
            if range.contains(s.ts_ms) {
                times.push(s.ts_ms);
                values.push(s.value);
            }
        };
        for c in self.sealed.chain(pool).filter(|c| c.range.overlaps(range)) {
            c.for_each(&mut put);
        }
        if self.open.range().is_some_and(|r| range.overlaps(r)) {
            self.open.for_each(pool, &mut put);
        }
        let Some(late) = &self.late else { return };
        // Late samples come last, so that a stable sort keeps them behind the ones they replace.
        for c in late.sealed.chain(pool).filter(|c| c.range.overlaps(range)) {
            c.for_each(&mut put);
        }
        late.open.iter().copied().for_each(&mut put);
        if !times[from..].is_sorted_by(|a, b| a < b) {
            let all = times.drain(from..).zip(values.drain(values_from..));
            let (t, v) = last_of_each(all.map(|(ts_ms, value)| Sample { ts_ms, value }).collect());
            times.extend(t);
            values.extend(v);
        }
    }
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
                let (mut t, mut v) = (vec![-1], vec![-1.0, -1.0]);
                series.read(&pool, range, &mut t, &mut v);
                let got: Vec<(i64, f64)> = t.into_iter().skip(1).zip(v.into_iter().skip(2)).collect();
                let want: Vec<(i64, f64)> = model.range(range.min..=range.max).map(|(t, v)| (*t, *v)).collect();
                prop_assert_eq!(got, want);
            }
        }
    }
}
