//! Reading: selectors stream through tiles into a sink; subqueries turn cells into samples.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use trilith_model::{Error, Matcher, Result, SampleValue, task};
use trilith_query::vector::{Block, Grid};
use trilith_query::{QueryContext, SelectHints, SeriesBatch, SeriesRequest};

use crate::ast::{At, Edges, Span, Subquery, TimeShift};
use crate::element::ElementOp;
use crate::eval::{Evaluator, Sink, execution};
use crate::subquery;
use crate::tile::{self, Cell, Frame, Remarks, Samples};

/// Tiles of one selector in work at a time; more would only hold memory, `task::compute` bounds the cores.
const TILES_IN_FLIGHT: usize = 4;

/// Tiles are made in any order and absorbed in the order of their batches: the last bits of a sum depend on it.
struct Turns {
    /// The place of the tile whose turn it is.
    next: usize,
    waiting: BTreeMap<usize, Block>,
    sink: Sink,
}

impl Turns {
    fn absorb(&mut self, ctx: &QueryContext, place: usize, tile: Block) -> Result<()> {
        self.waiting.insert(place, tile);
        while let Some(tile) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.sink.absorb(ctx, tile)?;
        }
        Ok(())
    }
}

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

    /// `width_ms`: of the range, or the lookback of an instant selector.
    pub(crate) fn frame(&self, shift: TimeShift, grid: Grid, width_ms: i64, edges: Edges, buckets: bool) -> Frame {
        Frame {
            buckets,
            at_ms: self.shifted(shift, grid),
            steps_ms: grid.times().collect(),
            width_ms,
            edges,
            lookback_ms: self.options.lookback_ms,
        }
    }

    /// The request for the samples that a frame looks at.
    pub(crate) fn request(&self, matchers: &[Matcher], frame: &Frame, hints: SelectHints) -> SeriesRequest {
        let last = frame.at_ms.iter().copied().max().unwrap_or(0);
        // Without buckets the neighbour before the first sample tells whether that follows a reset.
        let neighbour = if frame.buckets { 0 } else { frame.lookback_ms };
        let start = frame.before_ms().saturating_sub(neighbour);
        SeriesRequest {
            matchers: matchers.to_vec(),
            // Windows are open to the left.
            start_ms: start.saturating_add(1),
            end_ms: last.saturating_add(frame.reach().1),
            hints,
        }
    }

    /// Where notes about samples go.
    pub(crate) fn remarks(&self, at: Span) -> Remarks {
        Remarks {
            notes: self.notes.clone(),
            at,
            types: self.options.features.type_and_unit_labels,
        }
    }

    /// Streams a selector, tile by tile, through `ops` into `sink`.
    pub(crate) fn stream<'a>(
        &'a self,
        matchers: &'a [Matcher],
        at: Span,
        frame: Frame,
        cell: Cell,
        mut hints: SelectHints,
        ops: Vec<ElementOp>,
        grid: Grid,
        sink: Sink,
    ) -> BoxFuture<'a, Result<Sink>> {
        async move {
            hints.step_ms = if grid.steps > 1 { grid.step } else { 0 };
            hints.range_ms = if matches!(cell, Cell::Window { .. }) {
                frame.width_ms
            } else {
                0
            };
            // Smoothing looks at two samples, and without buckets the one before tells of resets.
            let one = frame.edges == Edges::Plain && frame.buckets && !matches!(cell, Cell::Window { .. });
            hints.newest_only = frame.at_ms.len() == 1 && one;
            let request = self.request(matchers, &frame, hints);
            let turns = Arc::new(Mutex::new(Turns {
                next: 0,
                waiting: BTreeMap::new(),
                sink,
            }));
            let (frame, ops) = (Arc::new(frame), Arc::new(ops));
            let mut batches = 0;
            let tiles = self.source.select(&self.ctx, request).map_ok(|batch| {
                let (this, cell, frame, ops, turns) =
                    (self.clone(), cell.clone(), frame.clone(), ops.clone(), turns.clone());
                let place = batches;
                batches += 1;
                async move {
                    let cells = batch.columns.len() * frame.at_ms.len();
                    let items = batch.sample_count() + cells;
                    let work = move || {
                        let tile = this.tile(batch, at, &cell, &frame, &ops)?;
                        turns.lock().absorb(&this.ctx, place, tile)
                    };
                    task::compute_sized(items, work).await?
                }
            });
            // In order, so that what waits for its turn is as bounded as what is in flight.
            let mut tiles = Box::pin(tiles.try_buffered(TILES_IN_FLIGHT));
            while tiles.try_next().await?.is_some() {
                self.ctx.check()?;
            }
            drop(tiles);
            let turns = Arc::try_unwrap(turns).map_err(|_| Error::internal("a tile outlived its selector"))?;
            Ok(turns.into_inner().sink)
        }
        .boxed()
    }

    fn tile(&self, batch: SeriesBatch, at: Span, cell: &Cell, frame: &Frame, ops: &[ElementOp]) -> Result<Block> {
        self.ctx.check()?;
        self.count_series(batch.columns.len())?;
        let _samples = self.ctx.memory.reserve(batch_bytes(&batch))?;
        let samples = Samples {
            batch,
            ..Samples::default()
        };
        let mut tile = tile::evaluate(&self.ctx, &samples, cell, frame, &self.remarks(at))?;
        self.drop_names_now(&mut tile);
        for op in ops {
            op.apply(&self.ctx, &self.notes, &mut tile)?;
            self.drop_names_now(&mut tile);
        }
        Ok(tile)
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

    /// Evaluates the inner expression of a subquery; its cells become samples.
    ///
    /// # Errors
    /// `Execution` for more inner steps than a grid can have, and as [`Evaluator::vector`].
    pub(crate) fn subquery<'a>(&'a self, s: &'a Subquery, grid: Grid) -> BoxFuture<'a, Result<(Samples, Frame)>> {
        async move {
            let step = s.step_ms.unwrap_or(self.options.subquery_step_ms).max(1);
            let frame = self.frame(s.shift, grid, s.range_ms, Edges::Plain, true);
            let ends = || frame.at_ms.iter().copied();
            let first = ends().min().unwrap_or(0).saturating_sub(s.range_ms);
            let last = ends().max().unwrap_or(0);
            // Steps are multiples of the resolution, after the open left end.
            let start = first.div_euclid(step).saturating_add(1).saturating_mul(step);
            let end = last.div_euclid(step).saturating_mul(step);
            if start > end {
                return Ok((Samples::default(), frame));
            }
            let inner = Grid::range(start, end, step).map_err(|e| execution(format!("subquery: {}", e.message)))?;
            // Samples are counted by the step that looks at the subquery's result, not inside it.
            let mut evaluator = self.clone();
            evaluator.ctx.samples = None;
            let block = evaluator.vector(&s.expr, inner).await?;
            let ctx = evaluator.ctx;
            let samples =
                task::compute_sized(block.values.len(), move || subquery::samples(&ctx, block, inner)).await??;
            Ok((samples, frame))
        }
        .boxed()
    }
}

/// What the samples of a batch take.
fn batch_bytes(batch: &SeriesBatch) -> usize {
    let times: usize = batch.times.iter().map(|t| t.len()).sum();
    let histograms = batch.mixed.iter().map(|v| match v {
        SampleValue::Float(_) => 0,
        SampleValue::Histogram(h) => h.size_bytes(),
    });
    8 * (batch.floats.len() + times + batch.starts.len())
        + size_of_val(batch.mixed.as_slice())
        + histograms.sum::<usize>()
}
