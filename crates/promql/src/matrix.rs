//! An instant query for a range vector: the raw samples of the window.

use futures::TryStreamExt as _;
use trilith_model::{Error, Result};
use trilith_query::vector::Grid;
use trilith_query::vector::matching::NAME_LABELS;
use trilith_query::{Reservation, SelectHints};

use crate::ast::{Edges, Expr, ExprKind};
use crate::eval::{Evaluator, execution, too_many_samples};
use crate::result::{MatrixSeries, QueryValue};
use crate::tile::{self, Frame, Samples, Split};

/// Series sorted by labels.
///
/// # Errors
/// Limits, the budget; `Execution` for histograms of an anchored or smoothed selector.
pub(crate) async fn instant(evaluator: &Evaluator, expr: &Expr, grid: Grid) -> Result<QueryValue> {
    let mut raw = Raw {
        series: Vec::new(),
        samples: 0,
        memory: evaluator.ctx.memory.reserve(0)?,
    };
    match &expr.unwrapped().kind {
        ExprKind::Range { selector, range_ms } => {
            let frame = evaluator.frame(selector.shift, grid, *range_ms, selector.edges, true);
            let hints = SelectHints {
                range_ms: *range_ms,
                ..SelectHints::default()
            };
            let request = evaluator.request(&selector.matchers, &frame, hints);
            let mut batches = evaluator.source.select(&evaluator.ctx, request);
            while let Some(batch) = batches.try_next().await? {
                evaluator.ctx.check()?;
                evaluator.count_series(batch.columns.len())?;
                let samples = Samples {
                    batch,
                    ..Samples::default()
                };
                raw.take(evaluator, &samples, &frame)?;
            }
        }
        ExprKind::Subquery(s) => {
            let (samples, frame) = evaluator.subquery(s, grid).await?;
            raw.take(evaluator, &samples, &frame)?;
        }
        _ => return Err(Error::internal("not a range vector expression")),
    }
    raw.series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(QueryValue::Matrix(raw.series))
}

struct Raw {
    series: Vec<MatrixSeries>,
    /// Histograms by their weight.
    samples: u64,
    memory: Reservation,
}

impl Raw {
    /// The samples in the window of a frame of one step, staleness markers left out.
    fn take(&mut self, evaluator: &Evaluator, samples: &Samples, frame: &Frame) -> Result<()> {
        let ctx = &evaluator.ctx;
        for (i, column) in samples.batch.columns.iter().enumerate() {
            let split = Split::new(samples.batch.times_of(column), samples.batch.values_of(column), &[]);
            if i % 64 == 0 {
                ctx.check()?;
            }
            tile::count_windows(ctx, &split, frame);
            let Some(Some(window)) = tile::windows(ctx, &split, frame)?.next() else {
                continue;
            };
            let (floats, histograms) = (window.floats, window.histograms);
            let points: Vec<(i64, f64)> = match frame.edges {
                Edges::Plain => floats.ts.iter().copied().zip(floats.values.iter().copied()).collect(),
                edges => {
                    let smoothed = edges == Edges::Smoothed;
                    if !histograms.is_empty() {
                        let modifier = if smoothed { "smoothed" } else { "anchored" };
                        return Err(execution(format!(
                            "{modifier} modifier is not supported with histograms"
                        )));
                    }
                    tile::extended(floats, window.start, window.end, smoothed)
                }
            };
            let histograms: Vec<_> = histograms
                .ts
                .iter()
                .copied()
                .zip(histograms.values.iter().cloned())
                .collect();
            if points.is_empty() && histograms.is_empty() {
                continue;
            }
            let heap: usize = histograms.iter().map(|(_, h)| h.size_bytes()).sum();
            self.memory.grow(16 * (points.len() + histograms.len()) + heap)?;
            let weight: u64 = histograms.iter().map(|(_, h)| h.sample_cost() as u64).sum();
            self.samples += points.len() as u64 + weight;
            let limit = ctx.limits.query_samples_max;
            if limit != 0 && self.samples > limit {
                return Err(too_many_samples());
            }
            let labels = if samples.drop_name.get(i).copied().unwrap_or(false) {
                column.labels.without(|n| NAME_LABELS.contains(&n))
            } else {
                column.labels.clone()
            };
            self.series.push(MatrixSeries {
                labels,
                points,
                histograms,
            });
        }
        Ok(())
    }
}
