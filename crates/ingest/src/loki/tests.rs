use proptest::prelude::*;
use prost::Message;
use trilith_model::Rejection;
use trilith_proto::logproto as pb;

use super::*;

const JSON: PushHeaders<'static> = PushHeaders {
    content_type: Some("application/json"),
    content_encoding: None,
};
const PROTO: PushHeaders<'static> = PushHeaders {
    content_type: Some("application/x-protobuf"),
    content_encoding: None,
};

fn json(body: &str) -> Result<Decoded<LogBatch>> {
    decode_loki_push(Bytes::copy_from_slice(body.as_bytes()), &JSON, &Limits::default())
}

fn snappy(raw: &[u8]) -> Bytes {
    snap::raw::Encoder::new().compress_vec(raw).unwrap().into()
}

fn pb_entry(ns: i64, line: &str, metadata: &[(&str, &str)]) -> pb::Entry {
    pb::Entry {
        timestamp: Some(prost_types::Timestamp {
            seconds: ns.div_euclid(1_000_000_000),
            nanos: ns.rem_euclid(1_000_000_000) as i32,
        }),
        line: Bytes::copy_from_slice(line.as_bytes()),
        structured_metadata: metadata
            .iter()
            .map(|(n, v)| pb::LabelPair {
                name: n.to_string(),
                value: v.to_string(),
            })
            .collect(),
        parsed: vec![],
    }
}

fn pb_stream(labels: &str, entries: Vec<pb::Entry>) -> pb::Stream {
    pb::Stream {
        labels: labels.into(),
        entries,
        hash: 7,
    }
}

fn proto_with(streams: Vec<pb::Stream>, limits: &Limits) -> Result<Decoded<LogBatch>> {
    let raw = pb::PushRequest {
        streams,
        format: String::new(),
    };
    decode_loki_push(snappy(&raw.encode_to_vec()), &PROTO, limits)
}

fn proto(streams: Vec<pb::Stream>) -> Result<Decoded<LogBatch>> {
    proto_with(streams, &Limits::default())
}

/// One line of text per entry: labels, time, line, metadata.
fn shown(decoded: &Decoded<LogBatch>) -> Vec<String> {
    let mut out = Vec::new();
    for s in &decoded.batch.streams {
        for e in &s.entries {
            let line = String::from_utf8_lossy(&e.line);
            out.push(format!("{} {} {line:?} {}", s.labels, e.ts_ns, e.metadata));
        }
    }
    out
}

fn message(result: Result<Decoded<LogBatch>>) -> (ErrorKind, String) {
    match result {
        Ok(d) => panic!("must be refused: {d:?}"),
        Err(e) => (e.kind, e.message),
    }
}

#[test]
fn both_forms_give_the_same_batch() {
    let from_json = json(
        r#"{"streams":[{"stream":{"b":"2","app":"shop","gone":""},
            "values":[["1700000000000000000","line"],["-5","tab\t\"é\"",{"trace_id":"t1"}]]}]}"#,
    );
    let from_proto = proto(vec![pb_stream(
        r#"{app="shop", b="2", gone=""}"#,
        vec![
            pb_entry(1_700_000_000_000_000_000, "line", &[]),
            pb_entry(-5, "tab\t\"é\"", &[("trace_id", "t1")]),
        ],
    )]);
    let (a, b) = (from_json.unwrap(), from_proto.unwrap());
    assert_eq!(a.batch, b.batch);
    assert_eq!(
        shown(&a),
        [
            r#"{app="shop", b="2"} 1700000000000000000 "line" {}"#,
            r#"{app="shop", b="2"} -5 "tab\t\"é\"" {trace_id="t1"}"#,
        ]
    );
    assert!(a.rejections.is_empty() && b.rejections.is_empty());
}

#[test]
fn lines_are_slices_of_the_body() {
    let raw = pb::PushRequest {
        streams: vec![pb_stream("{a=\"b\"}", vec![pb_entry(1, "zero copy", &[])])],
        format: String::new(),
    };
    let raw = Bytes::from(raw.encode_to_vec());
    let decoded = super::proto::decode(&raw, &Limits::default()).unwrap();
    assert!(
        raw.as_ptr_range()
            .contains(&decoded.batch.streams[0].entries[0].line.as_ptr())
    );

    let body = Bytes::from_static(br#"{"streams":[{"stream":{"a":"b"},"values":[["1","zero copy"]]}]}"#);
    let decoded = decode_loki_push(body.clone(), &JSON, &Limits::default()).unwrap();
    assert!(
        body.as_ptr_range()
            .contains(&decoded.batch.streams[0].entries[0].line.as_ptr())
    );
}

#[test]
fn both_ends_of_time() {
    let body = format!(
        r#"{{"streams":[{{"stream":{{"a":"b"}},"values":[["{}","x"],["{}","y"]]}}]}}"#,
        i64::MIN,
        i64::MAX
    );
    let a = json(&body).unwrap();
    let b = proto(vec![pb_stream(
        "{a=\"b\"}",
        vec![pb_entry(i64::MIN, "x", &[]), pb_entry(i64::MAX, "y", &[])],
    )]);
    assert_eq!(a.batch, b.unwrap().batch);
    assert_eq!(a.batch.streams[0].entries[0].ts_ns, i64::MIN);
}

#[test]
fn times_beyond_nanoseconds_refuse_the_entry() {
    let at = |seconds, nanos| pb::Entry {
        timestamp: Some(prost_types::Timestamp { seconds, nanos }),
        ..pb_entry(0, "x", &[])
    };
    let none = pb::Entry {
        timestamp: None,
        ..pb_entry(0, "x", &[])
    };
    let stream = pb_stream(
        "{a=\"b\"}",
        vec![at(9_300_000_000, 0), at(-9_300_000_000, 0), none, at(1, 5)],
    );
    let decoded = proto(vec![stream]).unwrap();
    assert_eq!(shown(&decoded), [r#"{a="b"} 1000000005 "x" {}"#]);
    let texts: Vec<_> = decoded
        .rejections
        .iter()
        .map(|r| (r.reason, r.message.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            (
                "too_far_in_future",
                "entry for stream '{a=\"b\"}' has timestamp too new: 2264-09-14T21:20:00Z"
            ),
            (
                "greater_than_max_sample_age",
                "entry for stream '{a=\"b\"}' has timestamp too old: 1675-04-18T02:40:00Z, oldest acceptable timestamp \
                 is: 1677-09-21T00:12:44Z"
            ),
            (
                "greater_than_max_sample_age",
                "entry for stream '{a=\"b\"}' has timestamp too old: 0001-01-01T00:00:00Z, oldest acceptable timestamp \
                 is: 1677-09-21T00:12:44Z"
            ),
        ]
    );
    for bad in [at(i64::MAX, 0), at(i64::MIN, 0), at(0, -1), at(0, 1_000_000_000)] {
        let (kind, text) = message(proto(vec![pb_stream("{a=\"b\"}", vec![bad])]));
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(text.starts_with("timestamp: seconds:"), "{text}");
    }
}

#[test]
fn json_quirks_that_are_accepted() {
    for (values, want) in [
        (r#"[["5"]]"#, vec![r#"{a="b"} 5 "" {}"#]),
        (r#"[["5","x",{"m":"1"},"more",5]]"#, vec![r#"{a="b"} 5 "x" {m="1"}"#]),
        (r#"[["5","x",{}]]"#, vec![r#"{a="b"} 5 "x" {}"#]),
        (
            r#"[["5","\ud800 lone \ud83d\ude00"]]"#,
            vec![r#"{a="b"} 5 "� lone 😀" {}"#],
        ),
        ("[]", vec![]),
        ("null", vec![]),
    ] {
        let body = format!(r#"{{"ignored":[1],"streams":[{{"values":{values},"stream":{{"a":"b"}},"x":null}}]}}"#);
        assert_eq!(shown(&json(&body).unwrap()), want, "{values}");
    }
    let numbers = json(r#"{"streams":[{"stream":{"n":5,"f":1.50,"t":true,"d":"1","d":"2"},"values":[["1","x"]]}]}"#);
    assert_eq!(
        shown(&numbers.unwrap()),
        [r#"{d="2", f="1.50", n="5", t="true"} 1 "x" {}"#]
    );
}

#[test]
fn lines_keep_bytes_that_are_not_utf8() {
    let mut body = br#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"#.to_vec();
    body.extend_from_slice(b"\xff\xfe");
    body.extend_from_slice(br#""]]}]}"#);
    let decoded = decode_loki_push(body.into(), &JSON, &Limits::default()).unwrap();
    assert_eq!(decoded.batch.streams[0].entries[0].line.as_ref(), b"x\xff\xfe");

    let entry = pb::Entry {
        line: Bytes::from_static(b"\x00\xff"),
        ..pb_entry(1, "", &[])
    };
    let decoded = proto(vec![pb_stream("{a=\"b\"}", vec![entry])]).unwrap();
    assert_eq!(decoded.batch.streams[0].entries[0].line.as_ref(), b"\x00\xff");
}

#[test]
fn json_that_is_refused() {
    for values in [
        r#"[["now","x"]]"#,
        r#"[[1.5,"x"]]"#,
        r#"[[1700000000000000000,"x"]]"#,
        r#"[["9223372036854775808","x"]]"#,
        r#"[["1",5]]"#,
        r#"[["1",["x"]]]"#,
        r#"[["1",null]]"#,
        r#"[["1","x","y"]]"#,
        r#"[["1","x",null]]"#,
        r#"[["1","x",{"n":5}]]"#,
        r#"[["1","x",{"n":{"o":"p"}}]]"#,
        r#"[["1","x",{"structuredMetadata":{"a":"b"},"parsed":{}}]]"#,
        "[[]]",
        r#"[{"ts":"1"}]"#,
        r#"{"1":"x"}"#,
        "5",
    ] {
        // A good stream before it: nothing of the request may be kept.
        let good = r#"{"stream":{"g":"1"},"values":[["1","x"]]}"#;
        let body = format!(r#"{{"streams":[{good},{{"stream":{{"a":"b"}},"values":{values}}}]}}"#);
        assert_eq!(message(json(&body)).0, ErrorKind::Invalid, "{values}");
    }
    for body in [
        "not json",
        "{\"streams\":",
        "[]",
        "5",
        r#"{"streams":{}}"#,
        r#"{"streams":[null]}"#,
        r#"{"streams":[5]}"#,
        r#"{"streams":[{"stream":{"a":{}},"values":[["1","x"]]}]}"#,
        r#"{"streams":[{"stream":{"a":null},"values":[["1","x"]]}]}"#,
        r#"{"streams":[{"stream":["a"],"values":[["1","x"]]}]}"#,
        r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"]]}]} trailing"#,
    ] {
        assert_eq!(message(json(body)).0, ErrorKind::Invalid, "{body}");
    }
    assert_eq!(message(json("")), (ErrorKind::Invalid, "EOF".into()));
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    // What is ignored may be as deep as it likes; what is read may not.
    assert_eq!(message(json(&deep)).0, ErrorKind::Execution);
    let deep = "[".repeat(100_000);
    assert_eq!(message(json(&format!(r#"{{"streams":{deep}"#))).0, ErrorKind::Invalid);
}

#[test]
fn bad_labels_refuse_the_request_with_the_place() {
    let body = r#"{"streams":[{"stream":{"bad-name":"x"},"values":[["1","x"]]}]}"#;
    let want = "couldn't parse labels: 1:5: parse error: unexpected character inside braces: '-'";
    assert_eq!(message(json(body)), (ErrorKind::Invalid, want.into()));
    let entry = || vec![pb_entry(1, "x", &[])];
    assert_eq!(
        message(proto(vec![pb_stream("{bad-name=\"x\"}", entry())])),
        (ErrorKind::Invalid, want.into())
    );
    for labels in ["{a=x}", "a=\"x\"", "{a=\"x\"", "{1a=\"x\"}", ""] {
        let (kind, text) = message(proto(vec![pb_stream(labels, entry())]));
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(text.starts_with("couldn't parse labels: 1:"), "{text}");
    }
    for name in ["", "1a", "a b", "ä", "a=\\\"b\\\",c"] {
        let body = format!(r#"{{"streams":[{{"stream":{{"{name}":"x"}},"values":[["1","x"]]}}]}}"#);
        let (_, text) = message(json(&body));
        assert!(text.starts_with("couldn't parse labels"), "{name}: {text}");
    }
    let raw = b"\x0a\x0c\x0a\x06{a=\"\xff}\x12\x02\x12\x00";
    let (_, text) = message(decode_protobuf(raw, &Limits::default()));
    assert!(text.starts_with("couldn't parse labels"), "{text}");
}

#[test]
fn no_stream_is_422_and_no_entry_is_nothing() {
    let want = "error at least one valid stream is required for ingestion";
    for body in ["{}", "null", r#"{"streams":[]}"#, r#"{"streams":null}"#] {
        assert_eq!(message(json(body)), (ErrorKind::Execution, want.into()), "{body}");
    }
    assert_eq!(message(proto(vec![])), (ErrorKind::Execution, want.into()));
    let empty = proto(vec![pb_stream("{a=\"b\"}", vec![]), pb_stream("{}", vec![])]).unwrap();
    assert!(empty.batch.streams.is_empty() && empty.rejections.is_empty());
}

#[test]
fn the_media_type_decides() {
    let body = br#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"]]}]}"#;
    let pushed = |content_type: Option<&'static str>, encoding: Option<&'static str>, body: &[u8]| {
        let headers = PushHeaders {
            content_type,
            content_encoding: encoding,
        };
        decode_loki_push(Bytes::copy_from_slice(body), &headers, &Limits::default())
    };
    assert!(pushed(Some("application/json; charset=utf-8"), None, body).is_ok());
    assert_eq!(message(pushed(None, None, body)).1, "mime: no media type");
    for ct in ["text/plain", "application/x-protobuf"] {
        assert_eq!(message(pushed(Some(ct), None, body)).1, "snappy: corrupt input");
    }
    let br = message(pushed(Some("application/json"), Some("br"), body));
    assert_eq!(br, (ErrorKind::Invalid, "Content-Encoding \"br\" not supported".into()));
    assert_eq!(
        message(pushed(Some("application/json"), Some("gzip"), b"not gzip at all")).0,
        ErrorKind::Invalid
    );

    let raw = pb::PushRequest {
        streams: vec![pb_stream("{a=\"b\"}", vec![pb_entry(1, "x", &[])])],
        format: String::new(),
    };
    let proto = snappy(&raw.encode_to_vec());
    assert!(pushed(Some("application/octet-stream"), Some("snappy"), &proto).is_ok());
    let mut gz = flate2::read::GzEncoder::new(&*proto, flate2::Compression::fast());
    let mut zipped = Vec::new();
    std::io::Read::read_to_end(&mut gz, &mut zipped).unwrap();
    assert!(pushed(Some("application/x-protobuf"), Some("gzip"), &zipped).is_ok());
    assert_eq!(
        message(pushed(Some("application/json"), None, &proto)).0,
        ErrorKind::Invalid
    );
}

#[test]
fn the_older_form() {
    let body = r#"{"streams":[{"labels":"{app=\"old\"}",
        "entries":[{"ts":"2023-11-14T22:13:20.000000007Z","line":"old form"},{"ts":"2023-11-14T23:13:20+01:00","line":"x"}]}]}"#;
    let decoded = decode_loki_push_legacy(Bytes::from_static(body.as_bytes()), &JSON, &Limits::default()).unwrap();
    assert_eq!(
        shown(&decoded),
        [
            r#"{app="old"} 1700000000000000007 "old form" {}"#,
            r#"{app="old"} 1700000000000000000 "x" {}"#
        ]
    );
    for entry in [
        r#"{"ts":"yesterday","line":"x"}"#,
        r#"{"line":"x"}"#,
        r#"{"ts":5,"line":"x"}"#,
        "[\"1\"]",
    ] {
        let body = format!(r#"{{"streams":[{{"labels":"{{a=\"b\"}}","entries":[{entry}]}}]}}"#);
        let result = decode_loki_push_legacy(body.into(), &JSON, &Limits::default());
        assert_eq!(message(result).0, ErrorKind::Invalid, "{entry}");
    }
}

#[test]
fn metadata_names_and_values_are_normalised() {
    for (name, want) in [
        ("ok_name", "ok_name"),
        ("1st", "key_1st"),
        ("bad-name!", "bad_name_"),
        ("a..b", "a_b"),
        ("x.y-z", "x_y_z"),
        ("__dunder__", "__dunder__"),
        ("é", "_"),
        ("", "_"),
    ] {
        assert_eq!(metadata_name(name.as_bytes()), want, "{name}");
    }
    assert_eq!(metadata_value(b"a\xff\xfeb\xc3"), "a  b ");
    let decoded = json(r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x",{"b.c":"1","b-c":"2","d":""}]]}]}"#);
    assert_eq!(shown(&decoded.unwrap()), [r#"{a="b"} 1 "x" {b_c="2"}"#]);
}

fn small() -> Limits {
    Limits {
        label_names_max: 2,
        label_name_bytes_max: 5,
        label_value_bytes_max: 6,
        line_bytes_max: 4,
        structured_metadata_bytes_max: 10,
        structured_metadata_count_max: 2,
        ..Limits::default()
    }
}

/// A stream that breaks a limit beside one that does not.
fn limited(bad: pb::Stream, want: (&'static str, u64, &str)) -> Vec<Rejection> {
    let good = pb_stream("{g=\"1\"}", vec![pb_entry(1, "good", &[])]);
    let decoded = proto_with(vec![good, bad], &small()).unwrap();
    assert_eq!(shown(&decoded)[0], r#"{g="1"} 1 "good" {}"#);
    let [r] = decoded.rejections.as_slice() else {
        panic!("one rejection expected: {:?}", decoded.rejections);
    };
    assert_eq!((r.reason, r.count, r.message.as_str()), want);
    decoded.rejections
}

#[test]
fn limits_refuse_streams_with_upstream_texts() {
    let two = || vec![pb_entry(1, "x", &[]), pb_entry(2, "y", &[])];
    let rejections = limited(
        pb_stream("{a=\"1\",b=\"2\",c=\"3\"}", two()),
        (
            "max_label_names_per_series",
            2,
            r#"entry for stream '{a="1", b="2", c="3"}' has 3 label names; limit 2"#,
        ),
    );
    // One stream is one error, whatever its entries.
    assert_eq!(error_of(&rejections).unwrap().message, rejections[0].message);
    limited(
        pb_stream("{abcdef=\"1\"}", two()),
        (
            "label_name_too_long",
            2,
            r#"stream '{abcdef="1"}' has label name too long: 'abcdef'"#,
        ),
    );
    limited(
        pb_stream("{a=\"1234567\"}", two()),
        (
            "label_value_too_long",
            2,
            r#"stream '{a="1234567"}' has label value too long: '1234567'"#,
        ),
    );
    limited(
        pb_stream("{a=\"1\",a=\"2\"}", two()),
        (
            "duplicate_label_names",
            2,
            r#"stream '{a="2"}' has duplicate label name: 'a'"#,
        ),
    );
    for none in ["{}", "{a=\"\"}"] {
        limited(
            pb_stream(none, two()),
            (
                "missing_labels",
                2,
                "error at least one label pair is required per stream",
            ),
        );
    }
}

#[test]
fn limits_refuse_entries_with_upstream_texts() {
    let bad = |e| pb_stream("{a=\"b\"}", vec![e, pb_entry(9, "1234", &[("k", "v")])]);
    limited(
        bad(pb_entry(1, "12345", &[])),
        (
            "line_too_long",
            1,
            r#"max entry size '4' bytes exceeded for stream '{a="b"}' while adding an entry with length '5' bytes"#,
        ),
    );
    limited(
        bad(pb_entry(1, "x", &[("a", "1234567890")])),
        (
            "structured_metadata_too_large",
            1,
            "stream '{a=\"b\"}' has structured metadata too large: '11' bytes, limit: '10' bytes. Please see \
             limits.structured-metadata-size",
        ),
    );
    limited(
        bad(pb_entry(1, "x", &[("a", "1"), ("b", "1"), ("c", "1")])),
        (
            "structured_metadata_too_many",
            1,
            "stream '{a=\"b\"}' has too many structured metadata labels: '3', limit: '2'. Please see \
             limits.structured-metadata-count",
        ),
    );
    let body = br#"{"streams":[{"stream":{"a":"b"},"values":[["1","12345"],["2","ok"]]}]}"#;
    let decoded = decode_loki_push(Bytes::from_static(body), &JSON, &small()).unwrap();
    assert_eq!(shown(&decoded), [r#"{a="b"} 2 "ok" {}"#]);
    assert_eq!(decoded.rejections[0].kind, ErrorKind::TooLarge);
    // The kind of the item is TooLarge, the answer is 400 as upstream's.
    assert_eq!(error_of(&decoded.rejections).unwrap().kind, ErrorKind::Invalid);
}

#[test]
fn several_errors_are_grouped() {
    let lines = vec![
        pb_entry(1, "12345", &[]),
        pb_entry(2, "12345", &[]),
        pb_entry(3, "123456", &[]),
    ];
    let decoded = proto_with(vec![pb_stream("{a=\"b\"}", lines)], &small()).unwrap();
    let text = |n| {
        format!(
            "max entry size '4' bytes exceeded for stream '{{a=\"b\"}}' while adding an entry with length '{n}' bytes"
        )
    };
    let mut rejections = decoded.rejections;
    assert_eq!(
        error_of(&rejections).unwrap().message,
        format!("2 errors like: {}; 1 errors like: {}", text(5), text(6))
    );
    // A rate or count limit of the store goes first, because it may be retried.
    rejections.push(Rejection {
        kind: ErrorKind::LimitExceeded,
        reason: "stream_limit",
        message: "maximum active stream limit exceeded".into(),
        count: 4,
    });
    let error = error_of(&rejections).unwrap();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::LimitExceeded, "maximum active stream limit exceeded")
    );
    assert!(error.retry_after.is_some());
    assert!(error_of(&[]).is_none());
}

#[test]
fn memory_is_bounded_by_the_body() {
    // A stream of a million empty entries, two bytes each.
    let mut stream = b"\x0a\x07{a=\"b\"}".to_vec();
    stream.extend(b"\x12\x00".repeat(1_000_000));
    let mut raw = vec![0x0a];
    prost::encoding::encode_varint(stream.len() as u64, &mut raw);
    raw.extend(stream);
    assert_eq!(
        decode_protobuf(&raw, &Limits::default()).unwrap_err().kind,
        ErrorKind::TooLarge
    );

    // The shortest real entries pass.
    let values = vec![r#"["1"]"#; 500_000].join(",");
    let body = format!(r#"{{"streams":[{{"stream":{{"a":"b"}},"values":[{values}]}}]}}"#);
    assert_eq!(json(&body).unwrap().batch.entry_count(), 500_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_prost_and_serde_encode_is_read_back(
        streams in proptest::collection::vec(
            (
                proptest::collection::btree_map("[a-z_][a-z0-9_]{0,4}", "[ -~é]{1,8}", 1..4),
                proptest::collection::vec(
                    (any::<i64>(), ".{0,20}", proptest::collection::btree_map("[a-z_]{1,4}", ".{1,5}", 0..3)),
                    1..4,
                ),
            ),
            1..4,
        ),
    ) {
        let streams_json: Vec<_> = streams
            .iter()
            .map(|(labels, entries)| {
                let values: Vec<_> = entries
                    .iter()
                    .map(|(ts, line, metadata)| serde_json::json!([ts.to_string(), line, metadata]))
                    .collect();
                serde_json::json!({"stream": labels, "values": values})
            })
            .collect();
        let streams_pb: Vec<_> = streams
            .iter()
            .map(|(labels, entries)| {
                let text: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={}", serde_json::json!(v))).collect();
                let entries = entries.iter().map(|(ts, line, metadata)| {
                    let pairs: Vec<_> = metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                    pb_entry(*ts, line, &pairs)
                });
                pb_stream(&format!("{{{}}}", text.join(",")), entries.collect())
            })
            .collect();
        let a = json(&serde_json::json!({"streams": streams_json}).to_string()).unwrap();
        let b = proto(streams_pb).unwrap();
        prop_assert_eq!(&a.batch, &b.batch);
        for (stream, (labels, entries)) in a.batch.streams.iter().zip(&streams) {
            prop_assert_eq!(&stream.labels, &Labels::from_pairs(labels));
            for (got, (ts, line, metadata)) in stream.entries.iter().zip(entries) {
                prop_assert_eq!(got.ts_ns, *ts);
                prop_assert_eq!(got.line.as_ref(), line.as_bytes());
                prop_assert_eq!(&got.metadata, &Labels::from_pairs(metadata));
            }
        }
    }

    #[test]
    fn damaged_pushes_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let raw = pb::PushRequest {
            streams: vec![pb_stream("{a=\"b\", c=\"d\"}", vec![pb_entry(1, "line", &[("k", "v")]), pb_entry(2, "", &[])])],
            format: "x".into(),
        };
        let mut raw = raw.encode_to_vec();
        let i = at.index(raw.len());
        raw[i] = byte;
        crate::fuzzing::loki_protobuf(&raw);
        crate::fuzzing::loki_protobuf(&raw[..cut.index(raw.len())]);
        let mut body = br#"{"streams":[{"stream":{"a":"b"},"labels":"{a=\"b\"}","values":[["1","l\u00e9",{"k":"v"}]],"entries":[{"ts":"2020-01-01T00:00:00Z","line":"x"}]}]}"#.to_vec();
        let i = at.index(body.len());
        body[i] = byte;
        crate::fuzzing::loki_json(&body);
        crate::fuzzing::loki_json(&body[..cut.index(body.len())]);
    }

    #[test]
    fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::fuzzing::loki_protobuf(&data);
        crate::fuzzing::loki_json(&data);
        crate::fuzzing::loki_labels(&data);
    }
}
