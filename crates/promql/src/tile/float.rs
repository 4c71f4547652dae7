//! Series of floats: what most queries are about.

use std::sync::Arc;

use trilith_model::Result;
use trilith_query::vector::is_absent;
use trilith_query::vector::over_time;
use trilith_query::vector::quantile::quantile;
use trilith_query::vector::rate::{Extrapolation, change, extrapolation, resets};
use trilith_query::vector::window::bounds;
use trilith_query::{QueryContext, SampleCounts};

use super::{Cell, Frame};
use crate::eval::{execution, too_many_samples};
use crate::functions::RangeFunction;

/// What timestamps alone decide.
pub(super) struct Windows {
    bounds: Vec<(u32, u32)>,
    /// For rate, increase and delta.
    extrapolations: Vec<Option<Extrapolation>>,
}

impl Windows {
    /// # Errors
    /// `Execution` when a window has more samples than a query may hold.
    pub(super) fn new(ctx: &QueryContext, ts: &[i64], cell: &Cell, frame: &Frame) -> Result<Self> {
        let bounds = bounds(ts, frame.at_ms.iter().copied(), frame.width_ms);
        let Cell::Window { function, .. } = cell else {
            return Ok(Windows {
                bounds,
                extrapolations: Vec::new(),
            });
        };
        let limit = ctx.limits.query_samples_max;
        if limit != 0 && ts.len() as u64 > limit && bounds.iter().any(|(from, to)| u64::from(to - from) > limit) {
            return Err(too_many_samples());
        }
        let extrapolations = match function {
            RangeFunction::Rate(_) => bounds
                .iter()
                .zip(frame.at_ms.iter())
                .map(|(b, end)| extrapolation(ts, *b, *end, frame.width_ms))
                .collect(),
            _ => Vec::new(),
        };
        Ok(Windows { bounds, extrapolations })
    }

    /// Counts what one series contributes to every step.
    pub(super) fn count(&self, counts: Option<&SampleCounts>, cells: &[f64], cell: &Cell) {
        let Some(counts) = counts else { return };
        let window = matches!(cell, Cell::Window { .. });
        let mut seen = 0;
        for (step, (cell, (from, to))) in cells.iter().zip(&self.bounds).enumerate() {
            if window {
                let read = to.saturating_sub(seen.max(*from));
                counts.add(step, u64::from(to - from), u64::from(read));
                seen = seen.max(*to);
            } else if !is_absent(*cell) {
                counts.add(step, 1, 1);
            }
        }
    }
}

/// Whether a staleness marker is among the values.
pub(super) fn has_markers(values: &[f64]) -> bool {
    // In blocks without an early way out, so that many values are compared at once.
    values
        .chunks(64)
        .any(|block| block.iter().fold(false, |any, v| any | is_absent(*v)))
}

/// Samples looked at between two looks at the clock.
const CHECK_SAMPLES: usize = 1 << 20;

/// Counts work and looks at the deadline now and then.
#[derive(Default)]
pub(super) struct Pace(usize);

impl Pace {
    #[inline]
    pub(super) fn spend(&mut self, ctx: &QueryContext, samples: usize) -> Result<()> {
        self.0 += samples;
        if self.0 >= CHECK_SAMPLES {
            self.0 = 0;
            ctx.check()?;
        }
        Ok(())
    }
}

/// The cells of one series without staleness markers (instant cells: with them).
pub(super) fn fill(
    ctx: &QueryContext,
    cells: &mut [f64],
    ts: &[i64],
    values: &[f64],
    windows: &Windows,
    cell: &Cell,
    frame: &Frame,
    scratch: &mut Vec<f64>,
) -> Result<()> {
    let (function, params) = match cell {
        Cell::Newest => {
            for (out, (from, to)) in cells.iter_mut().zip(&windows.bounds) {
                if from < to {
                    // A staleness marker is an absent cell: same bits.
                    *out = values[*to as usize - 1];
                }
            }
            return Ok(());
        }
        Cell::NewestTime | Cell::NewestStart => {
            for (out, (from, to)) in cells.iter_mut().zip(&windows.bounds) {
                if from < to && !is_absent(values[*to as usize - 1]) {
                    *out = match cell {
                        Cell::NewestTime => ts[*to as usize - 1] as f64 / 1000.0,
                        // These samples have no start timestamps.
                        _ => 0.0,
                    };
                }
            }
            return Ok(());
        }
        Cell::Window { function, params, .. } => (*function, params),
    };
    let mut pace = Pace::default();
    if let RangeFunction::Rate(kind) = function {
        let lost = if kind.is_counter() { resets(values) } else { Vec::new() };
        let width_seconds = frame.width_ms as f64 / 1000.0;
        for (out, e) in cells.iter_mut().zip(&windows.extrapolations) {
            if let Some(e) = e {
                pace.spend(ctx, lost.len())?;
                let change = change(values, (e.from, e.to), &lost);
                *out = e.apply(kind, change, values[e.from as usize], width_seconds);
            }
        }
        return Ok(());
    }
    let places = match function {
        RangeFunction::Resets => Some(resets(values)),
        RangeFunction::Changes => Some(over_time::change_places(values)),
        _ => None,
    };
    if let Some(places) = places {
        // Found once for all windows; one at the first sample of a window happened before it.
        for (out, (from, to)) in cells
            .iter_mut()
            .zip(&windows.bounds)
            .filter(|(_, (from, to))| from < to)
        {
            let before = |end: u32| places.partition_point(|at| *at < end);
            *out = (before(*to) - before(from + 1)) as f64;
        }
        return Ok(());
    }
    for (step, (out, (from, to))) in cells.iter_mut().zip(&windows.bounds).enumerate() {
        let range = *from as usize..*to as usize;
        if range.is_empty() {
            continue;
        }
        pace.spend(ctx, range.len())?;
        let at = At {
            step,
            time_ms: frame.steps_ms[step],
            params,
        };
        if let Some(v) = value(function, &ts[range.clone()], &values[range], &at, scratch)? {
            *out = v;
        }
    }
    Ok(())
}

/// Where a window stands in the query.
pub(super) struct At<'a> {
    pub step: usize,
    /// The evaluation time, without `@` and `offset`.
    pub time_ms: i64,
    pub params: &'a [Arc<[f64]>],
}

impl At<'_> {
    pub(super) fn param(&self, i: usize) -> f64 {
        self.params.get(i).map_or(f64::NAN, |p| p[self.step])
    }
}

/// A function other than rate, increase and delta of the floats in one window, which is not empty.
///
/// # Errors
/// `Execution` for factors that `double_exponential_smoothing` refuses.
pub(super) fn value(
    function: RangeFunction,
    ts: &[i64],
    vs: &[f64],
    at: &At<'_>,
    scratch: &mut Vec<f64>,
) -> Result<Option<f64>> {
    let last = vs.len() - 1;
    let seconds = |ms: i64| ms as f64 / 1000.0;
    Ok(match function {
        RangeFunction::Avg => Some(over_time::avg(vs)),
        RangeFunction::Sum => Some(over_time::sum(vs)),
        RangeFunction::Min => Some(over_time::min(vs)),
        RangeFunction::Max => Some(over_time::max(vs)),
        RangeFunction::Count => Some(vs.len() as f64),
        RangeFunction::Last => Some(vs[last]),
        RangeFunction::First => Some(vs[0]),
        RangeFunction::Present => Some(1.0),
        RangeFunction::Stddev => Some(over_time::stdvar(vs).sqrt()),
        RangeFunction::Stdvar => Some(over_time::stdvar(vs)),
        RangeFunction::Changes => Some(over_time::changes(vs)),
        RangeFunction::Resets => Some(over_time::resets(vs)),
        RangeFunction::Mad => Some(over_time::median_absolute_deviation(vs, scratch)),
        RangeFunction::TsOfFirst => Some(seconds(ts[0])),
        RangeFunction::TsOfLast => Some(seconds(ts[last])),
        RangeFunction::TsOfMin => Some(seconds(ts[over_time::index_of_min(vs)])),
        RangeFunction::TsOfMax => Some(seconds(ts[over_time::index_of_max(vs)])),
        RangeFunction::Quantile => {
            scratch.clear();
            scratch.extend_from_slice(vs);
            Some(quantile(at.param(0), scratch))
        }
        RangeFunction::Irate => last_two(ts, vs).map(|(dt, before, last)| {
            // After a reset the counter started from zero.
            (if last < before { last } else { last - before }) / dt
        }),
        RangeFunction::Idelta => last_two(ts, vs).map(|(_, before, last)| last - before),
        RangeFunction::Deriv => over_time::linear_regression(ts, vs, ts[0]).map(|(slope, _)| slope),
        RangeFunction::PredictLinear => {
            over_time::linear_regression(ts, vs, at.time_ms).map(|(slope, now)| slope * at.param(0) + now)
        }
        RangeFunction::DoubleExponentialSmoothing => {
            let (smoothing, trend) = (at.param(0), at.param(1));
            check_factor("smoothing", "sf", smoothing)?;
            check_factor("trend", "tf", trend)?;
            over_time::double_exponential_smoothing(vs, smoothing, trend)
        }
        RangeFunction::Rate(_) => None,
    })
}

/// NaN passes and makes the result NaN.
pub(super) fn check_factor(name: &str, symbol: &str, v: f64) -> Result<()> {
    if v <= 0.0 || v >= 1.0 {
        let got = if v.is_infinite() {
            if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
        } else {
            format!("{v:.6}")
        };
        return Err(execution(format!(
            "invalid {name} factor. Expected: 0 < {symbol} < 1, got: {got}"
        )));
    }
    Ok(())
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
