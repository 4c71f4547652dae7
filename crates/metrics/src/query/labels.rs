//! Label sets, names and values over heads and blocks. CPU work, all of it.

use trilith_index::{Bitmap, LabelIndex, label_names, label_values, select};
use trilith_model::{Labels, Result, TimeRange};
use trilith_query::{LabelRequest, QueryContext, Reservation};

use super::plan::too_many_series;
use super::{OpenBlock, Sources, skip_damaged};
use crate::head::HeadSeriesRef;

/// What `request` selects of an index; `None` for everything.
fn selected(ctx: &QueryContext, index: &dyn LabelIndex, request: &LabelRequest) -> Result<Option<Bitmap>> {
    if request.matcher_sets.is_empty() {
        return Ok(None);
    }
    let mut out = Bitmap::new();
    for set in &request.matcher_sets {
        out.or_inplace(&select(index, set, &|| ctx.check())?);
    }
    Ok(Some(out))
}

/// Distinct texts in order; their memory is booked.
struct Distinct {
    /// In order and distinct after `add_all`.
    items: Vec<String>,
    bytes: usize,
    memory: Reservation,
}

impl Distinct {
    fn new(ctx: &QueryContext) -> Result<Self> {
        Ok(Distinct {
            items: Vec::new(),
            bytes: 0,
            memory: ctx.memory.reserve(0)?,
        })
    }

    fn add_all(&mut self, mut items: Vec<String>) -> Result<()> {
        self.items.append(&mut items);
        // Sources give their items in order as a rule, and a stable sort merges what is in order.
        self.items.sort();
        self.items.dedup();
        let bytes = self.items.iter().map(|i| i.len() + 48).sum();
        if bytes > self.bytes {
            self.memory.grow(bytes - self.bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    fn first(mut self, limit: usize) -> Vec<String> {
        if limit != 0 {
            self.items.truncate(limit);
        }
        self.items
    }
}

/// As `selected`, without series of which deletions have left nothing.
fn selected_of_block(ctx: &QueryContext, block: &OpenBlock, request: &LabelRequest) -> Result<Option<Bitmap>> {
    let index = &block.reader.index;
    let selected = selected(ctx, index, request)?;
    let Some(mask) = &block.mask else {
        return Ok(selected);
    };
    let range = TimeRange::new(request.start, request.end);
    let mut alive = Vec::new();
    for (n, ordinal) in selected.unwrap_or_else(|| index.all()).iter().enumerate() {
        if n.is_multiple_of(4096) {
            ctx.check()?;
        }
        if !mask.hides(&block.reader, ordinal, range)? {
            alive.push(ordinal);
        }
    }
    Ok(Some(Bitmap::of(&alive)))
}

/// Calls `f` with the index of every source and what `request` selects of it. A damaged block is left out with a
/// warning.
fn for_each_index(
    ctx: &QueryContext,
    sources: &Sources,
    request: &LabelRequest,
    mut f: impl FnMut(&dyn LabelIndex, Option<&Bitmap>) -> Result<()>,
) -> Result<()> {
    for block in &sources.blocks {
        ctx.check()?;
        selected_of_block(ctx, block, request)
            .and_then(|selected| f(&block.reader.index, selected.as_ref()))
            .or_else(|e| skip_damaged(ctx, &block.handle, e))?;
    }
    for head in &sources.heads {
        ctx.check()?;
        head.with_index(|i| {
            let selected = selected(ctx, &i.postings, request)?;
            f(&i.postings, selected.as_ref())
        })?;
    }
    Ok(())
}

pub(crate) fn names(ctx: &QueryContext, sources: &Sources, request: &LabelRequest) -> Result<Vec<String>> {
    let mut out = Distinct::new(ctx)?;
    for_each_index(ctx, sources, request, |index, selected| {
        out.add_all(label_names(index, selected, request.limit, &|| ctx.check())?)
    })?;
    Ok(out.first(request.limit))
}

pub(crate) fn values(ctx: &QueryContext, sources: &Sources, name: &str, request: &LabelRequest) -> Result<Vec<String>> {
    let mut out = Distinct::new(ctx)?;
    for_each_index(ctx, sources, request, |index, selected| {
        out.add_all(label_values(index, name, selected, request.limit, &|| ctx.check())?)
    })?;
    Ok(out.first(request.limit))
}

pub(crate) fn series(ctx: &QueryContext, sources: &Sources, request: &LabelRequest) -> Result<Vec<Labels>> {
    let max = ctx.limits.query_series_max;
    let (mut out, mut memory) = (Vec::new(), ctx.memory.reserve(0)?);
    let mut add = |n: usize, labels: Labels| -> Result<()> {
        if n.is_multiple_of(4096) {
            ctx.check()?;
        }
        memory.grow(labels.as_packed().len() + 48)?;
        out.push(labels);
        Ok(())
    };
    for block in &sources.blocks {
        let index = &block.reader.index;
        let mut list = || -> Result<()> {
            let selected = selected_of_block(ctx, block, request)?.unwrap_or_else(|| index.all());
            for (n, ordinal) in selected.iter().enumerate() {
                add(n, index.labels(ordinal)?)?;
            }
            Ok(())
        };
        list().or_else(|e| skip_damaged(ctx, &block.handle, e))?;
    }
    for head in &sources.heads {
        head.with_index(|index| -> Result<()> {
            let selected = selected(ctx, &index.postings, request)?.unwrap_or_else(|| index.postings.all());
            for (n, ordinal) in selected.iter().enumerate() {
                add(n, index.labels(HeadSeriesRef(ordinal)).clone())?;
            }
            Ok(())
        })?;
    }
    // Stable: the series of one name come in order, and runs in order are merged.
    out.sort();
    out.dedup();
    if max != 0 && out.len() as u64 > max {
        return Err(too_many_series(max));
    }
    if request.limit != 0 {
        out.truncate(request.limit);
    }
    Ok(out)
}
