//! Joins against a reference that works step by step on lists, with floats, histograms and fill values.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use trilith_histogram::{Buckets, CUSTOM_SCHEMA, FloatHistogram, ResetHint};
use trilith_model::SampleValue;

use super::super::*;
use crate::vector::test_context;

type Samples = Vec<(Labels, SampleValue)>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Duplicate,
    ManyToOne,
    NotUnique,
    SameLabels,
}

fn histogram(kind: u8) -> Arc<FloatHistogram> {
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
    Arc::new(h)
}

fn value() -> impl Strategy<Value = Option<SampleValue>> {
    prop_oneof![
        2 => Just(None),
        4 => prop_oneof![Just(0.0), Just(1.0), Just(2.0), Just(f64::NAN)].prop_map(|v| Some(SampleValue::Float(v))),
        2 => (0u8..5).prop_map(|k| Some(SampleValue::Histogram(histogram(k)))),
    ]
}

fn side() -> impl Strategy<Value = Vec<(Labels, bool, Vec<Option<SampleValue>>)>> {
    let labels = (0..2u8, 0..3u8, 0..3u8).prop_map(|(name, a, b)| {
        let text = |n: u8| if n == 0 { String::new() } else { n.to_string() };
        let name = if name == 0 { "x" } else { "y" };
        Labels::from_pairs([("__name__", name.to_owned()), ("a", text(a)), ("b", text(b))])
    });
    let rows = prop::collection::vec((labels, any::<bool>(), prop::collection::vec(value(), 2)), 0..5);
    rows.prop_map(|mut rows| {
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows.dedup_by(|a, b| a.0 == b.0);
        rows
    })
}

fn block(ctx: &QueryContext, rows: &[(Labels, bool, Vec<Option<SampleValue>>)]) -> Block {
    let heads = rows.iter().map(|(labels, drop_name, _)| Row {
        drop_name: *drop_name,
        ..Row::new(labels.clone())
    });
    let mut out = Block::absent(ctx, heads.collect(), 2).unwrap();
    for (i, (.., values)) in rows.iter().enumerate() {
        for (step, v) in values.iter().enumerate() {
            match v {
                None => {}
                Some(SampleValue::Float(v)) => out.row_mut(i)[step] = *v,
                Some(SampleValue::Histogram(h)) => out.put_histogram(ctx, i, step, h.clone()).unwrap(),
            }
        }
    }
    out
}

fn as_element(v: &SampleValue) -> Element<'_> {
    match v {
        SampleValue::Float(v) => Element::Float(*v),
        SampleValue::Histogram(h) => Element::Histogram(h),
    }
}

/// One step: the elements of the result and the last remark.
fn step(left: &Samples, right: &Samples, join: &Join) -> std::result::Result<(Samples, Option<Remark>), Kind> {
    let m = &join.matching;
    let fills = m.fill_left.is_some() || m.fill_right.is_some();
    if (left.is_empty() && right.is_empty()) || (!fills && (left.is_empty() || right.is_empty())) {
        return Ok((Vec::new(), None));
    }
    let swapped = m.cardinality == Cardinality::OneToMany;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let mut partners: BTreeMap<Labels, &(Labels, SampleValue)> = BTreeMap::new();
    for sample in one {
        if partners.insert(m.key(&sample.0), sample).is_some() {
            return Err(Kind::Duplicate);
        }
    }
    let (mut out, mut remark) = (Vec::new(), None);
    let mut matched: BTreeMap<Labels, Vec<Labels>> = BTreeMap::new();
    let filled = |fill: f64, of: &Labels| (m.key(of), SampleValue::Float(fill));
    let mut pairs: Vec<((Labels, SampleValue), (Labels, SampleValue), bool)> = Vec::new();
    for sample in many {
        match (partners.get(&m.key(&sample.0)), m.fill_right) {
            (Some(partner), _) => pairs.push((sample.clone(), (*partner).clone(), false)),
            (None, Some(fill)) => pairs.push((sample.clone(), filled(fill, &sample.0), false)),
            (None, None) => {}
        }
    }
    if let Some(fill) = m.fill_left {
        pairs.extend(one.iter().map(|s| (filled(fill, &s.0), s.clone(), true)));
    }
    for (of_many, of_one, is_fill) in pairs {
        let key = m.key(&of_one.0);
        if is_fill && matched.contains_key(&key) {
            continue;
        }
        let (l, r) = if swapped {
            (&of_one.1, &of_many.1)
        } else {
            (&of_many.1, &of_one.1)
        };
        let outcome = match element(join.op, as_element(l), as_element(r)) {
            Ok(outcome) => outcome,
            Err(e) => {
                remark = Some(e);
                continue;
            }
        };
        remark = outcome.remark.or(remark);
        let labels = m.result_labels(&of_many.0, &of_one.0, join.op.drops_name());
        let seen = matched.entry(key).or_default();
        if m.cardinality == Cardinality::OneToOne && !seen.is_empty() {
            return Err(Kind::ManyToOne);
        }
        if seen.contains(&labels) {
            return Err(Kind::NotUnique);
        }
        seen.push(labels.clone());
        if join.return_bool {
            out.push((labels, SampleValue::Float(f64::from(u8::from(outcome.holds)))));
        } else if outcome.holds {
            out.push((labels, outcome.value));
        }
    }
    Ok((out, remark))
}

/// Text of a value that tells NaN and histograms apart.
fn shown(v: &SampleValue) -> String {
    match v {
        SampleValue::Float(v) => format!("{v}"),
        SampleValue::Histogram(h) => format!("{h:?}"),
    }
}

fn matching() -> impl Strategy<Value = Matching> {
    let label = prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
    let cardinality = prop_oneof![
        Just(Cardinality::OneToOne),
        Just(Cardinality::ManyToOne),
        Just(Cardinality::OneToMany)
    ];
    let fill = || prop::option::weighted(0.3, prop_oneof![Just(0.0), Just(1.0)]);
    (
        any::<bool>(),
        prop::option::of(label),
        cardinality,
        any::<bool>(),
        fill(),
        fill(),
    )
        .prop_map(|(on, label, cardinality, include, fill_left, fill_right)| Matching {
            on,
            include: if include && cardinality != Cardinality::OneToOne && label.as_deref() != Some("b") {
                vec!["b".to_owned()]
            } else {
                Vec::new()
            },
            labels: label.into_iter().collect(),
            cardinality,
            fill_left,
            fill_right,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn joins_follow_the_rules_of_every_step(
        left in side(),
        right in side(),
        matching in matching(),
        op in prop_oneof![
            Just(BinaryOp::Add),
            Just(BinaryOp::Mul),
            Just(BinaryOp::Eq),
            Just(BinaryOp::Ge),
            Just(BinaryOp::TrimUpper)
        ],
        return_bool in any::<bool>(),
    ) {
        // Marks are the concern of another test: here equal labels are equal rows.
        let unmarked = |rows: &[(Labels, bool, Vec<Option<SampleValue>>)]| -> Vec<_> {
            rows.iter().map(|(l, _, v)| (l.clone(), false, v.clone())).collect()
        };
        let (left, right) = (unmarked(&left), unmarked(&right));
        let join = Join {
            op,
            return_bool: return_bool && op.is_comparison(),
            matching,
            names: NameRemoval::Delayed,
        };
        let at = |rows: &[(Labels, bool, Vec<Option<SampleValue>>)], step: usize| -> Samples {
            rows.iter().filter_map(|(l, _, v)| Some((l.clone(), v[step].clone()?))).collect()
        };
        let mut want: std::result::Result<BTreeMap<(Labels, usize), String>, Kind> = Ok(BTreeMap::new());
        let mut remarks = Remarks::new();
        for s in 0..2 {
            match (step(&at(&left, s), &at(&right, s), &join), &mut want) {
                (Err(kind), Ok(_) | Err(Kind::SameLabels)) => want = Err(kind),
                (Ok((samples, remark)), Ok(all)) => {
                    remarks.extend(remark);
                    let mut twice = false;
                    for (labels, v) in samples {
                        twice |= all.insert((labels, s), shown(&v)).is_some();
                    }
                    if twice {
                        want = Err(Kind::SameLabels);
                    }
                }
                _ => {}
            }
        }
        let ctx = test_context();
        let got = join.run(&ctx, &block(&ctx, &left), &block(&ctx, &right));
        match (want, got) {
            (Ok(want), Ok((got, got_remarks))) => {
                let mut cells = BTreeMap::new();
                for (row, values) in got.iter() {
                    prop_assert_eq!(row.drop_name, join.return_bool);
                    for s in 0..2 {
                        let v = match row.element(values, s) {
                            None => continue,
                            Some(Element::Float(v)) => SampleValue::Float(v),
                            Some(Element::Histogram(h)) => SampleValue::Histogram(h.clone()),
                        };
                        cells.insert((row.labels.clone(), s), shown(&v));
                    }
                }
                prop_assert_eq!(cells, want);
                prop_assert_eq!(got_remarks, remarks);
            }
            (Err(want), Err(got)) => {
                let got = match got {
                    MatchError::Duplicate { .. } => Kind::Duplicate,
                    MatchError::ManyToOne => Kind::ManyToOne,
                    MatchError::NotUnique => Kind::NotUnique,
                    MatchError::SameLabels => Kind::SameLabels,
                    MatchError::Other(e) => panic!("{e}"),
                };
                prop_assert_eq!(got, want);
            }
            (want, got) => prop_assert!(false, "want {:?}, got {:?}", want, got),
        }
    }
}
