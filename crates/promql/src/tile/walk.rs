//! `changes` and `resets`: from sample to sample, floats and histograms merged by time.

use std::sync::Arc;

use trilith_model::FloatHistogram;

use super::general::{View, Window};
use super::histogram;
use super::starts::{self, Counted};

/// Neighbours that differ; `None` when an anchored window has no sample after its start.
pub(super) fn changes(window: &Window<'_>, anchored: bool) -> Option<f64> {
    count(window, anchored, |before, now| match (before.value, now.value) {
        (Value::Float(a), Value::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Value::Histogram(a), Value::Histogram(b)) => !histogram::equal(a, b),
        _ => true,
    })
}

/// Neighbours between which a counter began anew.
pub(super) fn resets(window: &Window<'_>, anchored: bool) -> Option<f64> {
    count(window, anchored, |before, now| {
        let started = || starts::is_reset(before.counted, now.counted);
        match (before.value, now.value) {
            (Value::Float(a), Value::Float(b)) => b < a || started(),
            (Value::Histogram(a), Value::Histogram(b)) => started() || histogram::is_reset(a, b),
            _ => true,
        }
    })
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

#[derive(Clone, Copy)]
struct Sample<'a> {
    counted: Counted,
    value: Value<'a>,
}

fn count(window: &Window<'_>, anchored: bool, differ: impl Fn(Sample<'_>, Sample<'_>) -> bool) -> Option<f64> {
    let (floats, histograms) = if anchored {
        since_anchor(window)?
    } else {
        (window.floats, window.histograms)
    };
    let mut merged = Merged { floats, histograms };
    let mut before = merged.next()?;
    let mut n = 0u64;
    for now in merged {
        n += u64::from(differ(before, now));
        before = now;
    }
    Some(n as f64)
}

/// The samples after the window's start and the last one before them, of whichever kind that is.
fn since_anchor<'a>(window: &Window<'a>) -> Option<(View<'a, f64>, View<'a, Arc<FloatHistogram>>)> {
    let (floats, histograms) = (window.floats, window.histograms);
    let f = floats.ts.partition_point(|t| *t <= window.start);
    let h = histograms.ts.partition_point(|t| *t <= window.start);
    if f == floats.len() && h == histograms.len() {
        return None;
    }
    let time = |ts: &[i64], i: usize| i.checked_sub(1).map(|i| ts[i]);
    let (last_float, last_histogram) = (time(floats.ts, f), time(histograms.ts, h));
    Some(match (last_float, last_histogram) {
        (None, None) => (floats, histograms),
        (last_float, last_histogram) if last_float >= last_histogram => (floats.from(f - 1), histograms.from(h)),
        _ => (floats.from(f), histograms.from(h - 1)),
    })
}

struct Merged<'a> {
    floats: View<'a, f64>,
    histograms: View<'a, Arc<FloatHistogram>>,
}

impl<'a> Iterator for Merged<'a> {
    type Item = Sample<'a>;

    fn next(&mut self) -> Option<Sample<'a>> {
        let float = match (self.floats.ts.first(), self.histograms.ts.first()) {
            (None, None) => return None,
            (Some(f), Some(h)) => f < h,
            (float, _) => float.is_some(),
        };
        Some(if float {
            let run = self.floats;
            self.floats = run.from(1);
            Sample {
                counted: run.counted(0),
                value: Value::Float(run.values[0]),
            }
        } else {
            let run = self.histograms;
            self.histograms = run.from(1);
            Sample {
                counted: run.counted(0),
                value: Value::Histogram(&run.values[0]),
            }
        })
    }
}
