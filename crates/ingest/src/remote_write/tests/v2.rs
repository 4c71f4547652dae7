//! 2.0.

use pb::v2;

use super::*;

const SYMBOLS: [&str; 9] = [
    "",
    "__name__",
    "up",
    "job",
    "x",
    "help text",
    "seconds",
    "trace_id",
    "é",
];

fn ts(labels_refs: &[u32], samples: &[(i64, f64)]) -> v2::TimeSeries {
    let sample = |&(timestamp, value)| v2::Sample {
        value,
        timestamp,
        start_timestamp: 0,
    };
    v2::TimeSeries {
        labels_refs: labels_refs.to_vec(),
        samples: samples.iter().map(sample).collect(),
        ..Default::default()
    }
}

fn raw(timeseries: Vec<v2::TimeSeries>) -> Vec<u8> {
    let symbols = SYMBOLS.map(str::to_owned).to_vec();
    v2::Request { symbols, timeseries }.encode_to_vec()
}

fn decode(timeseries: Vec<v2::TimeSeries>) -> Write {
    let headers = PushHeaders {
        content_type: Some("application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        content_encoding: Some("snappy"),
    };
    let write = decode_remote_write(snappy(&raw(timeseries)), &headers, &Limits::default()).unwrap();
    assert_eq!(write.version, Version::V2);
    write
}

fn histogram(ts: i64) -> v2::Histogram {
    v2::Histogram {
        count: Some(v2::histogram::Count::CountInt(3)),
        positive_spans: vec![v2::BucketSpan { offset: 1, length: 1 }],
        positive_deltas: vec![3],
        timestamp: ts,
        start_timestamp: ts - 1,
        ..Default::default()
    }
}

/// One bad series between two good ones: its texts, and the good ones are kept.
fn refused(bad: v2::TimeSeries, text: &str) {
    let write = decode(vec![ts(&[1, 2], &[(1, 1.0)]), bad, ts(&[1, 2, 3, 4], &[(1, 2.0)])]);
    assert_eq!(
        shown(&write.batch),
        [r#"{__name__="up"} 1@1"#, r#"{__name__="up", job="x"} 2@1"#]
    );
    assert!(write.batch.histograms.is_empty() && write.batch.exemplars.is_empty());
    let error = error_of(Version::V2, &write.rejections).unwrap();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, text));
}

#[test]
fn everything_arrives() {
    let mut floats = ts(&[3, 4, 1, 2], &[]);
    let sample = |timestamp, start_timestamp| v2::Sample {
        value: 2.0,
        timestamp,
        start_timestamp,
    };
    floats.samples = vec![sample(5, 0), sample(6, 4)];
    floats.exemplars = vec![v2::Exemplar {
        labels_refs: vec![7, 8],
        value: 1.5,
        timestamp: 6,
    }];
    let mut histograms = ts(&[1, 4], &[]);
    let marker = v2::Histogram {
        sum: f64::from_bits(STALE_NAN_BITS),
        timestamp: 8,
        ..Default::default()
    };
    histograms.histograms = vec![histogram(7), marker];
    let write = decode(vec![floats, histograms, ts(&[1, 2], &[(9, 1.0)])]);
    assert_eq!(write.rejections, []);
    let views: Vec<_> = write.batch.views().collect();
    assert_eq!(views[0].labels.to_string(), r#"{__name__="up", job="x"}"#);
    assert_eq!(views[0].starts, [0, 4]);
    assert_eq!(views[0].exemplars[0].labels.to_string(), r#"{trace_id="é"}"#);
    assert_eq!((views[0].exemplars[0].value, views[0].exemplars[0].ts_ms), (1.5, 6));
    assert_eq!((views[1].histograms[0].ts_ms, views[1].histograms[0].start_ms), (7, 6));
    assert_eq!(views[1].histograms[0].histogram.positive.counts, [3.0]);
    assert_eq!(views[1].samples[0].value.to_bits(), STALE_NAN_BITS);
    assert_eq!((views[2].samples.len(), views[2].starts), (1, &[0][..]));
    assert_eq!(write.histogram_markers, 1);
}

#[test]
fn the_counts_are_of_what_was_stored() {
    let appended = |accepted, histograms, exemplars| Appended {
        accepted,
        histograms,
        exemplars,
        ..Appended::default()
    };
    let of = |a: Appended, markers| {
        let w = Written::of(&a, markers);
        (w.samples, w.histograms, w.exemplars)
    };
    assert_eq!(of(appended(10, 3, 2), 0), (7, 3, 2));
    assert_eq!(of(appended(10, 3, 2), 4), (3, 7, 2));
    assert_eq!(of(appended(1, 0, 0), 4), (0, 1, 0));
    assert_eq!(of(appended(0, 0, 5), 4), (0, 0, 5));
    let names = Written::default().headers().map(|(name, _)| name);
    assert_eq!(names[0], "x-prometheus-remote-write-samples-written");
}

#[test]
fn bad_series_are_refused_with_upstream_texts() {
    let one = [(1, 1.0)];
    refused(ts(&[4, 4], &one), r#"invalid metric name or labels, got {x="x"}"#);
    refused(ts(&[1, 0], &one), r#"invalid metric name or labels, got {__name__=""}"#);
    refused(
        ts(&[1, 2, 4, 4, 4, 4], &one),
        r#"invalid labels for series, labels {__name__="up", x="x", x="x"}, duplicated label x"#,
    );
    refused(
        ts(&[1, 2, 3], &one),
        "parsing labels for series [1 2 3]: invalid labelRefs length 3",
    );
    refused(
        ts(&[1, 2, 3, 999], &one),
        "parsing labels for series [1 2 3 999]: labelRefs 3 (name) = 999 (value) outside of symbols table (size 9)",
    );
    refused(
        ts(&[u32::MAX, 2], &one),
        "parsing labels for series [4294967295 2]: labelRefs 4294967295 (name) = 2 (value) outside of symbols table \
         (size 9)",
    );
    let with = |help_ref, unit_ref| v2::TimeSeries {
        metadata: Some(v2::Metadata {
            r#type: 2,
            help_ref,
            unit_ref,
        }),
        ..ts(&[1, 2], &one)
    };
    refused(
        with(0, 999),
        "parsing metadata for series [1 2]: metadata unit_ref 999 outside of symbols table (size 9)",
    );
    refused(
        with(999, 0),
        "parsing metadata for series [1 2]: metadata help_ref 999 outside of symbols table (size 9)",
    );
    let neither = r#"TimeSeries must contain at least one sample or histogram for series {__name__="up"}"#;
    refused(ts(&[1, 2], &[]), neither);
    let mut only_exemplars = ts(&[1, 2], &[]);
    only_exemplars.exemplars = vec![v2::Exemplar::default()];
    refused(only_exemplars, neither);
    let mut mixed = ts(&[1, 2], &one);
    mixed.histograms = vec![histogram(1)];
    refused(
        mixed,
        r#"TimeSeries must contain either samples or histograms, but not both, for series {__name__="up"}"#,
    );
    refused(ts(&[], &one), "invalid metric name or labels, got {}");
}

#[test]
fn texts_are_joined_by_line_feeds() {
    let mut bad_histogram = ts(&[1, 2], &[]);
    bad_histogram.histograms = vec![
        v2::Histogram {
            schema: 100,
            ..histogram(1)
        },
        histogram(2),
    ];
    let write = decode(vec![ts(&[4, 4], &[(1, 1.0), (2, 1.0)]), bad_histogram]);
    assert_eq!(write.batch.histograms.len(), 1);
    assert_eq!(
        error_of(Version::V2, &write.rejections).unwrap().message,
        "invalid metric name or labels, got {x=\"x\"}\nhistogram has an invalid schema, which must be between -4 and 8 for \
         exponential buckets, or -53 for custom buckets, got schema 100 for series {__name__=\"up\"}"
    );
}

#[test]
fn an_unreadable_exemplar_is_named_and_the_rest_of_its_series_kept() {
    let mut one = ts(&[1, 2], &[(1, 1.0)]);
    let exemplar = |labels_refs: &[u32]| v2::Exemplar {
        labels_refs: labels_refs.to_vec(),
        value: 1.0,
        timestamp: 1,
    };
    one.exemplars = vec![exemplar(&[7, 99]), exemplar(&[7, 8]), exemplar(&[7])];
    let write = decode(vec![one]);
    assert_eq!(
        (
            write.batch.samples.len(),
            write.batch.exemplars.len(),
            write.exemplars_dropped
        ),
        (1, 1, 2)
    );
    assert_eq!(
        error_of(Version::V2, &write.rejections).unwrap().message,
        "parsing exemplar for series {__name__=\"up\"}: labelRefs 7 (name) = 99 (value) outside of symbols table (size 9)\n\
         parsing exemplar for series {__name__=\"up\"}: invalid labelRefs length 1"
    );
}

#[test]
fn metadata_is_kept_once_per_family() {
    let of = |name: &'static str, kind: i32| {
        let mut symbols = SYMBOLS.map(str::to_owned).to_vec();
        symbols.push(name.into());
        let series = |job| v2::TimeSeries {
            metadata: Some(v2::Metadata {
                r#type: kind,
                help_ref: 5,
                unit_ref: 6,
            }),
            ..ts(&[1, 9, 3, job], &[(1, 1.0)])
        };
        let timeseries = vec![series(4), series(8), series(4)];
        let raw = v2::Request { symbols, timeseries }.encode_to_vec();
        let write = decode_message(Version::V2, &raw, &Limits::default()).unwrap();
        let all = write.batch.metadata;
        assert_eq!(
            (all[0].help.as_str(), all[0].unit.as_str(), all.len()),
            ("help text", "seconds", 1)
        );
        (all[0].family.clone(), all[0].kind)
    };
    assert_eq!(of("requests_total", 1), ("requests_total".into(), MetricType::Counter));
    assert_eq!(of("latency_bucket", 3), ("latency".into(), MetricType::Histogram));
    assert_eq!(of("latency_sum", 3).0, "latency");
    assert_eq!(of("latency_gcount", 4).0, "latency");
    assert_eq!(of("latency_count", 5), ("latency".into(), MetricType::Summary));
    assert_eq!(of("latency_bucket", 5).0, "latency_bucket");
    assert_eq!(of("_sum", 5).0, "_sum");
    assert_eq!(of("x", 99), ("x".into(), MetricType::Unknown));
    let none = decode(vec![ts(&[1, 2], &[(1, 1.0)])]);
    assert_eq!(none.batch.metadata, []);
}

#[test]
fn the_symbols_table_is_checked() {
    let request = |symbols: &[&str], timeseries| {
        let symbols = symbols.iter().map(|s| s.to_string()).collect();
        let raw = v2::Request { symbols, timeseries }.encode_to_vec();
        decode_message(Version::V2, &raw, &Limits::default())
    };
    let e = request(&["__name__", "up"], vec![ts(&[0, 1], &[(1, 1.0)])]).unwrap_err();
    assert_eq!(
        (e.kind, e.message.as_str()),
        (
            ErrorKind::Invalid,
            "symbols[0] must be the empty string, got \"__name__\""
        )
    );
    let none = request(&[], vec![ts(&[0, 0], &[(1, 1.0)])]).unwrap();
    assert!(none.rejections[0].message.contains("outside of symbols table (size 0)"));
    let no_labels = request(&[], vec![ts(&[], &[(1, 1.0)])]).unwrap();
    assert!(no_labels.batch.is_empty() && no_labels.rejections.len() == 1);
    assert!(request(&[], vec![]).unwrap().rejections.is_empty());
    // Symbols behind the series that name them, and a table larger than the series.
    let mut raw = v2::Request {
        symbols: vec![],
        timeseries: vec![ts(&[1, 2], &[(1, 1.0)])],
    }
    .encode_to_vec();
    raw.extend(
        v2::Request {
            symbols: SYMBOLS.map(str::to_owned).to_vec(),
            timeseries: vec![],
        }
        .encode_to_vec(),
    );
    let write = decode_message(Version::V2, &raw, &Limits::default()).unwrap();
    assert_eq!(shown(&write.batch), [r#"{__name__="up"} 1@1"#]);
    // A million empty symbols are 16 MB and no more.
    let many = b"\x22\x00".repeat(1_000_000);
    assert!(
        decode_message(Version::V2, &many, &Limits::default())
            .unwrap()
            .batch
            .is_empty()
    );
}

#[test]
fn invalid_utf8_in_the_table_hits_only_who_uses_it() {
    let mut raw = b"\x22\x00\x22\x08__name__\x22\x02up\x22\x01\xff".to_vec();
    let timeseries = vec![ts(&[1, 3], &[(1, 1.0)]), ts(&[1, 2], &[(1, 1.0)])];
    raw.extend(
        v2::Request {
            symbols: vec![],
            timeseries,
        }
        .encode_to_vec(),
    );
    let write = decode_message(Version::V2, &raw, &Limits::default()).unwrap();
    assert_eq!(shown(&write.batch), [r#"{__name__="up"} 1@1"#]);
    assert_eq!(
        write.rejections[0].message,
        "invalid metric name or labels, got {__name__=\"\u{fffd}\"}"
    );
}

#[test]
fn refs_need_not_be_packed() {
    let mut series = b"\x08\x01\x08\x02\x0a\x02\x03\x04".to_vec();
    series.extend(b"\x12\x02\x10\x05");
    let symbols = SYMBOLS.map(str::to_owned).to_vec();
    let mut raw = v2::Request {
        symbols,
        timeseries: vec![],
    }
    .encode_to_vec();
    raw.extend([0x2a, series.len() as u8]);
    raw.extend(series);
    let write = decode_message(Version::V2, &raw, &Limits::default()).unwrap();
    assert_eq!(shown(&write.batch), [r#"{__name__="up", job="x"} 0@5"#]);
}

#[test]
fn a_payload_of_the_other_version_is_empty() {
    let v1 = request(vec![series(&[("__name__", "up")], &[(1, 1.0)])]);
    assert!(
        decode_message(Version::V2, &v1, &Limits::default())
            .unwrap()
            .batch
            .is_empty()
    );
    let v2 = raw(vec![ts(&[1, 2], &[(1, 1.0)])]);
    assert!(
        decode_message(Version::V1, &v2, &Limits::default())
            .unwrap()
            .batch
            .is_empty()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_requests_never_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        for seed in crate::fuzzing::seeds::remote_write_v2() {
            let mut raw = seed;
            let i = at.index(raw.len());
            raw[i] = byte;
            crate::fuzzing::remote_write_v2(&raw);
            crate::fuzzing::remote_write_v2(&raw[..cut.index(raw.len())]);
        }
    }
}
