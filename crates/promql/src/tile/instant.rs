//! Instant selectors over series that are not plain floats.

use std::sync::Arc;

use trilith_model::{Result, SampleValue};
use trilith_query::vector::is_absent;
use trilith_query::vector::window::bounds;
use trilith_query::{ColumnValues, QueryContext};

use super::general::Split;
use super::remarks::SeriesRemarks;
use super::{Frame, RowOut, edges, histogram};

/// The newest sample of each step's lookback, unless it is a staleness marker: its index.
fn newest_indices<'a>(
    ts: &'a [i64],
    values: ColumnValues<'a>,
    frame: &'a Frame,
) -> impl Iterator<Item = (usize, usize)> + 'a {
    let bounds = bounds(ts, frame.at_ms.iter().copied(), frame.width_ms);
    let newest = bounds.into_iter().enumerate().filter(|(_, (from, to))| from < to);
    newest
        .map(|(step, (_, to))| (step, to as usize - 1))
        .filter(move |(_, i)| match values {
            ColumnValues::Float(values) => !is_absent(values[*i]),
            ColumnValues::Mixed(values) => !matches!(&values[*i], SampleValue::Float(v) if is_absent(*v)),
        })
}

pub(super) fn newest(ts: &[i64], values: ColumnValues<'_>, frame: &Frame, out: &mut RowOut<'_>) -> Result<()> {
    for (step, i) in newest_indices(ts, values, frame) {
        let value = match values {
            ColumnValues::Float(values) => SampleValue::Float(values[i]),
            ColumnValues::Mixed(values) => values[i].clone(),
        };
        out.set(step, value)?;
    }
    Ok(())
}

pub(super) fn newest_time(ts: &[i64], values: ColumnValues<'_>, frame: &Frame, out: &mut RowOut<'_>) -> Result<()> {
    for (step, i) in newest_indices(ts, values, frame) {
        out.set(step, SampleValue::Float(ts[i] as f64 / 1000.0))?;
    }
    Ok(())
}

pub(super) fn newest_start(
    ts: &[i64],
    values: ColumnValues<'_>,
    starts: &[i64],
    frame: &Frame,
    out: &mut RowOut<'_>,
) -> Result<()> {
    for (step, i) in newest_indices(ts, values, frame) {
        let start = starts.get(i).copied().unwrap_or(0);
        out.set(step, SampleValue::Float(start as f64 / 1000.0))?;
    }
    Ok(())
}

/// Values between samples: on the line from the last sample at or before a step to the first after it, both at most
/// one lookback away. Without a later one the last value stays; without an earlier one there is none.
///
/// # Errors
/// As [`super::general::windows`].
pub(super) fn smoothed(
    ctx: &QueryContext,
    split: &Split,
    frame: &Frame,
    remarks: &SeriesRemarks<'_>,
    out: &mut RowOut<'_>,
) -> Result<()> {
    for (step, window) in super::general::windows(ctx, split, frame)?.enumerate() {
        let Some(window) = window else {
            continue;
        };
        let (floats, histograms) = (window.floats, window.histograms);
        if !floats.is_empty() && !histograms.is_empty() {
            remarks.mixed();
            continue;
        }
        let (t, ts) = (window.end, if floats.is_empty() { histograms.ts } else { floats.ts });
        let next = ts.partition_point(|x| *x < t);
        let exact = ts.get(next) == Some(&t);
        if next == 0 && !exact {
            continue;
        }
        let value = if floats.is_empty() {
            let hs = histograms.values;
            if exact {
                Some(SampleValue::Histogram(hs[next].clone()))
            } else if next < ts.len() {
                histogram::between((ts[next - 1], &hs[next - 1]), (ts[next], &hs[next]), t, remarks)
                    .map(|h| SampleValue::Histogram(Arc::new(h)))
            } else {
                Some(SampleValue::Histogram(histogram::carried(&hs[next - 1])))
            }
        } else {
            let vs = floats.values;
            Some(SampleValue::Float(if exact {
                vs[next]
            } else if next < ts.len() {
                edges::interpolate((ts[next - 1], vs[next - 1]), (ts[next], vs[next]), t, false)
            } else {
                vs[next - 1]
            }))
        };
        if let Some(value) = value {
            out.set(step, value)?;
        }
    }
    Ok(())
}
