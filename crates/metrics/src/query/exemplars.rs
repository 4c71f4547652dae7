//! Exemplars of heads and blocks.

use std::sync::Arc;

use futures::StreamExt as _;
use hashbrown::HashMap;
use trilith_block::{BlockHandle, View};
use trilith_model::{Exemplar, Labels, Result, TimeRange, task};
use trilith_query::{ExemplarRequest, QueryContext, SeriesExemplars};

use super::{FAN_OUT, skip_damaged};
use crate::engine::MetricsEngine;
use crate::format::exemplars::ExemplarSet;
use crate::reader;
use crate::tombstones::{Mask, is_dead};
use crate::writer::{FACT_EXEMPLARS, exemplar_time};

/// The answer to a request; the blocks are those that say they have exemplars of its range.
pub(crate) async fn exemplars(
    ctx: &QueryContext,
    view: &View<MetricsEngine>,
    request: ExemplarRequest,
) -> Result<Vec<SeriesExemplars>> {
    ctx.check()?;
    let range = TimeRange::new(request.start_ms, request.end_ms);
    if range.is_empty() || request.matcher_sets.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted = Wanted {
        ctx: ctx.clone(),
        request: Arc::new(request),
        memory: ctx.memory.reserve(0)?,
        known: HashMap::new(),
        found: ExemplarSet::default(),
    };
    // Exemplars may stand in a block that has no samples of their time.
    let blocks: Vec<BlockHandle> = view
        .blocks_of(&ctx.tenant, TimeRange::ALL)
        .filter(|b| {
            b.meta
                .facts
                .get(FACT_EXEMPLARS)
                .is_some_and(|f| exemplar_time(f).overlaps(range))
        })
        .cloned()
        .collect();
    let mut read = futures::stream::iter(blocks)
        .map(|block| async move {
            let set = reader::read_exemplars(&block, |bytes| ctx.memory.reserve(bytes)).await;
            (block, set)
        })
        .buffered(FAN_OUT);
    while let Some((block, set)) = read.next().await {
        match set {
            Ok((set, _booked)) => {
                let mask = Mask::of(&block, range)?;
                wanted = task::compute(move || wanted.take_set(&set, mask)).await??;
            }
            Err(e) => skip_damaged(ctx, &block, e)?,
        }
    }
    for head in view.heads.iter().filter_map(|h| h.tenant(&ctx.tenant)) {
        // Copied (by reference) first: pushes wait for the lock.
        let mut all: Vec<(Labels, Exemplar)> = Vec::new();
        head.with_exemplars(|e| {
            e.for_each(|series, e| {
                if range.contains(e.ts_ms) {
                    all.push((series.clone(), e.clone()));
                }
            });
        });
        wanted = task::compute(move || {
            for (i, (series, e)) in all.iter().enumerate() {
                if i % 4096 == 0 {
                    wanted.ctx.check()?;
                }
                wanted.take(series, e)?;
            }
            Ok::<_, trilith_model::Error>(wanted)
        })
        .await??;
    }
    let answer = wanted.found.iter().map(|(labels, exemplars)| SeriesExemplars {
        labels: labels.clone(),
        exemplars: exemplars.to_vec(),
    });
    Ok(answer.collect())
}

struct Wanted {
    ctx: QueryContext,
    request: Arc<ExemplarRequest>,
    memory: trilith_query::Reservation,
    /// Whether a series is wanted, for those looked at.
    known: HashMap<Labels, bool>,
    found: ExemplarSet,
}

impl Wanted {
    fn take_set(mut self, set: &ExemplarSet, mask: Option<Mask>) -> Result<Self> {
        for (series, exemplars) in set.iter() {
            self.ctx.check()?;
            let dead = mask.as_ref().map_or_else(Vec::new, |m| m.dead(series.as_ref()));
            for e in exemplars.iter().filter(|e| !is_dead(&dead, e.ts_ms)) {
                self.take(series, e)?;
            }
        }
        Ok(self)
    }

    fn take(&mut self, series: &Labels, e: &Exemplar) -> Result<()> {
        if e.ts_ms < self.request.start_ms || e.ts_ms > self.request.end_ms {
            return Ok(());
        }
        let wanted = match self.known.get(series) {
            Some(known) => *known,
            None => {
                let wanted = self
                    .request
                    .matcher_sets
                    .iter()
                    .any(|set| set.iter().all(|m| m.matches(series.get(&m.name).unwrap_or(""))));
                self.memory.grow(series.as_packed().len() + 96)?;
                self.known.insert(series.clone(), wanted);
                wanted
            }
        };
        if wanted {
            // Twice: here and in the answer.
            self.memory
                .grow(e.labels.as_packed().len() + 2 * size_of::<Exemplar>() + 32)?;
            self.found.insert(series, e);
        }
        Ok(())
    }
}
