//! The evaluator against a reference that looks at one series and one step at a time and does nothing clever, on random
//! expressions over random data: gaps, staleness, counter resets, native histograms of changing layouts, classic ones.
//!
//! `PROMQL_REFERENCE_SEED` runs one case, `PROMQL_REFERENCE_CASES` more of them. A failing case is narrowed down to the
//! smallest part of its expression that fails.

mod data;
mod eval;
mod expr;
mod over_time;

use std::collections::BTreeMap;

use trilith_histogram::{Buckets, FloatHistogram};
use trilith_model::SampleValue;
use trilith_query::vector::is_absent;

use self::data::{LabelMap, Random, Series, Value};
use self::eval::{Reference, Stop};
use self::expr::Expr;
use super::*;

/// Start, end, step in ms.
type Span3 = (i64, i64, i64);

type Answer = BTreeMap<(LabelMap, i64), Value>;

#[test]
fn evaluator_agrees_with_the_reference() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match number("PROMQL_REFERENCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PROMQL_REFERENCE_CASES").unwrap_or(400),
    };
    let (mut cases, mut answered, mut histograms, mut refused) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    for seed in seeds {
        let mut random = Random::new(seed);
        let data = data::series(&mut random);
        let expr = expr::expression(&mut random, 3);
        let start = 1000 * random.below(1200) as i64 + 137;
        let step = 1000 * (5 + random.below(120) as i64);
        let time = (start, start + step * random.below(9) as i64, step);
        cases += 1;
        match check(&data, &expr, time) {
            Ok(Some(answer)) => {
                answered += usize::from(!answer.is_empty());
                histograms += usize::from(answer.values().any(|v| matches!(v, Value::Histogram(_))));
            }
            Ok(None) => refused += 1,
            Err(_) => {
                let (expr, text) = narrowest(&data, &expr, time);
                wrong.push(format!("seed {seed}: {expr}\n  at {time:?}: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // Cases that say nothing are few.
    let counts = format!("of {cases} {answered} have elements, {histograms} histograms, {refused} are refused");
    assert!(
        cases < 100 || (answered * 2 > cases && histograms * 20 > cases),
        "{counts}"
    );
}

/// The smallest part that is wrong, and how.
fn narrowest<'e>(data: &[Series], expr: &'e Expr, time: Span3) -> (&'e Expr, String) {
    for part in expr.children() {
        if check(data, part, time).is_err() {
            return narrowest(data, part, time);
        }
    }
    let text = check(data, expr, time).err();
    (expr, text.unwrap_or_else(|| "but its parts are right".to_owned()))
}

/// The answer; none when both refuse the query.
fn check(data: &[Series], expr: &Expr, (start, end, step): Span3) -> std::result::Result<Option<Answer>, String> {
    let store = MemorySeries::new();
    for s in data {
        let labels = Labels::from_pairs(s.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let samples = s.samples.iter().map(|(t, v)| (*t, sample_value(v), 0));
        store.push_values(&TenantId::anonymous(), labels, samples);
    }
    let query = expr.to_string();
    let mut options = EvalOptions::default();
    // As good a coin as any.
    options.features.delayed_name_removal = start % 2000 < 1000;
    let source: Arc<dyn SeriesSource> = store;
    let got = runtime().block_on(range(&context(), source.clone(), &query, start, end, step, &options));
    let reference = Reference {
        data,
        start,
        end,
        names_go_at_once: !options.features.delayed_name_removal,
    };
    let mut want = Answer::new();
    for t in (start..=end).step_by(step as usize) {
        match reference.answer(expr, t) {
            Ok(elements) => want.extend(elements.into_iter().map(|(labels, v)| ((labels, t), v))),
            Err(Stop::Tie) => return Ok(None),
            Err(Stop::Refused) => {
                // Whether a subquery is refused also depends on times between its windows.
                return match got {
                    Err(_) => Ok(None),
                    Ok(got) => Err(format!("not refused: {:?}", got.value)),
                };
            }
        }
    }
    match got {
        Err(_) if expr.has_subquery() => Ok(None),
        Err(e) => Err(format!("refused: {}", e.message)),
        Ok(got) => {
            compare(&want, &answer(got.value))?;
            // The first step on its own; `@ end()` would be another time.
            if start == end || !query.contains("end()") {
                let first = runtime().block_on(instant(&context(), source, &query, start, &options));
                let first = first.map_err(|e| format!("refused as an instant query: {}", e.message))?;
                let of_start = want.iter().filter(|((_, t), _)| *t == start);
                compare(
                    &of_start.map(|(k, v)| (k.clone(), v.clone())).collect(),
                    &answer(first.value),
                )
                .map_err(|e| format!("as an instant query: {e}"))?;
            }
            Ok(Some(want))
        }
    }
}

fn sample_value(v: &Value) -> SampleValue {
    match v {
        Value::Float(v) => SampleValue::Float(*v),
        Value::Histogram(h) => SampleValue::Histogram(h.clone()),
    }
}

fn answer(value: QueryValue) -> Answer {
    let map = |labels: &Labels| -> LabelMap {
        let pairs = labels.iter().map(|l| (l.name.to_owned(), l.value.to_owned()));
        pairs.collect()
    };
    let mut out = Answer::new();
    let series = match value {
        QueryValue::Matrix(series) => series,
        QueryValue::Vector(elements) => {
            for e in elements {
                let value = match e.value {
                    SampleValue::Float(v) => Value::Float(v),
                    SampleValue::Histogram(h) => Value::Histogram(h),
                };
                out.insert((map(&e.labels), e.time_ms), value);
            }
            return out;
        }
        other => panic!("neither vector nor matrix: {other:?}"),
    };
    for s in series {
        let labels = map(&s.labels);
        let floats = s.points.into_iter().map(|(t, v)| (t, Value::Float(v)));
        let histograms = s.histograms.into_iter().map(|(t, h)| (t, Value::Histogram(h)));
        out.extend(floats.chain(histograms).map(|(t, v)| ((labels.clone(), t), v)));
    }
    out
}

fn compare(want: &Answer, got: &Answer) -> std::result::Result<(), String> {
    for (at, w) in want {
        match got.get(at) {
            None => return Err(format!("{at:?}: nothing instead of {w:?}")),
            Some(g) if !alike(w, g) => return Err(format!("{at:?}: {g:?}\n  instead of {w:?}")),
            Some(_) => {}
        }
    }
    match got.iter().find(|(at, _)| !want.contains_key(*at)) {
        Some((at, g)) => Err(format!("{at:?}: {g:?} instead of nothing")),
        None => Ok(()),
    }
}

fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => close(*a, *b),
        (Value::Histogram(a), Value::Histogram(b)) => alike_histograms(a, b),
        _ => false,
    }
}

fn alike_histograms(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    // What one rounds to nothing is a bucket next to nothing in the other.
    let populated = |side: &Buckets| -> Vec<(i32, f64)> { side.iter().filter(|(_, n)| n.abs() > 1e-9).collect() };
    let side = |a: &Buckets, b: &Buckets| {
        let (a, b) = (populated(a), populated(b));
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && close(a.1, b.1))
    };
    a.reset_hint == b.reset_hint
        && a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && a.custom_bounds() == b.custom_bounds()
        && close(a.zero_count, b.zero_count)
        && close(a.count, b.count)
        && close(a.sum, b.sum)
        && side(&a.positive, &b.positive)
        && side(&a.negative, &b.negative)
}
