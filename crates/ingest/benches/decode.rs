//! How fast pushes decode, on one core: `cargo bench -p trilith-ingest`.
//!
//! Requests have the shape that senders give them: 500 series of 10 labels with one sample each and the same with
//! 10, as many counters of OTLP and 100 of its histograms, lines of 200 bytes in 5 streams, spans with 12 attributes and
//! 2 events.
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use trilith_ingest::otlp_metrics::{DeltaTotals, Export};
use trilith_ingest::{PushHeaders, decode_loki_push, decode_otlp_traces, decode_remote_write};
use trilith_model::{Limits, SystemClock, TenantId};
use trilith_proto::otlp::collector::metrics::v1::ExportMetricsServiceRequest;
use trilith_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use trilith_proto::otlp::resource::v1::Resource;
use trilith_proto::otlp::{common::v1 as pc, metrics::v1 as pm, trace::v1 as pt};
use trilith_proto::prometheus::v2;
use trilith_proto::{logproto, prometheus as prom};

const RUN: Duration = Duration::from_secs(2);

/// CPU time of this thread, because the machine may have other work; wall time where the system does not tell.
fn cpu_time(since: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = stat.and_then(|s| s.split(' ').next()?.parse().ok());
    ns.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

fn measure(name: &str, unit: &str, items: usize, body: &Bytes, mut decode: impl FnMut(Bytes)) {
    decode(body.clone());
    let began = Instant::now();
    let before = cpu_time(began);
    let mut rounds = 0;
    while began.elapsed() < RUN {
        decode(body.clone());
        rounds += 1;
    }
    let spent = cpu_time(began).saturating_sub(before);
    let rate = (rounds * items) as f64 / spent.as_secs_f64();
    println!("{name:28} {:8.2} M {unit}/s  {:6.0} ns each", rate / 1e6, 1e9 / rate);
}

fn headers(content_type: &str) -> PushHeaders<'_> {
    PushHeaders {
        content_type: Some(content_type),
        content_encoding: None,
    }
}

fn snappy(raw: &[u8]) -> Bytes {
    let block = snap::raw::Encoder::new().compress_vec(raw);
    block.expect("a few megabytes fit a block").into()
}

fn write_request(samples: i64) -> Bytes {
    snappy(&write_message(samples).encode_to_vec())
}

/// The same series in 2.0.
fn write_request_v2(samples: i64) -> Bytes {
    let mut symbols = vec![String::new()];
    let mut known = std::collections::HashMap::from([(String::new(), 0)]);
    let mut symbol = |text: &str| {
        *known.entry(text.to_owned()).or_insert_with(|| {
            symbols.push(text.to_owned());
            symbols.len() as u32 - 1
        })
    };
    let series = |s: prom::TimeSeries| v2::TimeSeries {
        labels_refs: s
            .labels
            .iter()
            .flat_map(|l| [symbol(&l.name), symbol(&l.value)])
            .collect(),
        samples: s
            .samples
            .iter()
            .map(|s| v2::Sample {
                value: s.value,
                timestamp: s.timestamp,
                start_timestamp: 0,
            })
            .collect(),
        metadata: Some(v2::Metadata {
            r#type: 1,
            help_ref: symbol("Bytes received."),
            unit_ref: 0,
        }),
        ..Default::default()
    };
    let timeseries = write_message(samples).timeseries.into_iter().map(series).collect();
    snappy(&v2::Request { symbols, timeseries }.encode_to_vec())
}

fn write_message(samples: i64) -> prom::WriteRequest {
    let label = |name: &str, value: String| prom::Label {
        name: name.into(),
        value,
    };
    let series = |i: usize| prom::TimeSeries {
        labels: vec![
            label("__name__", format!("container_network_receive_bytes_{}", i % 20)),
            label("cluster", "production-eu-west-1".into()),
            label("container", "checkout".into()),
            label("endpoint", "https-metrics".into()),
            label("instance", format!("10.0.{}.{}:9100", i % 7, i % 250)),
            label("interface", format!("eth{}", i % 4)),
            label("job", "kubelet".into()),
            label("namespace", "shop".into()),
            label(
                "node",
                format!("ip-10-0-{}-{}.eu-west-1.compute.internal", i % 7, i % 250),
            ),
            label("pod", format!("checkout-7d9c5b6f4d-{i:05}")),
        ],
        samples: (0..samples)
            .map(|s| prom::Sample {
                value: i as f64 * 1.5,
                timestamp: 1_700_000_000_000 + s * 15_000,
            })
            .collect(),
        ..Default::default()
    };
    prom::WriteRequest {
        timeseries: (0..500).map(series).collect(),
        metadata: vec![],
    }
}

fn line(i: i64) -> String {
    format!(
        "level=info ts=2026-11-20T08:00:00.{i:06}Z caller=main.go:66 msg=\"request served\" method=GET path=/api/v1/items/{i} \
         status=200 duration=12.5ms user=u{} trace=4bf92f3577b34da6a3ce929d0e0e{i:04}",
        i % 97
    )
}

fn push_protobuf() -> Bytes {
    let entry = |i| logproto::Entry {
        timestamp: Some(prost_types::Timestamp {
            seconds: 1_700_000_000 + i,
            nanos: 5,
        }),
        line: line(i).into(),
        ..Default::default()
    };
    let stream = |s: i64| logproto::Stream {
        labels: format!(r#"{{app="checkout", namespace="shop", pod="checkout-{s}"}}"#),
        entries: (0..1000).map(|i| entry(s * 1000 + i)).collect(),
        hash: 0,
    };
    let request = logproto::PushRequest {
        streams: (0..5).map(stream).collect(),
        format: String::new(),
    };
    snappy(&request.encode_to_vec())
}

fn push_json() -> Bytes {
    let values = |s: i64| (0..1000).map(move |i| serde_json::json!([format!("{}", i + 1), line(s * 1000 + i)]));
    let streams: Vec<_> = (0..5)
        .map(|s| serde_json::json!({"stream": {"app": "checkout", "pod": s}, "values": values(s).collect::<Vec<_>>()}))
        .collect();
    serde_json::json!({"streams": streams}).to_string().into()
}

/// 500 counters of 20 metrics, 10 labels each with the name and two of the resource.
fn counters() -> ExportMetricsServiceRequest {
    let point = |i: usize| pm::NumberDataPoint {
        start_time_unix_nano: 1_700_000_000_000_000_000,
        time_unix_nano: 1_700_000_060_000_000_000,
        value: Some(pm::number_data_point::Value::AsInt(i as i64)),
        attributes: point_attributes(i),
        ..Default::default()
    };
    let metric = |m: usize| pm::Metric {
        name: format!("container.network.receive.{m}"),
        unit: "By".into(),
        data: Some(pm::metric::Data::Sum(pm::Sum {
            data_points: (0..25).map(|i| point(m * 25 + i)).collect(),
            aggregation_temporality: 2,
            is_monotonic: true,
        })),
        ..Default::default()
    };
    metrics((0..20).map(metric).collect())
}

/// 100 histograms of 15 bounds: 1800 samples.
fn histograms() -> ExportMetricsServiceRequest {
    let point = |i: usize| pm::HistogramDataPoint {
        time_unix_nano: 1_700_000_060_000_000_000,
        count: 160,
        sum: Some(99.5),
        bucket_counts: vec![10; 16],
        explicit_bounds: (0..15).map(|b| 0.005 * f64::from(1 << b)).collect(),
        attributes: point_attributes(i),
        ..Default::default()
    };
    metrics(vec![pm::Metric {
        name: "http.server.request.duration".into(),
        unit: "s".into(),
        data: Some(pm::metric::Data::Histogram(pm::Histogram {
            data_points: (0..100).map(point).collect(),
            aggregation_temporality: 2,
        })),
        ..Default::default()
    }])
}

fn text_attribute(key: &str, value: String) -> pc::KeyValue {
    pc::KeyValue {
        key: key.into(),
        value: Some(pc::AnyValue {
            value: Some(pc::any_value::Value::StringValue(value)),
        }),
        ..Default::default()
    }
}

fn point_attributes(i: usize) -> Vec<pc::KeyValue> {
    vec![
        text_attribute("cluster", "production-eu-west-1".into()),
        text_attribute("container.name", "checkout".into()),
        text_attribute("endpoint", "https-metrics".into()),
        text_attribute("interface", format!("eth{}", i % 4)),
        text_attribute("k8s.namespace.name", "shop".into()),
        text_attribute(
            "k8s.node.name",
            format!("ip-10-0-{}-{}.eu-west-1.compute.internal", i % 7, i % 250),
        ),
        text_attribute("k8s.pod.name", format!("checkout-7d9c5b6f4d-{i:05}")),
    ]
}

fn metrics(metrics: Vec<pm::Metric>) -> ExportMetricsServiceRequest {
    let attributes = [
        ("service.name", "checkout"),
        ("service.instance.id", "10.0.1.7:9100"),
        ("host.name", "h"),
    ];
    ExportMetricsServiceRequest {
        resource_metrics: vec![pm::ResourceMetrics {
            resource: Some(Resource {
                attributes: attributes.map(|(k, v)| text_attribute(k, v.into())).into(),
                ..Default::default()
            }),
            scope_metrics: vec![pm::ScopeMetrics {
                metrics,
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn spans() -> ExportTraceServiceRequest {
    let attribute = |key: &str, value| pc::KeyValue {
        key: key.into(),
        value: Some(pc::AnyValue { value: Some(value) }),
        ..Default::default()
    };
    let text = |s: &str| pc::any_value::Value::StringValue(s.into());
    let span = |i: u64| pt::Span {
        trace_id: (u128::from(i / 10) + 1).to_be_bytes().to_vec(),
        span_id: (i + 1).to_be_bytes().to_vec(),
        parent_span_id: i.to_be_bytes().to_vec(),
        name: "GET /api/v1/items".into(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000 + i,
        end_time_unix_nano: 1_700_000_000_100_000_000 + i,
        attributes: (0..6)
            .flat_map(|a| {
                [
                    attribute(&format!("http.request.header.{a}"), text("application/json")),
                    attribute(&format!("thread.number.{a}"), pc::any_value::Value::IntValue(i as i64)),
                ]
            })
            .collect(),
        events: vec![
            pt::span::Event {
                time_unix_nano: 5,
                name: "message".into(),
                ..Default::default()
            };
            2
        ],
        status: Some(pt::Status::default()),
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![pt::ResourceSpans {
            scope_spans: vec![pt::ScopeSpans {
                spans: (0..1000).map(span).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn main() {
    let limits = Limits::default();
    for samples in [1, 10] {
        let body = write_request(samples);
        let name = format!("remote write, {samples} per series");
        measure(&name, "samples", 500 * samples as usize, &body, |body| {
            black_box(decode_remote_write(body, &PushHeaders::default(), &limits)).expect("a valid request");
        });
    }
    let v2 = headers("application/x-protobuf;proto=io.prometheus.write.v2.Request");
    for samples in [1, 10] {
        let body = write_request_v2(samples);
        let name = format!("remote write 2.0, {samples} per series");
        measure(&name, "samples", 500 * samples as usize, &body, |body| {
            black_box(decode_remote_write(body, &v2, &limits)).expect("a valid request");
        });
    }
    measure("loki protobuf", "lines", 5000, &push_protobuf(), |body| {
        black_box(decode_loki_push(body, &headers("application/x-protobuf"), &limits)).expect("a valid request");
    });
    measure("loki json", "lines", 5000, &push_json(), |body| {
        black_box(decode_loki_push(body, &headers("application/json"), &limits)).expect("a valid request");
    });
    let totals = DeltaTotals::new(Arc::new(SystemClock));
    let translate = |export: Export| export.translate(&TenantId::anonymous(), &limits, &totals);
    for (name, samples, request) in [
        ("otlp metrics, counters", 500, counters()),
        ("otlp metrics, histograms", 1800, histograms()),
    ] {
        let body = Bytes::from(request.encode_to_vec());
        measure(name, "samples", samples, &body, |body| {
            let export = Export::read(body, &headers("application/x-protobuf"), &limits);
            black_box(translate(export.expect("readable"))).expect("a valid request");
        });
        let json = Bytes::from(serde_json::to_vec(&request).expect("serialisable"));
        measure(&format!("{name}, json"), "samples", samples, &json, |body| {
            let export = Export::read(body, &headers("application/json"), &limits);
            black_box(translate(export.expect("readable"))).expect("a valid request");
        });
    }
    let raw = Bytes::from(spans().encode_to_vec());
    let decode = |body| decode_otlp_traces(body, &headers("application/x-protobuf"), &limits);
    measure("otlp protobuf", "spans", 1000, &raw, |body| {
        black_box(decode(body)).expect("a valid request");
    });
    let batch = decode(raw.clone()).expect("a valid request").batch;
    let json = Bytes::from(trilith_ingest::otlp_traces::out::trace_to_json_v1(&batch));
    measure("otlp json", "spans", 1000, &json, |body| {
        black_box(decode_otlp_traces(body, &headers("application/json"), &limits)).expect("a valid request");
    });
    measure("otlp through prost", "spans", 1000, &raw, |body| {
        let message = ExportTraceServiceRequest::decode(body).expect("a valid request");
        black_box(trilith_ingest::otlp_traces::from_request(message, 0)).expect("a valid request");
    });
    measure("trace to tempo's json", "spans", 1000, &raw, |_| {
        black_box(trilith_ingest::otlp_traces::out::trace_to_json_v1(&batch));
    });
}
