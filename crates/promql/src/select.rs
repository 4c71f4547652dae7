//! Reading: selectors stream through tiles into a sink; subqueries turn cells into samples.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use trilith_model::{Error, Matcher, Result, task};
use trilith_query::vector::{Block, Grid, is_absent};
use trilith_query::{BatchColumn, SelectHints, SeriesBatch, SeriesRequest, ValueColumn};

use crate::ast::{At, Selector, Span, Subquery, TimeShift};
use crate::element::ElementOp;
use crate::eval::{Evaluator, Sink, execution};
use crate::functions::RangeFunction;
use crate::tile::{self, Cell, Frame, Samples};

/// Tiles of one selector in work at a time; more would only hold memory, `task::compute` bounds the cores.
const TILES_IN_FLIGHT: usize = 4;

impl Evaluator {
    /// Evaluation times after `@` and `offset`.
    fn shifted(&self, shift: TimeShift, grid: Grid) -> Arc<[i64]> {
        let at = shift.at.map(|at| match at {
            At::Time(t) => t,
            At::Start => self.query.start,
            At::End => self.query_end_ms,
        });
        grid.times()
            .map(|t| at.unwrap_or(t).saturating_sub(shift.offset_ms))
            .collect()
    }

    pub(crate) fn frame(&self, shift: TimeShift, grid: Grid, width_ms: i64) -> Frame {
        Frame {
            at_ms: self.shifted(shift, grid),
            steps_ms: grid.times().collect(),
            width_ms,
        }
    }

    /// The request for the samples that a frame looks at.
    pub(crate) fn request(&self, matchers: &[Matcher], frame: &Frame, hints: SelectHints) -> SeriesRequest {
        let first = frame.at_ms.iter().copied().min().unwrap_or(0);
        let last = frame.at_ms.iter().copied().max().unwrap_or(0);
        SeriesRequest {
            matchers: matchers.to_vec(),
            // Windows are open to the left.
            start_ms: first.saturating_sub(frame.width_ms).saturating_add(1),
            end_ms: last,
            hints,
        }
    }

    /// Streams a selector, tile by tile, through `ops` into `sink`.
    pub(crate) fn stream<'a>(
        &'a self,
        selector: &'a Selector,
        at: Span,
        width_ms: i64,
        cell: Cell,
        mut hints: SelectHints,
        ops: Vec<ElementOp>,
        grid: Grid,
        sink: Sink,
    ) -> BoxFuture<'a, Result<Sink>> {
        async move {
            let frame = self.frame(selector.shift, grid, width_ms);
            hints.step_ms = if grid.steps > 1 { grid.step } else { 0 };
            hints.range_ms = if matches!(cell, Cell::Window { .. }) {
                width_ms
            } else {
                0
            };
            let request = self.request(&selector.matchers, &frame, hints);
            let sink = Arc::new(Mutex::new(sink));
            let (frame, ops) = (Arc::new(frame), Arc::new(ops));
            let tiles = self.source.select(&self.ctx, request).map_ok(|batch| {
                let (this, cell, frame, ops, sink) =
                    (self.clone(), cell.clone(), frame.clone(), ops.clone(), sink.clone());
                async move { task::compute(move || this.tile(batch, at, &cell, &frame, &ops, &sink)).await? }
            });
            let mut tiles = Box::pin(tiles.try_buffer_unordered(TILES_IN_FLIGHT));
            while tiles.try_next().await?.is_some() {
                self.ctx.check()?;
            }
            drop(tiles);
            let sink = Arc::try_unwrap(sink).map_err(|_| Error::internal("a tile outlived its selector"))?;
            Ok(sink.into_inner())
        }
        .boxed()
    }

    fn tile(
        &self,
        batch: SeriesBatch,
        at: Span,
        cell: &Cell,
        frame: &Frame,
        ops: &[ElementOp],
        sink: &Mutex<Sink>,
    ) -> Result<()> {
        self.ctx.check()?;
        self.count_series(batch.columns.len())?;
        let bytes = batch.floats.len() * 8 + batch.times.iter().map(|t| t.len() * 8).sum::<usize>();
        let _samples = self.ctx.memory.reserve(bytes)?;
        let samples = Samples {
            batch,
            drop_name: Vec::new(),
        };
        let mut tile = tile::evaluate(&self.ctx, &samples, cell, frame)?;
        if let Cell::Window {
            function: RangeFunction::Rate(kind),
            ..
        } = cell
            && kind.is_counter()
        {
            self.check_counter_names(at, &tile);
        }
        ops.iter().for_each(|op| op.apply(&mut tile));
        sink.lock().absorb(&self.ctx, tile)
    }

    pub(crate) fn count_series(&self, n: usize) -> Result<()> {
        let series = self.series.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        let limit = self.ctx.limits.query_series_max;
        if limit != 0 && series > limit {
            return Err(execution(format!(
                "the query selects more than {limit} series (limits.query-series); narrow the selectors"
            )));
        }
        Ok(())
    }

    fn check_counter_names(&self, at: Span, tile: &Block) {
        let mut last = String::new();
        for row in &tile.rows {
            let name = row.labels.get("__name__").unwrap_or("");
            if name.is_empty()
                || name == last
                || ["_total", "_sum", "_count", "_bucket"]
                    .iter()
                    .any(|s| name.ends_with(s))
            {
                continue;
            }
            last = name.to_owned();
            self.notes.info(
                at,
                format_args!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
                ),
            );
        }
    }

    /// Evaluates the inner expression of a subquery; its cells become samples.
    pub(crate) fn subquery<'a>(&'a self, s: &'a Subquery, grid: Grid) -> BoxFuture<'a, Result<(Samples, Frame)>> {
        async move {
            let step = s.step_ms.unwrap_or(self.options.subquery_step_ms).max(1);
            let frame = self.frame(s.shift, grid, s.range_ms);
            let first = frame
                .at_ms
                .iter()
                .copied()
                .min()
                .unwrap_or(0)
                .saturating_sub(s.range_ms);
            let last = frame.at_ms.iter().copied().max().unwrap_or(0);
            // Steps are multiples of the resolution, after the open left end.
            let start = first.div_euclid(step).saturating_add(1).saturating_mul(step);
            let end = last.div_euclid(step).saturating_mul(step);
            let mut samples = Samples {
                batch: SeriesBatch::default(),
                drop_name: Vec::new(),
            };
            if start > end {
                return Ok((samples, frame));
            }
            let inner = Grid::range(start, end, step)?;
            // Samples are counted by the step that looks at the subquery's result, not inside it.
            let mut evaluator = self.clone();
            evaluator.ctx.samples = None;
            let block = evaluator.vector(&s.expr, inner).await?;
            let times: Vec<i64> = inner.times().collect();
            let all: Arc<[i64]> = times.as_slice().into();
            // Complete rows first: they share one timestamp vector and columns are ordered by it.
            let mut order: Vec<(bool, usize)> = (0..block.rows.len())
                .map(|i| (block.row(i).iter().any(|v| is_absent(*v)), i))
                .collect();
            order.sort_unstable();
            let batch = &mut samples.batch;
            for (gaps, i) in order {
                let from = batch.floats.len();
                batch
                    .floats
                    .extend(block.row(i).iter().copied().filter(|v| !is_absent(*v)));
                if batch.floats.len() == from {
                    continue;
                }
                if gaps || batch.times.is_empty() {
                    let present = times
                        .iter()
                        .zip(block.row(i))
                        .filter(|(_, v)| !is_absent(**v))
                        .map(|(t, _)| *t);
                    batch.times.push(if gaps { present.collect() } else { all.clone() });
                }
                batch.columns.push(BatchColumn {
                    labels: block.rows[i].labels.clone(),
                    times_idx: batch.times.len() as u32 - 1,
                    values: ValueColumn::Float(from..batch.floats.len()),
                    starts: None,
                });
                samples.drop_name.push(block.rows[i].drop_name);
            }
            Ok((samples, frame))
        }
        .boxed()
    }
}
