//! How elements of two vectors find each other, and the set operators. Which rows meet is computed once per query, not
//! per step.

use hashbrown::HashMap;
use trilith_model::{Error, Labels, LabelsBuilder};

use super::block::Block;
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
    /// `fill_left`, or `fill`: the value of a missing left partner. With `group_right` that of a missing partner on the
    /// "many" side, as in Prometheus, where the sides are swapped but the values are not.
    pub fill_left: Option<f64>,
    /// `fill_right`, or `fill`: the value of a missing right partner; with `group_right` one on the "one" side.
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
    /// Two results of different matches have the same labels.
    SameLabels,
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

    /// The labels of the result of `many` (the left one in a one-to-one match) and `one`, before names are dropped later.
    pub(super) fn result_labels(&self, many: &Labels, one: &Labels, drops_name: bool) -> Labels {
        let one_to_one = self.cardinality == Cardinality::OneToOne;
        let mut b = LabelsBuilder::new();
        for l in many.iter() {
            let listed = self.labels.iter().any(|x| x == l.name);
            let dropped = (drops_name && NAME_LABELS.contains(&l.name))
                || (one_to_one && listed != self.on)
                || self.include.iter().any(|x| x == l.name);
            if !dropped {
                b.push(l.name, l.value);
            }
        }
        for name in &self.include {
            b.push(name, one.get(name).unwrap_or(""));
        }
        b.finish()
    }
}

/// When the name of a metric goes that an operation takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRemoval {
    /// At the end of the query; rows are marked before.
    Delayed,
    /// In the operation.
    Immediate,
}

/// Rows of both sides by key.
pub(super) struct Index {
    pub keys: Vec<Labels>,
    pub left: Vec<Vec<usize>>,
    pub right: Vec<Vec<usize>>,
}

pub(super) fn index(left: &Block, right: &Block, matching: &Matching) -> Index {
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

/// `and`, `or`, `unless`: many-to-many, values and labels stay.
///
/// # Errors
/// [`MatchError::SameLabels`]; cancellation, memory budget.
pub fn set_operation(
    ctx: &QueryContext,
    mut left: Block,
    mut right: Block,
    op: SetOp,
    matching: &Matching,
) -> std::result::Result<Block, MatchError> {
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
            other.rows[*r].mark_present(other.row(*r), &mut seen);
        }
        let keep = op == SetOp::And;
        for r in masked {
            for (step, _) in seen.iter().enumerate().filter(|(_, seen)| **seen != keep) {
                target.clear(*r, step);
            }
        }
    }
    if op == SetOp::Or {
        right.drop_empty_rows();
        left.append(ctx, right)?;
        left.drop_empty_rows();
        // Rows of both sides with equal labels have equal keys, so they share no step; they are one series. At a single
        // step there is nothing to join, and rows that a side has twice may differ at the end of the query.
        if steps > 1 {
            left.merge_equal_rows().map_err(|_| MatchError::SameLabels)?;
        }
    }
    left.drop_empty_rows();
    Ok(left)
}
