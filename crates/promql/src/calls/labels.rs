//! Functions of labels; values are not looked at.

use trilith_model::re2::AnchoredRegex;
use trilith_model::{Error, Result};
use trilith_query::QueryContext;
use trilith_query::vector::Block;

use crate::eval::execution;
use crate::names::distinct_rows;

/// Longest label value that a query may make. Nested calls can double a value at every level.
const LABEL_VALUE_BYTES_MAX: usize = 1 << 20;

fn too_long(function: &str) -> Error {
    execution(format!(
        "{function}() makes a label value of more than {LABEL_VALUE_BYTES_MAX} bytes"
    ))
}

/// Sets a label of a row, booked on the query's budget. A name that is set stays.
fn set_label(ctx: &QueryContext, block: &mut Block, i: usize, name: &str, value: &str) -> Result<()> {
    block.charge(ctx, value.len())?;
    let row = &mut block.rows[i];
    row.labels = row.labels.with(name, value);
    if name == "__name__" {
        row.drop_name = false;
    }
    Ok(())
}

/// `strings`: destination, replacement, source, regex.
///
/// # Errors
/// `Execution` for a bad regex or destination, and when two rows become one series; memory budget.
pub(super) fn replace(ctx: &QueryContext, mut block: Block, strings: &[String]) -> Result<Block> {
    let [dst, replacement, src, regex] = strings else {
        return Err(Error::internal("label_replace takes four strings"));
    };
    let regex = AnchoredRegex::new(regex)
        .map_err(|_| execution(format!("invalid regular expression in label_replace(): {regex}")))?;
    if dst.is_empty() {
        return Err(execution(format!(
            "invalid destination label name in label_replace(): {dst}"
        )));
    }
    let mut value = String::new();
    for i in 0..block.rows.len() {
        if i % 1024 == 0 {
            ctx.check()?;
        }
        value.clear();
        let labels = block.rows[i].labels.clone();
        let source = labels.get(src).unwrap_or("");
        // Every two bytes of the replacement may stand for the whole source.
        if replacement.len().saturating_mul(source.len()) > 16 * LABEL_VALUE_BYTES_MAX {
            return Err(too_long("label_replace"));
        }
        if regex.expand(source, replacement, &mut value)? {
            if value.len() > LABEL_VALUE_BYTES_MAX {
                return Err(too_long("label_replace"));
            }
            set_label(ctx, &mut block, i, dst, &value)?;
        }
    }
    distinct_rows(&mut block)?;
    Ok(block)
}

/// `strings`: destination, separator, sources.
///
/// # Errors
/// `Execution` for a bad label name, and when two rows become one series; memory budget.
pub(super) fn join(ctx: &QueryContext, mut block: Block, strings: &[String]) -> Result<Block> {
    let [dst, separator, sources @ ..] = strings else {
        return Err(Error::internal("label_join takes at least two strings"));
    };
    if let Some(bad) = sources.iter().find(|s| s.is_empty()) {
        return Err(execution(format!("invalid source label name in label_join(): {bad}")));
    }
    if dst.is_empty() {
        return Err(execution(format!(
            "invalid destination label name in label_join(): {dst}"
        )));
    }
    for i in 0..block.rows.len() {
        if i % 1024 == 0 {
            ctx.check()?;
        }
        let labels = block.rows[i].labels.clone();
        let parts: Vec<&str> = sources.iter().map(|s| labels.get(s).unwrap_or("")).collect();
        if parts.iter().map(|p| p.len() + separator.len()).sum::<usize>() > LABEL_VALUE_BYTES_MAX {
            return Err(too_long("label_join"));
        }
        set_label(ctx, &mut block, i, dst, &parts.join(separator))?;
    }
    distinct_rows(&mut block)?;
    Ok(block)
}
