//! Cardinality: what `/api/v1/status/tsdb` and the cardinality pages ask of an index.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use trilith_model::Result;

use crate::select::LabelIndex;

/// Counts of one or several indexes, collected by `add`. Series of different indexes are counted each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    pub series: u64,
    pub label_pairs: u64,
    /// Series by value of `__name__`.
    pub series_by_metric: BTreeMap<String, u64>,
    /// Distinct values by label name.
    pub values_by_label: BTreeMap<String, u64>,
    /// Bytes of distinct values by label name.
    pub bytes_by_label: BTreeMap<String, u64>,
    /// Series by `name=value`; only pairs of at least `pair_series_min` series.
    pub series_by_pair: BTreeMap<String, u64>,
}

impl IndexStats {
    /// Adds the counts of an index. `pair_series_min` keeps `series_by_pair` small: pairs of fewer series are left out.
    ///
    /// # Errors
    /// `Corrupt` when postings do not check out.
    pub fn add(&mut self, index: &dyn LabelIndex, pair_series_min: u64) -> Result<()> {
        self.series += u64::from(index.series_count());
        index.for_each_name(&mut |name, values| {
            self.label_pairs += values as u64;
            *self.values_by_label.entry(name.to_owned()).or_default() += values as u64;
            let mut bytes = 0;
            index.for_each_value(name, "", &mut |value, postings| {
                bytes += value.len() as u64;
                let n = postings.len()?;
                if name == "__name__" {
                    *self.series_by_metric.entry(value.to_owned()).or_default() += n;
                }
                if n >= pair_series_min {
                    *self.series_by_pair.entry(format!("{name}={value}")).or_default() += n;
                }
                Ok(ControlFlow::Continue(()))
            })?;
            *self.bytes_by_label.entry(name.to_owned()).or_default() += bytes;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The `limit` largest entries, largest first, equal ones by name.
    pub fn top(map: &BTreeMap<String, u64>, limit: usize) -> Vec<(String, u64)> {
        let mut all: Vec<(&String, &u64)> = map.iter().collect();
        all.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        all.into_iter().take(limit).map(|(k, v)| (k.clone(), *v)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemIndex;
    use trilith_model::Labels;

    #[test]
    fn counts_series_pairs_and_values() {
        let mut index = MemIndex::new();
        for i in 0..10u32 {
            let metric = if i < 7 { "a" } else { "b" };
            let pod = format!("p{i}");
            index.add(
                i,
                Labels::from_pairs([("__name__", metric), ("pod", pod.as_str())]).as_ref(),
            );
        }
        let mut stats = IndexStats::default();
        stats.add(&index, 3).unwrap();
        assert_eq!((stats.series, stats.label_pairs), (10, 12));
        assert_eq!(IndexStats::top(&stats.series_by_metric, 1), [("a".to_owned(), 7)]);
        assert_eq!(stats.values_by_label["pod"], 10);
        assert_eq!(stats.bytes_by_label["pod"], 20);
        assert_eq!(stats.series_by_pair.len(), 2);
    }
}
