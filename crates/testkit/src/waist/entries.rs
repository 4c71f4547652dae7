//! What every logs store must do.

use std::future::Future;
use std::sync::Arc;

use futures::StreamExt as _;
use trilith_model::{ErrorKind, Labels, LogBatch, LogEntry, MatchOp, Matcher, TenantId};
use trilith_query::{
    Direction, EntryRequest, EntrySource, LabelRequest, LineFilter, LineFilterOp, QueryContext, WantedFields,
};

use super::{LABEL_SETS, MATCHER_CASES, context, matcher, tenant};
use crate::entries::{entry, log_batch};

/// Batches to append in this order.
pub type Data = Vec<(TenantId, LogBatch)>;

/// A base time far enough from the epoch for engines that cut blocks by hours.
const T0: i64 = 1_700_000_000_000_000_000;

const SECOND: i64 = 1_000_000_000;

/// An entry as the suite compares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    pub stream: Labels,
    pub ts_ns: i64,
    pub line: Vec<u8>,
    pub line_len: u32,
    pub metadata: Labels,
}

/// Runs the whole suite.
///
/// # Panics
/// When the store breaks the contract.
pub async fn run<F, Fut>(make: F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    matchers(&make).await;
    bounds_order_and_limit(&make).await;
    bytes_are_exact(&make).await;
    filters(&make).await;
    fields(&make).await;
    late_and_duplicate(&make).await;
    tenants(&make).await;
    label_calls(&make).await;
    early_drop_and_cancellation(&make).await;
}

/// All entries of a selection in the order they came. Checks the batch invariants on the way.
///
/// # Panics
/// When an answer breaks an invariant of `EntryBatch`.
pub async fn collect(source: &dyn EntrySource, ctx: &QueryContext, request: EntryRequest) -> Vec<Got> {
    let (start, end) = (request.start_ns, request.end_ns);
    let mut out = Vec::new();
    let mut stream = source.select(ctx, request);
    while let Some(batch) = stream.next().await {
        let batch = batch.expect("selection succeeds");
        for e in batch.entries {
            assert!(
                start <= e.ts_ns && e.ts_ns < end,
                "entry at {} outside of {start}..{end}",
                e.ts_ns
            );
            out.push(Got {
                stream: batch.streams[e.stream as usize].clone(),
                ts_ns: e.ts_ns,
                line: e.line.to_vec(),
                line_len: e.line_len,
                metadata: e.metadata,
            });
        }
    }
    out
}

fn request(matchers: Vec<Matcher>, start_ns: i64, end_ns: i64, direction: Direction) -> EntryRequest {
    EntryRequest {
        matchers,
        start_ns,
        end_ns,
        direction,
        limit: None,
        filters: Vec::new(),
        fields: WantedFields::ALL,
    }
}

fn app() -> Vec<Matcher> {
    vec![Matcher::eq("app", "x")]
}

fn stream(i: usize) -> Labels {
    Labels::from_pairs([("app", "x".to_owned()), ("i", format!("{i:02}"))])
}

fn set(i: usize) -> Labels {
    Labels::from_pairs(LABEL_SETS[i].iter().copied().filter(|(n, _)| *n != "__name__"))
}

fn all_sets() -> Data {
    vec![(
        tenant("t"),
        log_batch((0..LABEL_SETS.len()).map(|i| (set(i), vec![entry(T0, "one"), entry(T0 + 1, "two")]))),
    )]
}

fn texts(got: &[Got]) -> Vec<String> {
    got.iter()
        .map(|g| String::from_utf8_lossy(&g.line).into_owned())
        .collect()
}

async fn matchers<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    let source = make(all_sets()).await;
    let ctx = context(&tenant("t"));
    for (case, want) in MATCHER_CASES {
        let matchers: Vec<_> = case.iter().map(|(op, n, v)| matcher(*op, n, v)).collect();
        let got = collect(&*source, &ctx, request(matchers, T0, T0 + SECOND, Direction::Forward)).await;
        let mut got: Vec<usize> = got
            .iter()
            .filter_map(|g| g.stream.get("i").and_then(|i| i.parse().ok()))
            .collect();
        got.sort_unstable();
        got.dedup();
        assert_eq!(&got, want, "selector {case:?}");
    }
}

async fn bounds_order_and_limit<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    // Three streams, ten times each, two entries per time: the order is time, stream, arrival.
    let mut data = Vec::new();
    for i in [2, 0, 1] {
        let entries: Vec<LogEntry> = (0..10)
            .flat_map(|t| ["b", "a"].map(|n| entry(T0 + t * SECOND, format!("t{t} s{i} {n}"))))
            .collect();
        data.push((tenant("t"), log_batch([(stream(i), entries)])));
    }
    let source = make(data).await;
    let ctx = context(&tenant("t"));
    let mut want = Vec::new();
    for t in 0..10 {
        for s in 0..3 {
            for n in ["b", "a"] {
                want.push(format!("t{t} s{s} {n}"));
            }
        }
    }
    let end = T0 + 60 * SECOND;
    let got = collect(&*source, &ctx, request(app(), T0, end, Direction::Forward)).await;
    assert_eq!(texts(&got), want);
    let got = collect(&*source, &ctx, request(app(), T0, end, Direction::Backward)).await;
    let mut reversed = want.clone();
    reversed.reverse();
    assert_eq!(texts(&got), reversed);

    for limit in [1, 2, 5, 6, 7, 59, 60, 61] {
        for (direction, all) in [(Direction::Forward, &want), (Direction::Backward, &reversed)] {
            let mut r = request(app(), T0, end, direction);
            r.limit = Some(limit);
            assert_eq!(
                texts(&collect(&*source, &ctx, r).await),
                all[..limit.min(60)],
                "limit {limit} {direction:?}"
            );
        }
    }

    for direction in [Direction::Forward, Direction::Backward] {
        let count = async |start: i64, end: i64| {
            collect(&*source, &ctx, request(app(), start, end, direction))
                .await
                .len()
        };
        assert_eq!(count(T0, T0 + 9 * SECOND).await, 54, "the end is exclusive");
        assert_eq!(count(T0, T0 + 9 * SECOND + 1).await, 60, "one nanosecond more");
        assert_eq!(count(T0 + 1, T0 + 60 * SECOND).await, 54, "the start is inclusive");
        assert_eq!(count(T0, T0).await, 0, "an empty range");
        assert_eq!(count(T0 + SECOND, T0).await, 0, "end before start");
        assert_eq!(count(i64::MIN, i64::MAX).await, 60, "unbounded");
        assert_eq!(count(T0 + 10 * SECOND, i64::MAX).await, 0, "after the last");
    }
}

async fn bytes_are_exact<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    let lines: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"plain".to_vec(),
        b"  two  blanks  and\ttab ".to_vec(),
        b"line\nfeed\r\n".to_vec(),
        b"nul\0byte".to_vec(),
        b"not utf-8 \xff\xfe".to_vec(),
        "größe 12,5 ms – ok".as_bytes().to_vec(),
        b"007 -0 +1 1e9 0x1F 18446744073709551616 1.50".to_vec(),
        br#"{"a":"x","b":1.50,"c":[1,2],"d":"q\"uote"}"#.to_vec(),
        br#"a=1 b="x y" c= d=1.50 e=007"#.to_vec(),
        b"x".repeat(100_000),
        b"1 ".repeat(5_000),
    ];
    let entries = lines
        .iter()
        .enumerate()
        .map(|(i, l)| entry(T0 + i as i64, l.clone()))
        .collect();
    let source = make(vec![(tenant("t"), log_batch([(stream(0), entries)]))]).await;
    let ctx = context(&tenant("t"));
    let got = collect(&*source, &ctx, request(app(), T0, T0 + SECOND, Direction::Forward)).await;
    assert_eq!(got.len(), lines.len());
    for (g, line) in got.iter().zip(&lines) {
        assert!(
            g.line == *line,
            "line {:?} came back as {:?}",
            String::from_utf8_lossy(line),
            String::from_utf8_lossy(&g.line)
        );
        assert_eq!(g.line_len as usize, line.len());
        assert!(g.metadata.is_empty());
    }
}

async fn filters<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    use LineFilterOp::{Contains, Matches, NotContains, NotMatches};
    let lines = [
        "",
        "GET /cart 200 12ms",
        "GET /cart 500 7ms",
        "POST /pay 500 900ms",
        "cart",
        "ERROR error Cart",
        "a\nb",
    ];
    let entries = lines
        .iter()
        .enumerate()
        .map(|(i, l)| entry(T0 + i as i64, *l))
        .collect();
    let source = make(vec![(tenant("t"), log_batch([(stream(0), entries)]))]).await;
    let ctx = context(&tenant("t"));
    let cases: &[(&[(LineFilterOp, &[&str])], &[usize])] = &[
        (&[(Contains, &["cart"])], &[1, 2, 4]),
        (&[(NotContains, &["cart"])], &[0, 3, 5, 6]),
        (&[(Contains, &["cart"]), (Contains, &["500"])], &[2]),
        (&[(Contains, &["cart"]), (NotContains, &["500"])], &[1, 4]),
        (&[(Contains, &["pay", "ERROR"])], &[3, 5]),
        (&[(NotContains, &["pay", "cart"])], &[0, 5, 6]),
        (&[(Contains, &[""])], &[0, 1, 2, 3, 4, 5, 6]),
        (&[(NotContains, &[""])], &[]),
        (&[(Contains, &["T /cart 5"])], &[2]),
        (&[(Contains, &["00 90"])], &[3]),
        (&[(Matches, &["c.rt"])], &[1, 2, 4]),
        (&[(Matches, &["(?i)CART"])], &[1, 2, 4, 5]),
        (&[(Matches, &["^cart$"])], &[4]),
        (&[(Matches, &["[0-9]{3}ms"])], &[3]),
        (&[(Matches, &["a.b"])], &[]),
        (&[(Matches, &["(?s)a.b"])], &[6]),
        (&[(Matches, &[".+"])], &[1, 2, 3, 4, 5, 6]),
        (&[(NotMatches, &[".+"])], &[0]),
        (&[(NotMatches, &[".*"])], &[]),
        (&[(NotMatches, &["cart|pay"])], &[0, 5, 6]),
        (&[(Matches, &["^GET", "^POST"])], &[1, 2, 3]),
    ];
    for (case, want) in cases {
        for direction in [Direction::Forward, Direction::Backward] {
            let mut r = request(app(), T0, T0 + SECOND, direction);
            r.filters = case
                .iter()
                .map(|(op, needles)| {
                    LineFilter::new(*op, needles.iter().map(|n| Arc::from(*n)).collect()).expect("valid expression")
                })
                .collect();
            let mut got: Vec<usize> = collect(&*source, &ctx, r.clone())
                .await
                .iter()
                .map(|g| (g.ts_ns - T0) as usize)
                .collect();
            if direction == Direction::Backward {
                got.reverse();
            }
            assert_eq!(&got, want, "filters {case:?} {direction:?}");
            // The limit counts what passes the filters.
            r.limit = Some(1);
            assert_eq!(
                collect(&*source, &ctx, r.clone()).await.len(),
                want.len().min(1),
                "filters {case:?}"
            );
            // The line need not be wanted to be filtered.
            r.limit = None;
            r.fields = WantedFields::COUNT;
            assert_eq!(
                collect(&*source, &ctx, r).await.len(),
                want.len(),
                "filters {case:?} when counting"
            );
        }
    }
}

async fn fields<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    let meta = Labels::from_pairs([("trace_id", "abc"), ("user", "7")]);
    let entries = vec![
        LogEntry {
            ts_ns: T0,
            line: "with".into(),
            metadata: meta.clone(),
        },
        entry(T0 + 1, "without"),
    ];
    let source = make(vec![(tenant("t"), log_batch([(stream(0), entries)]))]).await;
    let ctx = context(&tenant("t"));
    let got = collect(&*source, &ctx, request(app(), T0, T0 + SECOND, Direction::Forward)).await;
    assert_eq!(got[0].metadata, meta);
    assert!(got[1].metadata.is_empty());

    let mut r = request(app(), T0, T0 + SECOND, Direction::Forward);
    r.fields = WantedFields {
        line: false,
        line_len: true,
        metadata: false,
    };
    let got = collect(&*source, &ctx, r).await;
    assert_eq!(
        got.iter().map(|g| g.line_len).collect::<Vec<_>>(),
        [4, 7],
        "lengths without lines"
    );
}

async fn late_and_duplicate<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    let at = |t: i64, line: &str| entry(T0 + t * SECOND, line.to_owned());
    let tagged = |t: i64, line: &str, user: &str| LogEntry {
        metadata: Labels::from_pairs([("user", user)]),
        ..at(t, line)
    };
    let source = make(vec![
        (
            tenant("t"),
            log_batch([(stream(0), vec![at(10, "ten"), at(5, "five"), at(10, "ten")])]),
        ),
        // A retried push, late data, and the same line with other metadata.
        (
            tenant("t"),
            log_batch([(stream(0), vec![at(10, "ten"), at(1, "one"), tagged(10, "ten", "a")])]),
        ),
        (
            tenant("t"),
            log_batch([(stream(0), vec![at(7, "seven"), at(10, "other"), tagged(10, "ten", "a")])]),
        ),
    ])
    .await;
    let ctx = context(&tenant("t"));
    let got = collect(&*source, &ctx, request(app(), T0, T0 + 60 * SECOND, Direction::Forward)).await;
    assert_eq!(texts(&got), ["one", "five", "seven", "ten", "ten", "other"]);
    assert_eq!(got[4].metadata.get("user"), Some("a"));
    let got = collect(
        &*source,
        &ctx,
        request(app(), T0, T0 + 60 * SECOND, Direction::Backward),
    )
    .await;
    assert_eq!(texts(&got), ["other", "ten", "ten", "seven", "five", "one"]);
}

async fn tenants<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    let source = make(vec![
        (tenant("a"), log_batch([(stream(0), vec![entry(T0, "of a")])])),
        (
            tenant("b"),
            log_batch([
                (stream(0), vec![entry(T0, "of b")]),
                (stream(1), vec![entry(T0, "more of b")]),
            ]),
        ),
    ])
    .await;
    for (id, want) in [("a", vec!["of a"]), ("b", vec!["of b", "more of b"]), ("c", vec![])] {
        let ctx = context(&tenant(id));
        let got = collect(&*source, &ctx, request(app(), T0, T0 + SECOND, Direction::Forward)).await;
        assert_eq!(texts(&got), want, "tenant {id}");
        let values = source
            .label_values(&ctx, "i", labels_request(vec![], 0))
            .await
            .expect("values");
        assert_eq!(values.len(), want.len(), "tenant {id}");
    }
}

fn labels_request(matcher_sets: Vec<Vec<Matcher>>, limit: usize) -> LabelRequest {
    LabelRequest {
        matcher_sets,
        start: T0 - SECOND,
        end: T0 + SECOND,
        limit,
    }
}

async fn label_calls<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    let source = make(all_sets()).await;
    let ctx = context(&tenant("t"));
    let names = source
        .label_names(&ctx, labels_request(vec![], 0))
        .await
        .expect("names");
    assert_eq!(names, ["i", "job", "umlaut", "zone"]);
    assert_eq!(
        source
            .label_names(&ctx, labels_request(vec![], 1))
            .await
            .expect("names"),
        ["i"]
    );
    let values = source
        .label_values(&ctx, "job", labels_request(vec![], 0))
        .await
        .expect("values");
    assert_eq!(values, ["api", "line\nfeed", "web"]);
    let sets = vec![
        vec![Matcher::eq("job", "web")],
        vec![matcher(MatchOp::Re, "umlaut", "gr.*")],
    ];
    let mut want = vec![set(3), set(5)];
    want.sort();
    assert_eq!(
        source.streams(&ctx, labels_request(sets, 0)).await.expect("streams"),
        want
    );
    let all = source.streams(&ctx, labels_request(vec![], 0)).await.expect("streams");
    assert_eq!(all.len(), LABEL_SETS.len());
    assert!(all.is_sorted(), "streams come sorted");
    assert_eq!(
        source.streams(&ctx, labels_request(vec![], 2)).await.expect("streams"),
        all[..2]
    );
    let far = LabelRequest {
        matcher_sets: vec![],
        start: 0,
        end: 1000,
        limit: 0,
    };
    assert!(
        source.streams(&ctx, far).await.expect("streams").is_empty(),
        "nothing at the epoch"
    );
}

async fn early_drop_and_cancellation<F, Fut>(make: &F)
where
    F: Fn(Data) -> Fut,
    Fut: Future<Output = Arc<dyn EntrySource>>,
{
    let entries: Vec<LogEntry> = (0..3000).map(|i| entry(T0 + i, format!("line {i}"))).collect();
    let source = make(vec![(tenant("t"), log_batch([(stream(0), entries)]))]).await;
    let ctx = context(&tenant("t"));
    let all = || request(app(), T0, T0 + SECOND, Direction::Backward);
    drop(source.select(&ctx, all()));
    let mut stream = source.select(&ctx, all());
    let first = stream.next().await.expect("a batch").expect("selection succeeds");
    assert_eq!(
        first.entries.first().map(|e| &e.line[..]),
        Some(b"line 2999".as_slice())
    );
    drop(stream);
    assert_eq!(collect(&*source, &ctx, all()).await.len(), 3000);

    let cancelled = context(&tenant("t"));
    cancelled.cancel.cancel();
    let mut stream = source.select(&cancelled, all());
    let mut last = None;
    while let Some(batch) = stream.next().await {
        if let Err(e) = batch {
            last = Some(e.kind);
            break;
        }
    }
    assert_eq!(
        last,
        Some(ErrorKind::Cancelled),
        "a cancelled query ends with its error"
    );
}
