use trilith_model::{ErrorKind, Limits, TraceSink as _};
use trilith_object::Store;
use trilith_testkit::spans::{kv, service_batch, span, trace_id};

use super::{open, tenant};

#[tokio::test]
async fn new_traces_beyond_the_limit_are_refused_and_known_ones_kept() {
    let dir = tempfile::tempdir().expect("temp dir");
    let limits = Limits {
        live_traces_max: 2,
        ..Limits::default()
    };
    let node = open(dir.path(), &Store::memory(), limits).await;
    let spans = (1..=4).map(|t| span(t, 1, 0, "a", 1, 1)).collect();
    let done = node
        .traces
        .append(&tenant(), service_batch("svc", spans))
        .await
        .expect("append");
    assert_eq!(done.accepted, 2);
    assert_eq!(done.rejections.len(), 1);
    let r = &done.rejections[0];
    assert_eq!(
        (r.kind, r.reason, r.count),
        (ErrorKind::LimitExceeded, "live_traces_exceeded", 2)
    );
    assert!(
        r.message
            .starts_with("LIVE_TRACES_EXCEEDED: max live traces exceeded for tenant t: "),
        "{}",
        r.message
    );
    assert!(r.message.contains("limits.live-traces"));

    let spans = vec![span(1, 2, 1, "more of a known one", 2, 1), span(9, 1, 0, "new", 1, 1)];
    let done = node
        .traces
        .append(&tenant(), service_batch("svc", spans))
        .await
        .expect("append");
    assert_eq!((done.accepted, done.rejections.len()), (1, 1));
    assert_eq!(node.trace(trace_id(1)).await.map(|t| t.span_count()), Some(2));
    assert!(node.trace(trace_id(3)).await.is_none());
    assert!(node.trace(trace_id(9)).await.is_none());
    // What was cut does not count.
    node.traces.flush().await.expect("flush");
    node.push(service_batch("svc", vec![span(9, 1, 0, "new", 1, 1)])).await;
    assert_eq!(node.traces.stats().rejected_live_traces, 3);
}

#[tokio::test]
async fn spans_beyond_a_traces_size_are_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let limits = Limits {
        trace_bytes_max: 1000,
        ..Limits::default()
    };
    let node = open(dir.path(), &Store::memory(), limits).await;
    let big = |id| {
        let mut s = span(1, id, 0, "a", id, 1);
        s.attributes = vec![kv("k", "x".repeat(600).as_str())];
        s
    };
    node.push(service_batch("svc", vec![big(1), span(2, 1, 0, "b", 1, 1)]))
        .await;
    let done = node
        .traces
        .append(&tenant(), service_batch("svc", vec![big(2), span(2, 2, 0, "b", 1, 1)]))
        .await;
    let done = done.expect("append");
    assert_eq!(done.accepted, 1);
    let r = &done.rejections[0];
    assert_eq!((r.kind, r.reason, r.count), (ErrorKind::TooLarge, "trace_too_large", 1));
    assert!(
        r.message
            .starts_with("TRACE_TOO_LARGE: max size of trace (1000) exceeded while adding "),
        "{}",
        r.message
    );
    assert!(r.message.contains(&trace_id(1).to_string()) && r.message.contains("limits.trace-size"));
    // Nothing of a push is kept, and nothing is logged, when all of it is refused.
    let done = node
        .traces
        .append(&tenant(), service_batch("svc", vec![big(3)]))
        .await
        .expect("append");
    assert_eq!((done.accepted, done.rejections.len()), (0, 1));
    assert_eq!(node.trace(trace_id(1)).await.map(|t| t.span_count()), Some(1));
}

#[tokio::test]
async fn a_value_nested_too_deep_is_refused_as_a_whole() {
    use trilith_model::trace::AnyValue;
    let dir = tempfile::tempdir().expect("temp dir");
    let node = open(dir.path(), &Store::memory(), Limits::default()).await;
    let mut value = AnyValue::Int(1);
    for _ in 0..200 {
        value = AnyValue::Array(vec![value]);
    }
    let mut s = span(1, 1, 0, "a", 1, 1);
    s.attributes = vec![kv("deep", value)];
    let error = node
        .traces
        .append(&tenant(), service_batch("svc", vec![s]))
        .await
        .expect_err("too deep");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(node.trace(trace_id(1)).await.is_none());
}
