//! Exemplars of a block, by series.
//!
//! `| series uvarint | series × ( shared uvarint, at most 1024 | rest bytes | n uvarint | n × exemplar ) |`, exemplar
//! `| ms varint, Δ from the one before (first from 0) | value u64 | labels bytes |`. A series is named by its packed labels, front
//! coded against the series before: it need not have samples in the block.

use std::collections::BTreeMap;

use trilith_codec::{Reader, put_bytes, put_uvarint, put_varint};
use trilith_model::{Error, Exemplar, Labels, LabelsRef, Result, TimeRange};

use super::bad;

/// Most bytes that a label set shares with the one before, and all label sets together: bound what forged bytes unfold to.
const SHARED_BYTES_MAX: usize = 1024;
const LABEL_BYTES_MAX: usize = 64 << 20;

/// Distinct exemplars by series, ascending in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ExemplarSet {
    series: BTreeMap<Labels, Vec<Exemplar>>,
    count: usize,
}

impl ExemplarSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Adds an exemplar unless it is there.
    pub(crate) fn insert(&mut self, series: &Labels, e: &Exemplar) {
        let known = match self.series.get_mut(series) {
            Some(known) => known,
            None => self.series.entry(series.clone()).or_default(),
        };
        let end = known.partition_point(|k| k.ts_ms <= e.ts_ms);
        let same = |k: &Exemplar| k.value.to_bits() == e.value.to_bits() && k.labels == e.labels;
        if known[..end].iter().rev().take_while(|k| k.ts_ms == e.ts_ms).any(same) {
            return;
        }
        known.insert(end, e.clone());
        self.count += 1;
    }

    /// Keeps the `max` newest, and none before `from`.
    pub(crate) fn trim(&mut self, max: usize, from: Option<i64>) {
        let mut from = from.unwrap_or(i64::MIN);
        if self.count > max {
            let mut times: Vec<i64> = self.series.values().flatten().map(|e| e.ts_ms).collect();
            times.sort_unstable();
            // Of equal times all go or none.
            let cut = times.len() - max;
            let stays = times.get(cut).copied().unwrap_or(i64::MAX);
            let first = if times[cut - 1] == stays {
                stays.saturating_add(1)
            } else {
                stays
            };
            from = from.max(first);
        }
        self.series.retain(|_, e| {
            e.retain(|e| e.ts_ms >= from);
            !e.is_empty()
        });
        self.count = self.series.values().map(Vec::len).sum();
    }

    pub(crate) fn time(&self) -> TimeRange {
        let mut range = TimeRange::EMPTY;
        self.series.values().flatten().for_each(|e| range.extend(e.ts_ms));
        range
    }

    /// In the order of labels.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Labels, &[Exemplar])> {
        self.series.iter().map(|(l, e)| (l, e.as_slice()))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_uvarint(&mut out, self.series.len() as u64);
        let mut last: &[u8] = &[];
        for (series, exemplars) in &self.series {
            let packed = series.as_packed();
            let pairs = last.iter().zip(packed).take(SHARED_BYTES_MAX);
            let shared = pairs.take_while(|(a, b)| a == b).count();
            put_uvarint(&mut out, shared as u64);
            put_bytes(&mut out, &packed[shared..]);
            put_uvarint(&mut out, exemplars.len() as u64);
            let mut last_ms = 0i64;
            for e in exemplars {
                put_varint(&mut out, e.ts_ms.wrapping_sub(last_ms));
                out.extend_from_slice(&e.value.to_le_bytes());
                put_bytes(&mut out, e.labels.as_packed());
                last_ms = e.ts_ms;
            }
            last = packed;
        }
        out
    }

    /// # Errors
    /// `Corrupt`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<ExemplarSet> {
        let bad = bad("exemplars");
        let mut r = Reader::new(bytes);
        let series = r.count(3).map_err(&bad)?;
        let mut set = ExemplarSet::default();
        let (mut packed, mut total) = (Vec::new(), 0usize);
        for _ in 0..series {
            let shared_max = packed.len().min(SHARED_BYTES_MAX);
            let shared = r.uvarint_max(shared_max as u64).map_err(&bad)? as usize;
            packed.truncate(shared);
            packed.extend_from_slice(r.bytes().map_err(&bad)?);
            total += packed.len();
            if total > LABEL_BYTES_MAX {
                return Err(Error::corrupt("exemplars: labels are too large"));
            }
            let labels = LabelsRef::from_packed(&packed)?.to_owned();
            let n = r.count(10).map_err(&bad)?;
            let mut ts_ms = 0i64;
            for _ in 0..n {
                ts_ms = ts_ms.wrapping_add(r.varint().map_err(&bad)?);
                let value = r.f64().map_err(&bad)?;
                let own = LabelsRef::from_packed(r.bytes().map_err(&bad)?)?.to_owned();
                set.insert(
                    &labels,
                    &Exemplar {
                        labels: own,
                        value,
                        ts_ms,
                    },
                );
            }
        }
        r.finish().map_err(&bad)?;
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(of: &[(u8, i64, u8)]) -> ExemplarSet {
        let mut set = ExemplarSet::default();
        for &(series, ts_ms, trace) in of {
            let e = Exemplar {
                labels: Labels::from_pairs([("trace_id", trace.to_string())]),
                value: f64::from(trace),
                ts_ms,
            };
            set.insert(&Labels::from_pairs([("__name__", "m"), ("i", &series.to_string())]), &e);
        }
        set
    }

    fn times(set: &ExemplarSet) -> Vec<i64> {
        set.iter().flat_map(|(_, e)| e).map(|e| e.ts_ms).collect()
    }

    #[test]
    fn distinct_and_in_order() {
        let s = set(&[(1, 5, 1), (1, 3, 1), (1, 5, 1), (1, 5, 2), (0, 9, 1)]);
        assert_eq!(times(&s), [9, 3, 5, 5]);
        assert_eq!((s.len(), s.time().min, s.time().max), (4, 3, 9));
    }

    #[test]
    fn the_newest_stay() {
        let full = set(&[(0, 1, 0), (0, 4, 0), (1, 2, 0), (1, 3, 0), (1, 3, 1)]);
        for (max, want) in [
            (9, vec![1, 4, 2, 3, 3]),
            (4, vec![4, 2, 3, 3]),
            (2, vec![4]),
            (0, vec![]),
        ] {
            let mut s = full.clone();
            s.trim(max, None);
            assert_eq!((times(&s), s.len()), (want.clone(), want.len()), "at most {max}");
        }
        let mut s = full.clone();
        s.trim(9, Some(3));
        assert_eq!(times(&s), [4, 3, 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(of in proptest::collection::vec((0u8..4, any::<i64>(), 0u8..3), 0..30)) {
            let s = set(&of);
            let bytes = s.encode();
            prop_assert_eq!(&ExemplarSet::decode(&bytes).unwrap(), &s);
            for cut in 0..bytes.len() {
                prop_assert!(ExemplarSet::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ExemplarSet::decode(&bytes);
        }
    }
}
