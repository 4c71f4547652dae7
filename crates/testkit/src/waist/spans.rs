//! What every traces store must do.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use arrow::array::AsArray as _;
use arrow::datatypes::{Int32Type, UInt64Type};
use futures::StreamExt as _;
use trilith_model::trace::{AnyValue, Event, Link, Status};
use trilith_model::{ErrorKind, TenantId, TraceBatch};
use trilith_query::{AttributeScope, ColumnRef, Intrinsic, Operand, Predicate, PredicateOp, SpanRequest, SpanSource};

use super::{context, tenant};
use crate::spans::{canonical, collect, kv, service_batch, span, span_id, texts, trace_id};

/// Batches to append in this order.
pub type Data = Vec<(TenantId, TraceBatch)>;

const T0: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// Runs the whole suite.
///
/// # Panics
/// When the store breaks the contract.
pub async fn run<F, Fut>(make: F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    by_id(&make).await;
    fragments_and_duplicates(&make).await;
    columns(&make).await;
    predicates_never_hide(&make).await;
    time_ranges(&make).await;
    names_and_values(&make).await;
    tenants(&make).await;
    early_drop_and_cancellation(&make).await;
}

fn everything(columns: Vec<ColumnRef>) -> SpanRequest {
    SpanRequest {
        predicates: Vec::new(),
        all: true,
        start_ns: 0,
        end_ns: u64::MAX,
        columns,
        whole_traces: true,
    }
}

fn intrinsic(i: Intrinsic) -> ColumnRef {
    ColumnRef::Intrinsic(i)
}

fn attribute(scope: AttributeScope, key: &str) -> ColumnRef {
    ColumnRef::Attribute(scope, key.to_owned())
}

/// Three traces of two services: 1 and 2 have a root, 3 has none.
fn shop() -> Data {
    let mut web = vec![
        span(1, 1, 0, "GET /", T0, 10 * SECOND),
        span(2, 1, 0, "POST /buy", T0 + 100 * SECOND, SECOND),
        span(3, 7, 6, "late", T0 + 200 * SECOND, SECOND),
    ];
    web[0].attributes = vec![
        kv("http.status_code", 200i64),
        kv("tags", AnyValue::Array(vec![kv("", "x").value, kv("", "y").value])),
    ];
    web[1].attributes = vec![kv("http.status_code", 500i64)];
    web[1].status = Some(Status {
        code: 2,
        message: "boom".into(),
    });
    web[0].kind = 2;
    web[1].events = vec![
        Event {
            name: "exception".into(),
            attributes: vec![kv("type", "A")],
            time_ns: T0,
            ..Event::default()
        },
        Event {
            name: "retry".into(),
            attributes: vec![kv("type", 1i64)],
            time_ns: T0,
            ..Event::default()
        },
    ];
    let mut db = vec![
        span(1, 2, 1, "SELECT", T0 + SECOND, SECOND),
        span(2, 2, 1, "INSERT", T0 + 100 * SECOND + 1, 5),
    ];
    db[0].attributes = vec![kv("rows", 1.5), kv("cached", true)];
    db[1].links = vec![Link {
        trace_id: trace_id(1),
        span_id: span_id(1),
        attributes: vec![kv("why", "retry")],
        ..Link::default()
    }];
    vec![
        (tenant("t"), service_batch("web", web)),
        (tenant("t"), service_batch("db", db)),
    ]
}

async fn by_id<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    let source = make(shop()).await;
    let ctx = context(&tenant("t"));
    for n in 1..=3 {
        let want = canonical(shop().into_iter().map(|d| d.1), trace_id(n));
        let got = source
            .trace(&ctx, trace_id(n), 0, u64::MAX)
            .await
            .expect("lookup succeeds");
        assert_eq!(canonical(got, trace_id(n)), want, "trace {n}");
    }
    let unknown = source
        .trace(&ctx, trace_id(99), 0, u64::MAX)
        .await
        .expect("lookup succeeds");
    assert_eq!(unknown, None);
}

async fn fragments_and_duplicates<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    let t = tenant("t");
    let nan = || {
        let mut s = span(1, 1, 0, "a", T0, 1);
        s.attributes = vec![kv("f", f64::NAN), kv("z", -0.0)];
        s
    };
    let mut other = nan();
    other.attributes[1] = kv("z", 0.0);
    let source = make(vec![
        (
            t.clone(),
            service_batch("web", vec![nan(), span(1, 2, 1, "b", T0 + 1, 1)]),
        ),
        (t.clone(), service_batch("web", vec![nan(), other])),
        (t.clone(), service_batch("db", vec![nan()])),
        (t.clone(), service_batch("db", vec![span(1, 3, 1, "c", T0 + 2, 1)])),
    ])
    .await;
    let ctx = context(&t);
    let got = source
        .trace(&ctx, trace_id(1), 0, u64::MAX)
        .await
        .expect("lookup succeeds")
        .expect("is known");
    // The same span under another resource, and one that differs in the sign of a zero, are other spans.
    assert_eq!(got.span_count(), 5);
    for columns in [
        vec![intrinsic(Intrinsic::Name)],
        vec![attribute(AttributeScope::Span, "z")],
    ] {
        let batches = collect(&*source, &ctx, everything(columns)).await;
        assert_eq!(batches.len(), 1, "one trace comes in one batch");
        assert_eq!(batches[0].num_rows(), 5);
    }
}

async fn columns<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    let source = make(shop()).await;
    let wanted = vec![
        intrinsic(Intrinsic::Name),
        intrinsic(Intrinsic::TraceId),
        intrinsic(Intrinsic::ParentSpanId),
        intrinsic(Intrinsic::Kind),
        intrinsic(Intrinsic::Status),
        intrinsic(Intrinsic::StatusMessage),
        intrinsic(Intrinsic::Start),
        intrinsic(Intrinsic::Duration),
        intrinsic(Intrinsic::RootServiceName),
        intrinsic(Intrinsic::RootName),
        intrinsic(Intrinsic::TraceStart),
        intrinsic(Intrinsic::TraceDuration),
        intrinsic(Intrinsic::InstrumentationName),
        intrinsic(Intrinsic::EventNames),
        attribute(AttributeScope::Span, "http.status_code"),
        attribute(AttributeScope::Span, "tags"),
        attribute(AttributeScope::Any, "service.name"),
        attribute(AttributeScope::Resource, "nothing"),
        attribute(AttributeScope::Event, "type"),
        attribute(AttributeScope::Link, "why"),
    ];
    let mut rows = BTreeSet::new();
    for b in collect(&*source, &context(&tenant("t")), everything(wanted)).await {
        let text = |c: &str| texts(&b, c);
        let u64s = |c: &str| {
            b.column_by_name(c)
                .expect("asked for")
                .as_primitive::<UInt64Type>()
                .values()
                .to_vec()
        };
        let i32s = |c: &str| {
            b.column_by_name(c)
                .expect("asked for")
                .as_primitive::<Int32Type>()
                .values()
                .to_vec()
        };
        let parents = b
            .column_by_name("parent_span_id")
            .expect("asked for")
            .as_fixed_size_binary();
        for i in 0..b.num_rows() {
            let o = |c: &str| text(c)[i].clone().unwrap_or("-".into());
            rows.insert(format!(
                "{} parent {} kind {} status {} {:?} +{}s {} root {}/{} trace {} {} lib {} events {} http {}:{} tags {} service {} nothing {} type {}:{} why {}",
                o("name"),
                parents.value(i)[7],
                i32s("kind")[i],
                i32s("status")[i],
                o("status_message"),
                (u64s("start_ns")[i] - T0) / SECOND,
                u64s("duration_ns")[i],
                o("root_service_name"),
                o("root_name"),
                (u64s("trace_start_ns")[i] - T0) / SECOND,
                u64s("trace_duration_ns")[i],
                o("instrumentation_name"),
                o("event_names"),
                o("span.http.status_code"),
                o("span.http.status_code#type"),
                o("span.tags"),
                o(".service.name"),
                o("resource.nothing"),
                o("event.type"),
                o("event.type#type"),
                o("link.why"),
            ));
        }
    }
    let want: BTreeSet<String> = [
        r#"GET / parent 0 kind 2 status 0 "" +0s 10000000000 root web/GET / trace 0 10000000000 lib lib events - http 200:int tags ["x","y"] service web nothing - type -:- why -"#,
        r#"SELECT parent 1 kind 0 status 0 "" +1s 1000000000 root web/GET / trace 0 10000000000 lib lib events - http -:- tags - service db nothing - type -:- why -"#,
        r#"POST /buy parent 0 kind 0 status 2 "boom" +100s 1000000000 root web/POST /buy trace 100 1000000000 lib lib events ["exception","retry"] http 500:int tags - service web nothing - type ["A",1]:many why -"#,
        r#"INSERT parent 1 kind 0 status 0 "" +100s 5 root web/POST /buy trace 100 1000000000 lib lib events - http -:- tags - service db nothing - type -:- why retry"#,
        r#"late parent 6 kind 0 status 0 "" +200s 1000000000 root -/- trace 200 1000000000 lib lib events - http -:- tags - service web nothing - type -:- why -"#,
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    assert_eq!(rows, want);
}

/// Predicates are hints: whatever a source does with them, spans that satisfy them come.
async fn predicates_never_hide<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    use AttributeScope::{Any, Event, Link, Resource, Span};
    use PredicateOp::{Eq, Exists, Ge, Gt, Lt, Ne, NotRe, Re};
    let source = make(shop()).await;
    let ctx = context(&tenant("t"));
    let text = |s: &str| Operand::String(s.to_owned());
    for (all, whole_traces) in [(true, true), (true, false), (false, true), (false, false)] {
        let request = SpanRequest {
            all,
            whole_traces,
            ..everything(vec![intrinsic(Intrinsic::Name)])
        };
        let rows: usize = collect(&*source, &ctx, request)
            .await
            .iter()
            .map(|b| b.num_rows())
            .sum();
        assert_eq!(
            rows, 5,
            "without predicates everything comes, all={all} whole={whole_traces}"
        );
    }
    let cases: Vec<(ColumnRef, PredicateOp, Operand, &[&str])> = vec![
        (intrinsic(Intrinsic::Name), Eq, text("SELECT"), &["SELECT"]),
        (intrinsic(Intrinsic::Name), Re, text("GET.*|late"), &["GET /", "late"]),
        (intrinsic(Intrinsic::Name), NotRe, text(".*E.*"), &["POST /buy", "late"]),
        (intrinsic(Intrinsic::Status), Eq, Operand::Int(2), &["POST /buy"]),
        (
            intrinsic(Intrinsic::Status),
            Eq,
            Operand::Int(0),
            &["GET /", "SELECT", "INSERT", "late"],
        ),
        (intrinsic(Intrinsic::StatusMessage), Eq, text("boom"), &["POST /buy"]),
        (
            intrinsic(Intrinsic::StatusMessage),
            Eq,
            text(""),
            &["GET /", "SELECT", "INSERT", "late"],
        ),
        (intrinsic(Intrinsic::Kind), Eq, Operand::Int(2), &["GET /"]),
        (
            intrinsic(Intrinsic::Duration),
            Gt,
            Operand::Int(5 * SECOND as i64),
            &["GET /"],
        ),
        (intrinsic(Intrinsic::Duration), Lt, Operand::Float(6.5), &["INSERT"]),
        (intrinsic(Intrinsic::RootName), Eq, text("GET /"), &["GET /", "SELECT"]),
        (
            intrinsic(Intrinsic::RootServiceName),
            Eq,
            text("web"),
            &["GET /", "SELECT", "POST /buy", "INSERT"],
        ),
        (
            intrinsic(Intrinsic::TraceDuration),
            Ge,
            Operand::Int(10 * SECOND as i64),
            &["GET /", "SELECT"],
        ),
        (
            intrinsic(Intrinsic::InstrumentationName),
            Eq,
            text("lib"),
            &["GET /", "SELECT", "POST /buy", "INSERT", "late"],
        ),
        (intrinsic(Intrinsic::EventNames), Eq, text("retry"), &["POST /buy"]),
        (
            intrinsic(Intrinsic::SpanId),
            Eq,
            Operand::Bytes(span_id(7).0.to_vec()),
            &["late"],
        ),
        (
            attribute(Span, "http.status_code"),
            Ge,
            Operand::Int(500),
            &["POST /buy"],
        ),
        (
            attribute(Span, "http.status_code"),
            Ge,
            Operand::Float(499.5),
            &["POST /buy"],
        ),
        (attribute(Span, "http.status_code"), Ne, Operand::Int(500), &["GET /"]),
        (
            attribute(Span, "http.status_code"),
            Exists,
            Operand::Bool(true),
            &["GET /", "POST /buy"],
        ),
        (attribute(Span, "rows"), Gt, Operand::Int(1), &["SELECT"]),
        (attribute(Span, "cached"), Eq, Operand::Bool(true), &["SELECT"]),
        (attribute(Span, "tags"), Eq, text("y"), &["GET /"]),
        (attribute(Span, "tags"), NotRe, text("z"), &["GET /"]),
        (attribute(Any, "tags"), Eq, text("x"), &["GET /"]),
        (attribute(Any, "service.name"), Eq, text("db"), &["SELECT", "INSERT"]),
        (
            attribute(Resource, "service.name"),
            Re,
            text("d."),
            &["SELECT", "INSERT"],
        ),
        (
            attribute(Resource, "service.name"),
            Ne,
            text("web"),
            &["SELECT", "INSERT"],
        ),
        (attribute(Event, "type"), Eq, Operand::Int(1), &["POST /buy"]),
        (attribute(Link, "why"), Exists, Operand::Bool(true), &["INSERT"]),
    ];
    for (column, op, operand, want) in cases {
        let predicate = Predicate { column, op, operand };
        for whole_traces in [true, false] {
            for all in [true, false] {
                // One that holds for no span beside it makes no difference with `any`, and hides all with `all`.
                let mut predicates = vec![predicate.clone()];
                if !all {
                    let column = attribute(Span, "nobody has this");
                    predicates.push(Predicate {
                        column,
                        op: Eq,
                        operand: text("x"),
                    });
                }
                let request = SpanRequest {
                    predicates,
                    all,
                    whole_traces,
                    ..everything(vec![intrinsic(Intrinsic::Name)])
                };
                let names: BTreeSet<String> = collect(&*source, &ctx, request)
                    .await
                    .iter()
                    .flat_map(|b| texts(b, "name"))
                    .flatten()
                    .collect();
                for w in want {
                    assert!(
                        names.contains(*w),
                        "{predicate:?} all={all} whole={whole_traces}: {w} is missing in {names:?}"
                    );
                }
                let partner = |n: &str| match n {
                    "GET /" => Some("SELECT"),
                    "SELECT" => Some("GET /"),
                    "POST /buy" => Some("INSERT"),
                    "INSERT" => Some("POST /buy"),
                    _ => None,
                };
                for w in want.iter().filter(|_| whole_traces).filter_map(|w| partner(w)) {
                    assert!(
                        names.contains(w),
                        "{predicate:?}: the whole trace comes, {w} is missing in {names:?}"
                    );
                }
            }
        }
    }
}

async fn time_ranges<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    let source = make(shop()).await;
    let ctx = context(&tenant("t"));
    for (start, end, want) in [
        (0, u64::MAX, &["GET /", "INSERT", "POST /buy", "SELECT", "late"][..]),
        // Trace 1 began before and ends within; all of it comes.
        (T0 + 5 * SECOND, T0 + 6 * SECOND, &["GET /", "SELECT"]),
        (T0 + 10 * SECOND, T0 + 50 * SECOND, &["GET /", "SELECT"]),
        (T0 + 10 * SECOND + 1, T0 + 50 * SECOND, &[]),
        (T0 + 50 * SECOND, T0 + 100 * SECOND, &[]),
        (T0 + 50 * SECOND, T0 + 100 * SECOND + 1, &["INSERT", "POST /buy"]),
        (T0 + 150 * SECOND, u64::MAX, &["late"]),
        (0, T0, &[]),
    ] {
        let request = SpanRequest {
            start_ns: start,
            end_ns: end,
            ..everything(vec![intrinsic(Intrinsic::Name)])
        };
        let names: BTreeSet<String> = collect(&*source, &ctx, request)
            .await
            .iter()
            .flat_map(|b| texts(b, "name"))
            .flatten()
            .collect();
        assert_eq!(
            names.iter().map(String::as_str).collect::<Vec<_>>(),
            want,
            "{start}..{end}"
        );
    }
}

async fn names_and_values<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    use AttributeScope::{Any, Event, Link, Resource, Span};
    let source = make(shop()).await;
    let ctx = context(&tenant("t"));
    let names = source.attribute_names(&ctx, None, 0, u64::MAX).await.expect("names");
    let want: Vec<(AttributeScope, String)> = [
        (Span, "cached"),
        (Span, "http.status_code"),
        (Span, "rows"),
        (Span, "tags"),
        (Resource, "service.name"),
        (Event, "type"),
        (Link, "why"),
    ]
    .map(|(s, n)| (s, n.to_owned()))
    .into();
    assert_eq!(names, want);
    let names = source
        .attribute_names(&ctx, Some(Event), 0, u64::MAX)
        .await
        .expect("names");
    assert_eq!(names, [(Event, "type".to_owned())]);

    let cases: Vec<(ColumnRef, usize, &[(&str, &str)])> = vec![
        (
            attribute(Span, "http.status_code"),
            0,
            &[("int", "200"), ("int", "500")],
        ),
        (attribute(Span, "http.status_code"), 1, &[("int", "200")]),
        (attribute(Span, "tags"), 0, &[("string", "x"), ("string", "y")]),
        (attribute(Span, "rows"), 0, &[("float", "1.5")]),
        (attribute(Span, "cached"), 0, &[("bool", "true")]),
        (
            attribute(Any, "service.name"),
            0,
            &[("string", "db"), ("string", "web")],
        ),
        (attribute(Span, "service.name"), 0, &[]),
        (attribute(Event, "type"), 0, &[("int", "1"), ("string", "A")]),
        (
            intrinsic(Intrinsic::Name),
            2,
            &[("string", "GET /"), ("string", "INSERT")],
        ),
        (
            intrinsic(Intrinsic::RootName),
            0,
            &[("string", "GET /"), ("string", "POST /buy")],
        ),
        (intrinsic(Intrinsic::RootServiceName), 0, &[("string", "web")]),
        (
            intrinsic(Intrinsic::EventNames),
            0,
            &[("string", "exception"), ("string", "retry")],
        ),
        (
            intrinsic(Intrinsic::Status),
            0,
            &[("keyword", "error"), ("keyword", "ok"), ("keyword", "unset")],
        ),
        (intrinsic(Intrinsic::Duration), 0, &[]),
    ];
    for (column, limit, want) in cases {
        let got = source
            .attribute_values(&ctx, &column, 0, u64::MAX, limit)
            .await
            .expect("values");
        let got: Vec<(&str, &str)> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(got, want, "{column:?}");
    }
}

async fn tenants<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    let source = make(shop()).await;
    let ctx = context(&tenant("other"));
    assert_eq!(
        source
            .trace(&ctx, trace_id(1), 0, u64::MAX)
            .await
            .expect("lookup succeeds"),
        None
    );
    assert!(
        collect(&*source, &ctx, everything(vec![intrinsic(Intrinsic::Name)]))
            .await
            .is_empty()
    );
    assert!(
        source
            .attribute_names(&ctx, None, 0, u64::MAX)
            .await
            .expect("names")
            .is_empty()
    );
}

async fn early_drop_and_cancellation<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn SpanSource>>,
{
    let source = make(shop()).await;
    let ctx = context(&tenant("t"));
    drop(
        source
            .select(&ctx, everything(vec![intrinsic(Intrinsic::Name)]))
            .next()
            .await,
    );
    ctx.cancel.cancel();
    let mut stream = source.select(&ctx, everything(vec![intrinsic(Intrinsic::Name)]));
    let first = stream.next().await.expect("an answer");
    assert_eq!(first.expect_err("cancelled").kind, ErrorKind::Cancelled);
}
