//! The evaluator against a reference that looks at one series and one step at a time and does nothing clever.

use std::collections::BTreeMap;

use proptest::prelude::*;
use trilith_query::vector::is_absent;

use super::*;

/// A series: its job, and samples in order.
#[derive(Clone, Debug)]
struct Series {
    job: u8,
    samples: Vec<(i64, f64)>,
}

/// Counters with resets, gaps and staleness markers; some series share their timestamps, as scraped ones do.
fn series() -> impl Strategy<Value = Vec<Series>> {
    let shared = prop::collection::vec(1i64..40, 1..60);
    let one = (
        0u8..3,
        any::<bool>(),
        prop::collection::vec((1i64..40, 0u8..20, 0u32..50), 1..60),
    );
    (shared, prop::collection::vec(one, 1..8)).prop_map(|(shared, all)| {
        all.into_iter()
            .map(|(job, own_times, points)| {
                let (mut t, mut v) = (0, 0.0);
                let mut samples = Vec::new();
                for (i, (gap, kind, more)) in points.into_iter().enumerate() {
                    t += 1000 * if own_times { gap } else { shared[i % shared.len()] };
                    v = match kind {
                        0 => 0.0,
                        _ => v + f64::from(more),
                    };
                    match kind {
                        1 if own_times => {} // a gap
                        2 => samples.push((t, STALE)),
                        3 => samples.push((t, -v)),
                        _ => samples.push((t, v)),
                    }
                }
                Series { job, samples }
            })
            .collect()
    })
}

fn window(s: &Series, end: i64, width: i64) -> Vec<(i64, f64)> {
    s.samples
        .iter()
        .copied()
        .filter(|(t, v)| *t > end - width && *t <= end && !is_absent(*v))
        .collect()
}

/// Prometheus' extrapolatedRate, line by line.
fn rate(w: &[(i64, f64)], end: i64, width: i64, counter: bool, per_second: bool) -> Option<f64> {
    let n = w.len();
    if n < 2 {
        return None;
    }
    let mut result = w[n - 1].1 - w[0].1;
    if counter {
        result += w.windows(2).filter(|p| p[1].1 < p[0].1).map(|p| p[0].1).sum::<f64>();
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let (mut to_start, mut to_end) = (seconds(w[0].0 - (end - width)), seconds(end - w[n - 1].0));
    let sampled = seconds(w[n - 1].0 - w[0].0);
    let average = sampled / (n - 1) as f64;
    if to_start >= average * 1.1 {
        to_start = average / 2.0;
    }
    if counter && result > 0.0 && w[0].1 >= 0.0 {
        to_start = to_start.min(sampled * (w[0].1 / result));
    }
    if to_end >= average * 1.1 {
        to_end = average / 2.0;
    }
    let increase = result * ((sampled + to_start + to_end) / sampled);
    Some(if per_second {
        increase / seconds(width)
    } else {
        increase
    })
}

fn reference(function: &str, s: &Series, at: i64, width: i64) -> Option<f64> {
    let w = window(s, at, width);
    let values = || w.iter().map(|p| p.1);
    let some = !w.is_empty();
    match function {
        "" => s
            .samples
            .iter()
            .rev()
            .find(|(t, _)| *t <= at)
            .filter(|(t, v)| *t > at - 300_000 && !is_absent(*v))
            .map(|p| p.1),
        "rate" => rate(&w, at, width, true, true),
        "increase" => rate(&w, at, width, true, false),
        "delta" => rate(&w, at, width, false, false),
        "sum_over_time" => some.then(|| values().sum()),
        "avg_over_time" => some.then(|| values().sum::<f64>() / w.len() as f64),
        "min_over_time" => values().reduce(f64::min),
        "max_over_time" => values().reduce(f64::max),
        "count_over_time" => some.then_some(w.len() as f64),
        "last_over_time" => w.last().map(|p| p.1),
        "idelta" => (w.len() >= 2).then(|| w[w.len() - 1].1 - w[w.len() - 2].1),
        _ => unreachable!("the test names its functions"),
    }
}

fn close(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-6)
}

const FUNCTIONS: [&str; 11] = [
    "",
    "rate",
    "increase",
    "delta",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "idelta",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn evaluator_agrees(
        data in series(),
        function in prop::sample::select(&FUNCTIONS[..]),
        width in 1i64..200,
        start in -100i64..1500,
        step in 1i64..120,
        steps in 1i64..12,
        offset in -50i64..50,
        summed in any::<bool>(),
    ) {
        let store = MemorySeries::new();
        let tenant = TenantId::anonymous();
        for (i, s) in data.iter().enumerate() {
            let l = Labels::from_pairs([
                ("__name__", "m_total".to_owned()),
                ("job", s.job.to_string()),
                ("i", i.to_string()),
            ]);
            store.push(&tenant, l, s.samples.iter().copied());
        }
        let shift = format!("offset {offset}s");
        let shift = if offset == 0 { "" } else { &shift };
        let inner = if function.is_empty() {
            format!("m_total {shift}")
        } else {
            format!("{function}(m_total[{width}s] {shift})")
        };
        let query = if summed { format!("sum by (job) ({inner})") } else { inner };
        let (start, step) = (start * 1000 + 137, step * 1000);
        let end = start + (steps - 1) * step;

        let mut want: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
        for (i, s) in data.iter().enumerate() {
            for k in 0..steps {
                let t = start + k * step;
                let Some(v) = reference(function, s, t - offset * 1000, width * 1000) else {
                    continue;
                };
                let key = if summed { s.job.to_string() } else { i.to_string() };
                *want.entry(key).or_default().entry(t).or_insert(0.0) += v;
            }
        }
        let QueryValue::Matrix(got) = run_range(&store, &query, start, end, step).unwrap().value else {
            panic!("a range query gives a matrix");
        };
        prop_assert_eq!(got.len(), want.len(), "{}", query);
        for s in got {
            let key = s.labels.get(if summed { "job" } else { "i" }).unwrap().to_owned();
            let want = &want[&key];
            prop_assert_eq!(s.points.len(), want.len(), "{} {}", query, key);
            for (t, v) in s.points {
                prop_assert!(close(v, want[&t]), "{} {} at {}: {} instead of {}", query, key, t, v, want[&t]);
            }
        }
    }
}
