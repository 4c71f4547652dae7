use proptest::prelude::*;
use prost::Message;
use trilith_model::{Labels, MetricType, STALE_NAN_BITS};
use trilith_proto::prometheus as pb;

use super::*;

mod histograms;
mod v2;

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> pb::TimeSeries {
    pb::TimeSeries {
        labels: labels
            .iter()
            .map(|(n, v)| pb::Label {
                name: n.to_string(),
                value: v.to_string(),
            })
            .collect(),
        samples: samples
            .iter()
            .map(|&(timestamp, value)| pb::Sample { value, timestamp })
            .collect(),
        ..Default::default()
    }
}

fn request(timeseries: Vec<pb::TimeSeries>) -> Vec<u8> {
    pb::WriteRequest {
        timeseries,
        metadata: vec![],
    }
    .encode_to_vec()
}

fn snappy(raw: &[u8]) -> Bytes {
    snap::raw::Encoder::new().compress_vec(raw).unwrap().into()
}

fn decode(timeseries: Vec<pb::TimeSeries>) -> Write {
    decode_with(timeseries, &Limits::default())
}

fn decode_with(timeseries: Vec<pb::TimeSeries>, limits: &Limits) -> Write {
    decode_remote_write(snappy(&request(timeseries)), &PushHeaders::default(), limits).unwrap()
}

/// `labels -> (time, value bits)` in text, one line per series.
fn shown(batch: &MetricBatch) -> Vec<String> {
    batch
        .series()
        .map(|(l, s)| {
            let samples: Vec<String> = s.iter().map(|s| format!("{}@{}", s.value, s.ts_ms)).collect();
            format!("{l} {}", samples.join(" "))
        })
        .collect()
}

/// One bad series between two good ones: the reason, the text, and the good ones are kept.
fn refused(bad: pb::TimeSeries, reason: &str, text: &str) {
    let limits = Limits {
        label_names_max: 3,
        label_name_bytes_max: 10,
        label_value_bytes_max: 20,
        ..Limits::default()
    };
    let good = |n: &str| series(&[("__name__", n)], &[(1, 1.0)]);
    let count = bad.samples.len() as u64;
    let decoded = decode_with(vec![good("a"), bad, good("b")], &limits);
    assert_eq!(
        shown(&decoded.batch),
        [r#"{__name__="a"} 1@1"#, r#"{__name__="b"} 1@1"#]
    );
    assert_eq!(decoded.batch.samples.len(), 2);
    let [r] = decoded.rejections.as_slice() else {
        panic!("one rejection expected: {:?}", decoded.rejections);
    };
    assert_eq!((r.reason, r.count, r.kind), (reason, count, ErrorKind::Invalid));
    assert_eq!(r.message, text);
}

#[test]
fn labels_are_sorted_and_empty_values_dropped() {
    let decoded = decode(vec![
        series(&[("__name__", "up"), ("job", "x")], &[(1, 0.5), (2, -1.0)]),
        series(
            &[("z", "1"), ("__name__", "up"), ("e", "")],
            &[(i64::MIN, 0.0), (i64::MAX, 1.0)],
        ),
        series(&[("A", "ü"), ("__name__", "metric.with.dots"), ("x", "")], &[(3, 1.0)]),
        // The same series again is not an error.
        series(&[("__name__", "up"), ("job", "x")], &[(3, 2.0)]),
    ]);
    assert_eq!(
        shown(&decoded.batch),
        [
            r#"{__name__="up", job="x"} 0.5@1 -1@2"#,
            r#"{__name__="up", z="1"} 0@-9223372036854775808 1@9223372036854775807"#,
            r#"{A="ü", __name__="metric.with.dots"} 1@3"#,
            r#"{__name__="up", job="x"} 2@3"#,
        ]
    );
    assert!(decoded.rejections.is_empty());
}

#[test]
fn nan_payloads_survive() {
    let odd = f64::from_bits(0xfff8_dead_beef_0001);
    let stale = f64::from_bits(STALE_NAN_BITS);
    let decoded = decode(vec![series(
        &[("__name__", "up")],
        &[(1, stale), (2, odd), (3, f64::NEG_INFINITY)],
    )]);
    let bits: Vec<u64> = decoded.batch.samples.iter().map(|s| s.value.to_bits()).collect();
    assert_eq!(
        bits,
        [STALE_NAN_BITS, 0xfff8_dead_beef_0001, f64::NEG_INFINITY.to_bits()]
    );
}

#[test]
fn bad_series_are_refused_by_name_and_the_rest_is_kept() {
    let one = [(1, 1.0)];
    refused(
        series(&[("job", "x")], &[(1, 1.0), (2, 2.0)]),
        "missing_metric_name",
        r#"received a series without a metric name, series: {job="x"}"#,
    );
    refused(
        series(&[("__name__", ""), ("job", "x")], &one),
        "missing_metric_name",
        r#"received a series without a metric name, series: {__name__="", job="x"}"#,
    );
    refused(
        series(&[("__name__", "up"), ("a", "1"), ("a", "1")], &one),
        "duplicate_label_names",
        r#"duplicate label "a" in series: {__name__="up", a="1", a="1"}"#,
    );
    refused(
        series(&[("a", "1"), ("__name__", "up"), ("a", "2")], &one),
        "duplicate_label_names",
        r#"duplicate label "a" in series: {__name__="up", a="1", a="2"}"#,
    );
    refused(
        series(&[("__name__", "up"), ("", "x")], &one),
        "label_invalid",
        r#"invalid metric name or labels, empty label name, label: '', series: {="x", __name__="up"}"#,
    );
    refused(
        series(&[("__name__", "up"), ("a", "1"), ("b", "1"), ("c", "1")], &one),
        "max_label_names_per_series",
        "received a series whose number of labels exceeds the limit (actual: 4, limit: 3), series: \
         {__name__=\"up\", a=\"1\", b=\"1\", c=\"1\"} (limits.label-names)",
    );
    refused(
        series(&[("__name__", "up"), ("a2345678901", "1")], &one),
        "label_name_too_long",
        "received a series whose label name length of 11 exceeds the limit of 10, label: 'a2345678901', series: \
         {__name__=\"up\", a2345678901=\"1\"} (limits.label-name-length)",
    );
    refused(
        series(&[("__name__", "up"), ("a", "123456789012345678901")], &one),
        "label_value_too_long",
        "received a series whose label value length of 21 exceeds the limit of 20, label: 'a', series: \
         {__name__=\"up\", a=\"123456789012345678901\"} (limits.label-value-length)",
    );
}

#[test]
fn zero_limits_are_no_limits() {
    let limits = Limits {
        label_names_max: 0,
        label_name_bytes_max: 0,
        label_value_bytes_max: 0,
        request_bytes_max: 0,
        ..Limits::default()
    };
    let long = "x".repeat(100_000);
    let decoded = decode_with(
        vec![series(&[("__name__", "up"), (&long, &long)], &[(1, 1.0)])],
        &limits,
    );
    assert_eq!(decoded.batch.series_count(), 1);
}

#[test]
fn invalid_utf8_is_refused_by_series() {
    for (name, value, what) in [
        (
            &b"a\xff"[..],
            &b"x"[..],
            "label name is not valid UTF-8, label: 'a\u{fffd}'",
        ),
        (b"a", b"\xc3", "label value is not valid UTF-8, label: 'a'"),
    ] {
        let mut label = vec![0x0a, name.len() as u8];
        label.extend_from_slice(name);
        label.extend_from_slice(&[0x12, value.len() as u8]);
        label.extend_from_slice(value);
        let mut ts = b"\x0a\x0e\x0a\x08__name__\x12\x02up\x0a".to_vec();
        ts.push(label.len() as u8);
        ts.extend_from_slice(&label);
        ts.extend_from_slice(b"\x12\x02\x10\x05");
        let mut raw = vec![0x0a, ts.len() as u8];
        raw.extend_from_slice(&ts);
        let decoded = decode_message(Version::V1, &raw, &Limits::default()).unwrap();
        assert!(decoded.batch.is_empty());
        assert_eq!(decoded.rejections[0].reason, "label_invalid");
        assert!(
            decoded.rejections[0].message.contains(what),
            "{}",
            decoded.rejections[0].message
        );
    }
}

#[test]
fn metadata_is_taken_over() {
    let raw = pb::WriteRequest {
        timeseries: vec![],
        metadata: vec![
            pb::MetricMetadata {
                r#type: pb::metric_metadata::MetricType::Gaugehistogram.into(),
                metric_family_name: "f".into(),
                help: "help ü".into(),
                unit: "seconds".into(),
            },
            pb::MetricMetadata {
                r#type: 99,
                metric_family_name: "g".into(),
                ..Default::default()
            },
            pb::MetricMetadata::default(),
        ],
    };
    let decoded = decode_message(Version::V1, &raw.encode_to_vec(), &Limits::default()).unwrap();
    let got: Vec<_> = decoded
        .batch
        .metadata
        .iter()
        .map(|m| (m.family.as_str(), m.kind, m.help.as_str(), m.unit.as_str()))
        .collect();
    assert_eq!(
        got,
        [
            ("f", MetricType::GaugeHistogram, "help ü", "seconds"),
            ("g", MetricType::Unknown, "", "")
        ]
    );
}

#[test]
fn series_without_samples_and_empty_requests_are_nothing() {
    let decoded = decode(vec![series(&[("__name__", "up")], &[]), series(&[], &[])]);
    assert!(decoded.batch.is_empty() && decoded.rejections.is_empty());
    assert!(decode(vec![]).batch.is_empty());
}

#[test]
fn headers_decide_as_in_prometheus() {
    let check = |content_type: Option<&str>, content_encoding: Option<&str>| {
        negotiate(&PushHeaders {
            content_type,
            content_encoding,
        })
        .map_err(|e| (e.kind, e.message))
    };
    let proto = "application/x-protobuf";
    let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    for (ct, ce, version) in [
        (None, None, Version::V1),
        (Some(""), None, Version::V1),
        (Some(proto), Some("snappy"), Version::V1),
        (
            Some("application/x-protobuf;proto=prometheus.WriteRequest"),
            Some("Snappy"),
            Version::V1,
        ),
        (
            Some("application/x-protobuf; proto=prometheus.WriteRequest; charset=x"),
            None,
            Version::V1,
        ),
        (Some(v2), Some("snappy"), Version::V2),
        (
            Some("Application/X-Protobuf; charset=x; proto=\"io.prometheus.write.v2.Request\""),
            None,
            Version::V2,
        ),
    ] {
        assert_eq!(check(ct, ce), Ok(version), "{ct:?} {ce:?}");
    }
    for (ct, ce, text) in [
        (
            "text/plain",
            None,
            "expected application/x-protobuf as the first (media) part, got text/plain content-type",
        ),
        (
            "application/x-protobuf;proto",
            None,
            "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, got proto in \
             application/x-protobuf;proto content-type",
        ),
        (
            "application/x-protobuf;proto=x",
            None,
            "got application/x-protobuf;proto=x content type; unknown type for remote write protobuf message x, \
             supported: prometheus.WriteRequest, io.prometheus.write.v2.Request",
        ),
        (
            proto,
            Some("gzip"),
            "gzip encoding (compression) is not accepted by this server; only snappy is acceptable",
        ),
        (
            v2,
            Some("zstd"),
            "zstd encoding (compression) is not accepted by this server; only snappy is acceptable",
        ),
    ] {
        assert_eq!(check(Some(ct), ce), Err((ErrorKind::Unsupported, text.to_owned())));
    }
}

#[test]
fn bytes_that_are_no_request_refuse_everything() {
    let limits = Limits {
        request_bytes_max: 10_000,
        ..Limits::default()
    };
    let check = |body: &[u8]| {
        let e = decode_remote_write(Bytes::copy_from_slice(body), &PushHeaders::default(), &limits).unwrap_err();
        (e.kind, e.message)
    };
    assert_eq!(check(b"not snappy").0, ErrorKind::Invalid);
    assert_eq!(check(b""), (ErrorKind::Invalid, "snappy: corrupt input".into()));
    assert_eq!(check(&snappy(&vec![0; 10_001])).0, ErrorKind::TooLarge);
    assert_eq!(
        check(&snappy(b"\x0a\xff\xff\xff\xff\x0f")),
        (ErrorKind::Invalid, "proto: WriteRequest: unexpected EOF".into())
    );
    assert_eq!(
        check(&snappy(b"\x08\x01")),
        (
            ErrorKind::Invalid,
            "proto: wrong wireType = 0 for field Timeseries".into()
        )
    );
    // A good series before the broken bytes is not kept: the whole request is an error.
    let mut raw = request(vec![series(&[("__name__", "up")], &[(1, 1.0)])]);
    raw.extend_from_slice(b"\x0a\x7f");
    assert_eq!(check(&snappy(&raw)).0, ErrorKind::Invalid);
}

#[test]
fn memory_is_bounded_by_the_body() {
    // Two bytes each: an empty sample, an empty metadata message, an empty series.
    let many = |inner: &[u8]| inner.repeat(500_000);
    let mut raw = vec![0x0a];
    prost::encoding::encode_varint(1_000_000, &mut raw);
    raw.extend(many(b"\x12\x00"));
    let decoded = decode_message(Version::V1, &raw, &Limits::default()).unwrap();
    assert_eq!(decoded.rejections[0].count, 500_000);
    assert!(
        decode_message(Version::V1, &many(b"\x0a\x00"), &Limits::default())
            .unwrap()
            .batch
            .is_empty()
    );
    let metadata = many(b"\x1a\x03\x12\x01f");
    assert_eq!(
        decode_message(Version::V1, &metadata, &Limits::default())
            .unwrap_err()
            .kind,
        ErrorKind::TooLarge
    );
}

fn any_series() -> impl Strategy<Value = pb::TimeSeries> {
    let labels = proptest::collection::btree_map("[a-zA-Z_.é]{1,6}", ".{1,8}", 0..6);
    let samples = proptest::collection::vec((any::<i64>(), any::<u64>()), 1..5);
    (labels, "[a-z:]{1,5}", samples, any::<bool>()).prop_map(|(mut labels, name, samples, reverse)| {
        labels.insert("__name__".into(), name);
        let mut labels: Vec<_> = labels
            .into_iter()
            .map(|(name, value)| pb::Label { name, value })
            .collect();
        if reverse {
            labels.reverse();
        }
        pb::TimeSeries {
            labels,
            samples: samples
                .into_iter()
                .map(|(timestamp, bits)| pb::Sample {
                    // Encoders leave out -0.0 as a default value.
                    value: f64::from_bits(if bits == 1 << 63 { 0 } else { bits }),
                    timestamp,
                })
                .collect(),
            ..Default::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_prost_encodes_is_read_back(all in proptest::collection::vec(any_series(), 0..8)) {
        let decoded = decode(all.clone());
        prop_assert!(decoded.rejections.is_empty());
        prop_assert_eq!(decoded.batch.series_count(), all.len());
        for ((labels, samples), want) in decoded.batch.series().zip(&all) {
            let want_labels = Labels::from_pairs(want.labels.iter().map(|l| (&l.name, &l.value)));
            prop_assert_eq!(labels.to_owned(), want_labels);
            let got: Vec<_> = samples.iter().map(|s| (s.ts_ms, s.value.to_bits())).collect();
            let want: Vec<_> = want.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn damaged_requests_never_panic(
        all in proptest::collection::vec(any_series(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut raw = request(all);
        let i = at.index(raw.len());
        raw[i] = byte;
        crate::fuzzing::remote_write(&raw);
        crate::fuzzing::remote_write(&raw[..cut.index(raw.len())]);
    }

    #[test]
    fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::fuzzing::remote_write(&data);
        crate::fuzzing::remote_write_v2(&data);
        crate::fuzzing::body(&data);
    }
}
