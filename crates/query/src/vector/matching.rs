//! Joins of two vectors by labels. Which rows meet is computed once per query, not per step.

use hashbrown::HashMap;
use trilith_model::{Error, Labels, LabelsBuilder, Result};

use super::block::{Block, Row, is_absent};
use super::ops::BinaryOp;
use crate::QueryContext;

/// Labels that say what a metric is rather than where it comes from; dropped together.
pub const NAME_LABELS: [&str; 3] = ["__name__", "__type__", "__unit__"];

/// How elements of two vectors find each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// `on` when true, `ignoring` when false.
    pub on: bool,
    pub labels: Vec<String>,
    pub cardinality: Cardinality,
    /// Labels that `group_left` or `group_right` copies from the "one" side.
    pub include: Vec<String>,
    /// The value of a missing partner on the left (`fill_left`) or right (`fill_right`); `fill` sets both.
    pub fill_left: Option<f64>,
    pub fill_right: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    OneToOne,
    /// `group_left`: the left side may have several elements per key.
    ManyToOne,
    /// `group_right`
    OneToMany,
}

impl Default for Matching {
    fn default() -> Self {
        Matching {
            on: false,
            labels: Vec::new(),
            cardinality: Cardinality::OneToOne,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOp {
    And,
    Or,
    Unless,
}

/// Why a join is not possible; the language words it.
#[derive(Debug)]
pub enum MatchError {
    /// Two elements of the "one" side have the same key at a step.
    Duplicate {
        group: Labels,
        one_side: &'static str,
        first: Labels,
        second: Labels,
    },
    /// Two elements of the left side of a one-to-one match have the same partner.
    ManyToOne,
    /// Two results of a grouped match have the same labels.
    NotUnique,
    Other(Error),
}

impl From<Error> for MatchError {
    fn from(e: Error) -> Self {
        MatchError::Other(e)
    }
}

impl Matching {
    /// What must be equal in both elements.
    pub fn key(&self, labels: &Labels) -> Labels {
        if self.on {
            labels.keep(|n| self.labels.iter().any(|l| l == n))
        } else {
            labels.without(|n| n == NAME_LABELS[0] || self.labels.iter().any(|l| l == n))
        }
    }

    fn result_row(&self, many: &Row, one: &Row, op: BinaryOp, return_bool: bool) -> Row {
        let drops_name = !op.is_comparison();
        let one_to_one = self.cardinality == Cardinality::OneToOne;
        let mut b = LabelsBuilder::new();
        for l in many.labels.iter() {
            let listed = self.labels.iter().any(|x| x == l.name);
            let dropped = (drops_name && NAME_LABELS.contains(&l.name))
                || (one_to_one && listed != self.on)
                || self.include.iter().any(|x| x == l.name);
            if !dropped {
                b.push(l.name, l.value);
            }
        }
        for name in &self.include {
            b.push(name, one.labels.get(name).unwrap_or(""));
        }
        Row {
            drop_name: many.drop_name || return_bool,
            ..Row::new(b.finish())
        }
    }
}

/// Rows of both sides by key.
struct Index {
    keys: Vec<Labels>,
    left: Vec<Vec<usize>>,
    right: Vec<Vec<usize>>,
}

fn index(left: &Block, right: &Block, matching: &Matching) -> Index {
    let mut ids: HashMap<Labels, usize> = HashMap::with_capacity(left.rows.len());
    let mut out = Index {
        keys: Vec::new(),
        left: Vec::new(),
        right: Vec::new(),
    };
    for (block, is_left) in [(left, true), (right, false)] {
        for (i, row) in block.rows.iter().enumerate() {
            let key = matching.key(&row.labels);
            let id = *ids.entry(key).or_insert_with_key(|k| {
                out.keys.push(k.clone());
                out.left.push(Vec::new());
                out.right.push(Vec::new());
                out.keys.len() - 1
            });
            if is_left { &mut out.left[id] } else { &mut out.right[id] }.push(i);
        }
    }
    out
}

/// Per step whether any row has a value.
fn any_present(block: &Block) -> Vec<bool> {
    let mut out = vec![false; block.steps];
    for (_, row) in block.iter() {
        for (o, v) in out.iter_mut().zip(row) {
            *o |= !is_absent(*v);
        }
    }
    out
}

/// The two rows that both have a value at some step for which `at` holds.
fn collision(block: &Block, rows: &[usize], at: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    if rows.len() < 2 {
        return None;
    }
    for step in (0..block.steps).filter(|s| at(*s)) {
        let mut present = rows
            .iter()
            .copied()
            .filter(|r| !is_absent(block.values[r * block.steps + step]));
        if let (Some(a), Some(b)) = (present.next(), present.next()) {
            return Some((a, b));
        }
    }
    None
}

/// An arithmetic or comparison operator between two vectors.
///
/// # Errors
/// See [`MatchError`].
pub fn join(
    ctx: &QueryContext,
    left: &Block,
    right: &Block,
    op: BinaryOp,
    return_bool: bool,
    matching: &Matching,
) -> std::result::Result<Block, MatchError> {
    let steps = left.steps;
    let mut index = index(left, right, matching);
    let many_is_left = matching.cardinality != Cardinality::OneToMany;
    let (many, one) = if many_is_left { (left, right) } else { (right, left) };
    if !many_is_left {
        std::mem::swap(&mut index.left, &mut index.right);
    }
    let (many_rows, one_rows) = (&index.left, &index.right);

    // Both sides must be free of ambiguity at every step where they meet.
    let mut many_present = None;
    let mut rows = Vec::new();
    let mut pairs = Vec::new();
    for (key, labels) in index.keys.iter().enumerate() {
        ctx.check()?;
        let ones = &one_rows[key];
        if ones.len() > 1 {
            let present = many_present.get_or_insert_with(|| any_present(many));
            if let Some((a, b)) = collision(one, ones, |s| present[s]) {
                return Err(MatchError::Duplicate {
                    group: labels.clone(),
                    one_side: if many_is_left { "right" } else { "left" },
                    first: one.rows[b].labels.clone(),
                    second: one.rows[a].labels.clone(),
                });
            }
        }
        if matching.cardinality == Cardinality::OneToOne && many_rows[key].len() > 1 {
            let met = |s: usize| ones.iter().any(|r| !is_absent(one.values[r * steps + s]));
            if collision(many, &many_rows[key], met).is_some() {
                return Err(MatchError::ManyToOne);
            }
        }
        for m in &many_rows[key] {
            for o in ones {
                rows.push(matching.result_row(&many.rows[*m], &one.rows[*o], op, return_bool));
                pairs.push((*m, *o));
            }
        }
    }

    let mut out = Block::absent(ctx, rows, steps)?;
    for (i, (m, o)) in pairs.into_iter().enumerate() {
        for ((cell, mv), ov) in out.row_mut(i).iter_mut().zip(many.row(m)).zip(one.row(o)) {
            if !is_absent(*mv) && !is_absent(*ov) {
                let (l, r) = if many_is_left { (*mv, *ov) } else { (*ov, *mv) };
                *cell = op.element(l, r, return_bool, l);
            }
        }
    }
    out.drop_empty_rows();
    out.merge_equal_rows().map_err(|_| MatchError::NotUnique)?;
    Ok(out)
}

/// `and`, `or`, `unless`: many-to-many, values and labels stay.
///
/// # Errors
/// Cancellation, memory budget.
pub fn set_operation(
    ctx: &QueryContext,
    mut left: Block,
    mut right: Block,
    op: SetOp,
    matching: &Matching,
) -> Result<Block> {
    let index = index(&left, &right, matching);
    let steps = left.steps;
    let mut seen = vec![false; steps];
    for key in 0..index.keys.len() {
        ctx.check()?;
        // Where the other side has an element of this key.
        let (masked, other_rows) = match op {
            SetOp::And | SetOp::Unless => (&index.left[key], &index.right[key]),
            SetOp::Or => (&index.right[key], &index.left[key]),
        };
        if masked.is_empty() {
            continue;
        }
        let (target, other) = match op {
            SetOp::And | SetOp::Unless => (&mut left, &right),
            SetOp::Or => (&mut right, &left),
        };
        seen.fill(false);
        for r in other_rows {
            for (s, v) in seen.iter_mut().zip(other.row(*r)) {
                *s |= !is_absent(*v);
            }
        }
        let keep = op == SetOp::And;
        for r in masked {
            for (v, s) in target.row_mut(*r).iter_mut().zip(&seen) {
                if *s != keep {
                    *v = super::ABSENT;
                }
            }
        }
    }
    if op == SetOp::Or {
        right.drop_empty_rows();
        left.append(ctx, right)?;
        // Rows of both sides with equal labels have equal keys, so they never share a step.
        left.merge_equal_rows()
            .map_err(|l| Error::internal(format!("a union has the element {l} twice at one step")))?;
    }
    left.drop_empty_rows();
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::super::{ABSENT, test_context};
    use super::*;

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
}
