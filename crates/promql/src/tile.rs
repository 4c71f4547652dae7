//! From samples to cells: one tile is the series of one batch × all steps.
//!
//! Window bounds, lookback positions and extrapolation coefficients depend on timestamps only. They are computed
//! when the timestamp vector changes and reused for every series on it. A series with staleness markers in it
//! has, for range functions, timestamps of its own: the markers are cut out first.

use std::sync::Arc;

use trilith_model::{Error, Result};
use trilith_query::vector::over_time;
use trilith_query::vector::quantile::quantile;
use trilith_query::vector::rate::{Extrapolation, change, extrapolation, has_resets};
use trilith_query::vector::window::bounds;
use trilith_query::vector::{Block, Row, is_absent};
use trilith_query::{ColumnValues, QueryContext, SampleCounts, SeriesBatch};

use crate::functions::RangeFunction;

/// Series of one batch, the metric name possibly marked for removal.
pub(crate) struct Samples {
    pub batch: SeriesBatch,
    /// Per column; empty means none.
    pub drop_name: Vec<bool>,
}

/// How cells are made of samples.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    /// The newest sample of `(t - lookback, t]`.
    Newest,
    /// The time of that sample in seconds.
    NewestTime,
    /// A function of all samples in `(t - width, t]`; `param` per step where the function takes one.
    Window { function: RangeFunction, param: Arc<[f64]> },
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
}

/// Evaluates one batch.
///
/// # Errors
/// Cancellation, memory budget.
pub(crate) fn evaluate(ctx: &QueryContext, samples: &Samples, cell: &Cell, frame: &Frame) -> Result<Block> {
    let columns = &samples.batch.columns;
    let keeps_name = match cell {
        Cell::Newest => true,
        Cell::NewestTime => false,
        Cell::Window { function, .. } => function.keeps_name(),
    };
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
    let mut shared: Option<(u32, Windows)> = None;
    for (i, column) in columns.iter().enumerate() {
        let ts = samples.batch.times_of(column);
        let ColumnValues::Float(values) = samples.batch.values_of(column) else {
            return Err(Error::unsupported("native histograms are not supported"));
        };
        if i % 64 == 0 {
            ctx.check()?;
        }
        let idx = columns[i].times_idx;
        let cells = out.row_mut(i);
        let window = matches!(cell, Cell::Window { .. });
        if window && values.iter().any(|v| is_absent(*v)) {
            let (ts, values): (Vec<i64>, Vec<f64>) = ts
                .iter()
                .zip(values)
                .filter(|(_, v)| !is_absent(**v))
                .map(|(t, v)| (*t, *v))
                .unzip();
            let own = Windows::new(&ts, cell, frame);
            fill(cells, &ts, &values, &own, cell, frame);
            count(counts, cells, &own.bounds, window);
        } else {
            if shared.as_ref().is_none_or(|(at, _)| *at != idx) {
                shared = Some((idx, Windows::new(ts, cell, frame)));
            }
            if let Some((_, windows)) = &shared {
                fill(cells, ts, values, windows, cell, frame);
                count(counts, cells, &windows.bounds, window);
            }
        }
    }
    out.drop_empty_rows();
    Ok(out)
}

/// Counts what one series contributes to every step.
fn count(counts: Option<&SampleCounts>, cells: &[f64], bounds: &[(u32, u32)], window: bool) {
    let Some(counts) = counts else { return };
    let mut seen = 0;
    for (step, (cell, (from, to))) in cells.iter().zip(bounds).enumerate() {
        if window {
            let read = (*to).saturating_sub(seen.max(*from));
            counts.add(step, u64::from(to - from), u64::from(read));
            seen = seen.max(*to);
        } else if !is_absent(*cell) {
            counts.add(step, 1, 1);
        }
    }
}

/// What timestamps alone decide.
struct Windows {
    bounds: Vec<(u32, u32)>,
    /// For rate, increase and delta.
    extrapolations: Vec<Option<Extrapolation>>,
}

impl Windows {
    fn new(ts: &[i64], cell: &Cell, frame: &Frame) -> Self {
        let bounds = bounds(ts, frame.at_ms.iter().copied(), frame.width_ms);
        let extrapolations = match cell {
            Cell::Window {
                function: RangeFunction::Rate(_),
                ..
            } => bounds
                .iter()
                .zip(frame.at_ms.iter())
                .map(|(b, end)| extrapolation(ts, *b, *end, frame.width_ms))
                .collect(),
            _ => Vec::new(),
        };
        Windows { bounds, extrapolations }
    }
}

fn fill(cells: &mut [f64], ts: &[i64], values: &[f64], windows: &Windows, cell: &Cell, frame: &Frame) {
    let (function, param) = match cell {
        Cell::Newest => {
            for (out, (from, to)) in cells.iter_mut().zip(&windows.bounds) {
                if from < to {
                    // A staleness marker is an absent cell: same bits.
                    *out = values[*to as usize - 1];
                }
            }
            return;
        }
        Cell::NewestTime => {
            for (out, (from, to)) in cells.iter_mut().zip(&windows.bounds) {
                if from < to && !is_absent(values[*to as usize - 1]) {
                    *out = ts[*to as usize - 1] as f64 / 1000.0;
                }
            }
            return;
        }
        Cell::Window { function, param } => (*function, param),
    };
    if let RangeFunction::Rate(kind) = function {
        let resets = kind.is_counter() && has_resets(values);
        let width_seconds = frame.width_ms as f64 / 1000.0;
        for (out, e) in cells.iter_mut().zip(&windows.extrapolations) {
            if let Some(e) = e {
                let vs = &values[e.from as usize..e.to as usize];
                *out = e.apply(kind, change(vs, kind.is_counter(), resets), vs[0], width_seconds);
            }
        }
        return;
    }
    let mut scratch = Vec::new();
    for (step, (out, (from, to))) in cells.iter_mut().zip(&windows.bounds).enumerate() {
        let range = *from as usize..*to as usize;
        if range.is_empty() {
            continue;
        }
        let (ts, vs) = (&ts[range.clone()], &values[range]);
        let v = match function {
            RangeFunction::Avg => Some(over_time::avg(vs)),
            RangeFunction::Sum => Some(over_time::sum(vs)),
            RangeFunction::Min => Some(over_time::min(vs)),
            RangeFunction::Max => Some(over_time::max(vs)),
            RangeFunction::Count => Some(vs.len() as f64),
            RangeFunction::Last => Some(vs[vs.len() - 1]),
            RangeFunction::First => Some(vs[0]),
            RangeFunction::Present => Some(1.0),
            RangeFunction::Stddev => Some(over_time::stdvar(vs).sqrt()),
            RangeFunction::Stdvar => Some(over_time::stdvar(vs)),
            RangeFunction::Changes => Some(over_time::changes(vs)),
            RangeFunction::Resets => Some(over_time::resets(vs)),
            RangeFunction::Quantile => {
                scratch.clear();
                scratch.extend_from_slice(vs);
                Some(quantile(param[step], &mut scratch))
            }
            RangeFunction::Irate => {
                last_two(ts, vs).filter(|(dt, ..)| *dt > 0.0).map(|(dt, before, last)| {
                    // After a reset the counter started from zero.
                    (if last < before { last } else { last - before }) / dt
                })
            }
            RangeFunction::Idelta => last_two(ts, vs).map(|(_, before, last)| last - before),
            RangeFunction::Deriv => over_time::linear_regression(ts, vs, ts[0]).map(|(slope, _)| slope),
            RangeFunction::PredictLinear => {
                over_time::linear_regression(ts, vs, frame.steps_ms[step]).map(|(slope, now)| slope * param[step] + now)
            }
            RangeFunction::Rate(_) => None,
        };
        if let Some(v) = v {
            *out = v;
        }
    }
}

/// Seconds between the last two samples, and their values.
fn last_two(ts: &[i64], vs: &[f64]) -> Option<(f64, f64, f64)> {
    let n = ts.len();
    (n >= 2).then(|| {
        (
            ts[n - 1].saturating_sub(ts[n - 2]) as f64 / 1000.0,
            vs[n - 2],
            vs[n - 1],
        )
    })
}
