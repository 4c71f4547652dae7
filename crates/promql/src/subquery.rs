//! The cells of a subquery's inner expression as samples.

use std::sync::Arc;

use trilith_histogram::ResetHint;
use trilith_model::{FloatHistogram, Result, SampleValue};
use trilith_query::vector::{Block, Grid, is_absent};
use trilith_query::{BatchColumn, QueryContext, SeriesBatch, ValueColumn};

use crate::tile::Samples;

/// Rows become columns, in batches' order: those that have a value at every step share their timestamps.
///
/// # Errors
/// Budget, cancellation.
pub(crate) fn samples(ctx: &QueryContext, block: Block, grid: Grid) -> Result<Samples> {
    let times: Vec<i64> = grid.times().collect();
    let all: Arc<[i64]> = times.as_slice().into();
    let mut batch = SeriesBatch::default();
    let mut drop_name = Vec::new();
    let mut memory = ctx.memory.reserve(0)?;
    let histogram = |i: usize, step: usize| -> Option<&Arc<FloatHistogram>> {
        block.rows[i].histograms.as_ref().and_then(|h| h[step].as_ref())
    };
    let mut order: Vec<(bool, usize)> = (0..block.rows.len())
        .map(|i| {
            let mut cells = block.row(i).iter().enumerate();
            (cells.any(|(step, v)| is_absent(*v) && histogram(i, step).is_none()), i)
        })
        .collect();
    order.sort_unstable();
    for (n, (gaps, i)) in order.into_iter().enumerate() {
        if n % 64 == 0 {
            ctx.check()?;
        }
        let mut own_times = Vec::new();
        let (floats, mixed) = (batch.floats.len(), batch.mixed.len());
        let values = if block.rows[i].histograms.is_none() {
            for (t, v) in times.iter().zip(block.row(i)) {
                if !is_absent(*v) {
                    batch.floats.push(*v);
                    if gaps {
                        own_times.push(*t);
                    }
                }
            }
            ValueColumn::Float(floats..batch.floats.len())
        } else {
            for (step, (t, v)) in times.iter().zip(block.row(i)).enumerate() {
                let value = match histogram(i, step) {
                    Some(h) => SampleValue::Histogram(unknown_reset(h)),
                    None if is_absent(*v) => continue,
                    None => SampleValue::Float(*v),
                };
                batch.mixed.push(value);
                if gaps {
                    own_times.push(*t);
                }
            }
            ValueColumn::Mixed(mixed..batch.mixed.len())
        };
        let samples = batch.floats.len() - floats + batch.mixed.len() - mixed;
        if samples == 0 {
            continue;
        }
        memory.grow(16 * samples + size_of::<BatchColumn>())?;
        if gaps {
            batch.times.push(own_times.into());
        } else if batch.times.is_empty() {
            batch.times.push(all.clone());
        }
        batch.columns.push(BatchColumn {
            labels: block.rows[i].labels.clone(),
            times_idx: batch.times.len() as u32 - 1,
            values,
            starts: None,
        });
        drop_name.push(block.rows[i].drop_name);
    }
    Ok(Samples {
        batch,
        drop_name,
        _memory: Some(memory),
    })
}

/// Neighbours in a subquery are not neighbours in the series, so what is known of resets between those is void.
fn unknown_reset(h: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match h.reset_hint {
        ResetHint::Reset | ResetHint::NotReset => Arc::new(FloatHistogram {
            reset_hint: ResetHint::Unknown,
            ..FloatHistogram::clone(h)
        }),
        ResetHint::Unknown | ResetHint::Gauge => h.clone(),
    }
}
