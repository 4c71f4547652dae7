//! When names of metrics are dropped, and what that makes equal.
//!
//! Delayed: rows are marked, names go at the end of the query ([`crate::result`]). Immediate: they go in the operation,
//! and the rows of its result must differ at every step.

use trilith_model::{Error, MatchOp, Result};
use trilith_query::vector::{Block, NameRemoval};

use crate::ast::Selector;
use crate::element::{ElementOp, drop_names};
use crate::eval::{Evaluator, execution};

impl Evaluator {
    pub(crate) fn name_removal(&self) -> NameRemoval {
        if self.options.features.delayed_name_removal {
            NameRemoval::Delayed
        } else {
            NameRemoval::Immediate
        }
    }

    /// Whether an operation on a selector may make rows equal at once: without a name in common.
    pub(crate) fn may_collide(&self, selector: &Selector, leaf_drops_name: bool, ops: &[ElementOp]) -> bool {
        let named = |s: &Selector| s.matchers.iter().any(|m| &*m.name == "__name__" && m.op == MatchOp::Eq);
        self.name_removal() == NameRemoval::Immediate
            && (leaf_drops_name || ops.iter().any(ElementOp::drops_name))
            && !named(selector)
    }

    /// Drops the names that are to go now.
    pub(crate) fn drop_names_now(&self, block: &mut Block) {
        if self.name_removal() == NameRemoval::Immediate {
            drop_names(block);
        }
    }

    /// Ends an operation: drops the names that are to go now and joins what became equal.
    ///
    /// # Errors
    /// Two rows are equal and have values at the same step.
    pub(crate) fn settle_names(&self, block: &mut Block) -> Result<()> {
        if self.name_removal() == NameRemoval::Immediate && block.rows.iter().any(|r| r.drop_name) {
            drop_names(block);
            distinct_rows(block)?;
        }
        Ok(())
    }
}

/// Joins rows with equal labels; they are one series when they never have a value at the same step.
///
/// # Errors
/// They have.
pub(crate) fn distinct_rows(block: &mut Block) -> Result<()> {
    block.merge_equal_rows().map_err(|_| same_labelset())
}

pub(crate) fn same_labelset() -> Error {
    execution("vector cannot contain metrics with the same labelset")
}
