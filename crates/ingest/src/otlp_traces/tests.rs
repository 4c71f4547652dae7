use std::path::Path;

use proptest::prelude::*;
use prost::Message;
use serde_json::json;
use trilith_model::ErrorKind;
use trilith_proto::otlp::resource::v1 as pr;
use trilith_proto::otlp::trace::v1::TracesData;

use super::out::*;
use super::*;

const JSON: PushHeaders<'static> = PushHeaders {
    content_type: Some("application/json"),
    content_encoding: None,
};
const PROTO: PushHeaders<'static> = PushHeaders {
    content_type: Some("application/x-protobuf"),
    content_encoding: None,
};

fn push(body: impl Into<Bytes>, headers: &PushHeaders<'_>) -> Result<TraceBatch> {
    decode_otlp_traces(body.into(), headers, &Limits::default()).map(|d| d.batch)
}

fn from_json(value: &serde_json::Value) -> Result<TraceBatch> {
    push(value.to_string(), &JSON)
}

/// One span in OTLP JSON with fields replaced or added.
fn one(fields: serde_json::Value) -> serde_json::Value {
    let mut span = json!({"traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "a1a2a3a4a5a6a7a8", "name": "n"});
    for (k, v) in fields.as_object().expect("an object of fields") {
        span[k] = v.clone();
    }
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
}

fn span_of(batch: &TraceBatch) -> &Span {
    &batch.resource_spans[0].scope_spans[0].spans[0]
}

/// A trace that uses every field.
fn everything() -> serde_json::Value {
    let values = json!([
        {"key": "str", "value": {"stringValue": "plain"}},
        {"key": "empty", "value": {"stringValue": ""}},
        {"key": "odd", "value": {"stringValue": "grüße 漢字 🚀 \u{0}\t\n\"quoted\" \\"}},
        {"key": "zero", "value": {"intValue": "0"}},
        {"key": "max", "value": {"intValue": "9223372036854775807"}},
        {"key": "min", "value": {"intValue": "-9223372036854775808"}},
        {"key": "tiny", "value": {"doubleValue": 5e-324}},
        {"key": "five", "value": {"doubleValue": 5.0}},
        {"key": "inf", "value": {"doubleValue": "-Infinity"}},
        {"key": "no", "value": {"boolValue": false}},
        {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}, {}]}}},
        {"key": "list.empty", "value": {"arrayValue": {}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": true}}]}}},
        {"key": "bytes", "value": {"bytesValue": "AAEC/f7/"}},
        {"key": "", "value": {}},
        {"key": "str", "value": {"stringValue": "twice"}}
    ]);
    json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}], "droppedAttributesCount": 6},
        "schemaUrl": "https://opentelemetry.io/schemas/1.21.0",
        "scopeSpans": [{
            "scope": {"name": "lib", "version": "1", "droppedAttributesCount": 7, "attributes": values},
            "schemaUrl": "https://opentelemetry.io/schemas/1.22.0",
            "spans": [{
                "traceId": "5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f", "spanId": "0000000000000001",
                "parentSpanId": "00000000deadbeef", "traceState": "a=1,b=2", "flags": 257, "name": "root", "kind": 2,
                "startTimeUnixNano": "1700000000123456789", "endTimeUnixNano": "18446744073709551615",
                "attributes": values, "droppedAttributesCount": 3, "droppedEventsCount": 4, "droppedLinksCount": 5,
                "status": {"code": 2, "message": "broke: ü"},
                "events": [{"timeUnixNano": "1", "name": "exception", "droppedAttributesCount": 2, "attributes": values},
                           {"name": ""}],
                "links": [{"traceId": "abababababababababababababababab", "spanId": "cdcdcdcdcdcdcdcd", "traceState": "x=y",
                           "flags": 1, "droppedAttributesCount": 1, "attributes": values},
                          {"traceId": "", "spanId": ""}]
            }, {"traceId": "5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f", "spanId": "ffffffffffffffff", "status": {}}]
        }, {"spans": []}]
    }, {"resource": {}, "scopeSpans": [{"scope": {}}]}]})
}

#[test]
fn the_three_ways_in_give_one_batch_and_the_way_out_is_lossless() {
    let a = from_json(&everything()).unwrap();
    assert_eq!(a.span_count(), 2);
    let bytes = trace_to_protobuf(a.clone());
    assert_eq!(push(bytes.clone(), &PROTO).unwrap(), a);
    let request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
    let decoded = from_request(request, 5).unwrap();
    assert_eq!((decoded.batch, decoded.bytes), (a.clone(), 5));
    // Tempo's JSON with its base64 ids and enum names is read, too. It does not tell an absent resource or scope from
    // an empty one.
    let mut want = a.clone();
    want.resource_spans[0].scope_spans[1].scope.present = true;
    assert_eq!(push(trace_to_json_v1(&a), &JSON).unwrap(), want);
}

#[test]
fn tempos_json_has_its_shape() {
    let batch = from_json(&everything()).unwrap();
    let v1: serde_json::Value = serde_json::from_slice(&trace_to_json_v1(&batch)).unwrap();
    let keys: Vec<_> = v1.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["batches"]);
    let span = &v1["batches"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "X19fX19fX19fX19fX19fXw==");
    assert_eq!(span["spanId"], "AAAAAAAAAAE=");
    assert_eq!(span["parentSpanId"], "AAAAAN6tvu8=");
    assert_eq!(span["kind"], "SPAN_KIND_SERVER");
    assert_eq!(span["endTimeUnixNano"], "18446744073709551615");
    assert_eq!(span["flags"], 257);
    assert_eq!(
        span["status"],
        json!({"message": "broke: ü", "code": "STATUS_CODE_ERROR"})
    );
    assert_eq!(
        span["attributes"][4]["value"],
        json!({"intValue": "9223372036854775807"})
    );
    assert_eq!(span["attributes"][8]["value"], json!({"doubleValue": "-Infinity"}));
    assert_eq!(span["attributes"][11]["value"], json!({"arrayValue": {}}));
    assert_eq!(span["attributes"][13]["value"], json!({"bytesValue": "AAEC/f7/"}));
    assert_eq!(span["links"][1], json!({}));
    let second = &v1["batches"][0]["scopeSpans"][0]["spans"][1];
    let want = json!({"traceId": "X19fX19fX19fX19fX19fXw==", "spanId": "//////////8=", "status": {}});
    assert_eq!(second, &want);
    assert_eq!(v1["batches"][1], json!({"resource": {}, "scopeSpans": [{"scope": {}}]}));

    let small = from_json(&one(json!({"kind": 9, "status": {"code": -1}}))).unwrap();
    let answer = TraceAnswer {
        inspected_bytes: 12345,
        partial: Some("cut \"here\"".into()),
    };
    assert_eq!(
        String::from_utf8(trace_to_json_v2(&small, &answer)).unwrap(),
        "{\"trace\":{\"resourceSpans\":[{\"resource\":{},\"scopeSpans\":[{\"scope\":{},\"spans\":[{\"traceId\":\
         \"AQIDBAUGBwgJCgsMDQ4PEA==\",\"spanId\":\"oaKjpKWmp6g=\",\"name\":\"n\",\"kind\":9,\"status\":{\"code\":-1}}]}]}]},\
         \"metrics\":{\"inspectedBytes\":\"12345\"},\"status\":\"PARTIAL\",\"message\":\"cut \\\"here\\\"\"}"
    );
    let nothing = trace_to_json_v2(&TraceBatch::default(), &TraceAnswer::default());
    assert_eq!(nothing, br#"{"trace":{},"metrics":{}}"#);

    let proto = trace_to_protobuf_v2(small.clone(), &answer);
    let message = trilith_proto::tempopb::TraceByIdResponse::decode(proto.as_slice()).unwrap();
    assert_eq!((message.status, message.message.as_str()), (1, "cut \"here\""));
    assert_eq!(message.trace, Some(trace_to_proto(small)));
}

#[test]
fn json_is_read_leniently() {
    let check = |fields, f: &dyn Fn(&Span) -> bool| {
        let value = one(fields);
        let batch = from_json(&value).unwrap_or_else(|e| panic!("{value}: {e}"));
        assert!(f(span_of(&batch)), "{value}: {batch:?}");
    };
    check(
        json!({"kind": "SPAN_KIND_CLIENT", "status": {"code": "STATUS_CODE_OK"}}),
        &|s| s.kind == 3 && s.status.as_ref().is_some_and(|s| s.code == 1),
    );
    check(json!({"kind": "4", "status": null}), &|s| {
        s.kind == 4 && s.status.is_none()
    });
    check(
        json!({"start_time_unix_nano": "5", "endTimeUnixNano": 7, "parent_span_id": "00000000000000FF"}),
        &|s| s.start_ns == 5 && s.end_ns == 7 && s.parent_span_id.0[7] == 0xff,
    );
    check(
        json!({"startTimeUnixNano": 1.5e9, "flags": "257", "droppedLinksCount": null}),
        &|s| s.start_ns == 1_500_000_000 && s.flags == 257,
    );
    check(
        json!({"attributes": null, "events": null, "links": null, "name": null, "unknown": {"a": [1]}, "kind": null}),
        &|s| s.attributes.is_empty() && s.name.is_empty() && s.kind == 0,
    );
    for (value, want) in [
        (json!({"doubleValue": "NaN"}), "Double(NaN)"),
        (json!({"doubleValue": "Infinity"}), "Double(inf)"),
        (json!({"doubleValue": 5}), "Double(5.0)"),
        (json!({"doubleValue": "-1e-3"}), "Double(-0.001)"),
        (json!({"intValue": 5}), "Int(5)"),
        (json!({"int_value": "-5"}), "Int(-5)"),
        (json!({"bytesValue": "_-8"}), "Bytes([255, 239])"),
        (json!({"stringValue": null}), "Empty"),
        (json!(null), "Empty"),
        (json!({"newValue": 5}), "Empty"),
        (json!({"arrayValue": {"values": null}}), "Array([])"),
        (
            json!({"kvlistValue": {"values": [{"key": "k"}]}}),
            "KvList([KeyValue { key: \"k\", value: Empty }])",
        ),
    ] {
        check(json!({"attributes": [{"key": "k", "value": value}]}), &|s| {
            format!("{:?}", s.attributes[0].value) == want
        });
    }
    for empty in [
        "{}",
        r#"{"resourceSpans":null}"#,
        r#"{"resourceSpans":[]}"#,
        r#"{"other":1}"#,
    ] {
        assert_eq!(push(empty, &JSON).unwrap(), TraceBatch::default());
    }
    let snake = json!({"resource_spans": [{"schema_url": "s", "scope_spans": [{"spans": []}]}]});
    assert_eq!(from_json(&snake).unwrap().resource_spans[0].resource.schema_url, "s");
}

#[test]
fn json_that_cannot_be_read_is_refused() {
    for fields in [
        json!({"kind": "SERVER"}),
        json!({"kind": {}}),
        json!({"startTimeUnixNano": "-1"}),
        json!({"startTimeUnixNano": "18446744073709551616"}),
        json!({"startTimeUnixNano": 1.5}),
        json!({"flags": 4294967296u64}),
        json!({"name": 5}),
        json!({"attributes": {}}),
        json!({"attributes": [{"key": "k", "value": {"intValue": "x"}}]}),
        json!({"attributes": [{"key": "k", "value": {"bytesValue": "?"}}]}),
        json!({"attributes": [{"key": "k", "value": "bare"}]}),
        json!({"attributes": [{"key": "k", "value": {"doubleValue": "inf"}}]}),
        json!({"attributes": [{"key": "k", "value": {"doubleValue": "1e999"}}]}),
        json!({"attributes": [["k", {"stringValue": "x"}]]}),
        json!({"status": []}),
        json!({"traceId": "xyz"}),
        json!({"traceId": 5}),
    ] {
        let value = one(fields);
        let e = from_json(&value).expect_err(&value.to_string());
        assert_eq!(e.kind, ErrorKind::Invalid);
        assert!(e.message.starts_with("invalid OTLP JSON: "), "{}", e.message);
    }
    for body in ["", "{not json", "[]", "5", "{} trailing", "{\"resourceSpans\":{}}"] {
        assert_eq!(push(body, &JSON).unwrap_err().kind, ErrorKind::Invalid, "{body}");
    }
}

/// The same refusal in all three forms; a good span in the same request is refused, too.
#[test]
fn bad_ids_refuse_the_request() {
    let at = ": span 'bad'";
    for (trace, span, parent, want) in [
        (8, 8, 0, "trace ids must be 128 bit, received 64 bits: span 'bad'"),
        (0, 8, 0, "trace ids must be 128 bit, received 0 bits: span 'bad'"),
        (17, 8, 0, "trace ids must be 128 bit, received 136 bits: span 'bad'"),
        (
            16,
            4,
            0,
            "span ids must be 64 bit and not all zero, received 32 bits: span 'bad'",
        ),
        (
            16,
            0,
            0,
            "span ids must be 64 bit and not all zero, received 0 bits: span 'bad'",
        ),
        (16, 8, 7, "parent span ids must be 64 bit, received 56 bits: span 'bad'"),
    ] {
        refused_everywhere(vec![0xaa; trace], vec![0xbb; span], vec![0xcc; parent], want);
    }
    refused_everywhere(
        vec![0xaa; 16],
        vec![0; 8],
        vec![],
        &format!("span ids must be 64 bit and not all zero, received 64 bits{at}"),
    );
    refused_everywhere(
        vec![0; 16],
        vec![1; 8],
        vec![],
        &format!("trace ids must be 128 bit and not all zero, received 128 bits{at}"),
    );
    let link = json!({"links": [{"traceId": "ab", "spanId": "cdcdcdcdcdcdcdcd"}]});
    assert_eq!(
        from_json(&one(link)).unwrap_err().message,
        "trace ids of links must be 128 bit, received 8 bits"
    );
}

fn refused_everywhere(trace_id: Vec<u8>, span_id: Vec<u8>, parent_span_id: Vec<u8>, want: &str) {
    let good = pt::Span {
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        ..Default::default()
    };
    let bad = pt::Span {
        trace_id,
        span_id,
        parent_span_id,
        name: "bad".into(),
        ..Default::default()
    };
    let as_json = |s: &pt::Span| {
        json!({"name": s.name, "traceId": hex::encode(&s.trace_id), "spanId": hex::encode(&s.span_id),
               "parentSpanId": hex::encode(&s.parent_span_id)})
    };
    let json = json!({"resourceSpans": [{"scopeSpans": [{"spans": [as_json(&good), as_json(&bad)]}]}]});
    let request = ExportTraceServiceRequest {
        resource_spans: vec![pt::ResourceSpans {
            scope_spans: vec![pt::ScopeSpans {
                spans: vec![good, bad],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    for result in [
        push(request.encode_to_vec(), &PROTO),
        from_json(&json),
        from_request(request, 0).map(|d| d.batch),
    ] {
        let e = result.expect_err(want);
        assert_eq!((e.kind, e.message.as_str()), (ErrorKind::Invalid, want));
    }
}

#[test]
fn headers_and_encodings() {
    let raw = trace_to_protobuf(from_json(&one(json!({}))).unwrap());
    let headers = |content_type, content_encoding| PushHeaders {
        content_type,
        content_encoding,
    };
    let proto = Some("application/x-protobuf");
    let mut gz = flate2::read::GzEncoder::new(raw.as_slice(), flate2::Compression::fast());
    let mut zipped = Vec::new();
    std::io::Read::read_to_end(&mut gz, &mut zipped).unwrap();
    let zstd = zstd::encode_all(raw.as_slice(), 1).unwrap();
    for (encoding, body) in [
        (None, &raw),
        (Some("identity"), &raw),
        (Some("gzip"), &zipped),
        (Some("ZSTD"), &zstd),
    ] {
        assert_eq!(
            push(body.clone(), &headers(proto, encoding)).unwrap().span_count(),
            1,
            "{encoding:?}"
        );
    }
    let kind =
        |content_type, encoding, body: &[u8]| push(body.to_vec(), &headers(content_type, encoding)).unwrap_err().kind;
    assert_eq!(kind(Some("text/plain"), None, b"x"), ErrorKind::Unsupported);
    assert_eq!(kind(None, None, b"x"), ErrorKind::Unsupported);
    assert_eq!(kind(proto, Some("br"), &raw), ErrorKind::Invalid);
    assert_eq!(kind(proto, Some("gzip"), &raw), ErrorKind::Invalid);
    assert_eq!(kind(proto, None, b"\xff\xff\xff"), ErrorKind::Invalid);
    let tiny = Limits {
        request_bytes_max: 10,
        ..Limits::default()
    };
    let e = decode_otlp_traces(zipped.into(), &headers(proto, Some("gzip")), &tiny).unwrap_err();
    assert_eq!(e.kind, ErrorKind::TooLarge);
    assert_eq!(push(Bytes::new(), &PROTO).unwrap(), TraceBatch::default());
}

#[test]
fn text_that_is_not_utf8_is_refused_by_field() {
    let e = push(&b"\x0a\x06\x12\x04\x12\x02\x2a\x00"[..], &PROTO).unwrap_err();
    assert_eq!(e.message, "trace ids must be 128 bit, received 0 bits: span ''");
    let e = push(&b"\x0a\x07\x12\x05\x12\x03\x2a\x01\xff"[..], &PROTO).unwrap_err();
    assert_eq!(e.message, "proto: field Span.Name contains invalid UTF-8");
}

/// A length-delimited field.
fn wrapped(tag: u8, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    prost::encoding::encode_varint(inner.len() as u64, &mut out);
    out.extend_from_slice(inner);
    out
}

fn nested(levels: usize) -> pc::AnyValue {
    let mut value = pc::AnyValue::default();
    for _ in 0..levels {
        value = pc::AnyValue {
            value: Some(pc::any_value::Value::ArrayValue(pc::ArrayValue { values: vec![value] })),
        };
    }
    value
}

#[test]
fn nesting_is_bounded() {
    let with = |levels| ExportTraceServiceRequest {
        resource_spans: vec![pt::ResourceSpans {
            resource: Some(pr::Resource {
                attributes: vec![pc::KeyValue {
                    key: "deep".into(),
                    value: Some(nested(levels)),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }],
    };
    let deepest = push(with(VALUE_DEPTH_MAX).encode_to_vec(), &PROTO).unwrap();
    // What is accepted can be read back by a default protobuf library.
    assert!(TracesData::decode(trace_to_protobuf(deepest.clone()).as_slice()).is_ok());
    assert!(serde_json::from_slice::<serde_json::Value>(&trace_to_json_v1(&deepest)).is_ok());
    let too_deep = "attribute values are nested deeper than 30 levels";
    let e = push(with(VALUE_DEPTH_MAX + 1).encode_to_vec(), &PROTO).unwrap_err();
    assert_eq!(e.message, too_deep);
    // Deeper than prost can encode: wrapped from the inside, an array in an array.
    let mut raw = Vec::new();
    for _ in 0..5000 {
        raw = wrapped(0x2a, &wrapped(0x0a, &raw));
    }
    // AnyValue in KeyValue.value in Resource.attributes in ResourceSpans.resource in the request
    for tag in [0x12, 0x0a, 0x0a, 0x0a] {
        raw = wrapped(tag, &raw);
    }
    assert_eq!(push(raw, &PROTO).unwrap_err().message, too_deep);
    assert!(from_request(with(VALUE_DEPTH_MAX + 1), 0).is_err());
    let deep = |levels: usize| {
        let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(levels), "]}}".repeat(levels));
        format!(r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"k","value":{open}{close}}}]}}}}]}}"#)
    };
    assert!(push(deep(VALUE_DEPTH_MAX), &JSON).is_ok());
    assert!(push(deep(VALUE_DEPTH_MAX + 1), &JSON).is_err());
    assert!(push(deep(10_000), &JSON).is_err());
}

#[test]
fn memory_is_bounded_by_the_body() {
    let mut span = vec![0x0a, 16];
    span.extend([1; 16]);
    span.extend([0x12, 8]);
    span.extend([1; 8]);
    // A million empty events, two bytes each.
    span.extend(b"\x5a\x00".repeat(1_000_000));
    let raw = wrapped(0x0a, &wrapped(0x12, &wrapped(0x12, &span)));
    assert_eq!(push(raw, &PROTO).unwrap_err().kind, ErrorKind::TooLarge);
    let events = vec!["{}"; 1_000_000].join(",");
    let body = one(json!({"events": "@"}))
        .to_string()
        .replace("\"@\"", &format!("[{events}]"));
    assert_eq!(push(body, &JSON).unwrap_err().kind, ErrorKind::TooLarge);
    // The budget of one request does not reach into the next.
    assert!(from_json(&one(json!({}))).is_ok());
}

/// Every OTLP file of the corpora: JSON in, protobuf out, and all ways in agree.
#[test]
fn corpora_round_trip() {
    let root = std::env::var("TRILITH_CORPORA").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        Into::into,
    );
    let mut files = Vec::new();
    for folder in ["traces/otlp", "traces/otlp/jaeger-storage", "traces/otlp-to-jaeger"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
            tracing::warn!(folder, "no corpora here, skipped");
            continue;
        };
        files.extend(
            entries
                .map(|e| e.unwrap().path())
                .filter(|p| p.extension().is_some_and(|x| x == "json")),
        );
    }
    for file in files {
        let name = file.display().to_string();
        let body = std::fs::read(&file).unwrap();
        if !body.windows(15).any(|w| w == b"\"resourceSpans\"") {
            continue;
        }
        let batch = match push(body, &JSON) {
            Ok(b) => b,
            Err(e) if name.contains("invalid") => {
                assert_eq!(e.kind, ErrorKind::Invalid);
                continue;
            }
            Err(e) => panic!("{name}: {e}"),
        };
        let bytes = trace_to_protobuf(batch.clone());
        assert_eq!(push(bytes.clone(), &PROTO).unwrap(), batch, "{name}");
        let request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(from_request(request, 0).unwrap().batch, batch, "{name}");
        let again = push(trace_to_json_v1(&batch), &JSON).unwrap();
        assert_eq!(again.span_count(), batch.span_count(), "{name}");
    }
}

fn any_attribute() -> impl Strategy<Value = pc::KeyValue> {
    use pc::any_value::Value;
    let leaf = prop_oneof![
        Just(None),
        ".{0,6}".prop_map(|s| Some(Value::StringValue(s))),
        any::<bool>().prop_map(|b| Some(Value::BoolValue(b))),
        any::<i64>().prop_map(|n| Some(Value::IntValue(n))),
        prop::num::f64::NORMAL.prop_map(|x| Some(Value::DoubleValue(x))),
        proptest::collection::vec(any::<u8>(), 0..5).prop_map(|b| Some(Value::BytesValue(b))),
    ];
    let value = leaf
        .prop_map(|value| pc::AnyValue { value })
        .prop_recursive(3, 8, 3, |inner| {
            let list = proptest::collection::vec(inner, 0..3);
            prop_oneof![
                list.clone()
                    .prop_map(|values| Value::ArrayValue(pc::ArrayValue { values })),
                list.prop_map(|values| Value::KvlistValue(pc::KeyValueList {
                    values: values
                        .into_iter()
                        .map(|value| pc::KeyValue {
                            key: "k".into(),
                            value: Some(value),
                            ..Default::default()
                        })
                        .collect()
                })),
            ]
            .prop_map(|value| pc::AnyValue { value: Some(value) })
        });
    (".{0,4}", value).prop_map(|(key, value)| pc::KeyValue {
        key,
        value: Some(value),
        ..Default::default()
    })
}

fn any_request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let attributes = || proptest::collection::vec(any_attribute(), 0..3);
    let times = (any::<u64>(), any::<u64>());
    let counts = (any::<u32>(), any::<u32>(), any::<u32>());
    let span = (
        any::<[u8; 16]>(),
        any::<[u8; 8]>(),
        ".{0,5}",
        -1..7i32,
        times,
        attributes(),
        counts,
        attributes(),
    );
    let span = span.prop_map(|(mut trace, mut id, name, kind, (start, end), list, (a, b, c), more)| {
        trace[0] |= 1;
        id[0] |= 1;
        pt::Span {
            trace_id: trace.to_vec(),
            span_id: id.to_vec(),
            parent_span_id: if a % 2 == 0 { vec![] } else { id.to_vec() },
            name: name.clone(),
            trace_state: name,
            kind,
            flags: a,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes: list,
            dropped_attributes_count: a,
            events: vec![pt::span::Event {
                time_unix_nano: end,
                name: "e".into(),
                attributes: more.clone(),
                dropped_attributes_count: b,
            }],
            dropped_events_count: b,
            links: vec![pt::span::Link {
                trace_id: trace.to_vec(),
                span_id: id.to_vec(),
                attributes: more,
                flags: c,
                ..Default::default()
            }],
            dropped_links_count: c,
            status: (c % 2 == 0).then(|| pt::Status {
                message: "m".into(),
                code: kind,
            }),
        }
    });
    (proptest::collection::vec(span, 0..3), attributes(), any::<bool>()).prop_map(|(spans, list, present)| {
        ExportTraceServiceRequest {
            resource_spans: vec![pt::ResourceSpans {
                resource: present.then(|| pr::Resource {
                    attributes: list.clone(),
                    ..Default::default()
                }),
                scope_spans: vec![pt::ScopeSpans {
                    scope: present.then(|| pc::InstrumentationScope {
                        name: "lib".into(),
                        attributes: list,
                        ..Default::default()
                    }),
                    spans,
                    schema_url: "s".into(),
                }],
                schema_url: String::new(),
            }],
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn walk_and_messages_agree_and_come_back_unchanged(request in any_request()) {
        let bytes = request.encode_to_vec();
        let walked = push(bytes.clone(), &PROTO).unwrap();
        prop_assert_eq!(&from_request(request.clone(), 0).unwrap().batch, &walked);
        let out = trace_to_proto(walked.clone());
        prop_assert_eq!(&out.resource_spans, &request.resource_spans);
        prop_assert_eq!(trace_to_protobuf(walked.clone()), bytes);
        let json = push(trace_to_json_v1(&walked), &JSON).unwrap();
        prop_assert_eq!(json.span_count(), walked.span_count());
        for (a, b) in json.resource_spans.iter().zip(&walked.resource_spans) {
            prop_assert_eq!(&a.resource.attributes, &b.resource.attributes);
            prop_assert_eq!(&a.scope_spans[0].spans, &b.scope_spans[0].spans);
        }
    }

    #[test]
    fn damaged_requests_never_panic(
        request in any_request(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut json = trace_to_json_v1(&from_request(request.clone(), 0).unwrap().batch);
        let i = at.index(json.len());
        json[i] = byte;
        crate::fuzzing::otlp_traces_json(&json);
        crate::fuzzing::otlp_traces_json(&json[..cut.index(json.len())]);
        let mut raw = request.encode_to_vec();
        let i = at.index(raw.len());
        raw[i] = byte;
        crate::fuzzing::otlp_traces_protobuf(&raw);
        crate::fuzzing::otlp_traces_protobuf(&raw[..cut.index(raw.len())]);
    }

    #[test]
    fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::fuzzing::otlp_traces_protobuf(&data);
        crate::fuzzing::otlp_traces_json(&data);
    }
}
