//! Label sets, names and values over heads and blocks. CPU work, all of it.

use std::collections::BTreeSet;

use trilith_index::{Bitmap, LabelIndex, label_names, label_values, select};
use trilith_model::{Labels, Result};
use trilith_query::{LabelRequest, QueryContext, Reservation};

use super::plan::too_many_series;
use super::{Sources, skip_damaged};
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

/// Distinct items in order; their memory is booked.
struct Distinct<T> {
    items: BTreeSet<T>,
    memory: Reservation,
}

impl<T: Ord> Distinct<T> {
    fn new(ctx: &QueryContext) -> Result<Self> {
        Ok(Distinct {
            items: BTreeSet::new(),
            memory: ctx.memory.reserve(0)?,
        })
    }

    fn add(&mut self, item: T, bytes: usize) -> Result<()> {
        if self.items.insert(item) {
            self.memory.grow(bytes + 48)?;
        }
        Ok(())
    }

    fn first(self, limit: usize) -> Vec<T> {
        let n = if limit == 0 { usize::MAX } else { limit };
        self.items.into_iter().take(n).collect()
    }
}

/// Calls `f` with the index of every source. A damaged block is left out with a warning.
fn for_each_index(
    ctx: &QueryContext,
    sources: &Sources,
    mut f: impl FnMut(&dyn LabelIndex) -> Result<()>,
) -> Result<()> {
    for block in &sources.blocks {
        ctx.check()?;
        f(&block.reader.index).or_else(|e| skip_damaged(ctx, &block.handle, e))?;
    }
    for head in &sources.heads {
        ctx.check()?;
        head.with_index(|i| f(&i.postings))?;
    }
    Ok(())
}

pub(crate) fn names(ctx: &QueryContext, sources: &Sources, request: &LabelRequest) -> Result<Vec<String>> {
    let mut out = Distinct::new(ctx)?;
    for_each_index(ctx, sources, |index| {
        let selected = selected(ctx, index, request)?;
        for name in label_names(index, selected.as_ref(), request.limit, &|| ctx.check())? {
            let bytes = name.len();
            out.add(name, bytes)?;
        }
        Ok(())
    })?;
    Ok(out.first(request.limit))
}

pub(crate) fn values(ctx: &QueryContext, sources: &Sources, name: &str, request: &LabelRequest) -> Result<Vec<String>> {
    let mut out = Distinct::new(ctx)?;
    for_each_index(ctx, sources, |index| {
        let selected = selected(ctx, index, request)?;
        for value in label_values(index, name, selected.as_ref(), request.limit, &|| ctx.check())? {
            let bytes = value.len();
            out.add(value, bytes)?;
        }
        Ok(())
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
            let selected = selected(ctx, index, request)?.unwrap_or_else(|| index.all());
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
    out.sort_unstable();
    out.dedup();
    if max != 0 && out.len() as u64 > max {
        return Err(too_many_series(max));
    }
    if request.limit != 0 {
        out.truncate(request.limit);
    }
    Ok(out)
}
