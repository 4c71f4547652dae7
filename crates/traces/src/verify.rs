//! Reads a block completely and checks what checksums cannot see.

use std::sync::Arc;

use trilith_block::BlockHandle;
use trilith_model::{Error, Result, SpanId, TraceId, task};

use crate::decode;
use crate::reader::BlockReader;
use crate::schema::Column;
use crate::trace_index::Entry;
use crate::writer::clamp;

/// # Errors
/// `Corrupt` with the first thing that does not fit; those of the store.
pub async fn verify(handle: &BlockHandle) -> Result<()> {
    let corrupt = |why: String| Error::corrupt(format!("block {}: {why}", handle.meta.id));
    let block = Arc::new(BlockReader::open(handle).await?);
    block.check_file().await?;

    let mut entries: Vec<Entry> = Vec::new();
    let mut page = Some(0);
    while let Some(first) = page {
        let (more, next) = block.entries(first).await?;
        entries.extend(more);
        page = next;
    }
    if entries
        .windows(2)
        .any(|w| w[0].id >= w[1].id || w[0].rows.end != w[1].rows.start)
    {
        return Err(corrupt("the trace index has gaps".into()));
    }

    let mut entries = entries.into_iter();
    let mut current: Option<Entry> = None;
    let mut groups = 0u64;
    let mut row = 0u64;
    let mut last: Option<(TraceId, u64, SpanId)> = None;
    let mut scan = block.scan(None, &Column::ALL, None)?;
    while let Some(batch) = scan.next_in_background().await? {
        let b = block.clone();
        let spans = task::background(move || decode::spans(&batch, &b.resources, &b.scopes)).await??;
        for s in spans {
            let s = s.span;
            let key = (s.trace_id, s.start_ns, s.span_id);
            if last.is_some_and(|l| l > key) {
                return Err(corrupt(format!("row {row} is out of order")));
            }
            if last.is_none_or(|l| l.0 != s.trace_id) {
                current = entries.next();
                groups += 1;
            }
            last = Some(key);
            let indexed = current
                .as_ref()
                .is_some_and(|e| e.id == s.trace_id && e.rows.contains(&row));
            if !indexed {
                return Err(corrupt(format!(
                    "the trace index does not know row {row} of trace {}",
                    s.trace_id
                )));
            }
            let (start, end) = (clamp(s.start_ns), clamp(s.end_ns.max(s.start_ns)));
            if start < handle.meta.time_min || end > handle.meta.time_max {
                return Err(corrupt(format!("row {row} is outside of the block's time range")));
            }
            row += 1;
        }
    }
    if entries.next().is_some() || row != handle.meta.items || groups != handle.meta.groups {
        return Err(corrupt(format!(
            "{row} spans in {groups} traces, the manifest says {} in {}",
            handle.meta.items, handle.meta.groups
        )));
    }
    Ok(())
}
