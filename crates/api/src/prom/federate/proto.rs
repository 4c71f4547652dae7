//! The delimited protobuf format: `io.prometheus.client.MetricFamily` messages, each behind its length.

use prost::Message;
use trilith_histogram::{Buckets, FloatHistogram};
use trilith_model::SampleValue;

use super::escape::Escaping;
use super::{Kind, Newest, classic};

const UNTYPED: i32 = 3;
const HISTOGRAM: i32 = 4;
const GAUGE_HISTOGRAM: i32 = 5;

#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(int32, optional, tag = "3")]
    pub kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    #[prost(message, optional, tag = "5")]
    pub untyped: Option<Untyped>,
    #[prost(int64, optional, tag = "6")]
    pub timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Untyped {
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    #[prost(double, optional, tag = "4")]
    pub sample_count_float: Option<f64>,
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    #[prost(double, optional, tag = "8")]
    pub zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "9")]
    pub negative_span: Vec<BucketSpan>,
    #[prost(double, repeated, packed = "false", tag = "11")]
    pub negative_count: Vec<f64>,
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    #[prost(double, repeated, packed = "false", tag = "14")]
    pub positive_count: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    #[prost(double, optional, tag = "2")]
    pub upper_bound: Option<f64>,
    #[prost(double, optional, tag = "4")]
    pub cumulative_count_float: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

/// `series` sorted by name.
pub fn write(series: &[Newest], escaping: Escaping) -> Vec<u8> {
    let mut out = Vec::new();
    let mut open: Option<((&str, Kind), MetricFamily)> = None;
    let mut close = |family: Option<((&str, Kind), MetricFamily)>| {
        if let Some((_, family)) = family {
            let bytes = family.encode_length_delimited_to_vec();
            out.extend_from_slice(&bytes);
        }
    };
    let name = |n: &str, colon: bool| Some(escaping.name(n, colon));
    for s in series {
        let key = (s.name(), s.kind());
        if open.as_ref().is_none_or(|(k, _)| *k != key) {
            let family = MetricFamily {
                name: name(s.name(), true),
                kind: Some(match key.1 {
                    Kind::Untyped => UNTYPED,
                    Kind::Histogram => HISTOGRAM,
                    Kind::GaugeHistogram => GAUGE_HISTOGRAM,
                }),
                metric: Vec::new(),
            };
            close(open.replace((key, family)));
        }
        let mut metric = Metric {
            label: s
                .told()
                .map(|(n, v)| LabelPair {
                    name: name(n, false),
                    value: Some(v.to_owned()),
                })
                .collect(),
            timestamp_ms: Some(s.ts_ms),
            ..Metric::default()
        };
        match &s.value {
            SampleValue::Float(v) => metric.untyped = Some(Untyped { value: Some(*v) }),
            SampleValue::Histogram(h) if h.uses_custom_buckets() => metric.histogram = Some(of_classic(h)),
            SampleValue::Histogram(h) => metric.histogram = Some(of_native(h)),
        }
        if let Some((_, family)) = &mut open {
            family.metric.push(metric);
        }
    }
    close(open);
    out
}

fn of_classic(h: &FloatHistogram) -> Histogram {
    let bucket = |(bound, count)| Bucket {
        upper_bound: Some(bound),
        cumulative_count_float: Some(count),
    };
    Histogram {
        sample_sum: Some(h.sum),
        sample_count_float: Some(h.count),
        bucket: classic(h).into_iter().map(bucket).collect(),
        ..Histogram::default()
    }
}

fn of_native(h: &FloatHistogram) -> Histogram {
    let spans = |side: &Buckets| -> Vec<BucketSpan> {
        let span = |s: &trilith_histogram::Span| BucketSpan {
            offset: Some(s.offset),
            length: Some(s.length),
        };
        side.spans.iter().map(span).collect()
    };
    let mut out = Histogram {
        sample_sum: Some(h.sum),
        sample_count_float: Some(h.count),
        schema: Some(h.schema),
        zero_threshold: Some(h.zero_threshold),
        zero_count_float: Some(h.zero_count),
        negative_span: spans(&h.negative),
        negative_count: h.negative.counts.clone(),
        positive_span: spans(&h.positive),
        positive_count: h.positive.counts.clone(),
        ..Histogram::default()
    };
    // A reader knows a native histogram by its spans; without any bucket one of no length says so.
    if out.positive_span.is_empty() && out.negative_span.is_empty() && h.zero_threshold == 0.0 {
        out.positive_span.push(BucketSpan {
            offset: Some(0),
            length: Some(0),
        });
    }
    out
}
