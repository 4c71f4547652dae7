//! Arithmetic and comparison between two vectors.
//!
//! Rows that meet are found once ([`super::matching`]); values are then joined row by row. What the rules say of one
//! step (duplicates, fill values, which of several remarks is kept) holds per step: of several errors the one of the
//! earliest step is reported, so that an error does not depend on the order of rows.

use hashbrown::HashMap;
use trilith_model::{Labels, SampleValue};

use super::block::{Block, Element, Row};
use super::matching::{Cardinality, Index, MatchError, Matching, NAME_LABELS, NameRemoval, index};
use super::mixed::element;
use super::ops::{BinaryOp, between};
use super::remark::{Remark, Remarks};
use crate::QueryContext;

/// An operator between two vectors.
#[derive(Clone, Debug)]
pub struct Join {
    pub op: BinaryOp,
    pub return_bool: bool,
    pub matching: Matching,
    pub names: NameRemoval,
}

impl Join {
    /// Joins two blocks of as many steps.
    ///
    /// # Errors
    /// See [`MatchError`].
    pub fn run(
        &self,
        ctx: &QueryContext,
        left: &Block,
        right: &Block,
    ) -> std::result::Result<(Block, Remarks), MatchError> {
        let index = index(left, right, &self.matching);
        let many_is_left = self.matching.cardinality != Cardinality::OneToMany;
        let (many, one) = if many_is_left { (left, right) } else { (right, left) };
        let mut joiner = Joiner {
            join: self,
            ctx,
            many,
            one,
            many_is_left,
            many_present: Vec::new(),
            failure: None,
            remarks: LastRemarks::default(),
        };
        joiner.run(&index)
    }

    /// Whether names go from the labels of results; otherwise they stay, or are marked.
    fn drops_name(&self) -> bool {
        self.op.drops_name() || (self.return_bool && self.names == NameRemoval::Immediate)
    }

    fn fills(&self) -> bool {
        self.matching.fill_left.is_some() || self.matching.fill_right.is_some()
    }
}

/// Pairs of one key that are made before anybody looks whether they are allowed.
const PAIRS_UNCHECKED_MAX: usize = 1 << 16;

/// Two rows that meet, and where their result goes. `None` stands for a fill value.
#[derive(Clone, Copy)]
struct Pair {
    many: Option<usize>,
    one: Option<usize>,
    out: usize,
}

/// An error that would end the query, unless one of an earlier step is found.
struct Failure {
    step: usize,
    /// In the order in which a step is checked.
    stage: u8,
    error: MatchError,
}

struct Joiner<'a> {
    join: &'a Join,
    ctx: &'a QueryContext,
    many: &'a Block,
    one: &'a Block,
    many_is_left: bool,
    /// Per step whether the "many" side has any element; filled when first asked for.
    many_present: Vec<bool>,
    failure: Option<Failure>,
    remarks: LastRemarks,
}

/// What meets, key after key.
struct Plan {
    /// Of the result.
    rows: Vec<Row>,
    pairs: Vec<Pair>,
    /// Where the pairs of each key end.
    ends: Vec<usize>,
}

impl Joiner<'_> {
    fn run(&mut self, index: &Index) -> std::result::Result<(Block, Remarks), MatchError> {
        let Plan { rows, pairs, ends } = self.plan(index)?;
        let mut out = Block::absent(self.ctx, rows, self.many.steps)?;
        let mut from = 0;
        for (key, to) in ends.into_iter().enumerate() {
            self.ctx.check()?;
            let pairs = &pairs[std::mem::replace(&mut from, to)..to];
            let (manys, ones) = self.rows_of(index, key);
            self.check_ones(&index.keys[key], ones);
            let histograms = |block: &Block, rows: &[usize]| rows.iter().any(|r| block.rows[*r].histograms.is_some());
            let plain = !self.join.fills()
                && !self.join.op.is_trim()
                && !histograms(self.many, manys)
                && !histograms(self.one, ones);
            if plain {
                self.check_manys(pairs, ones);
                self.join_floats(pairs, &mut out);
            } else {
                self.join_steps(manys, ones, pairs, &mut out)?;
            }
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure.error);
        }
        out.drop_empty_rows();
        // Keys differ, and so do their results unless a part of the key was dropped. With names dropped later, equal
        // labels at a single step may still become different.
        let lost = |key: &Labels| key.iter().any(|l| NAME_LABELS.contains(&l.name));
        if (self.many.steps > 1 || self.join.names == NameRemoval::Immediate)
            && self.join.drops_name()
            && index.keys.iter().any(lost)
        {
            out.merge_equal_rows().map_err(|_| MatchError::SameLabels)?;
        }
        Ok((out, std::mem::take(&mut self.remarks).distinct()))
    }

    /// The rows of a key on the "many" and the "one" side.
    fn rows_of<'i>(&self, index: &'i Index, key: usize) -> (&'i [usize], &'i [usize]) {
        let (left, right) = (index.left.of(key), index.right.of(key));
        if self.many_is_left {
            (left, right)
        } else {
            (right, left)
        }
    }

    /// Results with equal labels of one key share a row.
    fn plan(&mut self, index: &Index) -> std::result::Result<Plan, MatchError> {
        let Join {
            return_bool,
            matching,
            names,
            ..
        } = self.join;
        let drops_name = self.join.drops_name();
        let mut plan = Plan {
            rows: Vec::new(),
            pairs: Vec::new(),
            ends: Vec::with_capacity(index.keys.len()),
        };
        let mut places: HashMap<(Labels, bool), usize> = HashMap::new();
        let mut memory = self.ctx.memory.reserve(0)?;
        for (key, labels) in index.keys.iter().enumerate() {
            if key % 1024 == 0 {
                self.ctx.check()?;
            }
            let (manys, ones) = self.rows_of(index, key);
            if ones.len() > 1 && manys.len().saturating_mul(ones.len()) > PAIRS_UNCHECKED_MAX {
                // As a rule these are duplicates, and there is no need to pair them first.
                self.check_ones(labels, ones);
                if let Some(failure) = self.failure.take() {
                    return Err(failure.error);
                }
            }
            places.clear();
            let alone = !self.join.fills() && manys.len() == 1 && ones.len() == 1;
            let mut place = |many: Option<usize>, one: Option<usize>| {
                let of_many = many.map_or(labels, |m| &self.many.rows[m].labels);
                let of_one = one.map_or(labels, |o| &self.one.rows[o].labels);
                let marked = *return_bool || many.is_some_and(|m| self.many.rows[m].drop_name);
                let result = matching.result_labels(of_many, of_one, drops_name);
                let rows = &mut plan.rows;
                let mut new_row = |labels| {
                    rows.push(Row {
                        drop_name: marked && *names == NameRemoval::Delayed,
                        ..Row::new(labels)
                    });
                    rows.len() - 1
                };
                let out = if alone {
                    new_row(result)
                } else {
                    *places
                        .entry((result, marked))
                        .or_insert_with_key(|(result, _)| new_row(result.clone()))
                };
                plan.pairs.push(Pair { many, one, out });
            };
            for (n, m) in manys.iter().enumerate() {
                if n % 64 == 0 {
                    self.ctx.check()?;
                }
                // A pair, its entry among the places, and a row with labels of its own at worst.
                memory.grow(ones.len() * (size_of::<Pair>() + size_of::<Row>() + 64))?;
                ones.iter().for_each(|o| place(Some(*m), Some(*o)));
                if matching.fill_right.is_some() {
                    place(Some(*m), None);
                }
            }
            if matching.fill_left.is_some() {
                ones.iter().for_each(|o| place(None, Some(*o)));
            }
            plan.ends.push(plan.pairs.len());
        }
        Ok(plan)
    }

    fn fail(&mut self, step: usize, stage: u8, error: impl FnOnce() -> MatchError) {
        if self.failure.as_ref().is_none_or(|f| (step, stage) < (f.step, f.stage)) {
            self.failure = Some(Failure {
                step,
                stage,
                error: error(),
            });
        }
    }

    /// The "one" side may have one element of a key at a step, also where nothing meets it, as long as both sides have
    /// elements at all.
    fn check_ones(&mut self, key: &Labels, ones: &[usize]) {
        if ones.len() < 2 {
            return;
        }
        if self.many_present.is_empty() {
            let mut present = vec![self.join.fills(); self.many.steps];
            for (row, cells) in self.many.iter() {
                row.mark_present(cells, &mut present);
            }
            self.many_present = present;
        }
        let (one, present) = (self.one, &self.many_present);
        let Some((step, a, b)) = collision(one, ones.iter().copied(), |s| present[s]) else {
            return;
        };
        let one_side = if self.many_is_left { "right" } else { "left" };
        self.fail(step, 0, || MatchError::Duplicate {
            group: key.clone(),
            one_side,
            first: one.rows[a].labels.clone(),
            second: one.rows[b].labels.clone(),
        });
    }

    /// In a one-to-one match, the "many" side may have one element of a key where it has a partner; otherwise one with the
    /// same result.
    fn check_manys(&mut self, pairs: &[Pair], ones: &[usize]) {
        let one_to_one = self.join.matching.cardinality == Cardinality::OneToOne;
        let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else {
            return;
        };
        // Rows of results are numbered as they come, key after key.
        let results = 1 + pairs.iter().map(|p| p.out).max().unwrap_or(last.out) - first.out;
        if first.many == last.many || (!one_to_one && results == pairs.len()) {
            return;
        }
        let (many, one) = (self.many, self.one);
        let met = |s: usize| ones.iter().any(|o| one.has_value(*o, s));
        let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for pair in pairs {
            let group = groups.entry(if one_to_one { 0 } else { pair.out }).or_default();
            let many = pair.many.expect("without fill values every pair has both sides");
            if group.last() != Some(&many) {
                group.push(many);
            }
        }
        for group in groups.into_values().filter(|g| g.len() > 1) {
            if let Some((step, ..)) = collision(many, group.into_iter(), met) {
                self.fail(step, 1, || {
                    if one_to_one {
                        MatchError::ManyToOne
                    } else {
                        MatchError::NotUnique
                    }
                });
            }
        }
    }

    /// All pairs of a key at once: floats only, no fill values.
    fn join_floats(&self, pairs: &[Pair], out: &mut Block) {
        let (op, return_bool) = (self.join.op, self.join.return_bool);
        for pair in pairs {
            let (Some(m), Some(o)) = (pair.many, pair.one) else {
                continue;
            };
            let (many, one) = (self.many.row(m), self.one.row(o));
            let (l, r) = if self.many_is_left { (many, one) } else { (one, many) };
            between(l, r, op, return_bool, out.row_mut(pair.out));
        }
    }

    /// The pairs of a key step by step: fill values and histograms.
    fn join_steps(
        &mut self,
        manys: &[usize],
        ones: &[usize],
        pairs: &[Pair],
        out: &mut Block,
    ) -> std::result::Result<(), MatchError> {
        let outs: HashMap<(Option<usize>, Option<usize>), usize> =
            pairs.iter().map(|p| ((p.many, p.one), p.out)).collect();
        let (fill_many, fill_one) = (self.join.matching.fill_left, self.join.matching.fill_right);
        let one_to_one = self.join.matching.cardinality == Cardinality::OneToOne;
        let (many, one) = (self.many, self.one);
        // Results of this step.
        let mut written: Vec<usize> = Vec::new();
        for step in 0..many.steps {
            if step % 1024 == 0 {
                self.ctx.check()?;
            }
            written.clear();
            let partner = ones.iter().copied().find(|o| one.has_value(*o, step));
            let filled_one = partner
                .and_then(|o| one.element(o, step))
                .or(fill_one.map(Element::Float));
            for m in manys {
                let (Some(m_value), Some(o_value)) = (many.element(*m, step), filled_one) else {
                    continue;
                };
                let place = outs[&(Some(*m), partner)];
                if !self.compute(m_value, o_value, (step, 0, *m), place, out)? {
                    continue;
                }
                if one_to_one && !written.is_empty() {
                    self.fail(step, 1, || MatchError::ManyToOne);
                } else if written.contains(&place) {
                    self.fail(step, 1, || MatchError::NotUnique);
                }
                written.push(place);
            }
            if let (Some(fill), Some(o), true) = (fill_many, partner, written.is_empty())
                && let Some(o_value) = one.element(o, step)
            {
                self.compute(Element::Float(fill), o_value, (step, 1, o), outs[&(None, Some(o))], out)?;
            }
        }
        Ok(())
    }

    /// Whether the operator works between the two; the result goes to row `place`. `at`: the step, whether a fill value is
    /// in play for the "many" side, and the row.
    fn compute(
        &mut self,
        many: Element<'_>,
        one: Element<'_>,
        at: (usize, u8, usize),
        place: usize,
        out: &mut Block,
    ) -> std::result::Result<bool, MatchError> {
        let (l, r) = if self.many_is_left { (many, one) } else { (one, many) };
        let outcome = match element(self.join.op, l, r) {
            Ok(outcome) => outcome,
            Err(remark) => {
                self.remark(at, remark);
                return Ok(false);
            }
        };
        if let Some(remark) = outcome.remark {
            self.remark(at, remark);
        }
        let step = at.0;
        if self.join.return_bool {
            out.row_mut(place)[step] = f64::from(u8::from(outcome.holds));
        } else if outcome.holds {
            match outcome.value {
                SampleValue::Float(v) => out.row_mut(place)[step] = v,
                SampleValue::Histogram(h) => out.put_histogram(self.ctx, place, step, h)?,
            }
        }
        Ok(true)
    }

    fn remark(&mut self, (step, pass, row): (usize, u8, usize), remark: Remark) {
        let block = if pass == 0 { self.many } else { self.one };
        self.remarks.add(step, pass, block, row, remark);
    }
}

/// The first step for which `at` holds and two of the rows have a value, and the two that come first by their labels.
fn collision(
    block: &Block,
    rows: impl Iterator<Item = usize> + Clone,
    at: impl Fn(usize) -> bool,
) -> Option<(usize, usize, usize)> {
    (0..block.steps).filter(|s| at(*s)).find_map(|step| {
        let mut some = rows.clone().filter(|r| block.has_value(*r, step));
        some.next().and(some.next())?;
        let mut present: Vec<usize> = rows.clone().filter(|r| block.has_value(*r, step)).collect();
        present.sort_by(|a, b| block.rows[*a].labels.cmp(&block.rows[*b].labels));
        Some((step, present[0], present[1]))
    })
}

/// Of the remarks on one step the last one is kept, elements taken in the order of their labels and fill values of the
/// "many" side behind all others.
#[derive(Default)]
struct LastRemarks {
    by_step: HashMap<usize, ((u8, u32), Remark)>,
    /// Places of the rows in label order, per side; filled when first asked for.
    ranks: [Vec<u32>; 2],
}

impl LastRemarks {
    fn add(&mut self, step: usize, pass: u8, block: &Block, row: usize, remark: Remark) {
        let ranks = &mut self.ranks[usize::from(pass)];
        if ranks.is_empty() {
            let mut order: Vec<usize> = (0..block.rows.len()).collect();
            order.sort_by(|a, b| block.rows[*a].labels.cmp(&block.rows[*b].labels));
            *ranks = vec![0; order.len()];
            for (rank, row) in order.into_iter().enumerate() {
                ranks[row] = rank as u32;
            }
        }
        let rank = (pass, ranks[row]);
        match self.by_step.entry(step) {
            hashbrown::hash_map::Entry::Vacant(free) => {
                free.insert((rank, remark));
            }
            hashbrown::hash_map::Entry::Occupied(mut kept) => {
                if rank >= kept.get().0 {
                    kept.insert((rank, remark));
                }
            }
        }
    }

    fn distinct(self) -> Remarks {
        self.by_step.into_values().map(|(_, remark)| remark).collect()
    }
}

#[cfg(test)]
mod tests;
