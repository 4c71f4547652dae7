//! Log queries: entries in the asked order, at most `limit` of them.

use futures::StreamExt as _;
use trilith_model::{Labels, Result};
use trilith_query::{Direction, EntryRequest, EntrySource, QueryContext, QueryStats, WantedFields};

use crate::ast::LogQuery;
use crate::pipeline::Pipeline;

/// One entry of an answer.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Labels of the stream after the stages.
    pub stream: Labels,
    pub ts_ns: i64,
    pub line: bytes::Bytes,
    /// Structured metadata after the stages.
    pub metadata: Labels,
}

/// Entries with `start_ns ≤ time < end_ns`, over all streams in the order of `direction`, the first `limit` of them.
///
/// # Errors
/// Those of the source; memory budget, deadline, cancellation.
pub async fn query_log(
    ctx: &QueryContext,
    source: &dyn EntrySource,
    query: &LogQuery,
    start_ns: i64,
    end_ns: i64,
    direction: Direction,
    limit: usize,
) -> Result<Vec<LogLine>> {
    let mut pipeline = Pipeline::new(&query.stages);
    let request = EntryRequest {
        matchers: query.matchers.clone(),
        start_ns,
        end_ns,
        direction,
        // With a filter behind it the store cannot know when there is enough.
        limit: (!pipeline.filters()).then_some(limit),
        filters: query.filters.clone(),
        fields: WantedFields::ALL,
    };
    let mut memory = ctx.memory.reserve(0)?;
    let mut out = Vec::new();
    let mut batches = source.select(ctx, request);
    while out.len() < limit
        && let Some(batch) = batches.next().await
    {
        let batch = batch?;
        ctx.check()?;
        for e in batch.entries {
            if out.len() >= limit {
                break;
            }
            let stream = &batch.streams[e.stream as usize];
            let (stream, metadata) = if pipeline.is_empty() {
                (stream.clone(), e.metadata)
            } else {
                match pipeline.process(stream, &e.metadata) {
                    Some(l) => (l.stream.clone(), l.metadata.clone()),
                    None => continue,
                }
            };
            memory.grow(e.line.len() + std::mem::size_of::<LogLine>())?;
            out.push(LogLine {
                stream,
                ts_ns: e.ts_ns,
                line: e.line,
                metadata,
            });
        }
    }
    QueryStats::add(&ctx.stats.entries_returned, out.len() as u64);
    Ok(out)
}

/// The labels of an entry as one set: those of its stream and its structured metadata. Metadata whose name is a
/// stream label is shown as `<name>_extracted`.
pub fn merged_labels(stream: &Labels, metadata: &Labels) -> Labels {
    if metadata.is_empty() {
        return stream.clone();
    }
    let renamed = metadata.iter().map(|l| {
        let name = if stream.get(l.name).is_some() {
            format!("{}_extracted", l.name)
        } else {
            l.name.to_owned()
        };
        (name, l.value.to_owned())
    });
    // Stream labels last: of equal names the last one wins.
    Labels::from_pairs(renamed.chain(stream.iter().map(|l| (l.name.to_owned(), l.value.to_owned()))))
}
