//! `anchored` and `smoothed`: values exactly at the edges of a window.
//!
//! Windows reach one lookback before their start, smoothed ones also after their end. Functions here get such a wide
//! window with the edges `start` and `end` of the nominal one.

use trilith_query::vector::rate::RateKind;

use super::general::View;

/// The samples that stand for the two edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// The last sample at or before the start, or the first of all.
    pub first: usize,
    /// The last sample; smoothed: the first at or after the end, or the last of all.
    pub last: usize,
}

/// `None` when every sample lies at or before the start.
fn pick(ts: &[i64], start: i64, end: i64, smoothed: bool) -> Option<Ends> {
    let newest = ts.len().checked_sub(1)?;
    let first = ts[..newest].partition_point(|t| *t <= start).saturating_sub(1);
    let last = if smoothed {
        ts[..newest].partition_point(|t| *t < end)
    } else {
        newest
    };
    (ts[last] > start).then_some(Ends { first, last })
}

/// `None` when nothing lies in the window: all samples at or before the start, or all after the end.
pub(super) fn ends(ts: &[i64], start: i64, end: i64, smoothed: bool) -> Option<Ends> {
    pick(ts, start, end, smoothed).filter(|at| !smoothed || ts[at.first] <= end)
}

/// The value at `t` on the line through two samples; a counter that decreases between them rises from zero.
pub(super) fn interpolate((t0, v0): (i64, f64), (t1, v1): (i64, f64), t: i64, counter: bool) -> f64 {
    let v0 = if counter && v1 < v0 { 0.0 } else { v0 };
    let span = |from: i64, to: i64| to.saturating_sub(from) as f64;
    v0 + (v1 - v0) * span(t0, t) / span(t0, t1)
}

/// The values at both edges.
fn edge_values(run: View<'_, f64>, at: Ends, start: i64, end: i64, smoothed: bool, counter: bool) -> (f64, f64) {
    let (ts, vs) = (run.ts, run.values);
    let between = |i: usize, t| interpolate((ts[i], vs[i]), (ts[i + 1], vs[i + 1]), t, counter);
    // A first sample before the start has a follower, otherwise it would be the last and the window empty.
    let left = if smoothed && ts[at.first] < start && at.first + 1 < ts.len() {
        between(at.first, start)
    } else {
        vs[at.first]
    };
    let right = if smoothed && at.last > 0 && ts[at.last] > end {
        between(at.last - 1, end)
    } else {
        vs[at.last]
    };
    (left, right)
}

/// The samples strictly between the edges, as a half-open index range.
fn inside(ts: &[i64], at: Ends, start: i64, end: i64) -> (usize, usize) {
    let from = at.first + usize::from(ts[at.first] <= start);
    let to = at.last + usize::from(ts[at.last] < end);
    (from, to.max(from))
}

/// Rate, increase or delta between the edges; nothing is extrapolated.
pub(super) fn rate(
    kind: RateKind,
    run: View<'_, f64>,
    start: i64,
    end: i64,
    smoothed: bool,
    width_seconds: f64,
) -> Option<f64> {
    let at = ends(run.ts, start, end, smoothed)?;
    let counter = kind.is_counter();
    let (left, right) = edge_values(run, at, start, end, smoothed, counter);
    let mut out = right - left;
    if counter {
        let (from, to) = inside(run.ts, at, start, end);
        let (mut before, mut lost) = (left, 0.0);
        for v in run.values[from..to].iter().copied().chain([right]) {
            if v < before {
                lost += before;
            }
            before = v;
        }
        out += lost;
    }
    Some(if kind == RateKind::Rate {
        out / width_seconds
    } else {
        out
    })
}

/// The samples of a window with its edges filled in: what an instant query for the range shows.
pub(crate) fn extended(run: View<'_, f64>, start: i64, end: i64, smoothed: bool) -> Vec<(i64, f64)> {
    // A window wholly before its samples shows the first of them at both edges.
    let Some(at) = pick(run.ts, start, end, smoothed) else {
        return Vec::new();
    };
    let (left, right) = edge_values(run, at, start, end, smoothed, false);
    let (from, to) = inside(run.ts, at, start, end);
    let mut out = Vec::with_capacity(to - from + 2);
    out.push((start, left));
    out.extend(
        run.ts[from..to]
            .iter()
            .copied()
            .zip(run.values[from..to].iter().copied()),
    );
    out.push((end, right));
    out
}
