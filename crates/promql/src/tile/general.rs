//! Windows of floats and histograms, side by side, with edges and start timestamps.

use std::sync::Arc;

use trilith_model::{FloatHistogram, Result, SampleValue};
use trilith_query::vector::is_absent;
use trilith_query::vector::window::bounds;
use trilith_query::{ColumnValues, QueryContext};

use super::float::{At, Pace, check_factor, value};
use super::remarks::SeriesRemarks;
use super::starts::Counted;
use super::{Frame, RowOut, histogram, rate, walk};
use crate::ast::Edges;
use crate::eval::too_many_samples;
use crate::functions::RangeFunction;

/// Samples of one kind, in time order.
#[derive(Debug)]
pub(crate) struct Run<T> {
    pub ts: Vec<i64>,
    pub values: Vec<T>,
    /// Empty, or as long as `ts`.
    pub starts: Vec<i64>,
}

impl<T> Run<T> {
    fn new() -> Self {
        Run {
            ts: Vec::new(),
            values: Vec::new(),
            starts: Vec::new(),
        }
    }

    fn push(&mut self, time: i64, value: T, start: Option<i64>) {
        self.ts.push(time);
        self.values.push(value);
        self.starts.extend(start);
    }

    fn view(&self, from: u32, to: u32) -> View<'_, T> {
        let run = from as usize..to as usize;
        View {
            ts: &self.ts[run.clone()],
            values: &self.values[run.clone()],
            starts: self.starts.get(run).unwrap_or(&[]),
        }
    }
}

/// Part of a run.
#[derive(Debug)]
pub(crate) struct View<'a, T> {
    pub ts: &'a [i64],
    pub values: &'a [T],
    pub starts: &'a [i64],
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T> View<'a, T> {
    pub(crate) fn len(&self) -> usize {
        self.ts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ts.is_empty()
    }

    pub(super) fn counted(&self, i: usize) -> Counted {
        Counted {
            start: self.starts.get(i).copied().unwrap_or(0),
            time: self.ts[i],
        }
    }

    /// The samples from `i` on.
    pub(super) fn from(&self, i: usize) -> View<'a, T> {
        View {
            ts: &self.ts[i..],
            values: &self.values[i..],
            starts: self.starts.get(i..).unwrap_or(&[]),
        }
    }
}

/// The samples of one series by kind, without staleness markers.
#[derive(Debug)]
pub(crate) struct Split {
    pub floats: Run<f64>,
    pub histograms: Run<Arc<FloatHistogram>>,
    /// What the first n histograms weigh, as samples.
    weights: Vec<u64>,
    resets: Option<Vec<bool>>,
}

impl Split {
    /// `starts`: empty, or as long as `ts`.
    pub(crate) fn new(ts: &[i64], values: ColumnValues<'_>, starts: &[i64]) -> Self {
        let mut split = Split {
            floats: Run::new(),
            histograms: Run::new(),
            weights: vec![0],
            resets: None,
        };
        let start = |i: usize| starts.get(i).copied();
        match values {
            ColumnValues::Float(values) => {
                for (i, (t, v)) in ts.iter().zip(values).enumerate() {
                    if !is_absent(*v) {
                        split.floats.push(*t, *v, start(i));
                    }
                }
            }
            ColumnValues::Mixed(values) => {
                for (i, (t, v)) in ts.iter().zip(values).enumerate() {
                    match v {
                        SampleValue::Float(v) if is_absent(*v) => {}
                        SampleValue::Float(v) => split.floats.push(*t, *v, start(i)),
                        SampleValue::Histogram(h) => {
                            let weight = split.weights[split.weights.len() - 1] + h.sample_cost() as u64;
                            split.weights.push(weight);
                            split.histograms.push(*t, h.clone(), start(i));
                        }
                    }
                }
            }
        }
        split
    }

    /// Finds the resets between histograms once for all windows.
    pub(super) fn with_resets(mut self) -> Self {
        self.resets = Some(histogram::resets(&self.histograms.values));
        self
    }
}

/// The samples of one window. Edges other than plain make it wider than `(start, end]`.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    /// Of the nominal range, ms.
    pub start: i64,
    pub end: i64,
    pub floats: View<'a, f64>,
    pub histograms: View<'a, Arc<FloatHistogram>>,
    /// For every histogram whether it follows a reset by its content, where that was computed beforehand.
    pub resets: Option<&'a [bool]>,
}

/// The window of every step; `None` where it is empty.
///
/// # Errors
/// `Execution` when a window weighs more samples than a query may hold.
pub(crate) fn windows<'a>(
    ctx: &QueryContext,
    split: &'a Split,
    frame: &Frame,
) -> Result<impl Iterator<Item = Option<Window<'a>>>> {
    let (floats, histograms) = all_bounds(split, frame);
    let limit = ctx.limits.query_samples_max;
    if limit != 0 {
        let weight = |(from, to): &(u32, u32)| split.weights[*to as usize] - split.weights[*from as usize];
        let mut weights = floats
            .iter()
            .zip(&histograms)
            .map(|(f, h)| u64::from(f.1 - f.0) + weight(h));
        if weights.any(|w| w > limit) {
            return Err(too_many_samples());
        }
    }
    let (at, width) = (frame.at_ms.clone(), frame.width_ms);
    Ok(floats
        .into_iter()
        .zip(histograms)
        .enumerate()
        .map(move |(step, (f, h))| {
            let window = Window {
                start: at[step].saturating_sub(width),
                end: at[step],
                floats: split.floats.view(f.0, f.1),
                histograms: split.histograms.view(h.0, h.1),
                resets: split.resets.as_ref().map(|r| &r[h.0 as usize..h.1 as usize]),
            };
            (!window.floats.is_empty() || !window.histograms.is_empty()).then_some(window)
        }))
}

/// Counts what one series contributes to every step, when the client asked.
pub(crate) fn count_windows(ctx: &QueryContext, split: &Split, frame: &Frame) {
    let Some(counts) = ctx.samples.as_deref() else {
        return;
    };
    let (floats, histograms) = all_bounds(split, frame);
    let weight = |from: u32, to: u32| split.weights[to as usize] - split.weights[from as usize];
    let (mut seen_f, mut seen_h) = (0, 0);
    for (step, (f, h)) in floats.iter().zip(&histograms).enumerate() {
        let total = u64::from(f.1 - f.0) + weight(h.0, h.1);
        let (new_f, new_h) = (seen_f.max(f.0).min(f.1), seen_h.max(h.0).min(h.1));
        counts.add(step, total, u64::from(f.1 - new_f) + weight(new_h, h.1));
        (seen_f, seen_h) = (seen_f.max(f.1), seen_h.max(h.1));
    }
}

/// The windows in both runs, as index ranges.
fn all_bounds(split: &Split, frame: &Frame) -> (Vec<(u32, u32)>, Vec<(u32, u32)>) {
    let (before, after) = frame.reach();
    let width = frame.width_ms.saturating_add(before).saturating_add(after);
    let ends = || frame.at_ms.iter().map(|t| t.saturating_add(after));
    (
        bounds(&split.floats.ts, ends(), width),
        bounds(&split.histograms.ts, ends(), width),
    )
}

/// A range function at every step of one series.
pub(super) fn fill(
    ctx: &QueryContext,
    split: &Split,
    function: RangeFunction,
    params: &[Arc<[f64]>],
    frame: &Frame,
    remarks: &SeriesRemarks<'_>,
    out: &mut RowOut<'_>,
) -> Result<()> {
    let mut pace = Pace::default();
    let mut scratch = Vec::new();
    for (step, window) in windows(ctx, split, frame)?.enumerate() {
        let Some(window) = window else {
            continue;
        };
        // A histogram is worth many floats.
        pace.spend(ctx, window.floats.len() + 256 * window.histograms.len())?;
        let at = At {
            step,
            time_ms: frame.steps_ms[step],
            params,
        };
        if let Some(v) = apply(function, &window, &at, frame, remarks, &mut scratch)? {
            out.set(step, v)?;
        }
    }
    Ok(())
}

fn apply(
    function: RangeFunction,
    window: &Window<'_>,
    at: &At<'_>,
    frame: &Frame,
    remarks: &SeriesRemarks<'_>,
    scratch: &mut Vec<f64>,
) -> Result<Option<SampleValue>> {
    use RangeFunction as F;
    let (floats, histograms) = (window.floats, window.histograms);
    let mixed = !floats.is_empty() && !histograms.is_empty();
    let of_floats = |scratch: &mut Vec<f64>| {
        let v = value(function, floats.ts, floats.values, at, scratch)?;
        Ok(v.map(SampleValue::Float))
    };
    let float = |v: f64| Ok(Some(SampleValue::Float(v)));
    match function {
        F::Rate(kind) => {
            if mixed {
                remarks.mixed();
                return Ok(None);
            }
            Ok(rate::rate(kind, window, frame, remarks))
        }
        F::Irate | F::Idelta => Ok(rate::of_last_two(function == F::Irate, window, remarks)),
        F::Avg | F::Sum => {
            if mixed {
                remarks.mixed();
                return Ok(None);
            }
            if histograms.is_empty() {
                return of_floats(scratch);
            }
            let h = match function {
                F::Avg => histogram::avg(histograms.values, remarks),
                _ => histogram::sum(histograms.values, remarks),
            };
            Ok(h.map(|h| SampleValue::Histogram(Arc::new(h))))
        }
        F::Min | F::Max | F::Stddev | F::Stdvar | F::Quantile | F::Mad | F::TsOfMin | F::TsOfMax => {
            if floats.is_empty() {
                return Ok(None);
            }
            if mixed {
                remarks.ignored();
            }
            of_floats(scratch)
        }
        F::Deriv | F::PredictLinear | F::DoubleExponentialSmoothing => {
            if function == F::DoubleExponentialSmoothing {
                check_factor("smoothing", "sf", at.param(0))?;
                check_factor("trend", "tf", at.param(1))?;
            }
            if mixed {
                remarks.ignored();
            }
            if floats.is_empty() {
                return Ok(None);
            }
            of_floats(scratch)
        }
        F::Count => float((floats.len() + histograms.len()) as f64),
        F::Present => float(1.0),
        F::TsOfFirst => {
            let first = [floats.ts.first(), histograms.ts.first()].into_iter().flatten().min();
            float(first.map_or(0.0, |t| *t as f64 / 1000.0))
        }
        F::TsOfLast => {
            let last = [floats.ts.last(), histograms.ts.last()].into_iter().flatten().max();
            float(last.map_or(0.0, |t| *t as f64 / 1000.0))
        }
        F::First => Ok(pick(floats, histograms, |f, h| f.first() < h.first(), 0)),
        F::Last => Ok(pick(floats, histograms, |f, h| h.last() < f.last(), usize::MAX)),
        F::Changes => Ok(walk::changes(window, frame.edges == Edges::Anchored).map(SampleValue::Float)),
        F::Resets => Ok(walk::resets(window, frame.edges == Edges::Anchored).map(SampleValue::Float)),
    }
}

/// The first or last sample of either kind; `index` is cut to the last one.
fn pick(
    floats: View<'_, f64>,
    histograms: View<'_, Arc<FloatHistogram>>,
    is_float: impl Fn(&[i64], &[i64]) -> bool,
    index: usize,
) -> Option<SampleValue> {
    let float = histograms.is_empty() || (!floats.is_empty() && is_float(floats.ts, histograms.ts));
    if float {
        let i = index.min(floats.len().checked_sub(1)?);
        Some(SampleValue::Float(floats.values[i]))
    } else {
        let i = index.min(histograms.len() - 1);
        Some(SampleValue::Histogram(histograms.values[i].clone()))
    }
}
