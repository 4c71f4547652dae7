//! How elements of two vectors find each other, and the set operators. Which rows meet is computed once per query, not
//! per step.

use trilith_model::{Error, Labels, LabelsBuilder};

use super::block::Block;
use super::group::Grouper;
use crate::QueryContext;
use crate::series::Grouping;

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
        let kept = many.without(|name| {
            (drops_name && NAME_LABELS.contains(&name))
                || (one_to_one && self.labels.iter().any(|x| x == name) != self.on)
                || self.include.iter().any(|x| x == name)
        });
        if self.include.is_empty() {
            return kept;
        }
        let mut b = LabelsBuilder::new();
        for l in kept.iter() {
            b.push(l.name, l.value);
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
    /// By number of the key, in the order in which keys appear, left side first.
    pub keys: Vec<Labels>,
    pub left: RowsByKey,
    pub right: RowsByKey,
}

/// The rows of one side, those of a key together, ascending.
pub(super) struct RowsByKey {
    rows: Vec<usize>,
    /// Where the rows of each key begin, and the end.
    starts: Vec<usize>,
}

impl RowsByKey {
    fn new(keys: &[u32], distinct: usize) -> Self {
        let mut starts = vec![0; distinct + 1];
        for key in keys {
            starts[*key as usize + 1] += 1;
        }
        for i in 0..distinct {
            starts[i + 1] += starts[i];
        }
        let mut free = starts.clone();
        let mut rows = vec![0; keys.len()];
        for (row, key) in keys.iter().enumerate() {
            let place = &mut free[*key as usize];
            rows[*place] = row;
            *place += 1;
        }
        RowsByKey { rows, starts }
    }

    pub fn of(&self, key: usize) -> &[usize] {
        &self.rows[self.starts[key]..self.starts[key + 1]]
    }
}

pub(super) fn index(left: &Block, right: &Block, matching: &Matching) -> Index {
    let mut keys = Grouper::new(Some(Grouping {
        labels: matching.labels.clone(),
        by: matching.on,
    }));
    let mut numbers = |block: &Block| -> Vec<u32> { block.rows.iter().map(|r| keys.group_of(&r.labels)).collect() };
    let (left, right) = (numbers(left), numbers(right));
    let keys = keys.into_groups();
    Index {
        left: RowsByKey::new(&left, keys.len()),
        right: RowsByKey::new(&right, keys.len()),
        keys,
    }
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
            SetOp::And | SetOp::Unless => (index.left.of(key), index.right.of(key)),
            SetOp::Or => (index.right.of(key), index.left.of(key)),
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
