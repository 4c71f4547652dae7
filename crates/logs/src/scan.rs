//! From a decoded page to the rows that a query wants of it.

use std::sync::Arc;

use bytes::Bytes;
use trilith_model::{Result, TimeRange};
use trilith_query::{MemoryBudget, Reservation};

use crate::filter::Filters;
use crate::format::page::MetaDict;
use crate::order::CursorRows;
use crate::page::{BookedLines, Keys, Page, Run};
use crate::pool;

/// Fewer survivors than one in this many bytes are copied out, so that a page does not stay in memory for one line.
const COMPACT_FACTOR: usize = 4;

/// Runs of selected streams, with the stream's id in the query. Both lists ascend by the block's or head's ordinal.
pub(crate) fn wanted_runs(runs: &[Run], selected: &[(u32, u32)], time: TimeRange) -> Vec<(Run, u32)> {
    let in_time = |r: &Run| time.overlaps(TimeRange::new(r.ts_min, r.ts_max));
    let mut out = Vec::new();
    if selected.len() < runs.len() / 8 {
        for &(ordinal, id) in selected {
            if let Ok(at) = runs.binary_search_by_key(&ordinal, |r| r.stream)
                && in_time(&runs[at])
            {
                out.push((runs[at], id));
            }
        }
    } else {
        let mut at = 0;
        for run in runs {
            at += selected[at..].partition_point(|s| s.0 < run.stream);
            match selected.get(at) {
                None => break,
                Some(&(ordinal, id)) if ordinal == run.stream && in_time(run) => out.push((*run, id)),
                Some(_) => {}
            }
        }
    }
    out
}

/// The rows of a page that lie in the range and pass the filters, with cursors over them.
pub(crate) struct Scanned {
    pub page: Arc<Page>,
    pub rows: Vec<CursorRows>,
    /// Rows looked at.
    pub scanned: u64,
}

/// `lines` must be there when there are filters. `memory` pays for what is copied out.
///
/// # Errors
/// The memory budget is exhausted.
pub(crate) fn scan(
    keys: Arc<Keys>,
    lines: Option<Bytes>,
    booked: Option<Reservation>,
    runs: &[(Run, u32)],
    time: TimeRange,
    filters: &Filters,
    memory: Option<&MemoryBudget>,
) -> Result<Scanned> {
    let mut rows = Vec::with_capacity(runs.len());
    let mut selected = (!filters.is_empty()).then(Vec::new);
    let mut scanned = 0;
    for (run, stream) in runs {
        let all = run.range();
        let ts = &keys.ts[all.clone()];
        let from = all.start + ts.partition_point(|&t| t < time.min);
        let to = all.start + ts.partition_point(|&t| t <= time.max);
        if from >= to {
            continue;
        }
        scanned += (to - from) as u64;
        let range = match (&mut selected, &lines) {
            (Some(list), Some(lines)) => {
                let first = list.len();
                filters.select(&keys, lines, from..to, list);
                first..list.len()
            }
            _ => from..to,
        };
        if !range.is_empty() {
            rows.push(CursorRows {
                stream: *stream,
                rows: range.start as u32..range.end as u32,
            });
        }
    }
    let page = Page {
        keys,
        lines,
        selected,
        _booked: booked,
    };
    let page = compact(page, &mut rows, memory)?;
    Ok(Scanned {
        page: Arc::new(page),
        rows,
        scanned,
    })
}

/// Copies the rows out of a page of which little is wanted.
fn compact(page: Page, rows: &mut [CursorRows], memory: Option<&MemoryBudget>) -> Result<Page> {
    let Some(lines) = &page.lines else {
        return Ok(page);
    };
    let row_at = |i: u32| page.selected.as_ref().map_or(i, |s| s[i as usize]) as usize;
    let wanted = || rows.iter().flat_map(|c| c.rows.clone()).map(row_at);
    let (mut count, mut bytes) = (0usize, 0usize);
    for row in wanted() {
        count += 1;
        bytes += page.keys.line_len(row) as usize;
        // Counting stops where copying would not pay.
        if bytes >= lines.len() / COMPACT_FACTOR {
            return Ok(page);
        }
    }
    let book = |n: usize| memory.map(|m| m.reserve(n)).transpose();
    let booked = book(count * 24)?;
    let lines_booked = book(bytes)?;
    let mut out = pool::take(bytes);
    let mut keys = Keys {
        ts: Vec::with_capacity(count),
        lsn: Vec::with_capacity(count),
        ends: Vec::with_capacity(count),
        ..Keys::default()
    };
    let mut dict = MetaDict::default();
    for row in wanted() {
        out.extend_from_slice(page.line(row));
        keys.ts.push(page.keys.ts[row]);
        keys.lsn.push(page.keys.lsn[row]);
        keys.ends.push(out.len() as u32);
        if !page.keys.meta.is_empty() {
            keys.meta.push(page.keys.metadata(row).map_or(0, |m| dict.code(m)));
        }
    }
    keys.dict = dict.dict;
    let mut at = 0;
    for cursor in rows {
        let n = cursor.rows.len() as u32;
        cursor.rows = at..at + n;
        at += n;
    }
    Ok(Page {
        keys: Arc::new(keys),
        lines: Some(BookedLines::share(out, lines_booked)),
        selected: None,
        _booked: booked,
    })
}
