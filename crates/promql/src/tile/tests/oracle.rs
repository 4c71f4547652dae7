//! Windows of both kinds against references that look at one window at a time and do nothing clever.

use proptest::prelude::*;

use RangeFunction as F;

use super::functions::same;
use super::*;

/// Counters with resets, start timestamps, both kinds and staleness markers.
fn points() -> impl Strategy<Value = Vec<Point>> {
    let one = (1i64..40, 0u8..12, 0u32..20, 0i64..60, any::<bool>());
    (prop::collection::vec(one, 1..50), 0u8..3).prop_map(|(all, kinds)| {
        let (mut t, mut v) = (0, 0.0);
        let mut out = Vec::new();
        for (gap, kind, more, start, started) in all {
            t += 1000 * gap;
            v = if kind == 0 { 0.0 } else { v + f64::from(more) };
            let histogram = match kinds {
                0 => false,
                1 => true,
                _ => kind >= 6,
            };
            let value = match kind {
                1 => f(STALE),
                2 if histogram => h(hinted(ResetHint::Reset, histogram_of(v))),
                3 if histogram => h(hinted(ResetHint::Gauge, histogram_of(v))),
                _ if histogram => h(histogram_of(v)),
                2 => f(-v),
                _ => f(v),
            };
            let start = if started { (t - 1000 * start).max(1) } else { 0 };
            out.push((t, value, start));
        }
        out
    })
}

fn histogram_of(v: f64) -> FloatHistogram {
    histogram(&[v, (v / 2.0).floor(), v])
}

fn is_stale(v: &SampleValue) -> bool {
    matches!(v, SampleValue::Float(v) if is_absent(*v))
}

fn floats(w: &[Point]) -> Option<Vec<f64>> {
    w.iter()
        .map(|p| match &p.1 {
            SampleValue::Float(v) => Some(*v),
            SampleValue::Histogram(_) => None,
        })
        .collect()
}

fn histograms(w: &[Point]) -> Option<Vec<FloatHistogram>> {
    w.iter()
        .map(|p| match &p.1 {
            SampleValue::Histogram(h) => Some(FloatHistogram::clone(h)),
            SampleValue::Float(_) => None,
        })
        .collect()
}

fn reset_by_start(a: &Point, b: &Point) -> bool {
    let known = b.2 != 0 && b.2 < b.0;
    known && (b.2 > a.0 || (b.2 == a.0 && a.2 != 0 && a.2 < a.0))
}

fn is_reset(a: &Point, b: &Point) -> bool {
    match (&a.1, &b.1) {
        (SampleValue::Float(x), SampleValue::Float(y)) => y < x || reset_by_start(a, b),
        (SampleValue::Histogram(x), SampleValue::Histogram(y)) => reset_by_start(a, b) || y.detect_reset(x),
        _ => true,
    }
}

/// What a rate is multiplied by, as upstream writes it.
fn factor(w: &[Point], start: i64, end: i64, counter: bool, first: f64, change: f64) -> Option<f64> {
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let (first_t, last_t) = (w[0].0, w[w.len() - 1].0);
    let mut sampled = seconds(last_t - first_t);
    let average = if w.len() > 1 {
        sampled / (w.len() - 1) as f64
    } else {
        0.0
    };
    let (mut to_start, mut to_end) = (seconds(first_t - start), seconds(end - last_t));
    if counter && w[0].2 != 0 && w[0].2 > start && w[0].2 < first_t {
        to_start = 0.0;
        sampled = seconds(last_t - w[0].2);
    } else if w.len() == 1 {
        return None;
    } else {
        if to_start >= average * 1.1 {
            to_start = average / 2.0;
        }
        if counter && change > 0.0 && first >= 0.0 {
            to_start = to_start.min(sampled * (first / change));
        }
    }
    if to_end >= average * 1.1 {
        to_end = average / 2.0;
    }
    Some((sampled + to_start + to_end) / sampled)
}

fn rate(w: &[Point], start: i64, end: i64, counter: bool) -> Option<SampleValue> {
    let counted = counter && w[0].2 != 0 && w[0].2 > start && w[0].2 < w[0].0;
    if let Some(vs) = floats(w) {
        let mut change = vs[vs.len() - 1] - vs[0];
        for (i, pair) in w.windows(2).enumerate() {
            if counter && is_reset(&pair[0], &pair[1]) {
                change += vs[i];
            }
        }
        if counted {
            change += vs[0];
        }
        return Some(f(change * factor(w, start, end, counter, vs[0], change)?));
    }
    let hs = histograms(w)?;
    let mut change = hs[hs.len() - 1].clone();
    if hs.len() > 1 {
        change.sub(&hs[0]).ok()?;
        for (i, pair) in w.windows(2).enumerate() {
            if counter && is_reset(&pair[0], &pair[1]) {
                change.add(&hs[i]).ok()?;
            }
        }
        change.reset_hint = ResetHint::Gauge;
        if counted {
            change.add(&hs[0]).ok()?;
        }
    } else if !counted {
        return None;
    }
    change.mul(factor(w, start, end, counter, hs[0].count, change.count)?);
    Some(h(change))
}

fn reference(function: F, all: &[Point], end: i64, width: i64) -> Option<SampleValue> {
    let start = end - width;
    let w: Vec<Point> = all
        .iter()
        .filter(|p| p.0 > start && p.0 <= end && !is_stale(&p.1))
        .cloned()
        .collect();
    let (first, last) = (w.first()?, w.last()?);
    let only_floats: Vec<f64> = w
        .iter()
        .filter_map(|p| match &p.1 {
            SampleValue::Float(v) => Some(*v),
            SampleValue::Histogram(_) => None,
        })
        .collect();
    let pairs = || w.windows(2);
    match function {
        F::Count => Some(f(w.len() as f64)),
        F::First => Some(first.1.clone()),
        F::Last => Some(last.1.clone()),
        F::TsOfFirst => Some(f(first.0 as f64 / 1000.0)),
        F::TsOfLast => Some(f(last.0 as f64 / 1000.0)),
        F::Max => only_floats.into_iter().reduce(f64::max).map(f),
        F::Changes => Some(f(pairs()
            .filter(|p| !p[0].1.eq(&p[1].1) && !same_data(&p[0].1, &p[1].1))
            .count() as f64)),
        F::Resets => Some(f(pairs().filter(|p| is_reset(&p[0], &p[1])).count() as f64)),
        F::Sum => match floats(&w) {
            Some(vs) => Some(f(vs.iter().sum())),
            None => {
                let hs = histograms(&w)?;
                let mut sum = hs[0].clone();
                for h in &hs[1..] {
                    sum.add(h).ok()?;
                }
                Some(h(sum))
            }
        },
        F::Irate => {
            let [.., a, b] = w.as_slice() else {
                return None;
            };
            let seconds = (b.0 - a.0) as f64 / 1000.0;
            match (&a.1, &b.1) {
                (SampleValue::Float(x), SampleValue::Float(y)) => {
                    Some(f(if is_reset(a, b) { *y } else { y - x } / seconds))
                }
                (SampleValue::Histogram(x), SampleValue::Histogram(y)) => {
                    let mut out = FloatHistogram::clone(y);
                    if !is_reset(a, b) {
                        out.sub(x).ok()?;
                    }
                    out.reset_hint = ResetHint::Gauge;
                    out.div(seconds);
                    Some(h(out))
                }
                _ => None,
            }
        }
        F::Rate(kind) => rate(&w, start, end, kind.is_counter()),
        _ => unreachable!("the test names its functions"),
    }
}

fn same_data(a: &SampleValue, b: &SampleValue) -> bool {
    match (a, b) {
        (SampleValue::Float(a), SampleValue::Float(b)) => a == b,
        (SampleValue::Histogram(a), SampleValue::Histogram(b)) => a.same(b),
        _ => false,
    }
}

/// The value of a counter or gauge of floats at an edge.
fn at_edge(all: &[(i64, f64)], t: i64, counter: bool) -> Option<f64> {
    let after = all.iter().position(|p| p.0 >= t);
    match after {
        Some(i) if all[i].0 == t => Some(all[i].1),
        Some(0) => None,
        Some(i) => {
            let (a, b) = (all[i - 1], all[i]);
            let from = if counter && b.1 < a.1 { 0.0 } else { a.1 };
            Some(from + (b.1 - from) * (t - a.0) as f64 / (b.0 - a.0) as f64)
        }
        None => all.last().map(|p| p.1),
    }
}

/// Anchored and smoothed increases and deltas, by the values at the edges.
fn between_edges(all: &[Point], end: i64, width: i64, counter: bool, smoothed: bool) -> Option<f64> {
    let start = end - width;
    let ahead = if smoothed { LOOKBACK } else { 0 };
    let seen: Vec<(i64, f64)> = all
        .iter()
        .filter(|p| p.0 > start - LOOKBACK && p.0 <= end + ahead)
        .filter_map(|p| match &p.1 {
            SampleValue::Float(v) if !is_absent(*v) => Some((p.0, *v)),
            _ => None,
        })
        .collect();
    let inside: Vec<(i64, f64)> = seen.iter().copied().filter(|p| p.0 > start && p.0 < end).collect();
    let reaches = seen.iter().any(|p| p.0 > start) && (!smoothed || seen.iter().any(|p| p.0 <= end));
    if !reaches {
        return None;
    }
    let first_inside = seen.iter().find(|p| p.0 > start)?.1;
    let (left, right) = if smoothed {
        (
            at_edge(&seen, start, counter).unwrap_or(first_inside),
            at_edge(&seen, end, counter)?,
        )
    } else {
        let anchor = seen.iter().rev().find(|p| p.0 <= start);
        (anchor.map_or(first_inside, |p| p.1), seen.last()?.1)
    };
    let mut values = vec![left];
    values.extend(inside.iter().map(|p| p.1));
    values.push(right);
    let lost: f64 = values.windows(2).filter(|w| w[1] < w[0]).map(|w| w[0]).sum();
    Some(right - left + if counter { lost } else { 0.0 })
}

const FUNCTIONS: [F; 13] = [
    F::Count,
    F::First,
    F::Last,
    F::TsOfFirst,
    F::TsOfLast,
    F::Max,
    F::Changes,
    F::Resets,
    F::Sum,
    F::Irate,
    F::Rate(RateKind::Increase),
    F::Rate(RateKind::Delta),
    F::Rate(RateKind::Increase),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn windows_of_both_kinds(
        points in points(),
        function in prop::sample::select(&FUNCTIONS[..]),
        width in 1i64..300,
        at in prop::collection::vec(-20i64..1000, 1..8),
    ) {
        let at: Vec<i64> = at.iter().map(|t| t * 1000 + 137).collect();
        let (got, _) = run_cell(&points, &window(function, &[], at.len()), &frame(&at, width * 1000, Edges::Plain));
        for (t, got) in at.iter().zip(got) {
            let mut want = reference(function, &points, *t, width * 1000);
            if function.uses_starts() {
                want = reference(function, &points, *t, width * 1000);
            } else if matches!(function, F::Rate(_)) {
                let unstarted: Vec<Point> = points.iter().map(|p| (p.0, p.1.clone(), 0)).collect();
                want = reference(function, &unstarted, *t, width * 1000);
            }
            // Hints of sums are the arithmetic's matter.
            prop_assert!(same(&plain(&got), &plain(&want)), "{function:?} at {t}: {got:?} instead of {want:?}");
        }
    }

    #[test]
    fn windows_with_edges(
        points in points(),
        counter in any::<bool>(),
        smoothed in any::<bool>(),
        width in 1i64..300,
        at in prop::collection::vec(-20i64..1000, 1..8),
    ) {
        let points: Vec<Point> = points
            .into_iter()
            .map(|p| match &p.1 {
                SampleValue::Histogram(x) => (p.0, f(x.count), 0),
                SampleValue::Float(_) => p,
            })
            .collect();
        let at: Vec<i64> = at.iter().map(|t| t * 1000).collect();
        let function = F::Rate(if counter { RateKind::Increase } else { RateKind::Delta });
        let edges = if smoothed { Edges::Smoothed } else { Edges::Anchored };
        let (got, _) = run_cell(&points, &window(function, &[], at.len()), &frame(&at, width * 1000, edges));
        for (t, got) in at.iter().zip(got) {
            let want = between_edges(&points, *t, width * 1000, counter, smoothed).map(f);
            prop_assert!(same(&got, &want), "{function:?} {edges:?} at {t}: {got:?} instead of {want:?}");
        }
    }
}

fn plain(v: &Option<SampleValue>) -> Option<SampleValue> {
    match v {
        Some(SampleValue::Histogram(x)) => Some(h(hinted(ResetHint::Unknown, FloatHistogram::clone(x)))),
        other => other.clone(),
    }
}
