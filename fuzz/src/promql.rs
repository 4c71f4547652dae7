//! PromQL: printing, and evaluation over a small store of series of every kind.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use trilith_histogram::{Buckets, CUSTOM_SCHEMA, FloatHistogram, ResetHint, Span};
use trilith_model::metric::STALE_NAN_BITS;
use trilith_model::time::SystemClock;
use trilith_model::{Labels, Limits, SampleValue, TenantId};
use trilith_promql::{EvalOptions, Features, format_query, instant, parse, range};
use trilith_query::{QueryContext, SeriesSource};
use trilith_testkit::MemorySeries;

/// What is accepted prints as a query that is accepted and prints the same.
pub fn print(bytes: &[u8]) {
    let features = Features::default();
    let Ok(query) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(expr) = parse(query, &features) else {
        return;
    };
    let printed = expr.to_string();
    let again = parse(&printed, &features).unwrap_or_else(|e| panic!("{query:?} prints {printed:?}: {}", e.message));
    assert_eq!(printed, again.to_string(), "{query:?}");
    if let Ok(pretty) = format_query(query, &features) {
        let again = parse(&pretty, &features).unwrap_or_else(|e| panic!("{query:?} formats {pretty:?}: {}", e.message));
        assert_eq!(printed, again.to_string(), "{query:?} as {pretty:?}");
    }
}

/// Long enough for any honest query over a few series, short of what counts as a hang.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Evaluates a query at once and over a range; must neither panic nor run away.
pub fn evaluate(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else {
        return;
    };
    let limits = Limits {
        query_samples_max: 200_000,
        query_memory_bytes: 64 << 20,
        ..Limits::default()
    };
    let ctx = QueryContext::new(TenantId::anonymous(), Arc::new(limits), Arc::new(SystemClock), TIMEOUT);
    let source: Arc<dyn SeriesSource> = store().clone();
    let options = EvalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    runtime.block_on(async {
        let _ = instant(&ctx, source.clone(), query, 600_000, &options).await;
        let _ = range(&ctx, source, query, 0, 900_000, 45_000, &options).await;
    });
}

/// Thirty scrapes of floats, of classic and native histograms, of series that change their kind, some of them not
/// well formed.
fn store() -> &'static Arc<MemorySeries> {
    static STORE: OnceLock<Arc<MemorySeries>> = OnceLock::new();
    STORE.get_or_init(|| {
        let store = MemorySeries::new();
        let push = |name: &str, labels: &[(&str, &str)], value: &dyn Fn(i64) -> SampleValue| {
            let labels = Labels::from_pairs([("__name__", name)].iter().chain(labels).copied());
            let samples = (0..30).map(|i| (i * 30_000, value(i), if i % 7 == 3 { i * 30_000 - 10_000 } else { 0 }));
            store.push_values(&TenantId::anonymous(), labels, samples);
        };
        let special = [
            f64::NAN,
            f64::INFINITY,
            -1e308,
            1e308,
            0.0,
            f64::from_bits(STALE_NAN_BITS),
        ];
        for job in ["a", "b"] {
            push("c_total", &[("job", job)], &|i| SampleValue::Float((i % 13 * 7) as f64));
            push("g", &[("job", job)], &|i| {
                SampleValue::Float(special[i as usize % special.len()])
            });
            for (le, n) in [("0.5", 3), ("1", 2), ("+Inf", 9), ("x", 1)] {
                push("h_bucket", &[("job", job), ("le", le)], &|i| {
                    SampleValue::Float((i * n) as f64)
                });
            }
            push("h", &[("job", job)], &|i| match i % 11 {
                4 => SampleValue::Float(1.0),
                _ => SampleValue::Histogram(Arc::new(histogram(i))),
            });
        }
        store
    })
}

fn histogram(i: i64) -> FloatHistogram {
    let custom = i % 8 > 5;
    FloatHistogram {
        reset_hint: ResetHint::from_u8((i % 4) as u8).unwrap_or_default(),
        schema: if custom { CUSTOM_SCHEMA } else { (i % 13) as i32 - 4 },
        zero_threshold: (i % 3) as f64,
        zero_count: 2.0,
        count: (i * 3) as f64,
        sum: if i % 9 == 2 { f64::NAN } else { i as f64 },
        positive: Buckets {
            spans: vec![
                Span { offset: -3, length: 2 },
                Span {
                    offset: if i % 10 == 9 { i32::MAX } else { 1 },
                    length: if i % 12 == 5 { u32::MAX } else { 2 },
                },
            ],
            counts: vec![1.0, 0.0, i as f64, 2.0],
        },
        negative: if custom {
            Buckets::default()
        } else {
            Buckets::run(2, vec![1.0; 3])
        },
        custom_bounds: custom.then(|| [0.5, 1.0, (i % 5) as f64 + 2.0].into()),
    }
}
