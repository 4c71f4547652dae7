//! Search, trace by id, and attribute names and values over heads and blocks.
//!
//! A search walks the sources by their latest end, newest first. In each it finds traces with a span of interest, fetches
//! their spans here and their fragments everywhere else, joins them and hands them out; a trace with fragments in a source
//! that comes later is remembered, so that it comes once. Because every trace still to come has a span in a source not yet
//! walked, none of them starts after the latest end of those: that bound goes with each batch.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hashbrown::HashSet;
use trilith_block::View;
use trilith_model::{Error, Result, TraceBatch, TraceId, task};
use trilith_query::span_rows::{RowFilter, SpanRow, TraceRows, build_batch, listed_values};
use trilith_query::spans::REMAINING_START_MAX;
use trilith_query::{
    AttributeScope, ColumnRef, Intrinsic, QueryContext, QueryStats, Reservation, ResultStream, SpanRequest,
};

use crate::engine::TracesEngine;
use crate::head::model_span_bytes;
use crate::reader::ReaderCache;
use crate::schema::Column;
use crate::sources::{Candidates, Source};
use crate::{decode, sources};

/// Fragments of a trace are looked for this far outside of the request's range.
const FRAGMENT_SLACK_NS: u64 = 3600 * 1_000_000_000;
/// Sources asked at a time.
const PARALLEL: usize = 16;

pub struct Select {
    ctx: QueryContext,
    cache: Arc<ReaderCache>,
    request: SpanRequest,
    filter: Arc<RowFilter>,
    columns: Arc<Vec<Column>>,
    /// Newest end first. Those outside of the range are only asked for fragments.
    sources: Arc<Vec<Source>>,
    at: usize,
    candidates: Option<Candidates>,
    /// Traces handed out that a later source knows too.
    done: HashSet<TraceId, foldhash::fast::RandomState>,
    memory: Reservation,
}

/// Starts a search.
pub fn select(
    view: &View<TracesEngine>,
    cache: Arc<ReaderCache>,
    ctx: &QueryContext,
    request: SpanRequest,
) -> ResultStream<RecordBatch> {
    match Select::new(view, cache, ctx, request) {
        Ok(select) => stream::try_unfold(
            select,
            |mut s| async move { Ok(s.next().await?.map(|batch| (batch, s))) },
        )
        .boxed(),
        Err(e) => stream::once(std::future::ready(Err(e))).boxed(),
    }
}

impl Select {
    fn new(
        view: &View<TracesEngine>,
        cache: Arc<ReaderCache>,
        ctx: &QueryContext,
        request: SpanRequest,
    ) -> Result<Select> {
        let filter = Arc::new(RowFilter::new(&request.predicates, request.all)?);
        let (start, end) = (request.start_ns, request.end_ns);
        let sources = Source::of(
            view,
            &ctx.tenant,
            start.saturating_sub(FRAGMENT_SLACK_NS),
            end.saturating_add(FRAGMENT_SLACK_NS),
        );
        Ok(Select {
            columns: Arc::new(columns_of(&request)),
            sources: Arc::new(sources),
            memory: ctx.memory.reserve(0)?,
            ctx: ctx.clone(),
            cache,
            request,
            filter,
            at: 0,
            candidates: None,
            done: HashSet::default(),
        })
    }

    fn in_range(&self, source: &Source) -> bool {
        source.end_ns >= self.request.start_ns
            && (self.request.end_ns == u64::MAX || source.start_ns < self.request.end_ns)
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(source) = self.sources.get(self.at).cloned() else {
                return Ok(None);
            };
            if !self.in_range(&source) {
                self.at += 1;
                continue;
            }
            let candidates = match &mut self.candidates {
                Some(c) => c,
                none => {
                    let c = Candidates::new(&source, &self.ctx, &self.cache, &self.filter).await?;
                    QueryStats::add(
                        &self.ctx.stats.blocks_read,
                        u64::from(matches!(c, Candidates::Block { .. })),
                    );
                    none.insert(c)
                }
            };
            let mut ids = candidates.next(&self.ctx, &self.filter).await?;
            if ids.is_empty() {
                self.candidates = None;
                self.at += 1;
                continue;
            }
            ids.retain(|id| !self.done.contains(id));
            if let Some(batch) = self.group(ids, source.end_ns).await? {
                return Ok(Some(batch));
            }
        }
    }

    /// Joins and prints a group of traces of the current source.
    async fn group(&mut self, ids: Vec<TraceId>, remaining_start_max: u64) -> Result<Option<RecordBatch>> {
        if ids.is_empty() {
            return Ok(None);
        }
        let ids = Arc::new(ids);
        let fragments = self.fetch(&ids, self.columns.clone()).await?;
        let mut traces: HashMap<TraceId, TraceRows> = HashMap::new();
        for (source, rows) in fragments {
            for t in rows {
                if source > self.at && self.in_range(&self.sources[source]) && self.done.insert(t.id) {
                    self.memory.grow(32)?;
                }
                match traces.entry(t.id) {
                    std::collections::hash_map::Entry::Occupied(mut e) => e.get_mut().spans.extend(t.spans),
                    std::collections::hash_map::Entry::Vacant(e) => {
                        e.insert(t);
                    }
                }
            }
        }
        let mut traces: Vec<TraceRows> = traces.into_values().collect();
        traces.sort_by_key(|t| t.id);

        // Spans with the same id can only be told apart, or be recognised as one, by all of their columns.
        let repeated: Vec<TraceId> = traces.iter().filter(|t| t.has_repeated_ids()).map(|t| t.id).collect();
        if !repeated.is_empty() && self.columns.len() < Column::ALL.len() {
            traces.retain(|t| repeated.binary_search(&t.id).is_err());
            let mut whole: HashMap<TraceId, TraceRows> = HashMap::new();
            for (_, rows) in self.fetch(&Arc::new(repeated), Arc::new(Column::ALL.to_vec())).await? {
                for t in rows {
                    whole
                        .entry(t.id)
                        .or_insert_with(|| TraceRows {
                            id: t.id,
                            spans: Vec::new(),
                        })
                        .spans
                        .extend(t.spans);
                }
            }
            traces.extend(whole.into_values());
            traces.sort_by_key(|t| t.id);
        }

        let _held = self.ctx.memory.reserve(memory_of(&traces))?;
        let (start, end) = (self.request.start_ns, self.request.end_ns);
        let columns = self.request.columns.clone();
        let filter = (!self.request.whole_traces && !self.filter.is_empty()).then(|| self.filter.clone());
        let batch = task::compute(move || {
            traces.iter_mut().for_each(TraceRows::join);
            traces.retain(|t| t.summary().overlaps(start, end));
            build_batch(&traces, &columns, filter.as_deref())
        })
        .await??;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let schema = batch.schema();
        let metadata = HashMap::from([(REMAINING_START_MAX.to_owned(), remaining_start_max.to_string())]);
        let schema = schema.as_ref().clone().with_metadata(metadata);
        let batch = batch
            .with_schema(Arc::new(schema))
            .map_err(|e| Error::internal(format!("span batch: {e}")))?;
        Ok(Some(batch))
    }

    /// The spans of these traces in every source, with the source's position.
    async fn fetch(&self, ids: &Arc<Vec<TraceId>>, columns: Arc<Vec<Column>>) -> Result<Vec<(usize, Vec<TraceRows>)>> {
        let asked = (0..self.sources.len()).map(|i| {
            let (ctx, cache, sources) = (self.ctx.clone(), self.cache.clone(), self.sources.clone());
            let (ids, columns) = (ids.clone(), columns.clone());
            async move { Ok::<_, Error>((i, sources[i].rows(&ctx, &cache, &ids, &columns).await?)) }
        });
        stream::iter(asked).buffered(PARALLEL).try_collect().await
    }
}

/// Heap bytes of decoded spans, approximately: texts, and the spans' own size.
fn memory_of(traces: &[TraceRows]) -> usize {
    let rows = traces.iter().flat_map(|t| &t.spans);
    rows.map(|r| size_of::<SpanRow>() + usize::try_from(model_span_bytes(&r.span)).unwrap_or(usize::MAX))
        .sum()
}

/// What must be read to answer: the columns asked for, those that join and summarise traces, those of the filter.
fn columns_of(request: &SpanRequest) -> Vec<Column> {
    let mut out = vec![
        Column::TraceId,
        Column::SpanId,
        Column::Start,
        Column::Duration,
        Column::End,
    ];
    let tested = request
        .predicates
        .iter()
        .map(|p| &p.column)
        .filter(|_| !request.whole_traces);
    for column in request.columns.iter().chain(tested) {
        match column {
            ColumnRef::Intrinsic(i) => out.extend_from_slice(match i {
                Intrinsic::ParentSpanId => &[Column::ParentSpanId][..],
                Intrinsic::Name => &[Column::Name],
                Intrinsic::Kind => &[Column::Kind],
                Intrinsic::Status | Intrinsic::StatusMessage => &[Column::StatusCode, Column::StatusMessage],
                Intrinsic::RootServiceName | Intrinsic::RootName => {
                    &[Column::ParentSpanId, Column::Name, Column::ResourceId]
                }
                Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion => &[Column::ScopeId],
                Intrinsic::EventNames => &[Column::Events],
                _ => &[],
            }),
            ColumnRef::Attribute(scope, _) => out.extend_from_slice(match scope {
                AttributeScope::Span => &[Column::Attributes][..],
                AttributeScope::Resource => &[Column::ResourceId],
                AttributeScope::Instrumentation => &[Column::ScopeId],
                AttributeScope::Event => &[Column::Events],
                AttributeScope::Link => &[Column::Links],
                AttributeScope::Any => &[Column::Attributes, Column::ResourceId],
            }),
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// See [`trilith_query::SpanSource::trace`].
pub async fn trace(
    view: &View<TracesEngine>,
    cache: &Arc<ReaderCache>,
    ctx: &QueryContext,
    id: TraceId,
    start_ns: u64,
    end_ns: u64,
) -> Result<Option<TraceBatch>> {
    let ids = Arc::new(vec![id]);
    let asked = Source::of(view, &ctx.tenant, start_ns, end_ns)
        .into_iter()
        .map(|source| {
            let ids = ids.clone();
            async move { source.rows(ctx, cache, &ids, &Column::ALL).await }
        });
    let mut out = TraceRows { id, spans: Vec::new() };
    let mut fragments = stream::iter(asked).buffered(PARALLEL);
    while let Some(rows) = fragments.try_next().await? {
        out.spans.extend(rows.into_iter().flat_map(|t| t.spans));
    }
    if out.spans.is_empty() {
        return Ok(None);
    }
    let _held = ctx.memory.reserve(memory_of(std::slice::from_ref(&out)))?;
    let joined = task::compute(move || {
        out.join();
        out.into_batch()
    });
    joined.await.map(Some)
}

/// See [`trilith_query::SpanSource::attribute_names`].
pub async fn attribute_names(
    view: &View<TracesEngine>,
    cache: &Arc<ReaderCache>,
    ctx: &QueryContext,
    scope: Option<AttributeScope>,
    start_ns: u64,
    end_ns: u64,
) -> Result<Vec<(AttributeScope, String)>> {
    const SCOPES: [AttributeScope; 5] = [
        AttributeScope::Span,
        AttributeScope::Resource,
        AttributeScope::Event,
        AttributeScope::Link,
        AttributeScope::Instrumentation,
    ];
    let scopes: Vec<_> = SCOPES
        .into_iter()
        .filter(|s| scope.is_none_or(|w| w == *s || w == AttributeScope::Any))
        .collect();
    let mut out: BTreeSet<(AttributeScope, String)> = BTreeSet::new();
    let mut add = |facts: &crate::facts::Facts| {
        for scope in &scopes {
            out.extend(facts.names(*scope).map(|n| (*scope, n.to_owned())));
        }
    };
    for source in Source::of(view, &ctx.tenant, start_ns, end_ns) {
        ctx.check()?;
        match source.head() {
            Some(head) => head.with_facts(&mut add),
            None => {
                if let Some(block) = source.block(ctx, cache).await? {
                    add(&block.facts);
                }
            }
        }
    }
    Ok(out.into_iter().collect())
}

/// Distinct values, the smallest ones when there is a limit.
struct ValueSet {
    values: BTreeSet<(String, String)>,
    limit: usize,
    memory: Reservation,
}

impl ValueSet {
    fn add(&mut self, kind: &str, text: String) -> Result<()> {
        let bytes = text.len() + 64;
        if self.values.insert((kind.to_owned(), text)) {
            self.memory.grow(bytes)?;
            if self.limit > 0 && self.values.len() > self.limit {
                self.values.pop_last();
            }
        }
        Ok(())
    }
}

/// See [`trilith_query::SpanSource::attribute_values`].
pub async fn attribute_values(
    view: &View<TracesEngine>,
    cache: &Arc<ReaderCache>,
    ctx: &QueryContext,
    column: &ColumnRef,
    start_ns: u64,
    end_ns: u64,
    limit: usize,
) -> Result<Vec<(String, String)>> {
    let mut out = ValueSet {
        values: BTreeSet::new(),
        limit,
        memory: ctx.memory.reserve(0)?,
    };
    match column {
        ColumnRef::Intrinsic(Intrinsic::Status) => {
            ["error", "ok", "unset"]
                .iter()
                .try_for_each(|s| out.add("keyword", (*s).to_owned()))?;
        }
        ColumnRef::Intrinsic(Intrinsic::Kind) => {
            ["client", "consumer", "internal", "producer", "server", "unspecified"]
                .iter()
                .try_for_each(|s| out.add("keyword", (*s).to_owned()))?;
        }
        ColumnRef::Intrinsic(Intrinsic::RootName | Intrinsic::RootServiceName) => {
            root_values(view, cache, ctx, column, start_ns, end_ns, &mut out).await?;
        }
        ColumnRef::Intrinsic(
            Intrinsic::Name
            | Intrinsic::StatusMessage
            | Intrinsic::InstrumentationName
            | Intrinsic::InstrumentationVersion
            | Intrinsic::EventNames,
        )
        | ColumnRef::Attribute(..) => {
            for source in Source::of(view, &ctx.tenant, start_ns, end_ns) {
                ctx.check()?;
                if !known_values(&source, cache, ctx, column, &mut out).await? {
                    scan_values(&source, cache, ctx, column, &mut out).await?;
                }
            }
        }
        ColumnRef::Intrinsic(_) => {}
    }
    Ok(out.values.into_iter().collect())
}

/// From the collected facts; `false` when these do not hold them all.
async fn known_values(
    source: &Source,
    cache: &Arc<ReaderCache>,
    ctx: &QueryContext,
    column: &ColumnRef,
    out: &mut ValueSet,
) -> Result<bool> {
    let mut found = Vec::new();
    let mut list = |kind: &'static str, text| found.push((kind, text));
    let complete = match source.head() {
        Some(head) => head.with_facts(|f| f.values(column, &mut list)),
        None => match source.block(ctx, cache).await? {
            Some(block) => block.facts.values(column, &mut list),
            None => true,
        },
    };
    found.into_iter().try_for_each(|(kind, text)| out.add(kind, text))?;
    Ok(complete)
}

/// From the spans themselves: for columns with more values than the facts keep.
async fn scan_values(
    source: &Source,
    cache: &Arc<ReaderCache>,
    ctx: &QueryContext,
    column: &ColumnRef,
    out: &mut ValueSet,
) -> Result<()> {
    if let Some(head) = source.head() {
        for ids in head.ids().chunks(512) {
            ctx.check()?;
            let (head, ids, column) = (head.clone(), ids.to_vec(), column.clone());
            let values = task::compute(move || {
                let mut values = BTreeSet::new();
                for row in head.rows(&ids)?.iter().flat_map(|t| &t.spans) {
                    listed_values(row, &column, &mut |kind, text| {
                        values.insert((kind, text));
                    });
                }
                Ok::<_, Error>(values)
            });
            values
                .await??
                .into_iter()
                .try_for_each(|(kind, text)| out.add(kind, text))?;
        }
        return Ok(());
    }
    let Some(block) = source.block(ctx, cache).await? else {
        return Ok(());
    };
    let request = SpanRequest {
        predicates: Vec::new(),
        all: true,
        start_ns: 0,
        end_ns: u64::MAX,
        columns: vec![column.clone()],
        whole_traces: true,
    };
    let mut scan = block.scan(None, &columns_of(&request), Some(ctx.stats.clone()))?;
    loop {
        ctx.check()?;
        let next = sources::skip_damaged(ctx, &block.handle, scan.next().await)?;
        let Some(Some(batch)) = next else {
            return Ok(());
        };
        let (block, column) = (block.clone(), column.clone());
        let values = task::compute(move || {
            let mut values = BTreeSet::new();
            for row in decode::spans(&batch, &block.resources, &block.scopes)? {
                listed_values(&row, &column, &mut |kind, text| {
                    values.insert((kind, text));
                });
            }
            Ok::<_, Error>(values)
        });
        values
            .await??
            .into_iter()
            .try_for_each(|(kind, text)| out.add(kind, text))?;
    }
}

async fn root_values(
    view: &View<TracesEngine>,
    cache: &Arc<ReaderCache>,
    ctx: &QueryContext,
    column: &ColumnRef,
    start_ns: u64,
    end_ns: u64,
    out: &mut ValueSet,
) -> Result<()> {
    let request = SpanRequest {
        predicates: Vec::new(),
        all: true,
        start_ns,
        end_ns,
        columns: vec![column.clone()],
        whole_traces: true,
    };
    let mut batches = select(view, cache.clone(), ctx, request);
    while let Some(batch) = batches.try_next().await? {
        let texts = batch.column(0).as_string::<i32>();
        for i in 0..texts.len() {
            if texts.is_valid(i) {
                out.add("string", texts.value(i).to_owned())?;
            }
        }
    }
    Ok(())
}
