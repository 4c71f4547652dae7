//! Aggregations that need one pass: rows come in any order and are forgotten.

use trilith_model::{Labels, Result};

use super::block::{ABSENT, Block, Row, is_absent};
use super::group::Grouper;
use super::sum::{KahanSum, Mean, Variance};
use crate::context::{QueryContext, Reservation};
use crate::series::Grouping;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    /// 1 where the group has an element.
    Group,
    Stddev,
    Stdvar,
}

/// Accumulates rows into `[group][step]`.
#[derive(Debug)]
pub struct Accumulator {
    ctx_memory: crate::MemoryBudget,
    reserved: Option<Reservation>,
    grouper: Grouper,
    op: AggregateOp,
    steps: usize,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Sum(Vec<(KahanSum, bool)>),
    Avg(Vec<(Mean, bool)>),
    /// Min and Max; absent until the first value.
    Extreme(Vec<f64>),
    /// Count and Group.
    Count(Vec<f64>),
    Variance(Vec<(Variance, bool)>),
}

impl Accumulator {
    pub fn new(ctx: &QueryContext, op: AggregateOp, grouping: Option<Grouping>, steps: usize) -> Self {
        let cells = match op {
            AggregateOp::Sum => Cells::Sum(Vec::new()),
            AggregateOp::Avg => Cells::Avg(Vec::new()),
            AggregateOp::Min | AggregateOp::Max => Cells::Extreme(Vec::new()),
            AggregateOp::Count | AggregateOp::Group => Cells::Count(Vec::new()),
            AggregateOp::Stddev | AggregateOp::Stdvar => Cells::Variance(Vec::new()),
        };
        Accumulator {
            ctx_memory: ctx.memory.clone(),
            reserved: None,
            grouper: Grouper::new(grouping),
            op,
            steps,
            cells,
        }
    }

    /// Adds one series. A row of absent cells only makes no group.
    ///
    /// # Errors
    /// `Execution` when a new group exceeds the memory budget.
    pub fn add(&mut self, labels: &Labels, row: &[f64]) -> Result<()> {
        debug_assert_eq!(row.len(), self.steps, "rows are as long as the grid");
        if row.iter().all(|v| is_absent(*v)) {
            return Ok(());
        }
        let before = self.grouper.groups().len();
        let group = self.grouper.group_of(labels) as usize;
        if self.grouper.groups().len() > before {
            self.grow()?;
        }
        let range = group * self.steps..(group + 1) * self.steps;
        let present = |v: &&f64| !is_absent(**v);
        match (&mut self.cells, self.op) {
            (Cells::Sum(cells), _) => {
                for ((sum, any), v) in cells[range].iter_mut().zip(row) {
                    if !is_absent(*v) {
                        sum.add(*v);
                        *any = true;
                    }
                }
            }
            (Cells::Avg(cells), _) => {
                for ((mean, any), v) in cells[range].iter_mut().zip(row) {
                    if !is_absent(*v) {
                        mean.add(*v);
                        *any = true;
                    }
                }
            }
            (Cells::Extreme(cells), op) => {
                let min = op == AggregateOp::Min;
                for (c, v) in cells[range].iter_mut().zip(row).filter(|(_, v)| present(v)) {
                    // An absent or NaN cell gives way to anything.
                    if c.is_nan() || (min && *v < *c) || (!min && *v > *c) {
                        *c = *v;
                    }
                }
            }
            (Cells::Count(cells), op) => {
                let count = op == AggregateOp::Count;
                for (c, _) in cells[range].iter_mut().zip(row).filter(|(_, v)| present(v)) {
                    *c = if count { *c + 1.0 } else { 1.0 };
                }
            }
            (Cells::Variance(cells), _) => {
                for ((var, any), v) in cells[range].iter_mut().zip(row) {
                    if !is_absent(*v) {
                        var.add(*v);
                        *any = true;
                    }
                }
            }
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<()> {
        let len = self.grouper.groups().len() * self.steps;
        let cell = match &self.cells {
            Cells::Sum(_) => size_of::<(KahanSum, bool)>(),
            Cells::Avg(_) => size_of::<(Mean, bool)>(),
            Cells::Extreme(_) | Cells::Count(_) => size_of::<f64>(),
            Cells::Variance(_) => size_of::<(Variance, bool)>(),
        };
        match &mut self.reserved {
            Some(r) => r.grow(cell * self.steps)?,
            none => *none = Some(self.ctx_memory.reserve(cell * self.steps)?),
        }
        match &mut self.cells {
            Cells::Sum(c) => c.resize(len, Default::default()),
            Cells::Avg(c) => c.resize(len, Default::default()),
            Cells::Extreme(c) => c.resize(len, ABSENT),
            Cells::Count(c) => c.resize(len, 0.0),
            Cells::Variance(c) => c.resize(len, Default::default()),
        }
        Ok(())
    }

    /// One row per group.
    ///
    /// # Errors
    /// `Execution` when the result exceeds the memory budget.
    pub fn finish(self, ctx: &QueryContext) -> Result<Block> {
        let rows = self.grouper.into_groups().into_iter().map(Row::new).collect();
        let mut out = Block::absent(ctx, rows, self.steps)?;
        let or_absent = |any: bool, v: f64| if any { v } else { ABSENT };
        match self.cells {
            Cells::Sum(cells) => fill(&mut out, cells, |(s, any)| or_absent(any, s.value())),
            Cells::Avg(cells) => fill(&mut out, cells, |(m, any)| or_absent(any, m.value())),
            Cells::Extreme(cells) => fill(&mut out, cells, |v| v),
            Cells::Count(cells) => fill(&mut out, cells, |n| or_absent(n != 0.0, n)),
            Cells::Variance(cells) => {
                let root = self.op == AggregateOp::Stddev;
                fill(&mut out, cells, |(v, any)| {
                    or_absent(any, if root { v.value().sqrt() } else { v.value() })
                });
            }
        }
        Ok(out)
    }
}

fn fill<T>(out: &mut Block, cells: Vec<T>, value: impl Fn(T) -> f64) {
    for (o, c) in out.values.iter_mut().zip(cells) {
        *o = value(c);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_context;
    use super::*;

    fn run(op: AggregateOp, rows: &[[f64; 3]]) -> Vec<f64> {
        let ctx = test_context();
        let mut acc = Accumulator::new(&ctx, op, None, 3);
        for (i, r) in rows.iter().enumerate() {
            acc.add(&Labels::from_pairs([("i", i.to_string())]), r).unwrap();
        }
        acc.finish(&ctx).unwrap().values
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
}
