//! Buckets as a list that can be merged, with the rounding errors of their populations.

use std::cmp::Ordering;

use crate::{Buckets, BucketsBuilder};

/// A bucket on its way through a merge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub index: i32,
    pub count: f64,
    /// What rounding took from `count` so far; see [`add_compensated`].
    pub error: f64,
}

/// Adds `x` to a sum with its error term, after Kahan and Neumaier. The error is dropped when the sum overflows.
pub(crate) fn add_compensated(sum: &mut f64, error: &mut f64, x: f64) {
    let total = *sum + x;
    if total.is_infinite() {
        *error = 0.0;
    } else if sum.abs() >= x.abs() {
        *error += (*sum - total) + x;
    } else {
        *error += (x - total) + *sum;
    }
    *sum = total;
}

impl Cell {
    fn absorb(&mut self, other: Cell) {
        add_compensated(&mut self.count, &mut self.error, other.count);
        if other.error != 0.0 {
            add_compensated(&mut self.count, &mut self.error, other.error);
        }
    }
}

/// The buckets with their errors, which are none if `errors` is empty.
pub(crate) fn cells(buckets: &Buckets, errors: &[f64]) -> Vec<Cell> {
    let cell = |(i, (index, count))| Cell {
        index,
        count,
        error: errors.get(i).copied().unwrap_or(0.0),
    };
    buckets.iter().enumerate().map(cell).collect()
}

/// The bucket of a schema coarser by `levels` that contains the bucket `index`.
pub(crate) fn coarser_index(index: i32, levels: u32) -> i32 {
    // Nearer to zero than the index itself, so it fits.
    (((i64::from(index) - 1) >> levels.min(62)) + 1) as i32
}

/// Merges buckets into those of a schema coarser by `levels`.
pub(crate) fn coarsen(cells: &mut Vec<Cell>, levels: u32) {
    if levels == 0 {
        return;
    }
    for cell in cells.iter_mut() {
        cell.index = coarser_index(cell.index, levels);
    }
    cells.dedup_by(|next, kept| {
        let same = next.index == kept.index;
        if same {
            kept.absorb(*next);
        }
        same
    });
}

/// All buckets of both; common ones added up.
pub(crate) fn merge(a: Vec<Cell>, b: Vec<Cell>) -> Vec<Cell> {
    if b.is_empty() {
        return a;
    }
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    while let (Some(x), Some(y)) = (a.peek_mut(), b.peek()) {
        match x.index.cmp(&y.index) {
            Ordering::Less => out.extend(a.next()),
            Ordering::Greater => out.extend(b.next()),
            Ordering::Equal => {
                x.absorb(*y);
                b.next();
            }
        }
    }
    out.extend(a);
    out.extend(b);
    out
}

/// Buckets and their errors.
pub(crate) fn into_buckets(cells: &[Cell]) -> (Buckets, Vec<f64>) {
    let mut builder = BucketsBuilder::with_capacity(cells.len());
    for cell in cells {
        builder.push(cell.index, cell.count);
    }
    (builder.finish(), cells.iter().map(|c| c.error).collect())
}
