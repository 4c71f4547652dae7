//! `changes` and `resets`: from sample to sample, floats and histograms merged by time.

use super::general::Window;
use super::histogram;
use super::starts::{self, Counted};

/// Neighbours that differ; `None` when an anchored window has no sample after its start.
pub(super) fn changes(window: &Window<'_>, anchored: bool) -> Option<f64> {
    let hs = window.histograms.values;
    count(window, anchored, |before, now| match (before.value, now.value) {
        (Value::Float(a), Value::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Value::Histogram(a), Value::Histogram(b)) => !hs[b].same(&hs[a]),
        _ => true,
    })
}

/// Neighbours between which a counter began anew.
pub(super) fn resets(window: &Window<'_>, anchored: bool) -> Option<f64> {
    count(window, anchored, |before, now| {
        match (before.value, now.value) {
            (Value::Float(a), Value::Float(b)) => b < a || starts::is_reset(before.counted, now.counted),
            // Neighbours here are neighbours in the run of histograms.
            (Value::Histogram(_), Value::Histogram(b)) => histogram::is_reset(window, b),
            _ => true,
        }
    })
}

#[derive(Clone, Copy)]
enum Value {
    Float(f64),
    /// Its place in the window's run of histograms.
    Histogram(usize),
}

#[derive(Clone, Copy)]
struct Sample {
    counted: Counted,
    value: Value,
}

fn count(window: &Window<'_>, anchored: bool, differ: impl Fn(Sample, Sample) -> bool) -> Option<f64> {
    let (floats, histograms) = if anchored { after_anchor(window)? } else { (0, 0) };
    let mut merged = Merged {
        window,
        floats,
        histograms,
    };
    let mut before = merged.next()?;
    let mut n = 0u64;
    for now in merged {
        n += u64::from(differ(before, now));
        before = now;
    }
    Some(n as f64)
}

/// Where the samples that count begin in both runs: those after the window's start and the last one before them, of
/// whichever kind that is. `None` without any after the start.
fn after_anchor(window: &Window<'_>) -> Option<(usize, usize)> {
    let (floats, histograms) = (window.floats.ts, window.histograms.ts);
    let f = floats.partition_point(|t| *t <= window.start);
    let h = histograms.partition_point(|t| *t <= window.start);
    if f == floats.len() && h == histograms.len() {
        return None;
    }
    let time = |ts: &[i64], i: usize| i.checked_sub(1).map(|i| ts[i]);
    let (last_float, last_histogram) = (time(floats, f), time(histograms, h));
    Some(match (last_float, last_histogram) {
        (None, None) => (f, h),
        _ if last_float >= last_histogram => (f - 1, h),
        _ => (f, h - 1),
    })
}

struct Merged<'a> {
    window: &'a Window<'a>,
    floats: usize,
    histograms: usize,
}

impl Iterator for Merged<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let (floats, histograms) = (self.window.floats, self.window.histograms);
        let float = match (floats.ts.get(self.floats), histograms.ts.get(self.histograms)) {
            (None, None) => return None,
            (Some(f), Some(h)) => f < h,
            (float, _) => float.is_some(),
        };
        Some(if float {
            let i = self.floats;
            self.floats += 1;
            Sample {
                counted: floats.counted(i),
                value: Value::Float(floats.values[i]),
            }
        } else {
            let i = self.histograms;
            self.histograms += 1;
            Sample {
                counted: histograms.counted(i),
                value: Value::Histogram(i),
            }
        })
    }
}
