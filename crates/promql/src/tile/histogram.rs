//! Range functions of native histograms.

use std::sync::Arc;

use trilith_histogram::{HistogramMean, HistogramSum, IncompatibleSchemas, Merged, ResetHint};
use trilith_model::FloatHistogram;
use trilith_query::vector::rate::{RateKind, extrapolation, extrapolation_since};

use super::general::{View, Window};
use super::rate::known_start;
use super::remarks::{Operation, SeriesRemarks};
use super::{edges, starts};

type Histograms<'a> = View<'a, Arc<FloatHistogram>>;

fn is_gauge(h: &FloatHistogram) -> bool {
    h.reset_hint == ResetHint::Gauge
}

/// What came of combining two histograms, told in notes. `None` when they have no common layout.
fn told(
    merged: Result<Merged, IncompatibleSchemas>,
    operation: Operation,
    remarks: &SeriesRemarks<'_>,
) -> Option<Merged> {
    match merged {
        Ok(merged) => {
            // Conflicting resets are no news: resets are what these functions deal with.
            if merged.bounds_reconciled {
                remarks.reconciled(operation);
            }
            Some(merged)
        }
        Err(IncompatibleSchemas) => {
            remarks.mixed_schemas();
            None
        }
    }
}

fn add(to: &mut FloatHistogram, h: &FloatHistogram, remarks: &SeriesRemarks<'_>) -> Option<()> {
    told(to.add(h), Operation::Addition, remarks).map(|_| ())
}

fn sub(from: &mut FloatHistogram, h: &FloatHistogram, remarks: &SeriesRemarks<'_>) -> Option<()> {
    told(from.sub(h), Operation::Subtraction, remarks).map(|_| ())
}

/// Extrapolated rate, increase or delta.
pub(super) fn rate(
    kind: RateKind,
    window: &Window<'_>,
    width_ms: i64,
    remarks: &SeriesRemarks<'_>,
) -> Option<FloatHistogram> {
    let run = window.histograms;
    let first = run.values.first()?;
    let mut change = if run.len() > 1 {
        Some(total_change(window, kind.is_counter(), remarks)?)
    } else {
        None
    };
    let known = known_start(run, window.start).filter(|_| kind.is_counter());
    let extrapolation = match known {
        Some(begin) => {
            match &mut change {
                Some(change) => add(change, first, remarks)?,
                none => *none = Some(FloatHistogram::clone(first)),
            }
            extrapolation_since(begin, run.ts, window.end)
        }
        None => extrapolation(run.ts, (0, run.len() as u32), window.end, width_ms),
    };
    let mut out = change?;
    out.mul(extrapolation?.factor(kind, out.count, first.count, width_ms as f64 / 1000.0));
    Some(out)
}

/// Last minus first histogram of two or more; for counters what was lost in resets is added back.
fn total_change(window: &Window<'_>, counter: bool, remarks: &SeriesRemarks<'_>) -> Option<FloatHistogram> {
    let run = window.histograms;
    let hs = run.values;
    let (first, last) = (&hs[0], &hs[hs.len() - 1]);
    // Nothing but the layout of the second counts when the first was reset away.
    let reset_away = counter && is_reset(window, 1);
    let nothing;
    let from: &FloatHistogram = if reset_away {
        nothing = FloatHistogram {
            schema: hs[1].schema,
            custom_bounds: hs[1].custom_bounds.clone(),
            ..FloatHistogram::default()
        };
        &nothing
    } else {
        first
    };
    let custom = from.uses_custom_buckets();
    let between = &hs[1..hs.len() - 1];
    let looked_at = if counter { between } else { &[] };
    if last.uses_custom_buckets() != custom || looked_at.iter().any(|h| h.uses_custom_buckets() != custom) {
        if counter && last.uses_custom_buckets() != custom && (is_gauge(first) || is_gauge(last)) {
            remarks.not_a_counter();
        }
        remarks.mixed_schemas();
        return None;
    }
    let schema = looked_at
        .iter()
        .map(|h| h.schema)
        .chain([from.schema, last.schema])
        .min()?;
    // Of one kind and not finer than the last: this cannot fail.
    let mut out = last.at_schema(schema).ok()?;
    let subtracted = out.sub(from);
    if counter && hs.iter().any(|h| is_gauge(h)) {
        remarks.not_a_counter();
    }
    told(subtracted, Operation::Subtraction, remarks)?;
    if counter {
        let mut overlapping = false;
        for i in 1..hs.len() {
            overlapping |= starts::overlaps(run.counted(i - 1), run.counted(i));
            // The first one, if it was reset away, counts for nothing.
            if !(i == 1 && reset_away) && is_reset(window, i) {
                add(&mut out, &hs[i - 1], remarks)?;
            }
        }
        if overlapping {
            remarks.overlapping_starts();
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        remarks.not_a_gauge();
    }
    out.reset_hint = ResetHint::Gauge;
    out.compact();
    Some(out)
}

/// Whether a reset lies between histogram `i - 1` and `i` of a window.
pub(super) fn is_reset(window: &Window<'_>, i: usize) -> bool {
    let run = window.histograms;
    if starts::is_reset(run.counted(i - 1), run.counted(i)) {
        return true;
    }
    match window.resets {
        Some(resets) => resets[i],
        None => run.values[i].detect_reset(&run.values[i - 1]),
    }
}

/// For every histogram whether it follows a reset by its content: computed once for windows that overlap.
pub(super) fn resets(hs: &[Arc<FloatHistogram>]) -> Vec<bool> {
    let after_first = hs.windows(2).map(|w| w[1].detect_reset(&w[0]));
    std::iter::once(false).chain(after_first).take(hs.len()).collect()
}

/// The value at `t` on the line through two histograms. A counter that was reset between them rises from zero.
fn interpolate(
    (t0, h0): (i64, &FloatHistogram),
    (t1, h1): (i64, &FloatHistogram),
    t: i64,
    counter: bool,
    remarks: &SeriesRemarks<'_>,
) -> Option<FloatHistogram> {
    if t == t0 || t == t1 {
        return Some(if t == t0 { h0 } else { h1 }.clone());
    }
    let span = |to: i64| to.saturating_sub(t0) as f64;
    let fraction = span(t) / span(t1);
    let mut out = h1.clone();
    if counter && h1.detect_reset(h0) {
        out.mul(fraction);
        return Some(out);
    }
    sub(&mut out, h0, remarks)?;
    out.mul(fraction);
    add(&mut out, h0, remarks)?;
    Some(out)
}

/// Rate, increase or delta between the edges of an anchored or smoothed window; nothing is extrapolated.
pub(super) fn rate_between_edges(
    kind: RateKind,
    window: &Window<'_>,
    smoothed: bool,
    width_seconds: f64,
    remarks: &SeriesRemarks<'_>,
) -> Option<FloatHistogram> {
    let (ts, hs) = (window.histograms.ts, window.histograms.values);
    let counter = kind.is_counter();
    let at = edges::ends(ts, window.start, window.end, smoothed)?;
    let custom = hs[at.first].uses_custom_buckets();
    for h in &hs[at.first..=at.last] {
        if h.uses_custom_buckets() != custom {
            remarks.mixed_schemas();
            return None;
        }
        if counter && is_gauge(h) {
            remarks.not_a_counter();
        }
    }
    let between = |i: usize, t| interpolate((ts[i], &hs[i]), (ts[i + 1], &hs[i + 1]), t, counter, remarks);
    let left = if smoothed && ts[at.first] < window.start {
        // A first sample before the start has a follower, otherwise it would be the last and the window empty.
        between(at.first, window.start)?
    } else {
        FloatHistogram::clone(&hs[at.first])
    };
    let right = if smoothed && at.last > 0 && ts[at.last] > window.end {
        between(at.last - 1, window.end)?
    } else {
        FloatHistogram::clone(&hs[at.last])
    };
    if !counter && [&left, &right].iter().any(|h| !is_gauge(h)) {
        remarks.not_a_gauge();
    }
    let mut out = right.clone();
    sub(&mut out, &left, remarks)?;
    if counter {
        let interpolated = smoothed && ts[at.first] < window.start;
        add_lost(&mut out, hs, at, &left, &right, interpolated, remarks)?;
    }
    if kind == RateKind::Rate {
        out.div(width_seconds);
    }
    out.reset_hint = ResetHint::Gauge;
    out.compact();
    Some(out)
}

/// Adds what was lost in resets from the left edge to the right one. The last sample is not walked over: the right
/// edge is that sample, or has its hint.
fn add_lost(
    out: &mut FloatHistogram,
    hs: &[Arc<FloatHistogram>],
    at: edges::Ends,
    left: &FloatHistogram,
    right: &FloatHistogram,
    left_is_interpolated: bool,
    remarks: &SeriesRemarks<'_>,
) -> Option<()> {
    let mut next = at.first + 1;
    let mut before = left;
    // An edge interpolated across a reset stands behind it already.
    if left_is_interpolated && hs[next].detect_reset(&hs[at.first]) {
        before = &hs[next];
        next += 1;
    }
    if next > at.last {
        // Both edges are that sample, or were interpolated between the same two.
        return Some(());
    }
    // Summed up before it is added, as the sum may be of finer buckets than the result.
    let mut lost: Option<FloatHistogram> = None;
    for h in hs[next..at.last].iter().map(Arc::as_ref).chain([right]) {
        if h.detect_reset(before) {
            match &mut lost {
                Some(lost) => add(lost, before, remarks)?,
                none => *none = Some(before.clone()),
            }
        }
        before = h;
    }
    if let Some(lost) = lost {
        add(out, &lost, remarks)?;
    }
    Some(())
}

/// The difference of the last two histograms, divided by the seconds between them for `irate`.
pub(super) fn of_last_two(
    run: Histograms<'_>,
    per_second: Option<f64>,
    remarks: &SeriesRemarks<'_>,
) -> Option<FloatHistogram> {
    let (before, last) = (&run.values[0], &run.values[1]);
    let counter = per_second.is_some();
    if counter && (is_gauge(last) || is_gauge(before)) {
        remarks.not_a_counter();
    }
    if !counter && [last, before].iter().any(|h| !is_gauge(h)) {
        remarks.not_a_gauge();
    }
    let mut out = FloatHistogram::clone(last);
    let reset = counter && (starts::is_reset(run.counted(0), run.counted(1)) || last.detect_reset(before));
    if !reset {
        sub(&mut out, before, remarks)?;
    }
    out.reset_hint = ResetHint::Gauge;
    out.compact();
    if let Some(seconds) = per_second {
        out.div(seconds);
    }
    Some(out)
}

/// Compensated sum of one or more.
pub(super) fn sum(hs: &[Arc<FloatHistogram>], remarks: &SeriesRemarks<'_>) -> Option<FloatHistogram> {
    let (first, rest) = hs.split_first()?;
    let mut sum = HistogramSum::new(first);
    if rest.iter().any(|h| sum.add(h).is_err()) {
        remarks.mixed_schemas();
        return None;
    }
    tell(sum.reset_conflict(), sum.bounds_reconciled(), remarks);
    Some(sum.finish())
}

/// Compensated mean of one or more.
pub(super) fn avg(hs: &[Arc<FloatHistogram>], remarks: &SeriesRemarks<'_>) -> Option<FloatHistogram> {
    let (first, rest) = hs.split_first()?;
    let mut mean = HistogramMean::new(first);
    if rest.iter().any(|h| mean.add(h).is_err()) {
        remarks.mixed_schemas();
        return None;
    }
    tell(mean.reset_conflict(), mean.bounds_reconciled(), remarks);
    Some(mean.finish())
}

fn tell(reset_conflict: bool, bounds_reconciled: bool, remarks: &SeriesRemarks<'_>) {
    if reset_conflict {
        remarks.conflicting_resets(Operation::Aggregation);
    }
    if bounds_reconciled {
        remarks.reconciled(Operation::Aggregation);
    }
}

/// The value between two histograms for an instant selector, a gauge only if both are.
pub(super) fn between(
    before: (i64, &FloatHistogram),
    after: (i64, &FloatHistogram),
    t: i64,
    remarks: &SeriesRemarks<'_>,
) -> Option<FloatHistogram> {
    if before.1.uses_custom_buckets() != after.1.uses_custom_buckets() {
        remarks.mixed_schemas();
        return None;
    }
    let counter = !(is_gauge(before.1) && is_gauge(after.1));
    interpolate(before, after, t, counter, remarks)
}

/// A sample carried forward: its hint tells about its neighbour, not about this value.
pub(super) fn carried(h: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match h.reset_hint {
        ResetHint::Unknown => h.clone(),
        _ => Arc::new(FloatHistogram {
            reset_hint: ResetHint::Unknown,
            ..FloatHistogram::clone(h)
        }),
    }
}
