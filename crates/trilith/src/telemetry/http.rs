//! Counts and times every request, and records a sample of them as spans.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use trilith_model::rng::Rng;
use trilith_model::trace::{AnyValue, KeyValue, Span, SpanId, Status, TraceId};
use trilith_model::{Clock, MetricType};

use super::exposition::Exposition;

const BOUNDS_SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Spans kept per second; the rest is only counted.
const SPANS_PER_SECOND_MAX: u64 = 10;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Route {
    listener: &'static str,
    method: String,
    route: String,
    code: u16,
}

#[derive(Clone, Debug, Default)]
struct Timing {
    counts: [u64; BOUNDS_SECONDS.len() + 1],
    sum_seconds: f64,
}

/// One for all listeners.
pub struct HttpMetrics {
    clock: Arc<dyn Clock>,
    rng: Arc<Rng>,
    routes: Mutex<HashMap<Route, Timing>>,
    spans: Option<mpsc::Sender<Span>>,
    /// Second (monotonic) and spans kept in it.
    window: Mutex<(u64, u64)>,
    spans_dropped: AtomicU64,
}

/// The middleware's state for one listener.
#[derive(Clone)]
pub struct Observed {
    pub metrics: Arc<HttpMetrics>,
    pub listener: &'static str,
}

impl HttpMetrics {
    /// `spans` receives sampled request spans; `None` turns tracing off.
    pub fn new(clock: Arc<dyn Clock>, rng: Arc<Rng>, spans: Option<mpsc::Sender<Span>>) -> Self {
        HttpMetrics {
            clock,
            rng,
            routes: Mutex::default(),
            spans,
            window: Mutex::default(),
            spans_dropped: AtomicU64::new(0),
        }
    }

    pub fn collect(&self, out: &mut Exposition) {
        let mut routes: Vec<(Route, Timing)> = self.routes.lock().iter().map(|(r, t)| (r.clone(), t.clone())).collect();
        routes.sort_by(|a, b| a.0.cmp(&b.0));
        let labels = |r: &Route| {
            vec![
                ("listener", r.listener.to_owned()),
                ("method", r.method.clone()),
                ("route", r.route.clone()),
                ("code", r.code.to_string()),
            ]
        };
        out.histograms(
            "trilith_http_request_duration_seconds",
            "Time from the request's head to the answer's head, by route and status.",
            &BOUNDS_SECONDS,
            routes
                .iter()
                .map(|(r, t)| (labels(r), t.counts.to_vec(), t.sum_seconds)),
        );
        out.labelled(
            "trilith_self_spans_dropped_total",
            MetricType::Counter,
            "Own request spans not recorded because the sampling ceiling or the channel was full.",
            [(vec![], self.spans_dropped.load(Ordering::Relaxed) as f64)],
        );
    }

    fn record(&self, route: Route, seconds: f64) {
        let bucket = BOUNDS_SECONDS
            .iter()
            .position(|b| seconds <= *b)
            .unwrap_or(BOUNDS_SECONDS.len());
        let mut routes = self.routes.lock();
        let timing = routes.entry(route).or_default();
        timing.counts[bucket] += 1;
        timing.sum_seconds += seconds;
    }

    fn sampled(&self) -> bool {
        let second = self.clock.monotonic().as_secs();
        let mut window = self.window.lock();
        if window.0 != second {
            *window = (second, 0);
        }
        window.1 += 1;
        window.1 <= SPANS_PER_SECOND_MAX
    }

    fn send(&self, span: Span) {
        if let Some(spans) = &self.spans
            && spans.try_send(span).is_err()
        {
            self.spans_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Axum middleware; put on with `Router::layer`, so that the matched route is known.
pub async fn observe(State(observed): State<Observed>, request: Request<Body>, next: Next) -> Response {
    let metrics = &observed.metrics;
    // The route's pattern, not the path: paths are unbounded.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let method = request.method().as_str().to_owned();
    let parent = request
        .headers()
        .get("traceparent")
        .and_then(|v| v.to_str().ok())
        .and_then(parse_traceparent);
    let (started, started_ns) = (metrics.clock.monotonic(), metrics.clock.now_ns());
    let response = next.run(request).await;
    let elapsed = metrics.clock.monotonic().saturating_sub(started);
    let code = response.status().as_u16();
    if metrics.spans.is_some() {
        if metrics.sampled() {
            metrics.send(span(
                metrics,
                observed.listener,
                &method,
                &route,
                code,
                parent,
                started_ns,
                elapsed.as_nanos() as u64,
            ));
        } else {
            metrics.spans_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
    metrics.record(
        Route {
            listener: observed.listener,
            method,
            route,
            code,
        },
        elapsed.as_secs_f64(),
    );
    response
}

fn span(
    metrics: &HttpMetrics,
    listener: &str,
    method: &str,
    route: &str,
    code: u16,
    parent: Option<(TraceId, SpanId)>,
    started_ns: i64,
    elapsed_ns: u64,
) -> Span {
    let text = |k: &str, v: &str| KeyValue {
        key: k.into(),
        value: AnyValue::String(v.into()),
    };
    let (trace_id, parent_span_id) =
        parent.unwrap_or_else(|| (TraceId(metrics.rng.next_u128().to_be_bytes()), SpanId::default()));
    let start_ns = started_ns.max(0) as u64;
    Span {
        trace_id,
        span_id: SpanId((metrics.rng.next_u64() | 1).to_be_bytes()),
        parent_span_id,
        name: format!("{method} {route}"),
        kind: 2,
        start_ns,
        end_ns: start_ns + elapsed_ns,
        attributes: vec![
            text("http.request.method", method),
            text("http.route", route),
            KeyValue {
                key: "http.response.status_code".into(),
                value: AnyValue::Int(i64::from(code)),
            },
            text("trilith.listener", listener),
        ],
        status: Some(Status {
            code: if code >= 500 { 2 } else { 0 },
            message: String::new(),
        }),
        ..Span::default()
    }
}

/// W3C trace context, version 00.
fn parse_traceparent(text: &str) -> Option<(TraceId, SpanId)> {
    let mut parts = text.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || trace.len() != 32 || span.len() != 16 || !text.is_ascii() {
        return None;
    }
    let trace = TraceId(u128::from_str_radix(trace, 16).ok()?.to_be_bytes());
    let span = SpanId(u64::from_str_radix(span, 16).ok()?.to_be_bytes());
    (!trace.is_zero() && !span.is_zero()).then_some((trace, span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent() {
        let ok = parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("valid");
        assert_eq!(ok.0.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(ok.1.to_string(), "00f067aa0ba902b7");
        for bad in [
            "",
            "00-0-0-0",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "é",
        ] {
            assert!(parse_traceparent(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn spans_have_a_ceiling_per_second() {
        let (tx, mut rx) = mpsc::channel(100);
        let m = HttpMetrics::new(Arc::new(trilith_model::SystemClock), Arc::new(Rng::seeded(1)), Some(tx));
        let kept = (0..1000).filter(|_| m.sampled()).count() as u64;
        // The loop may cross into another second.
        assert!(
            (SPANS_PER_SECOND_MAX..=2 * SPANS_PER_SECOND_MAX).contains(&kept),
            "{kept}"
        );
        assert!(rx.try_recv().is_err());
    }
}
