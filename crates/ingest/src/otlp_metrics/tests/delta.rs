use trilith_model::DeltaTemporality;

use super::*;

/// Sends requests one after the other through the same totals.
struct Sender {
    totals: DeltaTotals,
    clock: Arc<TestClock>,
    limits: Limits,
}

impl Sender {
    fn new(settings: OtlpMetrics) -> Self {
        let (totals, clock) = totals();
        Sender {
            totals,
            clock,
            limits: limits(settings),
        }
    }

    fn send(&self, data: &Value) -> (Vec<String>, Vec<Rejection>) {
        let request = metric(data).to_string();
        let export = Export::read(request.into(), &JSON, &self.limits).expect("readable");
        let decoded = run(&export, &self.limits, &self.totals);
        (dump(&decoded.batch), decoded.rejections)
    }

    /// The values of the first series.
    fn ok(&self, data: &Value) -> String {
        let (lines, rejections) = self.send(data);
        assert_eq!(rejections, []);
        let line = &lines[0];
        line[line.find("} ").expect("labels") + 2..].to_owned()
    }

    fn refused(&self, data: &Value) -> &'static str {
        let (lines, rejections) = self.send(data);
        assert_eq!((lines.len(), rejections.len()), (0, 1), "{lines:?}");
        rejections[0].reason
    }
}

fn sum(start: i64, time: i64, value: Value) -> Value {
    json!({"name": "d", "sum": {"aggregationTemporality": 1, "isMonotonic": true,
        "dataPoints": [{"startTimeUnixNano": at(start), "timeUnixNano": at(time), "asInt": value}]}})
}

#[test]
fn sums_run_up_and_late_points_are_refused() {
    let s = Sender::new(OtlpMetrics::default());
    assert_eq!(s.ok(&sum(0, 10, json!(5))), "5@10<0");
    assert_eq!(s.ok(&sum(10, 20, json!(7))), "12@20<0");
    // A retry is answered with the total as it stands.
    assert_eq!(s.ok(&sum(10, 20, json!(7))), "12@20<0");
    // A second writer at the same time is not.
    assert_eq!(s.refused(&sum(10, 20, json!(8))), "delta_out_of_order");
    assert_eq!(s.refused(&sum(0, 15, json!(1))), "delta_out_of_order");
    assert_eq!(s.refused(&sum(-5, 30, json!(1))), "delta_older_start");
    // A gap is none for the total.
    assert_eq!(s.ok(&sum(50, 60, json!(-2))), "10@60<0");
    let several = json!({"name": "d", "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [
        {"startTimeUnixNano": at(60), "timeUnixNano": at(70), "asDouble": 0.5},
        {"startTimeUnixNano": at(70), "timeUnixNano": at(80), "asInt": "9007199254740993"}]}});
    assert_eq!(s.ok(&several), "10.5@70<0 9007199254741004@80<0");
    assert_eq!(s.totals.usage().0, 1);
    // Cumulative points do not touch it.
    let cumulative = json!({"name": "d", "sum": {"aggregationTemporality": 2, "isMonotonic": true,
        "dataPoints": [{"timeUnixNano": at(90), "asInt": 3}]}});
    assert_eq!(s.ok(&cumulative), "3@90");
}

#[test]
fn totals_end_by_idleness_and_by_staleness_markers() {
    let s = Sender::new(OtlpMetrics::default());
    assert_eq!(s.ok(&sum(0, 10, json!(5))), "5@10<0");
    s.clock.advance(299);
    assert_eq!(s.ok(&sum(10, 20, json!(5))), "10@20<0");
    s.clock.advance(299);
    assert_eq!(s.ok(&sum(20, 30, json!(5))), "15@30<0");
    s.clock.advance(301);
    assert_eq!(s.ok(&sum(30, 40, json!(5))), "5@40<30");
    let stale = json!({"name": "d", "sum": {"aggregationTemporality": 1, "isMonotonic": true,
        "dataPoints": [{"timeUnixNano": at(50), "flags": 1}]}});
    assert_eq!(s.ok(&stale), "stale@50");
    assert_eq!(s.totals.usage(), (0, 0));
    assert_eq!(s.ok(&sum(50, 60, json!(1))), "1@60<50");
}

#[test]
fn memory_has_a_ceiling() {
    let s = Sender::new(OtlpMetrics {
        delta_bytes_max: 1000,
        ..OtlpMetrics::default()
    });
    let points: Vec<Value> = (0..20)
        .map(|i| json!({"timeUnixNano": at(1), "asInt": 1, "attributes": [attribute("i", &i.to_string())]}))
        .collect();
    let data = json!({"name": "d", "sum": {"aggregationTemporality": 1, "dataPoints": points}});
    let (lines, rejections) = s.send(&data);
    assert!((1..10).contains(&lines.len()), "{}", lines.len());
    assert_eq!(rejections[0].kind, ErrorKind::LimitExceeded);
    assert_eq!(lines.len() as u64 + rejections[0].count, 20);
    let (series, bytes) = s.totals.usage();
    assert_eq!(series, lines.len());
    assert!(bytes <= 1000, "{bytes}");
}

#[test]
fn tenants_have_their_own_totals() {
    let s = Sender::new(OtlpMetrics::default());
    assert_eq!(s.ok(&sum(0, 10, json!(5))), "5@10<0");
    let export = Export::read(metric(&sum(0, 10, json!(1))).to_string().into(), &JSON, &s.limits).expect("readable");
    let other = TenantId::new("other").expect("valid");
    let decoded = export.translate(&other, &s.limits, &s.totals).expect("well formed");
    assert_eq!(dump(&decoded.batch), [r#"{__name__="d_total"} 1@10<0"#]);
}

fn histogram(start: i64, time: i64, counts: &[u64], bounds: &[f64]) -> Value {
    json!({"name": "h", "histogram": {"aggregationTemporality": 1, "dataPoints": [{"startTimeUnixNano": at(start),
        "timeUnixNano": at(time), "count": counts.iter().sum::<u64>(), "sum": 1.5, "bucketCounts": counts, "explicitBounds": bounds}]}})
}

#[test]
fn histograms_run_up() {
    let s = Sender::new(OtlpMetrics::default());
    s.send(&histogram(0, 10, &[1, 2], &[1.0]));
    let (lines, _) = s.send(&histogram(10, 20, &[10, 20], &[1.0]));
    assert_eq!(
        lines,
        [
            r#"{__name__="h_sum"} 3@20<0"#,
            r#"{__name__="h_count"} 33@20<0"#,
            r#"{__name__="h_bucket", le="1"} 11@20<0"#,
            r#"{__name__="h_bucket", le="+Inf"} 33@20<0"#,
        ]
    );
    // Other bounds begin anew.
    let (lines, _) = s.send(&histogram(20, 30, &[1, 1], &[2.0]));
    assert_eq!(lines[1], r#"{__name__="h_count"} 2@30<20"#);
    assert_eq!(s.refused(&histogram(20, 25, &[1, 1], &[2.0])), "delta_out_of_order");
    let native = Sender::new(OtlpMetrics {
        histograms_to_nhcb: true,
        ..OtlpMetrics::default()
    });
    native.send(&histogram(0, 10, &[1, 2], &[1.0]));
    assert_eq!(
        native.ok(&histogram(10, 20, &[10, 20], &[1.0])),
        "[s-53 n33 Σ3 +0+2 [11.0, 22.0] ≤[1.0]]@20<0"
    );
}

fn exponential(start: i64, time: i64, scale: i32, offset: i32, counts: &[u64]) -> Value {
    json!({"name": "e", "exponentialHistogram": {"aggregationTemporality": 1, "dataPoints": [{"startTimeUnixNano": at(start),
        "timeUnixNano": at(time), "count": counts.iter().sum::<u64>(), "sum": 1, "scale": scale,
        "positive": {"offset": offset, "bucketCounts": counts}}]}})
}

#[test]
fn exponential_histograms_run_up() {
    let s = Sender::new(OtlpMetrics::default());
    assert_eq!(
        s.ok(&exponential(0, 10, 1, 0, &[1, 2])),
        "[s1 n3 Σ1 z1e-128:0 +1+2 [1.0, 2.0]]@10<0"
    );
    assert_eq!(
        s.ok(&exponential(10, 20, 0, 0, &[4, 5])),
        "[s0 n12 Σ2 z1e-128:0 +1+2 [7.0, 5.0]]@20<0"
    );
    assert_eq!(
        s.ok(&exponential(10, 20, 0, 0, &[4, 5])),
        "[s0 n12 Σ2 z1e-128:0 +1+2 [7.0, 5.0]]@20<0"
    );
    assert_eq!(s.refused(&exponential(10, 15, 0, 0, &[1])), "delta_out_of_order");
    // Far apart: the total gets coarser instead of long.
    for i in 0..40 {
        s.ok(&exponential(20 + i, 21 + i, 0, i as i32 * 7, &[1; 7]));
    }
    let last = s.ok(&exponential(100, 110, 0, 0, &[1]));
    assert!(last.starts_with("[s-1 "), "{last}");
    let (_, bytes) = s.totals.usage();
    assert!(bytes < 4096, "{bytes}");
}

#[test]
fn deltas_can_be_stored_as_they_are() {
    let s = Sender::new(OtlpMetrics {
        delta: DeltaTemporality::Store,
        ..OtlpMetrics::default()
    });
    assert_eq!(s.ok(&sum(0, 10, json!(5))), "5@10<0");
    assert_eq!(s.ok(&sum(10, 20, json!(5))), "5@20<10");
    let export = Export::read(
        metric(&exponential(0, 1, 0, 0, &[1])).to_string().into(),
        &JSON,
        &s.limits,
    );
    let batch = run(&export.expect("readable"), &s.limits, &s.totals).batch;
    assert_eq!(
        batch.histograms[0].histogram.reset_hint,
        trilith_histogram::ResetHint::Gauge
    );
    assert_eq!(batch.metadata[0].kind, trilith_model::MetricType::Unknown);
    assert_eq!(s.totals.usage().0, 0);
}
