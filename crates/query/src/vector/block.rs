//! The columnar form of an instant vector over all steps of a query.

use std::sync::Arc;

use hashbrown::HashMap;

use trilith_model::metric::STALE_NAN_BITS;
use trilith_model::{Error, FloatHistogram, Labels, Result};

use crate::context::{QueryContext, Reservation};

/// The cell of a series that has no value at a step. It is the staleness marker's bit pattern: no sample of an
/// answer can have it, and arithmetic never produces it, because results of operations on NaN are quiet NaN.
pub const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

pub fn is_absent(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// The evaluation times `start, start + step, … ≤ end`, in the unit of the language (ms or ns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub start: i64,
    pub step: i64,
    pub steps: usize,
}

impl Grid {
    /// One evaluation.
    pub fn instant(time: i64) -> Self {
        Grid {
            start: time,
            step: 0,
            steps: 1,
        }
    }

    /// # Errors
    /// `Invalid` when the step is not positive, the end lies before the start, or there are too many steps to
    /// count; how many steps a user may ask for is the caller's matter.
    pub fn range(start: i64, end: i64, step: i64) -> Result<Self> {
        if step <= 0 {
            return Err(Error::invalid(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if end < start {
            return Err(Error::invalid("end timestamp must not be before start time"));
        }
        let steps = (i128::from(end) - i128::from(start)) / i128::from(step) + 1;
        let steps = usize::try_from(steps).ok().filter(|s| *s <= STEPS_MAX);
        let steps = steps.ok_or_else(|| Error::invalid("the query has too many steps; use a larger step"))?;
        Ok(Grid { start, step, steps })
    }

    pub fn time(&self, step: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(step as i64))
    }

    pub fn times(&self) -> impl ExactSizeIterator<Item = i64> + '_ {
        (0..self.steps).map(|i| self.time(i))
    }

    pub fn end(&self) -> i64 {
        self.time(self.steps.saturating_sub(1))
    }
}

/// Steps of any grid, subqueries included: keeps a row below 8 MiB.
const STEPS_MAX: usize = 1 << 20;

/// The identity of a row, and its histograms.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub labels: Labels,
    /// The metric name is to be dropped when the query is done (PromQL's delayed name removal).
    pub drop_name: bool,
    /// Native histograms per step, where the row has any. The float cell of such a step is [`ABSENT`], so that
    /// what works on floats only passes histograms over.
    pub histograms: Option<RowHistograms>,
}

/// One cell per step.
pub type RowHistograms = Vec<Option<Arc<FloatHistogram>>>;

impl Row {
    pub fn new(labels: Labels) -> Self {
        Row {
            labels,
            drop_name: false,
            histograms: None,
        }
    }
}

/// Rows × steps.
#[derive(Debug, Default)]
pub struct Block {
    pub steps: usize,
    pub rows: Vec<Row>,
    /// `rows.len() * steps` cells.
    pub values: Vec<f64>,
    memory: Option<Reservation>,
}

impl Block {
    pub fn empty(steps: usize) -> Self {
        Block {
            steps,
            ..Block::default()
        }
    }

    /// A block of absent cells, booked on the query's budget as long as it lives.
    ///
    /// # Errors
    /// `Execution` when the budget is exceeded.
    pub fn absent(ctx: &QueryContext, rows: Vec<Row>, steps: usize) -> Result<Self> {
        let cells = rows.len().saturating_mul(steps);
        let memory = ctx
            .memory
            .reserve(cells.saturating_mul(8).saturating_add(row_bytes(&rows)))?;
        Ok(Block {
            steps,
            values: vec![ABSENT; cells],
            rows,
            memory: Some(memory),
        })
    }

    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.steps..(i + 1) * self.steps]
    }

    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.values[i * self.steps..(i + 1) * self.steps]
    }

    /// Rows with their cells.
    pub fn iter(&self) -> impl Iterator<Item = (&Row, &[f64])> {
        // `max(1)`: a chunk size of zero is not allowed; without steps there are no cells to visit anyway.
        self.rows.iter().zip(self.values.chunks(self.steps.max(1)))
    }

    /// Adds the rows of another block of as many steps.
    ///
    /// # Errors
    /// `Execution` when the budget is exceeded; the block is unchanged then.
    pub fn append(&mut self, ctx: &QueryContext, other: Block) -> Result<()> {
        debug_assert_eq!(self.steps, other.steps, "blocks of one query have the same grid");
        if self.rows.is_empty() {
            *self = other;
            return Ok(());
        }
        let bytes = other
            .values
            .len()
            .saturating_mul(8)
            .saturating_add(row_bytes(&other.rows));
        match &mut self.memory {
            Some(m) => m.grow(bytes)?,
            none => *none = Some(ctx.memory.reserve(bytes)?),
        }
        self.rows.extend(other.rows);
        self.values.extend(other.values);
        Ok(())
    }

    /// Books further bytes for the life of the block: labels that a function made.
    ///
    /// # Errors
    /// `Execution` when the budget is exceeded.
    pub fn charge(&mut self, ctx: &QueryContext, bytes: usize) -> Result<()> {
        match &mut self.memory {
            Some(m) => m.grow(bytes),
            none => {
                *none = Some(ctx.memory.reserve(bytes)?);
                Ok(())
            }
        }
    }

    /// Drops rows for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&Row, &[f64]) -> bool) {
        let (mut to, steps) = (0, self.steps);
        for from in 0..self.rows.len() {
            if keep(&self.rows[from], &self.values[from * steps..(from + 1) * steps]) {
                if to != from {
                    self.rows.swap(to, from);
                    self.values.copy_within(from * steps..(from + 1) * steps, to * steps);
                }
                to += 1;
            }
        }
        self.rows.truncate(to);
        self.values.truncate(to * steps);
    }

    /// Drops rows without any value.
    pub fn drop_empty_rows(&mut self) {
        self.retain(|_, cells| cells.iter().any(|v| !is_absent(*v)));
    }

    /// Joins rows with equal labels that have no step in common; the order of first appearance stays.
    ///
    /// # Errors
    /// The labels that two rows have at the same step.
    pub fn merge_equal_rows(&mut self) -> std::result::Result<(), Labels> {
        let mut first: HashMap<Labels, usize> = HashMap::with_capacity(self.rows.len());
        let mut merged = vec![false; self.rows.len()];
        for (i, merged) in merged.iter_mut().enumerate() {
            let labels = self.rows[i].labels.clone();
            match first.get(&labels) {
                None => {
                    first.insert(labels, i);
                }
                Some(&at) => {
                    let (head, tail) = self.values.split_at_mut(i * self.steps);
                    let target = &mut head[at * self.steps..(at + 1) * self.steps];
                    for (t, v) in target.iter_mut().zip(&tail[..self.steps]) {
                        if !is_absent(*v) {
                            if !is_absent(*t) {
                                return Err(labels);
                            }
                            *t = *v;
                        }
                    }
                    *merged = true;
                }
            }
        }
        if merged.contains(&true) {
            let mut i = 0;
            self.retain(|_, _| {
                i += 1;
                !merged[i - 1]
            });
        }
        Ok(())
    }

    /// How many cells have a value.
    pub fn present_cells(&self) -> usize {
        self.values.iter().filter(|v| !is_absent(**v)).count()
    }

    /// Sorts the rows by their labels.
    pub fn sort_by_labels(&mut self) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|a, b| self.rows[*a].labels.cmp(&self.rows[*b].labels));
        self.reorder(&order);
    }

    /// Puts row `order[i]` at place `i`.
    pub fn reorder(&mut self, order: &[usize]) {
        if order.iter().enumerate().all(|(i, o)| i == *o) && order.len() == self.rows.len() {
            return;
        }
        // Every row has one place, as a rule; a row taken twice keeps its histograms at the first.
        let rows = order
            .iter()
            .map(|i| {
                let row = &mut self.rows[*i];
                Row {
                    labels: row.labels.clone(),
                    drop_name: row.drop_name,
                    histograms: row.histograms.take(),
                }
            })
            .collect();
        let mut values = Vec::with_capacity(order.len() * self.steps);
        for i in order {
            values.extend_from_slice(self.row(*i));
        }
        self.rows = rows;
        self.values = values;
    }
}

fn row_bytes(rows: &[Row]) -> usize {
    // Label sets are shared with the source as a rule, so only the handle counts.
    std::mem::size_of_val(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(steps: usize, rows: &[(&str, &[f64])]) -> Block {
        Block {
            steps,
            rows: rows
                .iter()
                .map(|(l, _)| Row::new(Labels::from_pairs([("a", *l)])))
                .collect(),
            values: rows.iter().flat_map(|(_, v)| v.iter().copied()).collect(),
            memory: None,
        }
    }

    #[test]
    fn absent_survives_no_arithmetic() {
        for v in [
            ABSENT + 1.0,
            ABSENT * 0.0,
            -ABSENT + ABSENT,
            ABSENT.sqrt(),
            1.0 / ABSENT,
        ] {
            assert!(v.is_nan() && !is_absent(v));
        }
    }

    #[test]
    fn grids_are_checked() {
        assert_eq!(Grid::range(0, 10, 3).map(|g| (g.steps, g.end())).ok(), Some((4, 9)));
        assert_eq!(Grid::range(5, 5, 1).map(|g| g.steps).ok(), Some(1));
        assert!(Grid::range(0, 10, 0).is_err());
        assert!(Grid::range(1, 0, 1).is_err());
        assert!(Grid::range(i64::MIN, i64::MAX, 1).is_err());
        assert_eq!(Grid::range(i64::MIN, i64::MAX, i64::MAX).map(|g| g.steps).ok(), Some(3));
    }

    #[test]
    fn equal_rows_merge_unless_they_overlap() {
        let mut b = block(
            3,
            &[
                ("x", &[1.0, ABSENT, ABSENT]),
                ("y", &[9.0; 3]),
                ("x", &[ABSENT, 2.0, ABSENT]),
            ],
        );
        b.merge_equal_rows().unwrap();
        assert_eq!(b.rows.len(), 2);
        assert_eq!(&b.row(0)[..2], [1.0, 2.0]);
        assert_eq!(b.row(1), [9.0; 3]);
        let mut b = block(1, &[("x", &[1.0]), ("x", &[2.0])]);
        assert_eq!(b.merge_equal_rows(), Err(Labels::from_pairs([("a", "x")])));
    }

    #[test]
    fn rows_are_dropped_and_sorted() {
        let mut b = block(
            2,
            &[("z", &[1.0, 2.0]), ("e", &[ABSENT, ABSENT]), ("a", &[3.0, ABSENT])],
        );
        b.drop_empty_rows();
        b.sort_by_labels();
        let names: Vec<_> = b.rows.iter().map(|r| r.labels.get("a").unwrap().to_owned()).collect();
        assert_eq!(names, ["a", "z"]);
        assert_eq!(b.row(1), [1.0, 2.0]);
        assert_eq!(b.present_cells(), 3);
    }
}
