//! How many series, label names and values there are in some sources together: what `/api/v1/status/tsdb` tells.
//!
//! A series that lies in several sources counts once, found by the hash of its labels; the rare collision makes a
//! count too small by one. CPU work in proportion to the labels of all series, memory in proportion to the series and the
//! distinct values.

use hashbrown::{HashMap, HashSet};
use trilith_index::LabelIndex as _;
use trilith_model::{Labels, Result};
use trilith_query::{QueryContext, Reservation};
use xxhash_rust::xxh3::xxh3_64;

use super::{Sources, skip_damaged};
use crate::head::HeadSeriesRef;

/// Series counted under one hold of a head's lock.
const LOCKED_MAX: u32 = 4096;

/// Counts of distinct things. Lists are the largest first, equal ones by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    pub series: u64,
    /// Distinct pairs of a name and a value.
    pub label_pairs: u64,
    /// Compressed runs of samples in memory.
    pub chunks: u64,
    /// Series by value of `__name__`.
    pub series_by_metric: Vec<(String, u64)>,
    /// Distinct values by label name.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of the values of all series by label name.
    pub bytes_by_label: Vec<(String, u64)>,
    /// Series by `name=value`.
    pub series_by_pair: Vec<(String, u64)>,
}

struct Counting<'a> {
    ctx: &'a QueryContext,
    seen: HashSet<u64>,
    /// Series by name and value.
    names: HashMap<String, HashMap<String, u64>>,
    memory: Reservation,
}

impl Counting<'_> {
    fn add(&mut self, labels: &Labels) -> Result<()> {
        if !self.seen.insert(xxh3_64(labels.as_packed())) {
            return Ok(());
        }
        let mut bytes = 16;
        for l in labels.iter() {
            if !self.names.contains_key(l.name) {
                self.names.insert(l.name.to_owned(), HashMap::new());
            }
            let Some(values) = self.names.get_mut(l.name) else {
                continue;
            };
            match values.get_mut(l.value) {
                Some(n) => *n += 1,
                None => {
                    bytes += l.value.len() + 64;
                    values.insert(l.value.to_owned(), 1);
                }
            }
        }
        self.memory.grow(bytes)?;
        if self.seen.len().is_multiple_of(4096) {
            self.ctx.check()?;
        }
        Ok(())
    }
}

/// `top`: the length of the lists.
///
/// # Errors
/// Memory budget, cancellation. A damaged block is left out with a warning.
pub(crate) fn cardinality(ctx: &QueryContext, sources: &Sources, top: usize) -> Result<Cardinality> {
    let mut counting = Counting {
        ctx,
        seen: HashSet::new(),
        names: HashMap::new(),
        memory: ctx.memory.reserve(0)?,
    };
    let mut chunks = 0u64;
    for block in &sources.blocks {
        let index = &block.reader.index;
        let mut all = || (0..index.series_count()).try_for_each(|o| counting.add(&index.labels(o)?));
        all().or_else(|e| skip_damaged(ctx, &block.handle, e))?;
    }
    for head in &sources.heads {
        // A few at a time: new series wait for the index' lock.
        let mut from = 0;
        loop {
            let to = head.with_index(|index| {
                let to = index.len().min(from + LOCKED_MAX);
                (from..to).try_for_each(|r| counting.add(index.labels(HeadSeriesRef(r))))?;
                Ok::<_, trilith_model::Error>(to)
            })?;
            if to == from {
                break;
            }
            from = to;
        }
        head.for_each_range(|_| {
            chunks += 1;
            true
        });
    }
    let mut out = Cardinality {
        series: counting.seen.len() as u64,
        chunks,
        ..Cardinality::default()
    };
    let mut pairs: Vec<(&str, &str, u64)> = Vec::new();
    for (name, values) in &counting.names {
        out.label_pairs += values.len() as u64;
        out.values_by_label.push((name.clone(), values.len() as u64));
        let bytes = values.iter().map(|(v, n)| v.len() as u64 * n).sum();
        out.bytes_by_label.push((name.clone(), bytes));
        pairs.extend(values.iter().map(|(v, n)| (name.as_str(), v.as_str(), *n)));
        // What is not among the largest of its name is not among the largest of all.
        pairs.sort_unstable_by(|a, b| b.2.cmp(&a.2).then_with(|| (a.0, a.1).cmp(&(b.0, b.1))));
        pairs.truncate(top);
    }
    out.series_by_pair = pairs.into_iter().map(|(n, v, s)| (format!("{n}={v}"), s)).collect();
    if let Some(metrics) = counting.names.get("__name__") {
        out.series_by_metric = metrics.iter().map(|(m, n)| (m.clone(), *n)).collect();
    }
    for list in [
        &mut out.series_by_metric,
        &mut out.values_by_label,
        &mut out.bytes_by_label,
    ] {
        list.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        list.truncate(top);
    }
    Ok(out)
}
