//! The first elements of a vector in some order, found while rows stream by: memory is for what is kept.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use hashbrown::HashMap;
use trilith_histogram::FloatHistogram;
use trilith_model::{Labels, Result};

use super::block::{Block, Row, is_absent};
use crate::context::{QueryContext, Reservation};

/// Which elements come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopOrder {
    /// Of floats, NaN last; equal ones by their labels.
    Largest,
    /// Likewise.
    Smallest,
    /// Of both kinds, by their labels.
    Labels,
}

/// Keeps per step the first `k` elements of all rows. Rows come in any order.
#[derive(Debug)]
pub struct Top {
    /// Per step.
    k: Vec<usize>,
    order: TopOrder,
    heaps: Vec<BinaryHeap<Entry>>,
    /// Rows that were kept at some step once, without their values.
    rows: Vec<Row>,
    memory: Reservation,
    ignored: bool,
}

/// The greatest entry of a heap is the first to give way.
#[derive(Debug)]
struct Entry {
    /// Larger ones come first: the value, negated where the smallest are kept, or 0 where values do not count.
    key: f64,
    value: f64,
    histogram: Option<Arc<FloatHistogram>>,
    labels: Labels,
    row: usize,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        let values = || other.key.partial_cmp(&self.key).unwrap_or(Ordering::Equal);
        (self.key.is_nan().cmp(&other.key.is_nan()))
            .then_with(values)
            .then_with(|| self.labels.cmp(&other.labels))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl Top {
    /// `k` per step.
    ///
    /// # Errors
    /// `Execution` when the memory budget is exceeded.
    pub fn new(ctx: &QueryContext, k: Vec<usize>, order: TopOrder) -> Result<Self> {
        Ok(Top {
            memory: ctx.memory.reserve(k.len() * size_of::<BinaryHeap<Entry>>())?,
            heaps: k.iter().map(|_| BinaryHeap::new()).collect(),
            rows: Vec::new(),
            ignored: false,
            k,
            order,
        })
    }

    /// Adds one row of a block.
    ///
    /// # Errors
    /// `Execution` when the memory budget is exceeded.
    pub fn add_row(&mut self, row: &Row, cells: &[f64]) -> Result<()> {
        let histograms = row.histograms.as_ref();
        let counted = histograms.filter(|_| self.order == TopOrder::Labels);
        if counted.is_none() {
            let asked = |(h, k): (&Option<_>, &usize)| h.is_some() && *k > 0;
            self.ignored |= histograms.is_some_and(|h| h.iter().zip(&self.k).any(asked));
        }
        let mut kept = None;
        // Equal values are common, and the same row is often the last one at many steps: (that row, this one is first).
        let mut tie: Option<(usize, bool)> = None;
        for (step, ((v, k), heap)) in cells.iter().zip(&self.k).zip(&mut self.heaps).enumerate() {
            let histogram = counted.and_then(|h| h[step].as_ref());
            if *k == 0 || (is_absent(*v) && histogram.is_none()) {
                continue;
            }
            let key = match self.order {
                TopOrder::Largest => *v,
                TopOrder::Smallest => -*v,
                TopOrder::Labels => 0.0,
            };
            let full = heap.len() >= *k;
            if let Some(last) = heap.peek().filter(|_| full) {
                if key < last.key {
                    continue;
                }
                if key == last.key {
                    let known = tie.filter(|(other, _)| *other == last.row);
                    let (_, first) = *tie.insert(known.unwrap_or_else(|| (last.row, row.labels < last.labels)));
                    if !first {
                        continue;
                    }
                }
            }
            let entry = Entry {
                key,
                value: *v,
                histogram: histogram.cloned(),
                labels: row.labels.clone(),
                row: kept.unwrap_or(self.rows.len()),
            };
            if full {
                match heap.peek_mut() {
                    Some(mut last) if entry < *last => *last = entry,
                    _ => continue,
                }
            } else {
                self.memory.grow(size_of::<Entry>())?;
                heap.push(entry);
            }
            if kept.is_none() {
                kept = Some(self.rows.len());
                self.memory.grow(size_of::<Row>())?;
                self.rows.push(Row {
                    drop_name: row.drop_name,
                    ..Row::new(row.labels.clone())
                });
            }
        }
        Ok(())
    }

    /// The kept elements with their labels; with a single step in their order. True when histograms were passed over.
    ///
    /// # Errors
    /// `Execution` when the result exceeds the memory budget.
    pub fn finish(self, ctx: &QueryContext) -> Result<(Block, bool)> {
        let steps = self.k.len();
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut heads: Vec<Row> = Vec::new();
        let mut rows = self.rows;
        let mut cells: Vec<(usize, usize, Entry)> = Vec::new();
        for (step, heap) in self.heaps.into_iter().enumerate() {
            ctx.check()?;
            for entry in heap.into_sorted_vec() {
                let place = *places.entry(entry.row).or_insert_with(|| {
                    heads.push(std::mem::replace(&mut rows[entry.row], Row::new(Labels::empty())));
                    heads.len() - 1
                });
                cells.push((place, step, entry));
            }
        }
        let mut out = Block::absent(ctx, heads, steps)?;
        for (row, step, entry) in cells {
            out.row_mut(row)[step] = entry.value;
            if let Some(histogram) = entry.histogram {
                out.rows[row].set_histogram(step, steps, histogram);
            }
        }
        Ok((out, self.ignored))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block::ABSENT;
    use super::super::rank::{limit_k, select_k};
    use super::super::test_context;
    use super::*;

    proptest! {
        /// The streaming form and the one that has all rows at once keep the same.
        #[test]
        fn agrees_with_the_whole(
            values in prop::collection::vec(
                prop::collection::vec(prop_oneof![Just(ABSENT), Just(f64::NAN), Just(0.0), Just(-0.0), Just(1.0), -2.0..2.0], 3),
                0..12
            ),
            k in prop::collection::vec(0usize..5, 3),
            order in prop_oneof![Just(TopOrder::Largest), Just(TopOrder::Smallest), Just(TopOrder::Labels)],
            steps in prop_oneof![Just(1usize), Just(3)],
        ) {
            let ctx = test_context();
            let k = k[..steps].to_vec();
            // Rows do not come in label order.
            let rows: Vec<Row> = (0..values.len())
                .map(|i| Row::new(Labels::from_pairs([("i", (i * 7 % 12).to_string())])))
                .collect();
            let mut whole = Block::absent(&ctx, rows, steps).unwrap();
            for (i, v) in values.iter().enumerate() {
                whole.row_mut(i).copy_from_slice(&v[..steps]);
            }
            let mut top = Top::new(&ctx, k.clone(), order).unwrap();
            for (row, cells) in whole.iter() {
                top.add_row(row, cells).unwrap();
            }
            let show = |b: &Block| -> Vec<String> {
                let mut out: Vec<String> = b.iter().map(|(r, v)| {
                    let bits: Vec<u64> = v.iter().map(|v| v.to_bits()).collect();
                    format!("{} {bits:?}", r.labels)
                }).collect();
                if steps > 1 {
                    out.sort();
                }
                out
            };
            let (streamed, _) = top.finish(&ctx).unwrap();
            let selected = match order {
                TopOrder::Labels => limit_k(&ctx, whole, None, &k).unwrap(),
                _ => select_k(&ctx, whole, None, &k, order == TopOrder::Largest).unwrap().0,
            };
            prop_assert_eq!(show(&streamed), show(&selected));
        }
    }
}
