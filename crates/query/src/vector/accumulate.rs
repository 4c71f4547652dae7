//! Aggregations that need one pass: rows come in any order and are forgotten.
//!
//! Floats are accumulated in columns; histograms, which are seldom, per cell beside them. Sums are compensated, but their
//! last bits depend on the order of the rows, so whoever wants repeatable answers adds rows in a fixed order.

use std::sync::Arc;

use hashbrown::HashMap;
use trilith_histogram::{FloatHistogram, HistogramMean, HistogramSum};
use trilith_model::{Labels, Result};

use super::block::{ABSENT, Block, Row, RowHistograms, histogram_bytes, is_absent};
use super::group::Grouper;
use super::matching::NAME_LABELS;
use super::remark::{Remark, Remarks};
use super::sum::{KahanSum, Mean, Welford};
use crate::context::{QueryContext, Reservation};
use crate::series::Grouping;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    /// Elements of either kind.
    Count,
    /// 1 where the group has an element of either kind.
    Group,
    Stddev,
    Stdvar,
}

impl AggregateOp {
    /// Whether histograms count as elements.
    const fn takes_histograms(self) -> bool {
        matches!(
            self,
            AggregateOp::Sum | AggregateOp::Avg | AggregateOp::Count | AggregateOp::Group
        )
    }
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
    /// Per group.
    marks: Vec<NameMark>,
    histograms: HashMap<(usize, usize), Total>,
    remarks: Remarks,
}

#[derive(Debug)]
enum Cells {
    Sum(Vec<(KahanSum, bool)>),
    Avg(Vec<(Mean, bool)>),
    /// Min and Max; absent until the first value.
    Extreme(Vec<f64>),
    /// Count and Group.
    Count(Vec<f64>),
    Variance(Vec<(Welford, bool)>),
}

/// Whether the name of a group is to be dropped: one of its members at its last step says so.
#[derive(Clone, Copy, Debug, Default)]
struct NameMark {
    last_step: usize,
    drop_name: bool,
}

/// The histograms of a group at a step.
#[derive(Debug)]
enum Total {
    Sum(Box<HistogramSum>),
    Mean(Box<HistogramMean>),
    /// Exponential and custom buckets met; there is no result.
    Unfit,
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
            marks: Vec::new(),
            histograms: HashMap::new(),
            remarks: Remarks::new(),
        }
    }

    /// Adds one series of floats whose name stays. A row of absent cells only makes no group.
    ///
    /// # Errors
    /// `Execution` when a new group exceeds the memory budget.
    pub fn add(&mut self, labels: &Labels, row: &[f64]) -> Result<()> {
        debug_assert_eq!(row.len(), self.steps, "rows are as long as the grid");
        if row.iter().all(|v| is_absent(*v)) {
            return Ok(());
        }
        let group = self.group(labels)?;
        self.add_floats(group, row);
        Ok(())
    }

    /// Adds one row of a block; a row without elements that count makes no group.
    ///
    /// # Errors
    /// `Execution` when it exceeds the memory budget.
    pub fn add_row(&mut self, row: &Row, cells: &[f64]) -> Result<()> {
        debug_assert_eq!(cells.len(), self.steps, "rows are as long as the grid");
        let histograms = row.histograms.as_ref().filter(|h| h.iter().any(Option::is_some));
        let counted = histograms.filter(|_| self.op.takes_histograms());
        if histograms.is_some() && counted.is_none() {
            self.remarks.insert(Remark::HistogramIgnored);
        }
        let last_float = cells.iter().rposition(|v| !is_absent(*v));
        let last_histogram = counted.and_then(|h| h.iter().rposition(Option::is_some));
        let Some(last_step) = last_float.max(last_histogram) else {
            return Ok(());
        };
        let group = self.group(&row.labels)?;
        self.marks.resize(self.grouper.groups().len(), NameMark::default());
        let mark = &mut self.marks[group];
        if last_step > mark.last_step {
            *mark = NameMark {
                last_step,
                drop_name: row.drop_name,
            };
        } else if last_step == mark.last_step {
            mark.drop_name |= row.drop_name;
        }
        if last_float.is_some() {
            self.add_floats(group, cells);
        }
        match counted {
            Some(histograms) => self.add_histograms(group, row, histograms),
            None => Ok(()),
        }
    }

    fn group(&mut self, labels: &Labels) -> Result<usize> {
        let before = self.grouper.groups().len();
        let group = self.grouper.group_of(labels) as usize;
        if self.grouper.groups().len() > before {
            self.grow()?;
        }
        Ok(group)
    }

    fn add_floats(&mut self, group: usize, row: &[f64]) {
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
    }

    fn add_histograms(&mut self, group: usize, row: &Row, histograms: &RowHistograms) -> Result<()> {
        for (step, h) in histograms.iter().enumerate() {
            let Some(h) = h else { continue };
            match &mut self.cells {
                Cells::Count(cells) => {
                    let cell = &mut cells[group * self.steps + step];
                    *cell = if self.op == AggregateOp::Count {
                        *cell + 1.0
                    } else {
                        1.0
                    };
                }
                _ => self.add_histogram((group, step), row, h)?,
            }
        }
        Ok(())
    }

    fn add_histogram(&mut self, cell: (usize, usize), row: &Row, h: &FloatHistogram) -> Result<()> {
        let added = match self.histograms.get_mut(&cell) {
            None => {
                // The sum, and what rounding took from it.
                reserve(
                    &mut self.reserved,
                    &self.ctx_memory,
                    2 * histogram_bytes(h) + size_of::<Total>(),
                )?;
                let total = if self.op == AggregateOp::Sum {
                    Total::Sum(Box::new(HistogramSum::new(h)))
                } else {
                    Total::Mean(Box::new(HistogramMean::new(h)))
                };
                self.histograms.insert(cell, total);
                return Ok(());
            }
            Some(Total::Sum(sum)) => sum.add(h).is_ok(),
            Some(Total::Mean(mean)) => mean.add(h).is_ok(),
            Some(Total::Unfit) => true,
        };
        if !added {
            self.histograms.insert(cell, Total::Unfit);
            self.remarks.insert(Remark::MixedSchemas {
                metric: row.labels.get(NAME_LABELS[0]).unwrap_or("").to_owned(),
            });
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<()> {
        let len = self.grouper.groups().len() * self.steps;
        let cell = match &self.cells {
            Cells::Sum(_) => size_of::<(KahanSum, bool)>(),
            Cells::Avg(_) => size_of::<(Mean, bool)>(),
            Cells::Extreme(_) | Cells::Count(_) => size_of::<f64>(),
            Cells::Variance(_) => size_of::<(Welford, bool)>(),
        };
        reserve(&mut self.reserved, &self.ctx_memory, cell * self.steps)?;
        match &mut self.cells {
            Cells::Sum(c) => c.resize(len, Default::default()),
            Cells::Avg(c) => c.resize(len, Default::default()),
            Cells::Extreme(c) => c.resize(len, ABSENT),
            Cells::Count(c) => c.resize(len, 0.0),
            Cells::Variance(c) => c.resize(len, Default::default()),
        }
        Ok(())
    }

    /// One row per group, groups without a result left out, and what was remarkable.
    ///
    /// # Errors
    /// `Execution` when the result exceeds the memory budget.
    pub fn finish(self, ctx: &QueryContext) -> Result<(Block, Remarks)> {
        let mut remarks = self.remarks;
        let mut marks = self.marks.into_iter();
        let rows = self.grouper.into_groups().into_iter().map(|labels| Row {
            drop_name: marks.next().is_some_and(|m| m.drop_name),
            ..Row::new(labels)
        });
        let mut out = Block::absent(ctx, rows.collect(), self.steps)?;
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
        if !self.histograms.is_empty() {
            for (cell, total) in self.histograms {
                place(ctx, &mut out, &mut remarks, cell, total)?;
            }
            out.drop_empty_rows();
        }
        Ok((out, remarks))
    }
}

/// Puts the histogram of a group at a step into the result.
fn place(
    ctx: &QueryContext,
    out: &mut Block,
    remarks: &mut Remarks,
    (group, step): (usize, usize),
    total: Total,
) -> Result<()> {
    let float = &mut out.row_mut(group)[step];
    let has_float = !is_absent(*float);
    *float = ABSENT;
    let (conflict, reconciled, histogram) = match total {
        Total::Unfit => return Ok(()),
        Total::Sum(sum) => (sum.reset_conflict(), sum.bounds_reconciled(), sum.finish()),
        Total::Mean(mean) => (mean.reset_conflict(), mean.bounds_reconciled(), mean.finish()),
    };
    if reconciled {
        remarks.insert(Remark::BoundsReconciled);
    }
    if has_float {
        remarks.insert(Remark::MixedGroup);
        return Ok(());
    }
    if conflict {
        remarks.insert(Remark::ConflictingResets);
    }
    out.put_histogram(ctx, group, step, Arc::new(histogram))
}

fn reserve(reserved: &mut Option<Reservation>, memory: &crate::MemoryBudget, bytes: usize) -> Result<()> {
    match reserved {
        Some(r) => r.grow(bytes),
        none => {
            *none = Some(memory.reserve(bytes)?);
            Ok(())
        }
    }
}

fn fill<T>(out: &mut Block, cells: Vec<T>, value: impl Fn(T) -> f64) {
    for (o, c) in out.values.iter_mut().zip(cells) {
        *o = value(c);
    }
}

#[cfg(test)]
mod tests;
