use std::sync::Arc;

use trilith_model::trace::{AnyValue, Event, Status, TraceBatch};
use trilith_model::{ErrorKind, TenantId};
use trilith_query::QueryContext;
use trilith_testkit::MemorySpans;
use trilith_testkit::spans::{kv, service_batch, span, span_id, trace_id};

use crate::{NO_ROOT, SearchOptions, TagQuery, TraceSearchResult, parse, search, search_tags};

const T0: u64 = 1_700_000_000_000_000_000;
const MS: u64 = 1_000_000;

pub fn tenant() -> TenantId {
    TenantId::new("t").expect("valid")
}

pub fn ctx() -> QueryContext {
    trilith_testkit::waist::context(&tenant())
}

pub fn options(spans_per_spanset: usize) -> SearchOptions {
    SearchOptions {
        start_ns: 0,
        end_ns: u64::MAX,
        limit: 20,
        spans_per_spanset,
    }
}

/// Trace 1: web root with a db child. Trace 2: an error. Trace 3: no root. Trace 4: two roots, arrays, events.
fn shop() -> Arc<MemorySpans> {
    let source = MemorySpans::new();
    let push = |service: &str, spans| source.push(&tenant(), service_batch(service, spans));
    let mut get = span(1, 1, 0, "GET /", T0, 1500 * MS);
    get.kind = 2;
    get.attributes = vec![
        kv("http.status_code", 200i64),
        kv("http.method", "GET"),
        kv("ratio", 0.5),
    ];
    let mut buy = span(2, 1, 0, "POST /buy", T0 + 10 * MS, 20 * MS + 1);
    buy.status = Some(Status {
        code: 2,
        message: "boom".into(),
    });
    buy.attributes = vec![
        kv("http.status_code", 500i64),
        kv("service.name", "on the span"),
        kv("ok", true),
    ];
    let mut roots = vec![
        span(4, 1, 0, "first", T0 + 30 * MS, MS),
        span(4, 2, 0, "second", T0 + 31 * MS, MS),
    ];
    roots[0].attributes = vec![
        kv("tags", AnyValue::Array(vec![kv("", "a").value, kv("", "b").value])),
        kv("mixed", AnyValue::Array(vec![kv("", "a").value, kv("", 1i64).value])),
        kv("none", AnyValue::Array(vec![])),
        kv("empty", AnyValue::Empty),
    ];
    roots[1].events = vec![
        Event {
            name: "exception".into(),
            attributes: vec![kv("type", "IO")],
            ..Event::default()
        },
        Event {
            name: "retry".into(),
            attributes: vec![kv("type", "X"), kv("n", 3i64)],
            ..Event::default()
        },
    ];
    push("web", vec![get, buy]);
    push(
        "db",
        vec![
            span(1, 2, 1, "SELECT", T0 + MS, 5 * MS),
            span(3, 9, 8, "late", T0 + 20 * MS, MS),
        ],
    );
    push("web", roots);
    source
}

/// Matching spans as "trace.span", sorted.
async fn hits(source: &MemorySpans, query: &str) -> Vec<String> {
    let parsed = parse(query).unwrap_or_else(|e| panic!("{query}: {e}"));
    let mut out = Vec::new();
    for t in search(&ctx(), source, &parsed, options(0)).await.expect("evaluates") {
        let n = u64::from_be_bytes(t.trace_id.0[8..].try_into().expect("8 bytes"));
        assert_eq!(t.span_sets.len(), 1);
        assert_eq!(t.span_sets[0].matched as usize, t.span_sets[0].spans.len());
        out.extend(
            t.span_sets[0]
                .spans
                .iter()
                .map(|s| format!("{n}.{}", u64::from_be_bytes(s.span_id.0))),
        );
    }
    out.sort();
    out
}

#[tokio::test]
async fn filters() {
    let source = shop();
    for (query, want) in [
        ("{}", "1.1 1.2 2.1 3.9 4.1 4.2"),
        ("{ true }", "1.1 1.2 2.1 3.9 4.1 4.2"),
        ("{ false }", ""),
        ("{ 1 = 2 }", ""),
        ("{ 2 > 1.5 }", "1.1 1.2 2.1 3.9 4.1 4.2"),
        ("{ name = \"SELECT\" }", "1.2"),
        ("{ \"SELECT\" = name }", "1.2"),
        ("{ name =~ \"E\" }", ""),
        ("{ name =~ `.*E.*` }", "1.1 1.2"),
        ("{ name !~ `.*E.*|late` }", "2.1 4.1 4.2"),
        ("{ status = error }", "2.1"),
        ("{ status != error && kind = server }", "1.1"),
        ("{ statusMessage = \"boom\" }", "2.1"),
        ("{ statusMessage = \"\" }", "1.1 1.2 3.9 4.1 4.2"),
        ("{ kind = server }", "1.1"),
        ("{ duration > 20ms }", "1.1 2.1"),
        ("{ duration >= 20000001 }", "1.1 2.1"),
        ("{ 1s < span:duration }", "1.1"),
        ("{ traceDuration > 1s }", "1.1 1.2"),
        ("{ trace:duration < 2ms }", "3.9"),
        ("{ rootName = \"GET /\" }", "1.1 1.2"),
        // The last root of several.
        ("{ rootName = \"second\" && name = \"first\" }", "4.1"),
        ("{ rootServiceName = \"web\" && resource.service.name = \"db\" }", "1.2"),
        ("{ rootName = \"\" }", "3.9"),
        ("{ span.http.status_code >= 500 }", "2.1"),
        ("{ span.http.status_code != 500 }", "1.1"),
        ("{ span.http.status_code = 200.0 }", "1.1"),
        ("{ span.http.status_code = \"200\" }", ""),
        ("{ span.http.status_code != \"200\" }", ""),
        ("{ span.ratio < 1 }", "1.1"),
        ("{ .http.method = \"GET\" }", "1.1"),
        ("{ .service.name = \"web\" }", "1.1 4.1 4.2"),
        ("{ .service.name = \"on the span\" }", "2.1"),
        ("{ resource.service.name = \"web\" }", "1.1 2.1 4.1 4.2"),
        ("{ resource.service.name != \"web\" }", "1.2 3.9"),
        ("{ span.ok }", "2.1"),
        ("{ !span.ok }", ""),
        ("{ !(span.ok = true) }", "1.1 1.2 3.9 4.1 4.2"),
        ("{ span.ok = nil }", "1.1 1.2 3.9 4.1 4.2"),
        ("{ span.ok != nil }", "2.1"),
        ("{ span.empty != nil }", "4.1"),
        ("{ nil = nil || nil != nil }", ""),
        ("{ span.tags = \"b\" }", "4.1"),
        ("{ span.tags != \"c\" }", "4.1"),
        ("{ span.tags != \"b\" }", ""),
        ("{ span.tags =~ \"a|x\" }", "4.1"),
        ("{ span.tags !~ \"a|x\" }", ""),
        ("{ \"b\" = span.tags }", "4.1"),
        ("{ span.mixed = \"a\" }", ""),
        ("{ span.none = \"a\" }", ""),
        ("{ span.none != \"a\" }", "4.1"),
        ("{ event:name = \"exception\" }", "4.2"),
        ("{ event:name = \"exception\" && event.type = \"X\" }", "4.2"),
        ("{ event.type != \"X\" }", "4.2"),
        ("{ event.n > 2 }", "4.2"),
        // Unscoped names are looked up on the span and its resource.
        ("{ .type = \"IO\" }", ""),
        (
            "{ instrumentation:name = \"lib\" && instrumentation:version = \"1\" && name = \"late\" }",
            "3.9",
        ),
        ("{ span:id = \"9\" }", "3.9"),
        ("{ span:id = \"0000000000000009\" }", "3.9"),
        ("{ span:parentID = \"0000000000000000\" }", "1.1 2.1 4.1 4.2"),
        ("{ .http.method = \"GET\" || name = \"late\" && duration > 1h }", ""),
        (
            "{ .http.method = \"GET\" || (name = \"late\" && duration > 1h) }",
            "1.1",
        ),
        ("{ name = \"late\" || span.ok = nil && kind = server }", "1.1"),
        ("{ .missing != \"x\" }", ""),
        ("{ .http.method = .http.method }", "1.1"),
        ("{ .x = error }", ""),
        ("{ name = \"late\" } // comment\n with (most_recent=true)", "3.9"),
    ] {
        assert_eq!(hits(&source, query).await.join(" "), want, "{query}");
    }
    let id = trace_id(3).to_string();
    for text in [id.clone(), id.trim_start_matches('0').to_owned(), format!("00{id}")] {
        assert_eq!(
            hits(&source, &format!("{{ trace:id = \"{text}\" }}")).await,
            ["3.9"],
            "{text}"
        );
    }
}

async fn find(source: &MemorySpans, query: &str, options: SearchOptions) -> Vec<TraceSearchResult> {
    search(&ctx(), source, &parse(query).expect(query), options)
        .await
        .expect("evaluates")
}

#[tokio::test]
async fn results_are_the_newest_with_their_facts() {
    let source = shop();
    let all = find(&source, "{}", options(1)).await;
    let ids: Vec<_> = all.iter().map(|t| t.trace_id).collect();
    assert_eq!(ids, [4, 3, 2, 1].map(trace_id), "newest first");
    let (t4, t3, t1) = (&all[0], &all[1], &all[3]);
    assert_eq!(
        (t4.root_service_name.as_str(), t4.root_trace_name.as_str()),
        ("web", "second")
    );
    assert_eq!(
        (t3.root_service_name.as_str(), t3.root_trace_name.as_str()),
        (NO_ROOT, "")
    );
    assert_eq!((t1.start_time_unix_nano, t1.duration_ms), (T0, 1500));
    assert_eq!(
        (all[2].start_time_unix_nano, all[2].duration_ms),
        (T0 + 10 * MS, 20),
        "rounded down"
    );
    assert_eq!(
        (t1.span_sets[0].matched, t1.span_sets[0].spans.len()),
        (2, 1),
        "counted before the cut"
    );
    assert_eq!(t1.span_sets[0].spans[0].span_id, span_id(1), "the earliest stays");
    let stats: Vec<_> = all[2]
        .service_stats
        .iter()
        .map(|(s, n)| (s.as_str(), n.span_count, n.error_count))
        .collect();
    assert_eq!(stats, [("web", 1, 1)]);

    let newest = find(&source, "{}", SearchOptions { limit: 2, ..options(3) }).await;
    assert_eq!(newest.iter().map(|t| t.trace_id).collect::<Vec<_>>(), ids[..2]);
    assert!(
        find(&source, "{}", SearchOptions { limit: 0, ..options(3) })
            .await
            .is_empty()
    );
    let early = SearchOptions {
        start_ns: T0,
        end_ns: T0 + 10 * MS,
        ..options(3)
    };
    assert_eq!(find(&source, "{}", early).await.len(), 1);
}

#[tokio::test]
async fn spans_show_what_the_query_mentions() {
    let source = shop();
    let query = "{ .http.status_code = 500 && status = error && duration > 1ms && kind != client && name != nil } \
                 | select(resource.service.name, span.ok, .missing, statusMessage, traceDuration)";
    let found = find(&source, query, options(3)).await;
    let s = |s: &str| AnyValue::String(s.to_owned());
    let want: Vec<(String, AnyValue)> = [
        ("http.status_code", AnyValue::Int(500)),
        ("status", s("error")),
        ("kind", s("unspecified")),
        ("service.name", s("web")),
        ("ok", AnyValue::Bool(true)),
        ("statusMessage", s("boom")),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    assert_eq!(found[0].span_sets[0].spans[0].attributes, want);
    let found = find(&source, "{ span.tags = \"a\" }", options(3)).await;
    let tags = AnyValue::Array(vec![s("a"), s("b")]);
    assert_eq!(found[0].span_sets[0].spans[0].attributes, [("tags".to_owned(), tags)]);
}

#[tokio::test]
async fn tags() {
    let source = shop();
    let run = async |tags: &str, min, max| -> String {
        let query = TagQuery::new(tags, min, max).unwrap_or_else(|e| panic!("{tags}: {e}"));
        let mut found: Vec<String> = search_tags(&ctx(), &*source, &query, options(3))
            .await
            .expect("evaluates")
            .iter()
            .map(|t| {
                assert!(t.span_sets.is_empty());
                u64::from_be_bytes(t.trace_id.0[8..].try_into().expect("8 bytes")).to_string()
            })
            .collect();
        found.sort();
        found.join(" ")
    };
    for (tags, want) in [
        ("", "1 2 3 4"),
        ("service.name=web", "1 2 4"),
        ("service.name=WE", "1 2 4"),
        ("service.name=db", "1 3"),
        ("service.name=db service.name=web", "1"),
        ("service.name=db http.method=GET", "1"),
        ("http.status_code=500", "2"),
        ("http.status_code=50", ""),
        ("ratio=0.5", "1"),
        ("ok", "2"),
        ("name=\"post /\"", "2"),
        ("root.name=second", "4"),
        ("root.service.name=web", "1 2 4"),
        ("status.code=error", "2"),
        ("error=true", "2"),
        ("status.code=unset", "1 3 4"),
        ("service.name=\"on the \\\"\"", ""),
        ("service.name=\"on the\"", "2"),
        ("nothing=x", ""),
    ] {
        assert_eq!(run(tags, 0, 0).await, want, "{tags:?}");
    }
    assert_eq!(run("service.name=web", 100 * MS, 0).await, "1");
    assert_eq!(run("service.name=web", 0, 3 * MS).await, "4");
    assert_eq!(run("", 2 * MS, 100 * MS).await, "2 4");
    for (tags, min, max) in [
        ("a=\"b", 0, 0),
        ("=b", 0, 0),
        ("a=b\"c\"", 0, 0),
        ("status.code=bad", 0, 0),
        ("", 2, 1),
    ] {
        assert_eq!(
            TagQuery::new(tags, min, max).map_err(|e| e.kind),
            Err(ErrorKind::Invalid),
            "{tags:?}"
        );
    }
}

/// Stops early only when the source promises that nothing newer comes.
#[tokio::test]
async fn a_limit_keeps_the_newest_of_many_batches() {
    let source = MemorySpans::new();
    let spans = (0..50)
        .map(|t| span(t, 1, 0, "x", T0 + (t * 37 % 50) * MS, MS))
        .collect();
    let batch: TraceBatch = service_batch("svc", spans);
    source.push(&tenant(), batch);
    let found = find(&source, "{}", SearchOptions { limit: 5, ..options(3) }).await;
    let starts: Vec<u64> = found.iter().map(|t| (t.start_time_unix_nano - T0) / MS).collect();
    assert_eq!(starts, [49, 48, 47, 46, 45]);
}
