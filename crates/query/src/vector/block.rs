//! The columnar form of an instant vector over all steps of a query.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

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

/// The value of a cell that has one.
#[derive(Clone, Copy, Debug)]
pub enum Element<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

impl Row {
    pub fn new(labels: Labels) -> Self {
        Row {
            labels,
            drop_name: false,
            histograms: None,
        }
    }

    pub fn histogram(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.as_ref()?.get(step)?.as_ref()
    }

    /// The value at a step; `cells` are the row's.
    pub fn element(&self, cells: &[f64], step: usize) -> Option<Element<'_>> {
        match self.histogram(step) {
            Some(h) => Some(Element::Histogram(h)),
            None => Some(cells[step]).filter(|v| !is_absent(*v)).map(Element::Float),
        }
    }

    pub fn has_value(&self, cells: &[f64], step: usize) -> bool {
        !is_absent(cells[step]) || self.histogram(step).is_some()
    }

    /// Whether any cell has a value; `cells` are the row's.
    pub fn has_values(&self, cells: &[f64]) -> bool {
        cells.iter().any(|v| !is_absent(*v)) || self.histograms.iter().flatten().any(Option::is_some)
    }

    /// Per step: `present` becomes true where the row has a value and stays as it was elsewhere.
    pub fn mark_present(&self, cells: &[f64], present: &mut [bool]) {
        for (p, v) in present.iter_mut().zip(cells) {
            *p |= !is_absent(*v);
        }
        if let Some(histograms) = &self.histograms {
            for (p, h) in present.iter_mut().zip(histograms) {
                *p |= h.is_some();
            }
        }
    }

    /// Takes the histogram of a step away.
    pub fn clear_histogram(&mut self, step: usize) {
        if let Some(cell) = self.histograms.as_mut().and_then(|h| h.get_mut(step)) {
            *cell = None;
        }
    }

    /// Puts a histogram at a step of a row of `steps`; the float cell is the caller's to clear.
    pub fn set_histogram(&mut self, step: usize, steps: usize, histogram: Arc<FloatHistogram>) {
        self.histograms.get_or_insert_with(|| vec![None; steps])[step] = Some(histogram);
    }
}

/// Bytes that a histogram holds, for budgets. Custom bounds are shared, so they do not count.
pub fn histogram_bytes(h: &FloatHistogram) -> usize {
    let side = |b: &trilith_histogram::Buckets| {
        b.spans.len() * size_of::<trilith_histogram::Span>() + b.counts.len() * size_of::<f64>()
    };
    size_of::<FloatHistogram>() + side(&h.positive) + side(&h.negative)
}

/// Rows × steps.
#[derive(Debug, Default)]
pub struct Block {
    pub steps: usize,
    pub rows: Vec<Row>,
    /// `rows.len() * steps` cells.
    pub values: Vec<f64>,
    memory: Option<Reservation>,
    /// Room behind the cells.
    spare: Option<Reservation>,
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
        let memory = ctx.memory.reserve(cell_bytes(&rows, cells))?;
        Ok(Block {
            steps,
            values: vec![ABSENT; cells],
            rows,
            memory: Some(memory),
            spare: None,
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

    /// Adds the rows of another block of as many steps; what the other has booked goes along.
    ///
    /// # Errors
    /// `Execution` when the budget is exceeded; the block is unchanged then.
    pub fn append(&mut self, ctx: &QueryContext, mut other: Block) -> Result<()> {
        debug_assert_eq!(self.steps, other.steps, "blocks of one query have the same grid");
        if self.rows.is_empty() {
            *self = other;
            return Ok(());
        }
        let booked = match other.memory.take() {
            Some(booked) => booked,
            None => ctx.memory.reserve(cell_bytes(&other.rows, other.values.len()))?,
        };
        match &mut self.memory {
            Some(m) => m.join(booked),
            none => *none = Some(booked),
        }
        self.make_room(ctx, other.values.len())?;
        self.rows.append(&mut other.rows);
        self.values.append(&mut other.values);
        Ok(())
    }

    /// Room for further cells. A large block grows by a half: what is kept free is booked, and while the cells move,
    /// both places are.
    fn make_room(&mut self, ctx: &QueryContext, cells: usize) -> Result<()> {
        let (have, need) = (self.values.capacity(), self.values.len() + cells);
        if need <= have {
            return Ok(());
        }
        let room = need.max(have + have / 2);
        let moving = ctx.memory.reserve(room.saturating_mul(8))?;
        self.values.reserve_exact(room - self.values.len());
        drop(moving);
        let free = (self.values.capacity() - need) * 8;
        self.spare = Some(ctx.memory.reserve(free)?);
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
        self.retain(Row::has_values);
    }

    /// Takes all histograms away: for what works on floats only.
    pub fn drop_histograms(&mut self) {
        for row in &mut self.rows {
            row.histograms = None;
        }
    }

    /// The value of a row at a step.
    pub fn element(&self, row: usize, step: usize) -> Option<Element<'_>> {
        self.rows[row].element(self.row(row), step)
    }

    pub fn has_value(&self, row: usize, step: usize) -> bool {
        self.rows[row].has_value(self.row(row), step)
    }

    /// Puts a histogram that an operation made into a cell, booked on the query's budget; the float cell is the caller's
    /// to clear.
    ///
    /// # Errors
    /// `Execution` when the budget is exceeded.
    pub fn put_histogram(
        &mut self,
        ctx: &QueryContext,
        row: usize,
        step: usize,
        histogram: Arc<FloatHistogram>,
    ) -> Result<()> {
        let cells = match self.rows[row].histograms {
            Some(_) => 0,
            None => self.steps * size_of::<Option<Arc<FloatHistogram>>>(),
        };
        self.charge(ctx, cells + histogram_bytes(&histogram))?;
        self.rows[row].set_histogram(step, self.steps, histogram);
        Ok(())
    }

    /// Removes the value of a row at a step.
    pub fn clear(&mut self, row: usize, step: usize) {
        self.values[row * self.steps + step] = ABSENT;
        self.rows[row].clear_histogram(step);
    }

    /// Joins rows with equal labels that have no step in common; the order of first appearance stays. A row whose name
    /// is to be dropped is another series than one that keeps it.
    ///
    /// # Errors
    /// The labels that two rows have at the same step.
    pub fn merge_equal_rows(&mut self) -> std::result::Result<(), Labels> {
        let mut first: HashMap<(Labels, bool), usize> = HashMap::with_capacity(self.rows.len());
        let mut merged = vec![false; self.rows.len()];
        let steps = self.steps;
        for (i, merged) in merged.iter_mut().enumerate() {
            let at = match first.entry((self.rows[i].labels.clone(), self.rows[i].drop_name)) {
                Entry::Vacant(free) => {
                    free.insert(i);
                    continue;
                }
                Entry::Occupied(at) => *at.get(),
            };
            if (0..steps).any(|s| self.has_value(i, s) && self.has_value(at, s)) {
                return Err(self.rows[i].labels.clone());
            }
            let (head, tail) = self.values.split_at_mut(i * steps);
            for (to, v) in head[at * steps..(at + 1) * steps].iter_mut().zip(&tail[..steps]) {
                if !is_absent(*v) {
                    *to = *v;
                }
            }
            for (step, h) in self.rows[i].histograms.take().into_iter().flatten().enumerate() {
                if let Some(h) = h {
                    self.rows[at].set_histogram(step, steps, h);
                }
            }
            *merged = true;
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
        let floats = self.values.iter().filter(|v| !is_absent(**v)).count();
        let histograms = self.rows.iter().flat_map(|r| &r.histograms).flatten().flatten();
        floats + histograms.count()
    }

    /// Sorts the rows by their labels.
    pub fn sort_by_labels(&mut self) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|a, b| self.rows[*a].labels.cmp(&self.rows[*b].labels));
        self.reorder(&order);
    }

    /// Puts row `order[i]` at place `i`; rows that `order` leaves out are dropped, none may stand in it twice.
    pub fn reorder(&mut self, order: &[usize]) {
        if order.iter().enumerate().all(|(i, o)| i == *o) && order.len() == self.rows.len() {
            return;
        }
        let mut values = Vec::with_capacity(order.len() * self.steps);
        for i in order {
            values.extend_from_slice(self.row(*i));
        }
        self.rows = order
            .iter()
            .map(|i| std::mem::replace(&mut self.rows[*i], Row::new(Labels::empty())))
            .collect();
        self.values = values;
    }
}

fn cell_bytes(rows: &[Row], cells: usize) -> usize {
    // Label sets and histograms are shared with the source as a rule, so only the handles count; who makes new ones
    // charges them.
    let histograms: usize = rows.iter().flat_map(|r| &r.histograms).map(Vec::len).sum();
    std::mem::size_of_val(rows)
        .saturating_add(cells.saturating_mul(size_of::<f64>()))
        .saturating_add(histograms.saturating_mul(size_of::<Option<Arc<FloatHistogram>>>()))
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
            spare: None,
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
