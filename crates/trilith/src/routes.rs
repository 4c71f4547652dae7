//! Which router answers on which listener.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use trilith_api::{Shared, loki, ops, otlp, prom, tempo};
use trilith_ingest::RateLimiter;
use trilith_model::Signal;

use crate::server::Process;
use crate::stores::Stores;
use crate::telemetry::http::{HttpMetrics, Observed, observe};

pub struct Routers {
    pub metrics: Router,
    pub logs: Router,
    pub traces: Router,
    pub otlp_grpc: Router,
    pub otlp_http: Router,
}

pub fn all(
    shared: &Shared,
    stores: &Arc<Stores>,
    process: &Arc<Process>,
    http: &Arc<HttpMetrics>,
    options: &prom::Options,
) -> Routers {
    // One for all protocols: a tenant's rate counts however its data come in.
    let rates = Arc::new(RateLimiter::new(shared.clock.clone()));
    let finish = |listener: &'static str, router: Router| {
        // gRPC has its own answer to unknown methods.
        let router = if listener == "otlp-grpc" {
            router
        } else {
            router.fallback(ops::not_found)
        };
        router
            // gzip when the client takes it, nothing else: some Grafana plugins cannot undo other codings.
            .layer(CompressionLayer::new().compress_when(compressible()))
            .layer(from_fn_with_state(
                Observed {
                    metrics: http.clone(),
                    listener,
                },
                observe,
            ))
    };
    let ops = |name, signals, links: &[(&str, &str)]| ops::router(process.clone(), name, signals, links);

    let metrics = otlp::MetricsReceiver {
        shared: shared.clone(),
        sink: stores.metrics.clone(),
        rates: rates.clone(),
        totals: process.delta_totals().clone(),
    };
    let prom = prom::Prom::new(
        shared.clone(),
        stores.metrics.clone(),
        stores.metrics.clone(),
        rates.clone(),
        metrics.clone(),
        options.clone(),
        process.clone(),
    )
    .with_admin(stores.metrics.clone());
    let loki = loki::Loki {
        shared: shared.clone(),
        source: stores.logs.clone(),
        sink: stores.logs.clone(),
        rates: rates.clone(),
    };
    let tempo = tempo::Tempo {
        shared: shared.clone(),
        source: stores.traces.clone(),
    };
    let otlp = otlp::Otlp {
        shared: shared.clone(),
        traces: stores.traces.clone(),
        rates,
        metrics,
    };
    Routers {
        metrics: finish(
            "metrics",
            prom::router(prom).merge(ops("Prometheus API", &[Signal::Metrics], prom::LINKS)),
        ),
        logs: finish(
            "logs",
            loki::router(loki).merge(ops("Loki API", &[Signal::Logs], loki::LINKS)),
        ),
        traces: finish(
            "traces",
            tempo::router(tempo).merge(ops("Tempo API", &[Signal::Traces], tempo::LINKS)),
        ),
        otlp_grpc: finish(
            "otlp-grpc",
            otlp::grpc_router(otlp.clone()).merge(ops(
                "OTLP gRPC receiver",
                &[Signal::Metrics, Signal::Traces],
                otlp::GRPC_LINKS,
            )),
        ),
        otlp_http: finish(
            "otlp-http",
            otlp::http_router(otlp).merge(ops(
                "OTLP HTTP receiver",
                &[Signal::Metrics, Signal::Traces],
                otlp::HTTP_LINKS,
            )),
        ),
    }
}

/// Answers that may be compressed on the way out. The frames of a streamed remote read are compressed chunks already,
/// and its readers take frame by frame.
fn compressible() -> impl Predicate {
    DefaultPredicate::new().and(NotForContentType::const_new("application/x-streamed-protobuf"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Response, header};

    use super::*;

    #[test]
    fn streamed_chunks_are_sent_as_they_are() {
        let answer = |kind: &str| {
            Response::builder()
                .header(header::CONTENT_TYPE, kind)
                .body(Body::from(vec![0; 1000]))
                .expect("valid")
        };
        let predicate = compressible();
        assert!(predicate.should_compress(&answer("application/json")));
        assert!(!predicate.should_compress(&answer(
            "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
        )));
    }
}
