//! `rate`, `increase`, `delta`, `irate`, `idelta` on windows of either kind.

use std::sync::Arc;

use trilith_model::{FloatHistogram, SampleValue};
use trilith_query::vector::rate::{RateKind, extrapolation, extrapolation_since};

use super::general::{View, Window};
use super::remarks::SeriesRemarks;
use super::{Frame, edges, histogram, starts};
use crate::ast::Edges;

/// Rate, increase or delta of a window that holds samples of one kind.
pub(super) fn rate(
    kind: RateKind,
    window: &Window<'_>,
    frame: &Frame,
    remarks: &SeriesRemarks<'_>,
) -> Option<SampleValue> {
    let width_seconds = frame.width_ms as f64 / 1000.0;
    let smoothed = frame.edges == Edges::Smoothed;
    let (start, end) = (window.start, window.end);
    match (frame.edges, window.histograms.is_empty()) {
        (Edges::Plain, true) => of_floats(kind, window, frame, remarks).map(SampleValue::Float),
        (Edges::Plain, false) => histogram::rate(kind, window, frame.width_ms, remarks).map(of_histogram),
        (_, true) => edges::rate(kind, window.floats, start, end, smoothed, width_seconds).map(SampleValue::Float),
        (_, false) => histogram::rate_between_edges(kind, window, smoothed, width_seconds, remarks).map(of_histogram),
    }
}

/// When counting began for the first sample, if that lies inside the window and before the sample.
pub(super) fn known_start<T>(run: View<'_, T>, window_start: i64) -> Option<i64> {
    let first = run.counted(0);
    (first.start != 0 && first.start > window_start && first.start < first.time).then_some(first.start)
}

fn of_floats(kind: RateKind, window: &Window<'_>, frame: &Frame, remarks: &SeriesRemarks<'_>) -> Option<f64> {
    let run = window.floats;
    let (first, last) = (*run.values.first()?, *run.values.last()?);
    let mut change = last - first;
    let mut known = None;
    if kind.is_counter() {
        let mut overlapping = false;
        for i in 1..run.len() {
            let (before, now) = (run.counted(i - 1), run.counted(i));
            overlapping |= starts::overlaps(before, now);
            if run.values[i] < run.values[i - 1] || starts::is_reset(before, now) {
                change += run.values[i - 1];
            }
        }
        if overlapping {
            remarks.overlapping_starts();
        }
        known = known_start(run, window.start);
    }
    let extrapolation = match known {
        Some(begin) => {
            change += first;
            extrapolation_since(begin, run.ts, window.end)
        }
        None => extrapolation(run.ts, (0, run.len() as u32), window.end, frame.width_ms),
    };
    Some(extrapolation?.apply(kind, change, first, frame.width_ms as f64 / 1000.0))
}

/// `irate` (`per_second`) or `idelta`: the last two samples of the window.
pub(super) fn of_last_two(per_second: bool, window: &Window<'_>, remarks: &SeriesRemarks<'_>) -> Option<SampleValue> {
    let (floats, histograms) = (window.floats, window.histograms);
    // Times of the last two of all, from the ends of both runs.
    let back = |ts: &[i64], n: usize| ts.len().checked_sub(n).map(|i| ts[i]);
    let (f, h) = (back(floats.ts, 1), back(histograms.ts, 1));
    let newest_is_float = f > h;
    let (f, h) = if newest_is_float {
        (back(floats.ts, 2), h)
    } else {
        (f, back(histograms.ts, 2))
    };
    if f.is_none() && h.is_none() {
        return None;
    }
    if newest_is_float != (f > h) {
        remarks.mixed();
        return None;
    }
    if newest_is_float {
        let run = floats.from(floats.len() - 2);
        let (before, now) = (run.counted(0), run.counted(1));
        let (v0, v1) = (run.values[0], run.values[1]);
        // After a reset the counter started from zero.
        let reset = per_second && (v1 < v0 || starts::is_reset(before, now));
        let change = if reset { v1 } else { v1 - v0 };
        let seconds = now.time.saturating_sub(before.time) as f64 / 1000.0;
        return Some(SampleValue::Float(if per_second { change / seconds } else { change }));
    }
    let run = histograms.from(histograms.len() - 2);
    let seconds = run.ts[1].saturating_sub(run.ts[0]) as f64 / 1000.0;
    histogram::of_last_two(run, per_second.then_some(seconds), remarks).map(of_histogram)
}

fn of_histogram(h: FloatHistogram) -> SampleValue {
    SampleValue::Histogram(Arc::new(h))
}
