//! Runs the shared PromQL scripts: every evaluation as written and, for instant ones, again as a range query around its
//! time, which must have the same values there, and pinned to its time with `@`, which must give the same at any time.
//!
//! `PROMQL_SCRIPTS=<regex>` selects evaluations by `file:line: query`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trilith_histogram::{Buckets, FloatHistogram, ResetHint};
use trilith_model::{Labels, Limits, SampleValue, TenantId};
use trilith_promql::{EvalOptions, QueryOutput, QueryValue, instant, range};
use trilith_promql_syntax::{At, Expr, ExprKind, SyntaxFeatures, TimeShift, parse};
use trilith_query::{QueryContext, SeriesSource};
use trilith_testkit::script::{self, Command, Eval, Expected, Item, Note};
use trilith_testkit::{MemorySeries, SimClock};

/// Instant queries are repeated as range queries one minute to both sides.
const AROUND_MS: i64 = 60_000;

fn scripts() -> Vec<(String, String)> {
    let root = std::env::var_os("TRILITH_CORPORA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora")),
        PathBuf::from,
    );
    let Ok(dir) = std::fs::read_dir(root.join("promqltest")) else {
        return Vec::new();
    };
    let mut out: Vec<(String, String)> = dir
        .filter_map(|e| {
            let path = e.ok()?.path();
            let name = path.file_name()?.to_str()?.to_owned();
            name.ends_with(".test")
                .then(|| std::fs::read_to_string(&path).ok().map(|t| (name, t)))?
        })
        .collect();
    out.sort();
    out
}

async fn run(store: &Arc<MemorySeries>, query: &str, at: (i64, i64, i64)) -> trilith_model::Result<QueryOutput> {
    let ctx = QueryContext::new(
        TenantId::anonymous(),
        Arc::new(Limits {
            query_samples_max: 10_000,
            ..Limits::default()
        }),
        SimClock::new(0),
        Duration::ZERO,
    );
    let source: Arc<dyn SeriesSource> = store.clone();
    let options = EvalOptions::default();
    match at {
        (t, _, 0) => instant(&ctx, source, query, t, &options).await,
        (start, end, step) => range(&ctx, source, query, start, end, step, &options).await,
    }
}

fn close(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return (a - b).abs() < 1e-6 * f64::MIN_POSITIVE;
    }
    (a - b).abs() / sum.min(f64::MAX) < 1e-6
}

/// Populations by bucket index, empty ones left out.
fn populated(buckets: &Buckets) -> BTreeMap<i64, f64> {
    let mut out = BTreeMap::new();
    let (mut index, mut counts) = (0i64, buckets.counts.iter());
    for span in &buckets.spans {
        index += i64::from(span.offset);
        for n in counts.by_ref().take(span.length as usize) {
            if *n != 0.0 {
                out.insert(index, *n);
            }
            index += 1;
        }
    }
    out
}

/// That nothing was reset upstream's store knows from its chunks; no answer of the API shows it.
fn same_histogram(got: &FloatHistogram, want: &FloatHistogram, hint: Option<ResetHint>) -> bool {
    let same = |a: &Buckets, b: &Buckets| {
        let (a, b) = (populated(a), populated(b));
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && close(*a.1, *b.1))
    };
    got.schema == want.schema
        && got.zero_threshold == want.zero_threshold
        && got.custom_bounds.as_deref().unwrap_or_default() == want.custom_bounds.as_deref().unwrap_or_default()
        && close(got.count, want.count)
        && close(got.sum, want.sum)
        && close(got.zero_count, want.zero_count)
        && same(&got.positive, &want.positive)
        && same(&got.negative, &want.negative)
        && hint
            .is_none_or(|h| got.reset_hint == h || (h == ResetHint::NotReset && got.reset_hint == ResetHint::Unknown))
}

fn same_item(got: &SampleValue, want: &Item) -> bool {
    match (got, &want.value) {
        (SampleValue::Float(a), SampleValue::Float(b)) => close(*a, *b),
        (SampleValue::Histogram(a), SampleValue::Histogram(b)) => {
            same_histogram(a, b, want.hint_given.then_some(b.reset_hint))
        }
        _ => false,
    }
}

type Points = BTreeMap<i64, SampleValue>;

fn rows(value: &QueryValue) -> Vec<(Labels, Points)> {
    match value {
        QueryValue::Vector(v) => v
            .iter()
            .map(|e| (e.labels.clone(), [(e.time_ms, e.value.clone())].into()))
            .collect(),
        QueryValue::Matrix(m) => m
            .iter()
            .map(|s| {
                let floats = s.points.iter().map(|(t, v)| (*t, SampleValue::Float(*v)));
                let histograms = s
                    .histograms
                    .iter()
                    .map(|(t, h)| (*t, SampleValue::Histogram(h.clone())));
                (s.labels.clone(), floats.chain(histograms).collect())
            })
            .collect(),
        QueryValue::Scalar { value, time_ms } => {
            vec![(Labels::empty(), [(*time_ms, SampleValue::Float(*value))].into())]
        }
        QueryValue::String { .. } => Vec::new(),
    }
}

fn check(e: &Eval, out: &QueryOutput) -> Result<(), String> {
    let (start_ms, step_ms, matrix, series) = match (&e.expected, &out.value) {
        (Expected::String(want), QueryValue::String { value, .. }) if want == value => return Ok(()),
        (Expected::Scalar(want), QueryValue::Scalar { value, .. }) if close(*want, *value) => return Ok(()),
        (
            Expected::Series {
                start_ms,
                step_ms,
                matrix,
                series,
            },
            QueryValue::Vector(_) | QueryValue::Matrix(_),
        ) => (*start_ms, *step_ms, *matrix, series),
        (want, got) => return Err(format!("expected {want:?}\n      got {got:?}")),
    };
    if matrix != matches!(out.value, QueryValue::Matrix(_)) {
        return Err(format!("another type of result: {:?}", out.value));
    }
    let got = rows(&out.value);
    let want: Vec<(Labels, BTreeMap<i64, &Item>)> = series
        .iter()
        .map(|(labels, items)| {
            let points = items.iter().enumerate();
            let points = points.filter_map(|(i, v)| Some((start_ms + i as i64 * step_ms, v.as_ref()?)));
            (labels.clone(), points.collect::<BTreeMap<_, _>>())
        })
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let same = |g: &(Labels, Points), w: &(Labels, BTreeMap<i64, &Item>)| {
        g.0 == w.0 && g.1.len() == w.1.len() && g.1.iter().zip(&w.1).all(|(g, w)| g.0 == w.0 && same_item(g.1, w.1))
    };
    let ok = if e.ordered {
        got.len() == want.len() && got.iter().zip(&want).all(|(g, w)| same(g, w))
    } else {
        let mut left = want.clone();
        let found = got.iter().all(|g| match left.iter().position(|w| same(g, w)) {
            Some(i) => {
                left.swap_remove(i);
                true
            }
            None => false,
        });
        found && left.is_empty()
    };
    if !ok {
        return Err(format!("expected {want:?}\n      got      {got:?}"));
    }
    if matrix && !got.is_sorted_by(|a, b| a.0 <= b.0) {
        return Err("the matrix is not sorted by labels".into());
    }
    notes("warnings", &e.warn, e.no_warn, &out.warnings)?;
    notes("infos", &e.info, e.no_info, &out.infos)
}

fn matches(note: &Note, text: &str) -> bool {
    match note {
        Note::Any => true,
        Note::Text(want) => want == text,
        Note::Regex(pattern) => regex::Regex::new(pattern).is_ok_and(|r| r.is_match(text)),
    }
}

fn notes(kind: &str, want: &[Note], none: bool, got: &[String]) -> Result<(), String> {
    let covered = want.iter().all(|w| got.iter().any(|g| matches(w, g)));
    let known = want.is_empty() || got.iter().all(|g| want.iter().any(|w| matches(w, g)));
    if covered && known && (!none || got.is_empty()) {
        return Ok(());
    }
    let want = if none { "none".into() } else { format!("{want:?}") };
    Err(format!("{kind}: expected {want}\n      got      {got:?}"))
}

/// The same expression around the time of an instant evaluation.
async fn check_range(store: &Arc<MemorySeries>, e: &Eval, instant: &QueryOutput) -> Result<(), String> {
    let words = ["start()", "end()", "range()", "step()"];
    if e.step_ms > 0
        || e.ordered
        || !matches!(instant.value, QueryValue::Vector(_) | QueryValue::Scalar { .. })
        || words.iter().any(|w| e.query.replace(' ', "").contains(w))
    {
        return Ok(());
    }
    let t = e.start_ms;
    let out = run(store, &e.query, (t - AROUND_MS, t + AROUND_MS, AROUND_MS))
        .await
        .map_err(|err| format!("as a range query: {err}"))?;
    let at_t = |rows: Vec<(Labels, Points)>| -> BTreeMap<Labels, SampleValue> {
        rows.into_iter()
            .filter_map(|(l, p)| Some((l, p.get(&t)?.clone())))
            .collect()
    };
    let (want, got) = (at_t(rows(&instant.value)), at_t(rows(&out.value)));
    if want.len() == got.len() && want.iter().zip(&got).all(|(w, g)| w.0 == g.0 && same_value(w.1, g.1)) {
        Ok(())
    } else {
        Err(format!("as a range query: expected {want:?}\n      got      {got:?}"))
    }
}

/// Functions whose result depends on the time of evaluation.
const TIME_DEPENDENT: [&str; 14] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "end",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "year",
];

/// Gives every selector and outermost subquery without `@` one. False when the result would depend on the time anyway.
fn pin(e: &mut Expr, time_ms: i64) -> bool {
    let at = |shift: &mut TimeShift| {
        shift.at.get_or_insert(At::Time(time_ms));
        true
    };
    match &mut e.kind {
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Selector(s) => at(&mut s.shift),
        ExprKind::Range(r) => at(&mut r.selector.shift),
        ExprKind::Subquery(s) => at(&mut s.shift),
        ExprKind::Call(c) => {
            let direct = matches!(c.args.first().map(|a| &a.unwrapped().kind), Some(ExprKind::Selector(_)));
            let depends = TIME_DEPENDENT.contains(&c.function.name) || (c.function.name == "timestamp" && !direct);
            // The second argument of `info` is no selector of its own.
            let args = if c.function.name == "info" { 1 } else { c.args.len() };
            !depends && c.args.iter_mut().take(args).all(|arg| pin(arg, time_ms))
        }
        ExprKind::Aggregate(a) => a.param.as_mut().is_none_or(|p| pin(p, time_ms)) && pin(&mut a.expr, time_ms),
        ExprKind::Binary(b) => pin(&mut b.lhs, time_ms) && pin(&mut b.rhs, time_ms),
        ExprKind::Unary(u) => pin(&mut u.expr, time_ms),
        ExprKind::Paren(inner) => pin(inner, time_ms),
    }
}

/// The same expression pinned to the time of an instant evaluation, at other times.
async fn check_pinned(store: &Arc<MemorySeries>, e: &Eval, instant: &QueryOutput) -> Result<(), String> {
    if e.step_ms > 0 || !matches!(instant.value, QueryValue::Vector(_) | QueryValue::Scalar { .. }) {
        return Ok(());
    }
    let t = e.start_ms;
    let mut tree = parse(&e.query, &SyntaxFeatures::default()).map_err(|err| err.to_string())?;
    if !pin(&mut tree, t) {
        return Ok(());
    }
    let query = tree.to_string();
    let values = |out: &QueryOutput| -> BTreeMap<Labels, SampleValue> {
        let first = |(l, p): (Labels, Points)| Some((l, p.into_values().next()?));
        rows(&out.value).into_iter().filter_map(first).collect()
    };
    let want = values(instant);
    let others = if t == 0 {
        [-1000, 0, 1000].to_vec()
    } else {
        vec![-10 * t, 0, t / 5, t, 10 * t]
    };
    for at in others {
        let out = run(store, &query, (at, at, 0))
            .await
            .map_err(|err| format!("{query} at {at}: {err}"))?;
        let got = values(&out);
        if want.len() != got.len() || !want.iter().zip(&got).all(|(w, g)| w.0 == g.0 && same_value(w.1, g.1)) {
            return Err(format!("{query} at {at}: expected {want:?}\n      got      {got:?}"));
        }
    }
    Ok(())
}

fn same_value(a: &SampleValue, b: &SampleValue) -> bool {
    match (a, b) {
        (SampleValue::Float(a), SampleValue::Float(b)) => close(*a, *b),
        (SampleValue::Histogram(a), SampleValue::Histogram(b)) => same_histogram(a, b, None),
        _ => false,
    }
}

async fn evaluate(store: &Arc<MemorySeries>, e: &Eval) -> Result<(), String> {
    match (&e.fail, run(store, &e.query, (e.start_ms, e.end_ms, e.step_ms)).await) {
        (Some(want), Err(err)) if matches(want, &err.message) => Ok(()),
        (Some(want), Err(err)) => Err(format!("failed with {:?} instead of {want:?}", err.message)),
        (Some(_), Ok(out)) => Err(format!("must fail, got {:?}", out.value)),
        (None, Err(err)) => Err(err.to_string()),
        (None, Ok(out)) => {
            check(e, &out)?;
            check_range(store, e, &out).await?;
            check_pinned(store, e, &out).await
        }
    }
}

#[tokio::test]
async fn shared_scripts() {
    let scripts = scripts();
    if scripts.is_empty() {
        eprintln!("skipped: no corpus");
        return;
    }
    let only = std::env::var("PROMQL_SCRIPTS").map(|p| regex::Regex::new(&p).expect("a regular expression"));
    let (mut agree, mut wrong) = (0, Vec::new());
    for (name, text) in &scripts {
        let commands = script::parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let store = MemorySeries::new();
        let (agree_before, wrong_before) = (agree, wrong.len());
        for command in commands {
            match command {
                Command::Clear => store.clear(),
                Command::Load(series) => {
                    for s in series {
                        let points = s.points.into_iter().map(|p| (p.ts_ms, p.value, p.start_ms));
                        store.push_values(&TenantId::anonymous(), s.labels, points);
                    }
                }
                Command::Eval(e) => {
                    let title = format!("{name}:{}: {}", e.line, e.query);
                    if only.as_ref().is_ok_and(|o| !o.is_match(&title)) {
                        continue;
                    }
                    match evaluate(&store, &e).await {
                        Ok(()) => agree += 1,
                        Err(problem) => wrong.push(format!("{title}\n      {problem}")),
                    }
                }
            }
        }
        eprintln!(
            "{name}: {} agree, {} wrong",
            agree - agree_before,
            wrong.len() - wrong_before
        );
    }
    assert!(
        wrong.is_empty(),
        "{} evaluations differ, {agree} agree:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
