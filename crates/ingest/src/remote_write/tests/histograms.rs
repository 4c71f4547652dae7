//! Native histograms and exemplars of 1.0; the messages are the same in 2.0.

use pb::histogram::{Count, ZeroCount};
use trilith_histogram::{CUSTOM_SCHEMA, ResetHint, Span};
use trilith_model::FloatHistogram;

use super::*;

fn spans(spans: &[(i32, u32)]) -> Vec<pb::BucketSpan> {
    let span = |&(offset, length)| pb::BucketSpan { offset, length };
    spans.iter().map(span).collect()
}

/// Schema 1, 2 in the zero bucket, positive 3, 1 at 0 and 1, 4 at 3, negative 2 at -2: 12 in all.
fn int() -> pb::Histogram {
    pb::Histogram {
        count: Some(Count::CountInt(12)),
        sum: 7.5,
        schema: 1,
        zero_threshold: 0.25,
        zero_count: Some(ZeroCount::ZeroCountInt(2)),
        positive_spans: spans(&[(0, 2), (1, 1)]),
        positive_deltas: vec![3, -2, 3],
        negative_spans: spans(&[(-2, 1)]),
        negative_deltas: vec![2],
        reset_hint: 2,
        timestamp: -5,
        ..Default::default()
    }
}

fn float() -> pb::Histogram {
    pb::Histogram {
        count: Some(Count::CountFloat(10.5)),
        zero_count: Some(ZeroCount::ZeroCountFloat(0.5)),
        positive_deltas: vec![],
        negative_deltas: vec![],
        positive_counts: vec![1.5, 0.0, 6.0],
        negative_counts: vec![2.5],
        reset_hint: 3,
        ..int()
    }
}

fn custom() -> pb::Histogram {
    pb::Histogram {
        count: Some(Count::CountInt(5)),
        schema: CUSTOM_SCHEMA,
        zero_threshold: 0.0,
        zero_count: None,
        positive_spans: spans(&[(0, 1), (1, 1)]),
        positive_deltas: vec![2, 1],
        negative_spans: vec![],
        negative_deltas: vec![],
        custom_values: vec![-1.0, 2.5],
        ..int()
    }
}

fn write(histograms: Vec<pb::Histogram>) -> Write {
    let mut one = series(&[("__name__", "h")], &[]);
    one.histograms = histograms;
    decode(vec![one])
}

fn only(histogram: pb::Histogram) -> FloatHistogram {
    let write = write(vec![histogram]);
    assert_eq!(write.rejections, []);
    let [sample] = write.batch.histograms.as_slice() else {
        panic!("one histogram expected");
    };
    assert_eq!((sample.ts_ms, sample.start_ms), (-5, 0));
    (*sample.histogram).clone()
}

fn refused(bad: pb::Histogram, text: &str) {
    let write = write(vec![int(), bad, custom()]);
    assert_eq!(write.batch.histograms.len(), 2, "{text}");
    let [r] = write.rejections.as_slice() else {
        panic!("one rejection expected for {text}");
    };
    assert_eq!((r.kind, r.count), (ErrorKind::Invalid, 1));
    assert_eq!(r.message, format!("{text} for series {{__name__=\"h\"}}"));
}

#[test]
fn integer_populations_become_floats() {
    let h = only(int());
    assert_eq!(
        (h.count, h.sum, h.schema, h.zero_threshold, h.zero_count),
        (12.0, 7.5, 1, 0.25, 2.0)
    );
    assert_eq!(h.positive.counts, [3.0, 1.0, 4.0]);
    let span = |offset, length| Span { offset, length };
    assert_eq!(h.positive.spans, [span(0, 2), span(1, 1)]);
    assert_eq!((h.negative.spans, h.negative.counts), (vec![span(-2, 1)], vec![2.0]));
    assert_eq!((h.reset_hint, h.custom_bounds), (ResetHint::NotReset, None));
}

#[test]
fn float_populations_stay() {
    let h = only(float());
    assert_eq!((h.count, h.zero_count, h.reset_hint), (10.5, 0.5, ResetHint::Gauge));
    assert_eq!((h.positive.counts, h.negative.counts), (vec![1.5, 0.0, 6.0], vec![2.5]));
    // Float populations need not add up, and NaN is a population.
    let nan = pb::Histogram {
        count: Some(Count::CountFloat(f64::NAN)),
        positive_counts: vec![f64::NAN, f64::INFINITY, 1.0],
        ..float()
    };
    assert!(only(nan).positive.counts[0].is_nan());
}

#[test]
fn bounds_are_shared_between_neighbours() {
    let other = pb::Histogram {
        custom_values: vec![1.0, 2.0],
        ..custom()
    };
    let write = write(vec![custom(), custom(), other]);
    let bounds: Vec<_> = write
        .batch
        .histograms
        .iter()
        .map(|h| h.histogram.custom_bounds.clone().unwrap())
        .collect();
    assert_eq!(*bounds[0], [-1.0, 2.5]);
    assert!(std::sync::Arc::ptr_eq(&bounds[0], &bounds[1]));
    assert_eq!(*bounds[2], [1.0, 2.0]);
}

#[test]
fn numbers_need_not_be_packed() {
    // Field 12 one by one, field 13 as single doubles; the count is an int, so only the deltas matter.
    let mut raw = b"\x08\x05".to_vec();
    raw.extend(b"\x5a\x04\x08\x00\x10\x02"); // one span of two
    raw.extend(b"\x60\x04\x60\x02"); // deltas 2, 1
    raw.extend(b"\x69\0\0\0\0\0\0\xf0\x3f");
    let mut one = b"\x0a\x0d\x0a\x08__name__\x12\x01h\x22".to_vec();
    one.push(raw.len() as u8);
    one.extend(raw);
    let mut all = vec![0x0a, one.len() as u8];
    all.extend(one);
    let write = decode_message(Version::V1, &all, &Limits::default()).unwrap();
    assert_eq!(write.batch.histograms[0].histogram.positive.counts, [2.0, 3.0]);
}

#[test]
fn finer_schemas_are_reduced_to_the_finest() {
    // Schema 10 to 8: four buckets become one; upper bounds of 4 buckets each.
    let fine = pb::Histogram {
        count: Some(Count::CountInt(19)),
        schema: 10,
        positive_spans: spans(&[(-3, 4), (1, 2), (100, 1), (0, 0)]),
        positive_deltas: vec![1, 0, 0, 0, 1, 1, 5],
        negative_spans: spans(&[]),
        negative_deltas: vec![],
        ..int()
    };
    let h = only(fine.clone());
    assert_eq!(h.schema, 8);
    // Index -3..=0 -> 0, 2 and 3 -> 1, 104 -> 26.
    let span = |offset, length| Span { offset, length };
    assert_eq!(h.positive.spans, [span(0, 2), span(24, 1)]);
    assert_eq!(h.positive.counts, [4.0, 5.0, 8.0]);
    let finest = pb::Histogram {
        schema: 52,
        positive_spans: spans(&[(i32::MAX, 7)]),
        ..fine.clone()
    };
    let h = only(finest);
    assert_eq!((h.positive.spans, h.positive.counts.len()), (vec![span(1, 1)], 1));
    let broken = |spans| pb::Histogram {
        positive_spans: spans,
        ..fine.clone()
    };
    let mismatch = "histogram spans specify different number of buckets than provided";
    refused(
        broken(spans(&[(0, 6)])),
        &format!("spans need 6 buckets, have 7 buckets: {mismatch}"),
    );
    refused(
        broken(spans(&[(0, u32::MAX)])),
        &format!("have 7 buckets but spans need more: {mismatch}"),
    );
    refused(
        broken(spans(&[(0, 1), (-1, 6)])),
        "span number 2 with offset -1: histogram has a span whose offset is negative",
    );
}

#[test]
fn invalid_histograms_are_refused_with_upstream_texts() {
    let mismatch = "histogram spans specify different number of buckets than provided";
    for schema in [-54, -52, -9, -5, 53, i32::MIN, i32::MAX] {
        refused(
            pb::Histogram { schema, ..int() },
            &format!(
                "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for \
                 custom buckets, got schema {schema}"
            ),
        );
    }
    refused(
        pb::Histogram {
            count: Some(Count::CountInt(11)),
            ..int()
        },
        "12 observations found in buckets, but the Count field is 11: histogram's observation count should equal the \
         number of observations found in the buckets (in absence of NaN)",
    );
    refused(
        pb::Histogram {
            count: Some(Count::CountInt(11)),
            sum: f64::NAN,
            ..int()
        },
        "12 observations found in buckets, but the Count field is 11: histogram's observation count should be at least \
         the number of observations found in the buckets",
    );
    assert_eq!(
        only(pb::Histogram {
            count: Some(Count::CountInt(13)),
            sum: f64::NAN,
            ..int()
        })
        .count,
        13.0
    );
    refused(
        pb::Histogram {
            positive_spans: spans(&[(0, 2)]),
            ..int()
        },
        &format!("positive side: spans need 2 buckets, have 3 buckets: {mismatch}"),
    );
    refused(
        pb::Histogram {
            negative_spans: spans(&[(0, u32::MAX), (0, u32::MAX)]),
            ..int()
        },
        &format!("negative side: spans need 8589934590 buckets, have 1 buckets: {mismatch}"),
    );
    refused(
        pb::Histogram {
            positive_spans: spans(&[(5, 1), (-1, 2)]),
            ..int()
        },
        "positive side: span number 2 with offset -1: histogram has a span whose offset is negative",
    );
    refused(
        pb::Histogram {
            positive_deltas: vec![3, -4, 9],
            ..int()
        },
        "positive side: bucket number 2 has observation count of -1: histogram has a bucket whose observation count is \
         negative",
    );
    refused(
        pb::Histogram {
            negative_counts: vec![-0.5],
            ..float()
        },
        "negative side: bucket number 1 has observation count of -0.5: histogram has a bucket whose observation count \
         is negative",
    );
    refused(
        pb::Histogram {
            zero_count: Some(ZeroCount::ZeroCountFloat(-1.0)),
            ..float()
        },
        "zero bucket has observation count of -1: histogram has a bucket whose observation count is negative",
    );
    refused(
        pb::Histogram {
            count: Some(Count::CountFloat(-1.0)),
            ..float()
        },
        "observation count is  -1: histogram's observation count is negative",
    );
    refused(
        pb::Histogram {
            custom_values: vec![1.0],
            ..int()
        },
        "histogram with exponential schema must not have custom bounds",
    );
    for (bounds, text) in [
        (vec![f64::NAN, 2.0], "histogram custom bounds must not be NaN"),
        (
            vec![2.0, 2.0],
            "previous bound is 2.000000 and current is 2.000000: histogram custom bounds must be in strictly increasing \
             order",
        ),
        (
            vec![2.0, f64::INFINITY],
            "last +Inf bound must not be explicitly defined: histogram custom bounds must be finite",
        ),
        (
            vec![f64::NEG_INFINITY, 2.0],
            "first -Inf bound must not be defined: histogram custom bounds must be finite",
        ),
        (
            vec![1.0],
            "only 1 custom bounds defined which is insufficient to cover total span length of 3: histogram custom bounds \
             are too few",
        ),
    ] {
        refused(
            pb::Histogram {
                custom_values: bounds,
                ..custom()
            },
            &format!("custom buckets: {text}"),
        );
    }
    refused(
        pb::Histogram {
            positive_spans: spans(&[(-1, 1), (1, 1)]),
            ..custom()
        },
        "custom buckets: span number 1 with offset -1: histogram has a span whose offset is negative",
    );
    refused(
        pb::Histogram {
            positive_spans: spans(&[(0, 9)]),
            ..custom()
        },
        &format!("custom buckets: spans need 9 buckets, have 2 buckets: {mismatch}"),
    );
    refused(
        pb::Histogram {
            zero_count: Some(ZeroCount::ZeroCountInt(1)),
            ..custom()
        },
        "custom buckets: must have zero count of 0",
    );
    refused(
        pb::Histogram {
            zero_threshold: 0.1,
            ..custom()
        },
        "custom buckets: must have zero threshold of 0",
    );
    refused(
        pb::Histogram {
            negative_spans: spans(&[(0, 0)]),
            ..custom()
        },
        "custom buckets: must not have negative spans",
    );
    refused(
        pb::Histogram {
            negative_deltas: vec![1],
            ..custom()
        },
        "custom buckets: must not have negative buckets",
    );
}

#[test]
fn zero_thresholds_are_sane() {
    for zero_threshold in [f64::NAN, -0.5] {
        let got = write(vec![pb::Histogram {
            zero_threshold,
            ..int()
        }]);
        assert_eq!(
            (got.batch.histograms.len(), got.rejections.len()),
            (0, 1),
            "{zero_threshold}"
        );
    }
}

#[test]
fn hostile_numbers_do_not_wrap_around() {
    // In 64 bits the populations would wrap to -2 and the sum to 12.
    let wrapping = pb::Histogram {
        positive_deltas: vec![i64::MAX, i64::MAX, i64::MAX],
        ..int()
    };
    let got = write(vec![wrapping]);
    assert!(got.batch.histograms.is_empty());
    assert!(
        got.rejections[0]
            .message
            .starts_with("55340232221128654846 observations found"),
        "{:?}",
        got.rejections
    );
    // Indexes beyond what any float can fall into.
    for offset in [i32::MAX, i32::MIN, 1 << 30] {
        let far = pb::Histogram {
            positive_spans: spans(&[(offset, 3)]),
            ..int()
        };
        let got = write(vec![far]);
        assert!(
            got.rejections[0].message.contains("is out of range"),
            "{:?}",
            got.rejections
        );
    }
    let climbing = pb::Histogram {
        positive_spans: spans(&[(i32::MAX, 0); 50]),
        positive_deltas: vec![],
        ..int()
    };
    assert_eq!(write(vec![climbing]).batch.histograms.len(), 0);
}

#[test]
fn a_marker_becomes_a_stale_sample() {
    let marker = pb::Histogram {
        count: Some(Count::CountInt(0)),
        sum: f64::from_bits(STALE_NAN_BITS),
        timestamp: 77,
        ..Default::default()
    };
    let ordinary_nan = pb::Histogram {
        count: Some(Count::CountInt(12)),
        sum: f64::NAN,
        ..int()
    };
    let write = write(vec![int(), marker, ordinary_nan]);
    assert_eq!((write.batch.histograms.len(), write.histogram_markers), (2, 1));
    let [stale] = write.batch.samples.as_slice() else {
        panic!("one sample expected");
    };
    assert_eq!((stale.ts_ms, stale.value.to_bits()), (77, STALE_NAN_BITS));
}

#[test]
fn markers_of_refused_series_do_not_count() {
    let mut bad = series(&[("job", "x")], &[]);
    bad.histograms = vec![pb::Histogram {
        count: Some(Count::CountInt(0)),
        sum: f64::from_bits(STALE_NAN_BITS),
        ..Default::default()
    }];
    let write = decode(vec![bad]);
    assert_eq!((write.histogram_markers, write.rejections[0].count), (0, 1));
    assert!(write.batch.is_empty());
}

fn exemplar(labels: &[(&str, &str)], value: f64, timestamp: i64) -> pb::Exemplar {
    let label = |&(n, v): &(&str, &str)| pb::Label {
        name: n.into(),
        value: v.into(),
    };
    pb::Exemplar {
        labels: labels.iter().map(label).collect(),
        value,
        timestamp,
    }
}

#[test]
fn exemplars_are_kept_up_to_128_characters_and_never_refused() {
    let trace = "é".repeat(128 - "trace_id".len());
    let mut both = series(&[("__name__", "a")], &[(1, 1.0)]);
    both.exemplars = vec![
        exemplar(&[("trace_id", &trace)], 1.5, 7),
        exemplar(&[("trace_id", &format!("{trace}x"))], 1.5, 7),
        exemplar(&[("z", "1"), ("b", ""), ("a", "2")], f64::NAN, 8),
        exemplar(&[("a", "1"), ("a", "2")], 0.0, 8),
        exemplar(&[("", "1")], 0.0, 8),
        exemplar(&[], 3.0, 0),
    ];
    let mut only = series(&[("__name__", "b")], &[]);
    only.exemplars = vec![exemplar(&[("t", "1")], 2.0, 9)];
    let mut unnamed = series(&[("job", "x")], &[]);
    unnamed.exemplars = vec![exemplar(&[("t", "1")], 2.0, 9)];
    let write = decode(vec![both, only, unnamed]);
    assert_eq!(write.rejections, []);
    assert_eq!(write.exemplars_dropped, 4);
    let shown: Vec<Vec<String>> = write
        .batch
        .views()
        .map(|s| {
            s.exemplars
                .iter()
                .map(|e| format!("{} {} {}", e.labels, e.value, e.ts_ms))
                .collect()
        })
        .collect();
    let first = format!("{{trace_id={trace:?}}} 1.5 7");
    assert_eq!(
        shown,
        [
            vec![first, r#"{a="2", z="1"} NaN 8"#.into(), "{} 3 0".into()],
            vec![r#"{t="1"} 2 9"#.into()]
        ]
    );
}

#[test]
fn memory_of_histograms_is_bounded_by_the_body() {
    let mut one = b"\x0a\x0d\x0a\x08__name__\x12\x01h".to_vec();
    one.extend(b"\x22\x00".repeat(500_000));
    let mut raw = vec![0x0a];
    prost::encoding::encode_varint(one.len() as u64, &mut raw);
    raw.extend(one);
    let e = decode_message(Version::V1, &raw, &Limits::default()).unwrap_err();
    assert_eq!(e.kind, ErrorKind::TooLarge);
}
