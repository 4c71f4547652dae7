//! Stores the process's own metrics, logs and request spans like anybody else's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trilith_model::rng::Rng;
use trilith_model::trace::{AnyValue, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span, Status};
use trilith_model::{
    Clock, Labels, LogBatch, LogEntry, LogSink, LogStream, MetricBatch, MetricSink, SpanId, TenantId, TraceBatch,
    TraceId, TraceSink,
};

use super::logging::OwnLine;

const METRICS_INTERVAL: Duration = Duration::from_secs(15);
/// Logs and spans wait at most this long.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
const BATCH_MAX: usize = 1000;

pub struct SelfObserve {
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<Rng>,
    /// The tenant that owns the data: `anonymous`, also with multi-tenancy on.
    pub tenant: TenantId,
    pub instance: String,
    pub metrics: Arc<dyn MetricSink>,
    pub logs: Arc<dyn LogSink>,
    pub traces: Arc<dyn TraceSink>,
    pub lines: mpsc::Receiver<OwnLine>,
    pub spans: mpsc::Receiver<Span>,
}

impl SelfObserve {
    /// Runs until cancelled. `gather` makes the batch of own metrics for a time in ms.
    pub async fn run(mut self, gather: impl Fn(i64, &str) -> MetricBatch, cancel: CancellationToken) {
        let mut own_spans = Vec::new();
        let mut metrics_tick = tokio::time::interval(METRICS_INTERVAL);
        metrics_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut flush_tick = tokio::time::interval(FLUSH_INTERVAL);
        flush_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = metrics_tick.tick() => {
                    let started = self.clock.now_ns();
                    let batch = gather(self.clock.now_ms(), &self.instance);
                    let gathered = self.clock.now_ns();
                    let (series, stored) = (batch.series_count(), self.metrics.append(&self.tenant, batch).await);
                    let ended = self.clock.now_ns();
                    if let Err(e) = &stored {
                        tracing::debug!(error = %e, "own metrics were not stored");
                    }
                    own_spans.extend(self.round([started, gathered, ended], series, stored.is_ok()));
                }
                _ = flush_tick.tick() => {
                    self.push_lines().await;
                    self.push_spans(&mut own_spans).await;
                }
            }
        }
        self.push_lines().await;
    }

    /// The trace of one round of own metrics, so that there are traces to look at before anybody sent a request.
    fn round(&self, [started, gathered, ended]: [i64; 3], series: usize, stored: bool) -> Vec<Span> {
        let trace_id = TraceId(self.rng.next_u128().to_be_bytes());
        let span = |name: &str, parent: SpanId, from: i64, to: i64| Span {
            trace_id,
            span_id: SpanId((self.rng.next_u64() | 1).to_be_bytes()),
            parent_span_id: parent,
            name: name.into(),
            kind: 1,
            start_ns: from.max(0) as u64,
            end_ns: to.max(from).max(0) as u64,
            ..Span::default()
        };
        let mut root = span("self-observe", SpanId::default(), started, ended);
        root.attributes.push(KeyValue {
            key: "trilith.series".into(),
            value: AnyValue::Int(series as i64),
        });
        root.status = Some(Status {
            code: if stored { 0 } else { 2 },
            message: String::new(),
        });
        let gather = span("gather own metrics", root.span_id, started, gathered);
        let append = span("append own metrics", root.span_id, gathered, ended);
        vec![root, gather, append]
    }

    async fn push_lines(&mut self) {
        let mut streams: Vec<LogStream> = Vec::new();
        let now = self.clock.now_ns();
        let mut n = 0;
        while n < BATCH_MAX
            && let Ok(own) = self.lines.try_recv()
        {
            let labels = Labels::from_pairs([
                ("service_name", "trilith"),
                ("job", "trilith"),
                ("instance", &self.instance),
                ("level", own.level),
            ]);
            // Lines drained together get consecutive times, so that their order is visible.
            let entry = LogEntry {
                ts_ns: now + n as i64,
                line: Bytes::from(own.line),
                metadata: Labels::empty(),
            };
            match streams.iter_mut().find(|s| s.labels == labels) {
                Some(s) => s.entries.push(entry),
                None => streams.push(LogStream {
                    labels,
                    entries: vec![entry],
                }),
            }
            n += 1;
        }
        if n > 0
            && let Err(e) = self.logs.append(&self.tenant, LogBatch { streams }).await
        {
            tracing::debug!(error = %e, "own log lines were not stored");
        }
    }

    async fn push_spans(&mut self, own: &mut Vec<Span>) {
        let mut spans = std::mem::take(own);
        while spans.len() < BATCH_MAX
            && let Ok(span) = self.spans.try_recv()
        {
            spans.push(span);
        }
        if spans.is_empty() {
            return;
        }
        let text = |k: &str, v: &str| KeyValue {
            key: k.into(),
            value: AnyValue::String(v.into()),
        };
        let resource = Resource {
            attributes: vec![
                text("service.name", "trilith"),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("service.instance.id", &self.instance),
            ],
            present: true,
            ..Resource::default()
        };
        let scope = Scope {
            name: "trilith".into(),
            present: true,
            ..Scope::default()
        };
        let batch = TraceBatch {
            resource_spans: vec![ResourceSpans {
                resource,
                scope_spans: vec![ScopeSpans { scope, spans }],
            }],
        };
        if let Err(e) = self.traces.append(&self.tenant, batch).await {
            tracing::debug!(error = %e, "own spans were not stored");
        }
    }
}
