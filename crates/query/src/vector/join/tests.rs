mod reference;

use super::super::matching::{SetOp, set_operation};
use super::super::{ABSENT, is_absent, test_context};
use super::*;

fn join(
    ctx: &QueryContext,
    left: &Block,
    right: &Block,
    op: BinaryOp,
    return_bool: bool,
    matching: &Matching,
) -> std::result::Result<Block, MatchError> {
    let join = Join {
        op,
        return_bool,
        matching: matching.clone(),
        names: NameRemoval::Delayed,
    };
    join.run(ctx, left, right).map(|(block, _)| block)
}

fn block(ctx: &QueryContext, rows: &[(&[(&str, &str)], &[f64])]) -> Block {
    let labels = rows
        .iter()
        .map(|(l, _)| Row::new(Labels::from_pairs(l.iter().copied())))
        .collect();
    let mut b = Block::absent(ctx, labels, rows[0].1.len()).unwrap();
    b.values = rows.iter().flat_map(|(_, v)| v.iter().copied()).collect();
    b
}

fn show(b: &Block) -> Vec<String> {
    let mut out: Vec<String> = b
        .iter()
        .map(|(r, v)| {
            let cells: Vec<String> = v
                .iter()
                .map(|v| if is_absent(*v) { "_".to_owned() } else { v.to_string() })
                .collect();
            format!("{} {}", r.labels, cells.join(" "))
        })
        .collect();
    out.sort();
    out
}

fn on(labels: &[&str], cardinality: Cardinality, include: &[&str]) -> Matching {
    Matching {
        on: true,
        labels: labels.iter().map(|s| (*s).to_owned()).collect(),
        cardinality,
        include: include.iter().map(|s| (*s).to_owned()).collect(),
        ..Matching::default()
    }
}

#[test]
fn one_to_one() {
    let ctx = test_context();
    let l = block(
        &ctx,
        &[
            (&[("__name__", "x"), ("a", "1")], &[1.0, 2.0]),
            (&[("a", "2")], &[5.0, 5.0]),
        ],
    );
    let r = block(&ctx, &[(&[("__name__", "y"), ("a", "1")], &[10.0, ABSENT])]);
    let m = Matching::default();
    assert_eq!(
        show(&join(&ctx, &l, &r, BinaryOp::Add, false, &m).unwrap()),
        [r#"{a="1"} 11 _"#]
    );
    assert_eq!(
        show(&join(&ctx, &l, &r, BinaryOp::Lt, false, &m).unwrap()),
        [r#"{__name__="x", a="1"} 1 _"#]
    );
    assert!(show(&join(&ctx, &l, &r, BinaryOp::Gt, false, &m).unwrap()).is_empty());
}

#[test]
fn duplicates_count_only_where_both_sides_have_elements() {
    let ctx = test_context();
    let l = block(&ctx, &[(&[("a", "1")], &[1.0, ABSENT])]);
    let twice = |v: [f64; 4]| {
        block(
            &ctx,
            &[
                (&[("a", "9"), ("b", "1")], &v[..2]),
                (&[("a", "9"), ("b", "2")], &v[2..]),
            ],
        )
    };
    let m = on(&["a"], Cardinality::OneToOne, &[]);
    let run = |r: Block| join(&ctx, &l, &r, BinaryOp::Add, false, &m);
    assert!(matches!(
        run(twice([1.0; 4])),
        Err(MatchError::Duplicate { one_side: "right", .. })
    ));
    assert!(
        run(twice([ABSENT, 1.0, ABSENT, 1.0])).is_ok(),
        "the left side is empty at that step"
    );
    assert!(run(twice([1.0, ABSENT, ABSENT, 1.0])).is_ok(), "one after the other");
    let r = block(&ctx, &[(&[("a", "9")], &[1.0, 1.0])]);
    assert!(matches!(
        join(&ctx, &twice([1.0; 4]), &r, BinaryOp::Add, false, &m),
        Err(MatchError::ManyToOne)
    ));
}

#[test]
fn groups() {
    let ctx = test_context();
    let many = block(
        &ctx,
        &[
            (&[("a", "1"), ("i", "x"), ("v", "old")], &[1.0]),
            (&[("a", "1"), ("i", "y")], &[2.0]),
        ],
    );
    let one = block(&ctx, &[(&[("a", "1"), ("v", "7")], &[10.0])]);
    let m = on(&["a"], Cardinality::ManyToOne, &["v", "none"]);
    assert_eq!(
        show(&join(&ctx, &many, &one, BinaryOp::Sub, false, &m).unwrap()),
        [r#"{a="1", i="x", v="7"} -9"#, r#"{a="1", i="y", v="7"} -8"#]
    );
    let m = on(&["a"], Cardinality::OneToMany, &[]);
    // The value is the left one's, the labels are the many side's.
    assert_eq!(
        show(&join(&ctx, &one, &many, BinaryOp::Gt, false, &m).unwrap()),
        [r#"{a="1", i="x", v="old"} 10"#, r#"{a="1", i="y"} 10"#]
    );
    let m = on(&["a"], Cardinality::ManyToOne, &["i"]);
    assert!(join(&ctx, &many, &one, BinaryOp::Sub, false, &m).is_ok());
    let clash = block(
        &ctx,
        &[(&[("a", "1"), ("i", "x")], &[1.0]), (&[("a", "1"), ("i", "y")], &[2.0])],
    );
    assert!(matches!(
        join(&ctx, &clash, &one, BinaryOp::Sub, false, &m),
        Err(MatchError::NotUnique)
    ));
}

#[test]
fn sets() {
    let ctx = test_context();
    let l = || block(&ctx, &[(&[("a", "1")], &[1.0, 1.0]), (&[("a", "2")], &[2.0, ABSENT])]);
    let r = || block(&ctx, &[(&[("a", "2")], &[9.0, 9.0]), (&[("a", "3")], &[8.0, 8.0])]);
    let run = |op| show(&set_operation(&ctx, l(), r(), op, &Matching::default()).unwrap());
    assert_eq!(run(SetOp::And), [r#"{a="2"} 2 _"#]);
    assert_eq!(run(SetOp::Unless), [r#"{a="1"} 1 1"#]);
    assert_eq!(run(SetOp::Or), [r#"{a="1"} 1 1"#, r#"{a="2"} 2 9"#, r#"{a="3"} 8 8"#]);
    let m = on(&[], Cardinality::OneToOne, &[]);
    assert_eq!(
        show(&set_operation(&ctx, l(), r(), SetOp::Or, &m).unwrap()),
        [r#"{a="1"} 1 1"#, r#"{a="2"} 2 _"#]
    );
}

#[test]
fn duplicates_are_found_before_they_are_paired() {
    let ctx = test_context();
    let names: Vec<String> = (0..3000).map(|i| i.to_string()).collect();
    let pairs: Vec<[(&str, &str); 1]> = names.iter().map(|n| [("i", n.as_str())]).collect();
    let rows: Vec<(&[(&str, &str)], &[f64])> = pairs.iter().map(|p| (p.as_slice(), [1.0].as_slice())).collect();
    let all = block(&ctx, &rows);
    let join = Join {
        op: BinaryOp::Mul,
        return_bool: false,
        matching: on(&[], Cardinality::ManyToOne, &[]),
        names: NameRemoval::Delayed,
    };
    // Nine million pairs would not fit the budget.
    let limits = trilith_model::Limits {
        query_memory_bytes: 4 << 20,
        ..Default::default()
    };
    let small = QueryContext::new(
        trilith_model::TenantId::anonymous(),
        std::sync::Arc::new(limits),
        std::sync::Arc::new(trilith_model::SystemClock),
        std::time::Duration::ZERO,
    );
    assert!(matches!(
        join.run(&small, &all, &all),
        Err(MatchError::Duplicate { .. })
    ));
}
