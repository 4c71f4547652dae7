//! Recent spans: pushes as they were encoded, with an index from trace id to spans.
//!
//! Spans are decoded when a query or a cut asks for them. One span costs its encoded bytes plus eight for the index;
//! a trace about 80. A tenant's lock is held for the length of one push or one group of traces, never across I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use trilith_model::trace::{Resource, Scope, Span};
use trilith_model::{Result, TenantId, TraceId};
use trilith_query::span_rows::{RowFilter, SpanRow, TraceRows};

use crate::batch::{AttributesRef, Batch, SpanRef, ValueRef};
use crate::facts::Facts;

/// Added to the counted bytes of a span for its ids, times and numbers.
const SPAN_BYTES: u64 = 64;
/// The same for a trace's entry in the index.
const TRACE_BYTES: u64 = 80;

/// All tenants of one generation.
#[derive(Default)]
pub struct TracesHead {
    tenants: RwLock<HashMap<TenantId, Arc<TenantHead>>>,
    bytes: AtomicU64,
    items: AtomicU64,
}

impl trilith_block::Head for TracesHead {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }
}

impl TracesHead {
    /// Makes a push visible. It was checked when it was encoded or replayed.
    ///
    /// # Errors
    /// `Corrupt` when it was not; nothing is visible then.
    pub fn apply(&self, tenant: &TenantId, batch: Batch) -> Result<()> {
        let head = self.tenant(tenant);
        let head = head.unwrap_or_else(|| self.tenants.write().entry(tenant.clone()).or_default().clone());
        let spans = u64::from(batch.span_count());
        let grown = head.apply(batch)?;
        self.items.fetch_add(spans, Ordering::Relaxed);
        self.bytes.fetch_add(grown, Ordering::Relaxed);
        Ok(())
    }

    pub fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantHead>> {
        self.tenants.read().get(tenant).cloned()
    }

    /// Sorted by id.
    pub fn tenants(&self) -> Vec<(TenantId, Arc<TenantHead>)> {
        let mut all: Vec<_> = self
            .tenants
            .read()
            .iter()
            .map(|(t, h)| (t.clone(), h.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

#[derive(Default)]
pub struct TenantHead {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    batches: Vec<Batch>,
    traces: HashMap<TraceId, LiveTrace, foldhash::fast::RandomState>,
    facts: Facts,
    /// Earliest start and latest end; meaningless while there is no span.
    start_ns: u64,
    end_ns: u64,
}

#[derive(Default)]
struct LiveTrace {
    /// (batch, span within it)
    spans: smallvec::SmallVec<[(u32, u32); 3]>,
    bytes: u64,
}

/// What a limit needs to know of a trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    pub known: bool,
    pub bytes: u64,
}

impl TenantHead {
    fn apply(&self, batch: Batch) -> Result<u64> {
        // Everything that can fail comes before the lock, so that a push is visible as a whole or not at all.
        let mut facts = Facts::default();
        facts.add_batch(&batch)?;
        let mut spans = Vec::with_capacity(batch.span_count() as usize);
        for i in 0..batch.span_count() {
            let span = batch.span(i)?;
            spans.push((
                span.trace_id,
                span_bytes(&span)?,
                span.start_ns,
                span.end_ns.max(span.start_ns),
            ));
        }
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let at = inner.batches.len() as u32;
        let mut grown = batch.as_bytes().len() as u64 + 160;
        if inner.batches.is_empty() {
            (inner.start_ns, inner.end_ns) = (u64::MAX, 0);
        }
        let facts_before = inner.facts.bytes();
        inner.facts.merge(&facts)?;
        grown += inner.facts.bytes().saturating_sub(facts_before) as u64;
        for (i, (id, bytes, start, end)) in (0..).zip(spans) {
            let trace = inner.traces.entry(id).or_insert_with(|| {
                grown += TRACE_BYTES;
                LiveTrace::default()
            });
            trace.spans.push((at, i));
            trace.bytes += bytes;
            grown += 8;
            inner.start_ns = inner.start_ns.min(start);
            inner.end_ns = inner.end_ns.max(end);
        }
        inner.batches.push(batch);
        Ok(grown)
    }

    pub fn trace_count(&self) -> u64 {
        self.inner.read().traces.len() as u64
    }

    pub fn live(&self, id: TraceId) -> Live {
        self.inner.read().traces.get(&id).map_or(Live::default(), |t| Live {
            known: true,
            bytes: t.bytes,
        })
    }

    /// Earliest start and latest end; `None` without spans.
    pub fn time(&self) -> Option<(u64, u64)> {
        let inner = self.inner.read();
        (!inner.batches.is_empty()).then_some((inner.start_ns, inner.end_ns))
    }

    /// All trace ids, sorted.
    pub fn ids(&self) -> Vec<TraceId> {
        let mut ids: Vec<_> = self.inner.read().traces.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub fn contains(&self, id: TraceId) -> bool {
        self.inner.read().traces.contains_key(&id)
    }

    /// Decoded spans of those of the traces that are here.
    pub fn rows(&self, ids: &[TraceId]) -> Result<Vec<TraceRows>> {
        let inner = self.inner.read();
        let mut contexts = ContextCache::default();
        let mut out = Vec::new();
        for id in ids {
            if let Some(trace) = inner.traces.get(id) {
                let spans = trace
                    .spans
                    .iter()
                    .map(|&(b, s)| contexts.row(&inner.batches[b as usize], b, s));
                out.push(TraceRows {
                    id: *id,
                    spans: spans.collect::<Result<_>>()?,
                });
            }
        }
        Ok(out)
    }

    /// Those of the traces that have a span of interest.
    pub fn matching(&self, ids: &[TraceId], filter: &RowFilter) -> Result<Vec<TraceId>> {
        if filter.is_empty() {
            return Ok(ids.to_vec());
        }
        let rows = self.rows(ids)?;
        Ok(rows
            .into_iter()
            .filter(|t| t.spans.iter().any(|r| filter.matches(r)))
            .map(|t| t.id)
            .collect())
    }

    pub fn with_facts<R>(&self, f: impl FnOnce(&Facts) -> R) -> R {
        f(&self.inner.read().facts)
    }

    /// Calls `f` for every span: by trace id, within a trace by start and span id. `f` gets the batch's number and the
    /// batch beside the span.
    pub fn for_each_sorted(&self, mut f: impl FnMut(u32, &Batch, &SpanRef<'_>) -> Result<()>) -> Result<()> {
        let inner = self.inner.read();
        let mut ids: Vec<_> = inner.traces.keys().copied().collect();
        ids.sort_unstable();
        let mut spans = Vec::new();
        for id in ids {
            spans.clear();
            for &(b, s) in &inner.traces[&id].spans {
                spans.push((b, inner.batches[b as usize].span(s)?));
            }
            spans.sort_by_key(|(_, s)| (s.start_ns, s.span_id));
            for (b, span) in &spans {
                f(*b, &inner.batches[*b as usize], span)?;
            }
        }
        Ok(())
    }
}

/// Resources and scopes of batches, decoded once per group of traces.
#[derive(Default)]
struct ContextCache {
    resources: HashMap<(u32, u32), Arc<Resource>, foldhash::fast::RandomState>,
    scopes: HashMap<(u32, u32), Arc<Scope>, foldhash::fast::RandomState>,
}

impl ContextCache {
    fn row(&mut self, batch: &Batch, b: u32, s: u32) -> Result<SpanRow> {
        let span = batch.span(s)?;
        let resource = match self.resources.get(&(b, span.resource)) {
            Some(r) => r.clone(),
            None => {
                let r = Arc::new(batch.resource(span.resource)?.to_model()?);
                self.resources.insert((b, span.resource), r.clone());
                r
            }
        };
        let scope = match self.scopes.get(&(b, span.scope)) {
            Some(s) => s.clone(),
            None => {
                let s = Arc::new(batch.scope(span.scope)?.to_model()?);
                self.scopes.insert((b, span.scope), s.clone());
                s
            }
        };
        Ok(SpanRow {
            resource,
            scope,
            span: span.to_model()?,
        })
    }
}

/// Size of a span for the limit on traces: its texts and values plus a constant, near its protobuf size.
pub fn span_bytes(span: &SpanRef<'_>) -> Result<u64> {
    let mut n = SPAN_BYTES + (span.name.len() + span.trace_state.len()) as u64;
    n += span.status.map_or(0, |s| s.1.len() as u64);
    n += attribute_bytes(&span.attributes)?;
    for event in span.events() {
        let event = event?;
        n += 16 + event.name.len() as u64 + attribute_bytes(&event.attributes)?;
    }
    for link in span.links() {
        let link = link?;
        n += 32 + link.trace_state.len() as u64 + attribute_bytes(&link.attributes)?;
    }
    Ok(n)
}

fn attribute_bytes(attributes: &AttributesRef<'_>) -> Result<u64> {
    let mut n = 0;
    for pair in attributes.iter() {
        let (key, value) = pair?;
        let value = match value {
            ValueRef::String(s) => s.len(),
            ValueRef::Other(b) => b.len(),
            _ => 8,
        };
        n += (key.len() + value + 4) as u64;
    }
    Ok(n)
}

/// As [`span_bytes`], before encoding.
pub fn model_span_bytes(span: &Span) -> u64 {
    use trilith_model::trace::{AnyValue, KeyValue};
    fn value(v: &AnyValue) -> usize {
        match v {
            AnyValue::String(s) => s.len(),
            AnyValue::Bytes(b) => b.len() + 2,
            AnyValue::Array(a) => 2 + a.iter().map(|v| value(v) + 2).sum::<usize>(),
            AnyValue::KvList(l) => 2 + l.iter().map(|p| p.key.len() + value(&p.value) + 6).sum::<usize>(),
            _ => 8,
        }
    }
    fn attributes(all: &[KeyValue]) -> usize {
        all.iter().map(|a| a.key.len() + value(&a.value) + 4).sum()
    }
    let mut n = span.name.len() + span.trace_state.len();
    n += span.status.as_ref().map_or(0, |s| s.message.len()) + attributes(&span.attributes);
    n += span
        .events
        .iter()
        .map(|e| 16 + e.name.len() + attributes(&e.attributes))
        .sum::<usize>();
    n += span
        .links
        .iter()
        .map(|l| 32 + l.trace_state.len() + attributes(&l.attributes))
        .sum::<usize>();
    SPAN_BYTES + n as u64
}
