//! The public query corpus, as far as this version supports it.

use serde_json::Value;
use trilith_model::ErrorKind;
use trilith_model::trace::{AnyValue, Span, SpanId, Status, TraceBatch, TraceId};
use trilith_query::SpanSource;
use trilith_testkit::MemorySpans;
use trilith_testkit::corpora::{json_lines, otlp_json};
use trilith_testkit::spans::{kv, service_batch};

use crate::tests::search::{ctx, options, tenant};
use crate::{TagQuery, parse, parse_duration, parse_identifier, search};

#[test]
fn queries_are_accepted_or_refused() {
    let Some(cases) = json_lines("traceql/parse.jsonl") else {
        return;
    };
    let (mut supported, mut wrong) = (0, Vec::new());
    for case in &cases {
        let query = case["query"].as_str().expect("a query");
        let got = parse(query);
        let kind = got.as_ref().err().map(|e| e.kind);
        supported += usize::from(got.is_ok());
        let fine = match case["expect"].as_str() {
            Some("valid" | "parses" | "unsupported") => kind != Some(ErrorKind::Invalid) || is_validation(&got),
            Some("parse_fails" | "validate_fails") => kind.is_some(),
            other => panic!("expectation {other:?}"),
        };
        // `unsupported` and `parses` leave it open whether the types fit.
        let strict = case["expect"] != "valid" || kind != Some(ErrorKind::Invalid);
        if !(fine && strict) {
            wrong.push(format!(
                "{query:?}: {} but {:?}",
                case["expect"],
                got.err().map(|e| e.message)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong, {supported} supported:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(supported > 90, "{supported} supported");
}

fn is_validation(got: &trilith_model::Result<crate::Query>) -> bool {
    got.as_ref().is_err_and(|e| !e.message.starts_with("parse error"))
}

#[test]
fn durations_and_identifiers() {
    let (Some(durations), Some(identifiers)) = (
        json_lines("traceql/durations.jsonl"),
        json_lines("traceql/identifiers.jsonl"),
    ) else {
        return;
    };
    for case in durations {
        let text = case["input"].as_str().expect("text");
        assert_eq!(parse_duration(text), case["nanos"].as_i64(), "{text}");
    }
    for case in identifiers {
        let text = case["identifier"].as_str().expect("text");
        match parse_identifier(text) {
            Ok(column) => {
                assert_eq!(case["valid"], true, "{text:?} gave {column:?}");
                if let (trilith_query::ColumnRef::Attribute(_, name), Some(want)) = (&column, case["name"].as_str()) {
                    assert_eq!(name, want, "{text:?}");
                }
            }
            Err(e) => assert!(
                case["valid"] == false || e.kind == ErrorKind::Unsupported,
                "{text:?}: {e}"
            ),
        }
    }
}

/// Evaluation cases whose spans can be stored.
#[tokio::test]
async fn evaluation() {
    let Some(cases) = json_lines("traceql/eval.jsonl") else {
        return;
    };
    let (mut run, mut wrong) = (0, Vec::new());
    for case in &cases {
        let query = case["query"].as_str().expect("a query");
        let Ok(parsed) = parse(query) else { continue };
        let input = case["input"].as_array().expect("spansets");
        if case["error"] == true || input.is_empty() {
            continue;
        }
        let source = MemorySpans::new();
        let mut storable = true;
        for (i, spanset) in input.iter().enumerate() {
            let spans: Option<Vec<Span>> = spanset["spans"]
                .as_array()
                .expect("spans")
                .iter()
                .enumerate()
                .map(|(j, s)| eval_span(i, j, s))
                .collect();
            match spans {
                Some(spans) => source.push(&tenant(), service_batch("", spans)),
                None => storable = false,
            }
        }
        if !storable {
            continue;
        }
        run += 1;
        let mut got: Vec<String> = Vec::new();
        for t in search(&ctx(), &*source, &parsed, options(0)).await.expect("evaluates") {
            let i = u64::from_be_bytes(t.trace_id.0[8..].try_into().expect("8 bytes")) - 1;
            for s in &t.span_sets[0].spans {
                got.push(format!("{i}.{}", u64::from_be_bytes(s.span_id.0) - 1));
            }
        }
        got.sort();
        let output = case["output"].as_array().expect("spansets");
        let mut want: Vec<String> = output
            .iter()
            .flat_map(|s| s["spans"].as_array().expect("spans"))
            .map(|s| s.as_str().expect("a reference").to_owned())
            .collect();
        want.sort();
        if got != want {
            wrong.push(format!("{query}: {got:?} instead of {want:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {run} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(run >= 15, "only {run} cases ran");
}

fn eval_span(i: usize, j: usize, v: &Value) -> Option<Span> {
    let mut span = Span {
        span_id: SpanId((j as u64 + 1).to_be_bytes()),
        ..Span::default()
    };
    let mut trace = [0; 16];
    trace[8..].copy_from_slice(&(i as u64 + 1).to_be_bytes());
    span.trace_id = TraceId(trace);
    for a in v["attributes"].as_array().into_iter().flatten() {
        let (name, value) = (a["name"].as_str()?, &a["value"]);
        let value = match a["type"].as_str()? {
            "string" => AnyValue::String(value.as_str()?.to_owned()),
            "int" => AnyValue::Int(value.as_i64()?),
            "float" => AnyValue::Double(value.as_f64()?),
            "bool" => AnyValue::Bool(value.as_bool()?),
            // Statuses, kinds and durations are no attribute types; cases with them are covered by the search tests.
            kind => {
                let element = kind.strip_suffix("[]")?;
                let elements = value.as_array()?.iter().map(|v| {
                    Some(match element {
                        "string" => AnyValue::String(v.as_str()?.to_owned()),
                        "int" => AnyValue::Int(v.as_i64()?),
                        "float" => AnyValue::Double(v.as_f64()?),
                        "bool" => AnyValue::Bool(v.as_bool()?),
                        _ => return None,
                    })
                });
                AnyValue::Array(elements.collect::<Option<_>>()?)
            }
        };
        match a["scope"].as_str()? {
            "none" | "span" => span.attributes.push(kv(name, value)),
            _ => return None,
        }
    }
    Some(span)
}

/// Whole traces with the queries that must and must not find them.
#[tokio::test]
async fn stored_traces() {
    let Some(suites) = json_lines("traceql/trace_queries.jsonl") else {
        return;
    };
    let (mut run, mut wrong) = (0, Vec::new());
    for suite in &suites {
        let source = MemorySpans::new();
        let mut batch: TraceBatch = otlp_json(&suite["trace"]);
        // A status is never absent in the fixtures' store.
        for span in batch
            .resource_spans
            .iter_mut()
            .flat_map(|r| &mut r.scope_spans)
            .flat_map(|s| &mut s.spans)
        {
            span.status.get_or_insert_with(Status::default);
        }
        source.push(&tenant(), batch);
        for (key, want) in [("matching", true), ("not_matching", false)] {
            for query in suite[key].as_array().into_iter().flatten() {
                let query = query.as_str().expect("a query");
                let Ok(parsed) = parse(query) else { continue };
                run += 1;
                let found = search(&ctx(), &*source, &parsed, options(3)).await.expect("evaluates");
                if found.is_empty() == want {
                    wrong.push(format!("{}: {query} should be {key}", suite["name"]));
                }
            }
        }
        for case in suite["tag_values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|c| c["query"].as_str().is_none_or(|q| ["", "{}", "{ }"].contains(&q)))
        {
            let Ok(column) = parse_identifier(case["tag"].as_str().expect("a tag")) else {
                continue;
            };
            let got = source
                .attribute_values(&ctx(), &column, 0, u64::MAX, 0)
                .await
                .expect("values");
            for want in case["expected"].as_array().into_iter().flatten() {
                let want = (
                    want["type"].as_str().unwrap_or_default(),
                    want["value"].as_str().unwrap_or_default(),
                );
                if !got.iter().any(|g| (g.0.as_str(), g.1.as_str()) == want) {
                    wrong.push(format!("{}: values of {} lack {want:?}", suite["name"], case["tag"]));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {run} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(run > 50, "only {run} queries ran");
    TagQuery::new("", 0, 0).expect("no tags are fine");
}
