//! Ranges, steps and offsets in ms, where they are expressions too.

use trilith_model::Result;
use trilith_promql_syntax::{DurationExpr, DurationOp, DurationOperator, Length, Offset};

use super::{Lowering, at};
use crate::functions::{max_of, min_of};

/// Seconds that fit into nanoseconds of 64 bits, the bound of all durations.
const SECONDS_MAX: f64 = i64::MAX as f64 / 1e9;

impl Lowering {
    /// # Errors
    /// `Invalid` when it is not above 0 in whole ms.
    pub(super) fn range(&self, length: &Length) -> Result<i64> {
        match (self.length(length)?, length) {
            (ms, _) if ms > 0 => Ok(ms),
            (_, Length::Computed(op)) => Err(at(op.span, "duration must be greater than 0")),
            (_, Length::Fixed(_)) => Err(trilith_model::Error::invalid("duration must be greater than 0")),
        }
    }

    pub(super) fn length(&self, length: &Length) -> Result<i64> {
        match length {
            Length::Fixed(nanos) => Ok(nanos / 1_000_000),
            Length::Computed(op) => self.computed(op, false),
        }
    }

    pub(super) fn offset(&self, offset: &Offset) -> Result<i64> {
        match offset {
            Offset::Fixed(nanos) => Ok(nanos / 1_000_000),
            Offset::Computed(op) => self.computed(op, true),
        }
    }

    /// Fractions of a ms are cut.
    fn computed(&self, op: &DurationOp, may_be_negative: bool) -> Result<i64> {
        let seconds = self.operation(op)?;
        if !seconds.is_finite() {
            return Err(at(op.span, "duration is NaN or infinite"));
        }
        if seconds <= 0.0 && !may_be_negative {
            return Err(at(op.span, "duration must be greater than 0"));
        }
        if seconds.abs() > SECONDS_MAX {
            return Err(at(op.span, "duration is out of range"));
        }
        Ok((seconds * 1000.0) as i64)
    }

    fn operand(&self, e: Option<&DurationExpr>) -> Result<f64> {
        match e {
            None => Ok(0.0),
            Some(DurationExpr::Number(n, _)) => Ok(n.value),
            Some(DurationExpr::Op(op)) => self.operation(op),
        }
    }

    /// In seconds. The depth is bounded by the parser.
    fn operation(&self, op: &DurationOp) -> Result<f64> {
        let (lhs, rhs) = (self.operand(op.lhs.as_deref())?, self.operand(op.rhs.as_deref())?);
        Ok(match op.op {
            DurationOperator::Step => self.times.step_ms as f64 / 1000.0,
            DurationOperator::Range => (self.times.end_ms - self.times.start_ms) as f64 / 1000.0,
            DurationOperator::MinOf => min_of(lhs, rhs),
            DurationOperator::MaxOf => max_of(lhs, rhs),
            // A sign has nothing, which is 0, to its left.
            DurationOperator::Add => lhs + rhs,
            DurationOperator::Sub => lhs - rhs,
            DurationOperator::Mul => lhs * rhs,
            DurationOperator::Div | DurationOperator::Mod if rhs == 0.0 => {
                let what = if op.op == DurationOperator::Div {
                    "division"
                } else {
                    "modulo"
                };
                return Err(at(op.span, &format!("{what} by zero")));
            }
            DurationOperator::Div => lhs / rhs,
            DurationOperator::Mod => lhs % rhs,
            DurationOperator::Pow => lhs.powf(rhs),
        })
    }
}
