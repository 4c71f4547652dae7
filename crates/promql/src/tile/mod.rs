//! From samples to cells: one tile is the series of one batch × all steps.
//!
//! ```text
//!  column ─ floats only, plain edges, no start timestamps ─ float::   windows once per timestamp vector
//!         └ anything else ─ split by type ─ general::                 windows once per series
//!                                            └ rate, pair, walk, over_time (floats and histograms)
//! ```
//!
//! Window bounds, lookback positions and extrapolation coefficients depend on timestamps only. On the float path they are
//! computed when the timestamp vector changes and reused for every series on it. A series with staleness markers in it
//! has, for range functions, timestamps of its own: the markers are cut out first.
//!
//! The general path works on the two kinds of samples of a series side by side, as upstream's functions do: a window
//! is a run of floats and a run of histograms, each in time order.

mod bucketless;
mod edges;
mod float;
mod general;
mod histogram;
mod instant;
mod rate;
mod remarks;
mod starts;
mod walk;

use std::sync::Arc;

use trilith_model::{FloatHistogram, Labels, Result, SampleValue};
use trilith_query::vector::{Block, Row, is_absent};
use trilith_query::{ColumnValues, QueryContext, Reservation, SampleCounts, SeriesBatch};

use crate::ast::Edges;
use crate::functions::RangeFunction;

pub(crate) use edges::extended;
pub(crate) use general::{Split, count_windows, windows};
pub(crate) use remarks::Remarks;

/// Series of one batch, the metric name possibly marked for removal.
#[derive(Default)]
pub(crate) struct Samples {
    pub batch: SeriesBatch,
    /// Per column; empty means none.
    pub drop_name: Vec<bool>,
    /// What the samples take of the query's budget.
    pub _memory: Option<Reservation>,
}

/// How cells are made of samples.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    /// The newest sample of `(t - lookback, t]`.
    Newest,
    /// The time of that sample in seconds.
    NewestTime,
    /// When counting began for that sample in seconds, 0 when unknown.
    NewestStart,
    /// A function of all samples in `(t - width, t]`.
    Window {
        function: RangeFunction,
        /// Scalar arguments, one value per step each.
        params: Arc<[Arc<[f64]>]>,
        /// Whether start timestamps matter.
        starts: bool,
    },
}

impl Cell {
    /// Whether the metric name survives.
    pub(crate) const fn keeps_name(&self) -> bool {
        match self {
            Cell::Newest => true,
            Cell::NewestTime | Cell::NewestStart => false,
            Cell::Window { function, .. } => function.keeps_name(),
        }
    }
}

/// When cells are evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Evaluation times per step, `@` and `offset` applied.
    pub at_ms: Arc<[i64]>,
    /// Evaluation times per step, as they are.
    pub steps_ms: Arc<[i64]>,
    /// Lookback or width of the range.
    pub width_ms: i64,
    pub edges: Edges,
    /// How far `edges` look beyond the range.
    pub lookback_ms: i64,
    /// Whether buckets of histograms are looked at.
    pub buckets: bool,
}

impl Frame {
    /// How far windows reach before their start and after their end.
    pub(crate) fn reach(&self) -> (i64, i64) {
        match self.edges {
            Edges::Plain => (0, 0),
            Edges::Anchored => (self.lookback_ms, 0),
            Edges::Smoothed => (self.lookback_ms, self.lookback_ms),
        }
    }

    /// Windows see samples after this time only.
    pub(crate) fn before_ms(&self) -> i64 {
        let first = self.at_ms.iter().copied().min().unwrap_or(0);
        first.saturating_sub(self.width_ms).saturating_sub(self.reach().0)
    }
}

/// Evaluates one batch.
///
/// # Errors
/// Cancellation, limits, and what a function refuses.
pub(crate) fn evaluate(
    ctx: &QueryContext,
    samples: &Samples,
    cell: &Cell,
    frame: &Frame,
    remarks: &Remarks,
) -> Result<Block> {
    let columns = &samples.batch.columns;
    let keeps_name = cell.keeps_name();
    let rows = columns
        .iter()
        .enumerate()
        .map(|(i, c)| Row {
            drop_name: !keeps_name || samples.drop_name.get(i).copied().unwrap_or(false),
            ..Row::new(c.labels.clone())
        })
        .collect();
    let mut out = Block::absent(ctx, rows, frame.at_ms.len())?;
    let counts = ctx.samples.as_deref();
    if let Some(counts) = counts {
        counts.held((samples.batch.sample_count() + out.values.len()) as u64);
    }
    let mut shared: Option<(u32, float::Windows)> = None;
    let mut scratch = Vec::new();
    let first_start = frame.at_ms.iter().min().map_or(0, |t| t.saturating_sub(frame.width_ms));
    for (i, column) in columns.iter().enumerate() {
        let ts = samples.batch.times_of(column);
        if i % 64 == 0 {
            ctx.check()?;
        }
        let starts = match cell {
            Cell::NewestStart => samples.batch.starts_of(column),
            Cell::Window { starts: true, .. } => Some(samples.batch.starts_of(column))
                .filter(|s| starts::matter(s, first_start))
                .unwrap_or(&[]),
            _ => &[],
        };
        let values = match samples.batch.values_of(column) {
            ColumnValues::Float(values)
                if frame.edges == Edges::Plain && starts.is_empty() && !matches!(cell, Cell::NewestStart) =>
            {
                let cells = out.row_mut(i);
                if matches!(cell, Cell::Window { .. }) && float::has_markers(values) {
                    let (ts, values): (Vec<i64>, Vec<f64>) = ts
                        .iter()
                        .zip(values)
                        .filter(|(_, v)| !is_absent(**v))
                        .map(|(t, v)| (*t, *v))
                        .unzip();
                    let own = float::Windows::new(ctx, &ts, cell, frame)?;
                    float::fill(ctx, cells, &ts, &values, &own, cell, frame, &mut scratch)?;
                    own.count(counts, cells, cell);
                } else {
                    if shared.as_ref().is_none_or(|(at, _)| *at != column.times_idx) {
                        shared = Some((column.times_idx, float::Windows::new(ctx, ts, cell, frame)?));
                    }
                    if let Some((_, windows)) = &shared {
                        float::fill(ctx, cells, ts, values, windows, cell, frame, &mut scratch)?;
                        windows.count(counts, cells, cell);
                    }
                }
                continue;
            }
            values => values,
        };
        // A series of histograms can be a lot of work.
        ctx.check()?;
        let stripped;
        let values = match values {
            ColumnValues::Mixed(values) if !frame.buckets => {
                stripped = bucketless::strip(ts, values, frame.before_ms());
                ColumnValues::Mixed(&stripped)
            }
            values => values,
        };
        // Windows are counted as such; upstream does not count what smoothing looks at.
        let counted = !matches!(cell, Cell::Window { .. }) && frame.edges == Edges::Plain;
        let mut row = RowOut::new(ctx, &mut out, i, counts.filter(|_| counted));
        let labels = &column.labels;
        match cell {
            Cell::Newest if frame.edges == Edges::Smoothed => {
                let split = Split::new(ts, values, &[]);
                instant::smoothed(ctx, &split, frame, &remarks.of(labels), &mut row)?;
            }
            Cell::Newest => instant::newest(ts, values, frame, &mut row)?,
            Cell::NewestTime => instant::newest_time(ts, values, frame, &mut row)?,
            Cell::NewestStart => instant::newest_start(ts, values, starts, frame, &mut row)?,
            Cell::Window { function, params, .. } => {
                let mut split = Split::new(ts, values, starts);
                if function.finds_resets() {
                    split = split.with_resets();
                }
                count_windows(ctx, &split, frame);
                general::fill(ctx, &split, *function, params, frame, &remarks.of(labels), &mut row)?;
            }
        }
        row.finish()?;
    }
    if let Cell::Window { function, params, .. } = cell {
        remarks.after(*function, params, &out);
    }
    out.drop_empty_rows();
    Ok(out)
}

/// The cells of one row, of either kind. What histograms take is booked as they come.
pub(crate) struct RowOut<'a> {
    ctx: &'a QueryContext,
    block: &'a mut Block,
    row: usize,
    /// Bytes not booked yet.
    bytes: usize,
    /// For cells that are samples themselves.
    counts: Option<&'a SampleCounts>,
}

/// Bytes of a row that are booked at a time.
const BOOKED_BYTES: usize = 1 << 18;

impl<'a> RowOut<'a> {
    fn new(ctx: &'a QueryContext, block: &'a mut Block, row: usize, counts: Option<&'a SampleCounts>) -> Self {
        RowOut {
            ctx,
            block,
            row,
            bytes: 0,
            counts,
        }
    }

    /// # Errors
    /// `Execution` when the budget is exceeded.
    pub(crate) fn set(&mut self, step: usize, value: SampleValue) -> Result<()> {
        if let Some(counts) = self.counts {
            let samples = match &value {
                SampleValue::Float(_) => 1,
                SampleValue::Histogram(h) => h.sample_cost() as u64,
            };
            counts.add(step, samples, samples);
        }
        match value {
            SampleValue::Float(v) => self.block.row_mut(self.row)[step] = v,
            SampleValue::Histogram(h) => {
                let steps = self.block.steps;
                let cells = &mut self.block.rows[self.row].histograms;
                if cells.is_none() {
                    self.bytes += steps * size_of::<Option<Arc<FloatHistogram>>>();
                }
                let cells = cells.get_or_insert_with(|| vec![None; steps]);
                // Steps in a row often show the same sample; it takes its memory once.
                let repeated = step > 0 && cells[step - 1].as_ref().is_some_and(|last| Arc::ptr_eq(last, &h));
                if !repeated {
                    self.bytes += h.size_bytes();
                }
                cells[step] = Some(h);
                if self.bytes >= BOOKED_BYTES {
                    self.block.charge(self.ctx, std::mem::take(&mut self.bytes))?;
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.block.charge(self.ctx, self.bytes)
    }
}

/// The metric name in a note.
fn metric_name(labels: &Labels) -> &str {
    labels.get("__name__").unwrap_or("")
}

#[cfg(test)]
mod tests;
