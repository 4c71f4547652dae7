//! Which streams, label names and label values a range has: answered by indexes and directories, no page is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;
use trilith_block::View;
use trilith_index::{Bitmap, LabelIndex};
use trilith_model::{Labels, Matcher, Result, TimeRange, task};
use trilith_query::{LabelRequest, QueryContext};

use crate::block::reader::{BlockCache, OpenBlock};
use crate::engine::LogsEngine;
use crate::select::skip_corrupt;

/// Blocks looked at at the same time.
const OPEN_PARALLEL: usize = 16;

/// Visits (index, selected ordinals, labels by ordinal) of one head or block and adds to its result.
type Visit<T> =
    Arc<dyn Fn(&dyn LabelIndex, &Bitmap, &dyn Fn(u32) -> Result<Labels>, &mut BTreeSet<T>) -> Result<()> + Send + Sync>;

pub(crate) async fn streams(
    view: Arc<View<LogsEngine>>,
    cache: &Arc<BlockCache>,
    ctx: &QueryContext,
    request: LabelRequest,
) -> Result<Vec<Labels>> {
    let limit = request.limit;
    let visit: Visit<Labels> = Arc::new(|_, selected, labels, out| {
        for ordinal in selected.iter() {
            out.insert(labels(ordinal)?);
        }
        Ok(())
    });
    let bytes = |l: &Labels| l.as_packed().len() + 64;
    collect(view, cache, ctx, request, visit, bytes)
        .await
        .map(|found| first(found, limit))
}

pub(crate) async fn names(
    view: Arc<View<LogsEngine>>,
    cache: &Arc<BlockCache>,
    ctx: &QueryContext,
    request: LabelRequest,
) -> Result<Vec<String>> {
    let limit = request.limit;
    let check = ctx.clone();
    let visit: Visit<String> = Arc::new(move |index, selected, _, out| {
        out.extend(trilith_index::label_names(index, Some(selected), limit, &|| {
            check.check()
        })?);
        Ok(())
    });
    collect(view, cache, ctx, request, visit, |s| s.len() + 64)
        .await
        .map(|found| first(found, limit))
}

pub(crate) async fn values(
    view: Arc<View<LogsEngine>>,
    cache: &Arc<BlockCache>,
    ctx: &QueryContext,
    name: &str,
    request: LabelRequest,
) -> Result<Vec<String>> {
    let limit = request.limit;
    let (check, name) = (ctx.clone(), name.to_owned());
    let visit: Visit<String> = Arc::new(move |index, selected, _, out| {
        out.extend(trilith_index::label_values(
            index,
            &name,
            Some(selected),
            limit,
            &|| check.check(),
        )?);
        Ok(())
    });
    collect(view, cache, ctx, request, visit, |s| s.len() + 64)
        .await
        .map(|found| first(found, limit))
}

fn first<T>(found: BTreeSet<T>, limit: usize) -> Vec<T> {
    found
        .into_iter()
        .take(if limit == 0 { usize::MAX } else { limit })
        .collect()
}

async fn collect<T: Ord + Send + 'static>(
    view: Arc<View<LogsEngine>>,
    cache: &Arc<BlockCache>,
    ctx: &QueryContext,
    request: LabelRequest,
    visit: Visit<T>,
    bytes: impl Fn(&T) -> usize,
) -> Result<BTreeSet<T>> {
    let time = TimeRange::new(request.start, request.end);
    if time.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sets: Arc<[Vec<Matcher>]> = if request.matcher_sets.is_empty() {
        Arc::new([Vec::new()])
    } else {
        request.matcher_sets.into()
    };
    let mut out = {
        let (view, ctx, sets, visit) = (view.clone(), ctx.clone(), sets.clone(), visit.clone());
        task::compute(move || -> Result<_> {
            let mut out = BTreeSet::new();
            for head in view.heads.iter().filter_map(|h| h.tenant(&ctx.tenant)) {
                for matchers in sets.iter() {
                    head.with_selected(matchers, time, &|| ctx.check(), |index, selected, labels| {
                        visit(index, selected, &|o| Ok(labels(o)), &mut out)
                    })?;
                }
            }
            Ok(out)
        })
        .await??
    };
    let mut booked = ctx.memory.reserve(out.iter().map(&bytes).sum())?;
    let blocks: Vec<_> = view.blocks_of(&ctx.tenant, time).cloned().collect();
    let mut parts = stream::iter(blocks.into_iter().map(|handle| {
        let (sets, visit, ctx) = (sets.clone(), visit.clone(), ctx.clone());
        async move {
            ctx.check()?;
            let result = async {
                let block = cache.open(&handle).await?;
                let ctx = ctx.clone();
                task::compute(move || of_block(&block, &sets, time, &visit, &ctx)).await?
            };
            skip_corrupt(&ctx, &handle, result.await)
        }
    }))
    .buffer_unordered(OPEN_PARALLEL);
    while let Some(part) = parts.next().await {
        for item in part?.into_iter().flatten() {
            let size = bytes(&item);
            if out.insert(item) {
                booked.grow(size)?;
            }
        }
    }
    Ok(out)
}

fn of_block<T: Ord>(
    block: &OpenBlock,
    sets: &[Vec<Matcher>],
    time: TimeRange,
    visit: &Visit<T>,
    ctx: &QueryContext,
) -> Result<BTreeSet<T>> {
    let mut in_time = Bitmap::new();
    for run in &block.directory.runs {
        if time.overlaps(TimeRange::new(run.ts_min, run.ts_max)) {
            in_time.add(run.stream);
        }
    }
    let mut out = BTreeSet::new();
    for matchers in sets {
        let mut selected = trilith_index::select(&block.index, matchers, &|| ctx.check())?;
        selected.and_inplace(&in_time);
        visit(&block.index, &selected, &|o| block.index.labels(o), &mut out)?;
    }
    Ok(out)
}
