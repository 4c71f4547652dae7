use std::collections::BTreeMap;

use proptest::prelude::*;
use trilith_histogram::{Buckets, CUSTOM_SCHEMA, ResetHint};

use super::super::block::Element;
use super::super::test_context;
use super::*;

fn run(op: AggregateOp, rows: &[[f64; 3]]) -> Vec<f64> {
    let ctx = test_context();
    let mut acc = Accumulator::new(&ctx, op, None, 3);
    for (i, r) in rows.iter().enumerate() {
        acc.add(&Labels::from_pairs([("i", i.to_string())]), r).unwrap();
    }
    acc.finish(&ctx).unwrap().0.values
}

#[test]
fn every_operator() {
    let nan = f64::NAN;
    let rows = [[1.0, nan, ABSENT], [3.0, 2.0, ABSENT], [ABSENT, 4.0, ABSENT]];
    let get = |op| run(op, &rows);
    assert_eq!(get(AggregateOp::Sum)[0], 4.0);
    assert!(get(AggregateOp::Sum)[1].is_nan());
    assert_eq!(get(AggregateOp::Avg)[0], 2.0);
    assert_eq!(get(AggregateOp::Min)[..2], [1.0, 2.0]);
    assert_eq!(get(AggregateOp::Max)[..2], [3.0, 4.0]);
    assert_eq!(get(AggregateOp::Count)[..2], [2.0, 3.0]);
    assert_eq!(get(AggregateOp::Group)[..2], [1.0, 1.0]);
    assert_eq!(get(AggregateOp::Stdvar)[0], 1.0);
    assert_eq!(get(AggregateOp::Stddev)[0], 1.0);
    for op in [
        AggregateOp::Sum,
        AggregateOp::Avg,
        AggregateOp::Min,
        AggregateOp::Count,
        AggregateOp::Stddev,
    ] {
        assert!(is_absent(get(op)[2]), "{op:?} of nothing");
    }
    assert!(run(AggregateOp::Count, &[]).is_empty());
    assert!(run(AggregateOp::Min, &[[nan; 3]])[0].is_nan());
    assert!(!is_absent(run(AggregateOp::Min, &[[nan; 3]])[0]));
}

fn histogram(kind: u8) -> FloatHistogram {
    let mut h = FloatHistogram {
        count: 4.0,
        sum: f64::from(kind),
        positive: Buckets::run(1, vec![1.0, 3.0]),
        ..FloatHistogram::default()
    };
    match kind {
        0 => {}
        1 => h.reset_hint = ResetHint::Reset,
        2 => h.reset_hint = ResetHint::NotReset,
        n => {
            h.schema = CUSTOM_SCHEMA;
            h.custom_bounds = Some(if n == 3 { vec![1.0, 2.0] } else { vec![1.0, 3.0] }.into());
            h.positive = Buckets::run(0, vec![1.0, 3.0]);
        }
    }
    h
}

#[derive(Clone, Debug)]
enum Value {
    Absent,
    Float(f64),
    Histogram(u8),
}

/// What an aggregation of one group at one step has to give: a number, or a histogram as its text.
fn reference(op: AggregateOp, values: &[Value], remarks: &mut Remarks) -> Option<String> {
    let floats: Vec<f64> = values
        .iter()
        .filter_map(|v| if let Value::Float(v) = v { Some(*v) } else { None })
        .collect();
    let kinds: Vec<u8> = values
        .iter()
        .filter_map(|v| if let Value::Histogram(k) = v { Some(*k) } else { None })
        .collect();
    let n = floats.len() as f64;
    let finite = floats.iter().all(|v| v.is_finite());
    let sum: f64 = floats.iter().sum();
    let variance = || {
        let mean = sum / n;
        if finite {
            floats.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n
        } else {
            f64::NAN
        }
    };
    if !kinds.is_empty() && !op.takes_histograms() {
        remarks.insert(Remark::HistogramIgnored);
    }
    let float = |v: f64| (!floats.is_empty()).then(|| format!("{:.9}", v));
    match op {
        AggregateOp::Count => {
            let n = floats.len() + kinds.len();
            (n > 0).then(|| format!("{:.9}", n as f64))
        }
        AggregateOp::Group => (!floats.is_empty() || !kinds.is_empty()).then(|| format!("{:.9}", 1.0)),
        AggregateOp::Min => float(floats.iter().copied().fold(f64::NAN, f64::min)),
        AggregateOp::Max => float(floats.iter().copied().fold(f64::NAN, f64::max)),
        AggregateOp::Stdvar => float(variance()),
        AggregateOp::Stddev => float(variance().sqrt()),
        AggregateOp::Sum | AggregateOp::Avg if kinds.is_empty() => {
            float(if op == AggregateOp::Sum { sum } else { sum / n })
        }
        AggregateOp::Sum | AggregateOp::Avg => {
            let custom = kinds.iter().filter(|k| **k >= 3).count();
            if custom > 0 && kinds.contains(&3) && kinds.contains(&4) && custom == kinds.len() {
                remarks.insert(Remark::BoundsReconciled);
            }
            if custom > 0 && custom < kinds.len() {
                remarks.insert(Remark::MixedSchemas { metric: "m".to_owned() });
                return None;
            }
            if !floats.is_empty() {
                remarks.insert(Remark::MixedGroup);
                return None;
            }
            if kinds.contains(&1) && kinds.contains(&2) {
                remarks.insert(Remark::ConflictingResets);
            }
            let total: f64 = kinds.iter().map(|k| f64::from(*k)).sum();
            let by = if op == AggregateOp::Sum {
                1.0
            } else {
                kinds.len() as f64
            };
            Some(format!("h {:.9} {:.9}", 4.0 * kinds.len() as f64 / by, total / by))
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just(Value::Absent),
        4 => prop_oneof![Just(1.0), Just(2.5), Just(-3.0), Just(f64::NAN)].prop_map(Value::Float),
        4 => (0u8..5).prop_map(Value::Histogram),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn groups_of_both_kinds(rows in prop::collection::vec((0u8..2, prop::collection::vec(value(), 2)), 0..6), op in 0usize..8) {
        let op = [
            AggregateOp::Sum, AggregateOp::Avg, AggregateOp::Min, AggregateOp::Max, AggregateOp::Count,
            AggregateOp::Group, AggregateOp::Stddev, AggregateOp::Stdvar,
        ][op];
        let ctx = test_context();
        let by = Grouping { labels: vec!["g".to_owned()], by: true };
        let mut acc = Accumulator::new(&ctx, op, Some(by), 2);
        let mut groups: BTreeMap<String, [Vec<Value>; 2]> = BTreeMap::new();
        for (i, (g, values)) in rows.iter().enumerate() {
            let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("g", g.to_string()), ("i", i.to_string())]);
            let mut row = Row::new(labels);
            let mut cells = [ABSENT; 2];
            for (step, v) in values.iter().enumerate() {
                match v {
                    Value::Absent => {}
                    Value::Float(v) => cells[step] = *v,
                    Value::Histogram(k) => row.set_histogram(step, 2, Arc::new(histogram(*k))),
                }
                groups.entry(g.to_string()).or_default()[step].push(v.clone());
            }
            acc.add_row(&row, &cells).unwrap();
        }
        let mut want_remarks = Remarks::new();
        let mut want = BTreeMap::new();
        for (g, steps) in &groups {
            for (step, values) in steps.iter().enumerate() {
                if let Some(v) = reference(op, values, &mut want_remarks) {
                    want.insert((g.clone(), step), v);
                }
            }
        }
        let (out, remarks) = acc.finish(&ctx).unwrap();
        let mut got = BTreeMap::new();
        for (row, cells) in out.iter() {
            prop_assert!(row.has_values(cells));
            for step in 0..2 {
                let text = match row.element(cells, step) {
                    None => continue,
                    Some(Element::Float(v)) => format!("{v:.9}"),
                    Some(Element::Histogram(h)) => format!("h {:.9} {:.9}", h.count, h.sum),
                };
                got.insert((row.labels.get("g").unwrap_or("").to_owned(), step), text);
            }
        }
        prop_assert_eq!(got, want);
        // Whether bounds were reconciled before exponential buckets came is a matter of the order.
        let settled = |r: &Remark| *r != Remark::BoundsReconciled || !want_remarks.iter().any(|r| matches!(r, Remark::MixedSchemas { .. }));
        prop_assert_eq!(
            remarks.iter().filter(|r| settled(r)).collect::<Vec<_>>(),
            want_remarks.iter().filter(|r| settled(r)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_group_loses_its_name_with_the_members_of_its_last_step() {
    let ctx = test_context();
    let by = Grouping {
        labels: vec!["__name__".to_owned()],
        by: true,
    };
    let drops = |rows: &[(bool, [f64; 2])]| {
        let mut acc = Accumulator::new(&ctx, AggregateOp::Sum, Some(by.clone()), 2);
        for (drop_name, cells) in rows {
            let row = Row {
                drop_name: *drop_name,
                ..Row::new(Labels::from_pairs([("__name__", "m")]))
            };
            acc.add_row(&row, cells).unwrap();
        }
        acc.finish(&ctx).unwrap().0.rows[0].drop_name
    };
    assert!(drops(&[(true, [1.0, ABSENT])]));
    assert!(!drops(&[(true, [1.0, ABSENT]), (false, [ABSENT, 1.0])]));
    assert!(drops(&[(false, [1.0, 1.0]), (true, [ABSENT, 1.0])]));
}
