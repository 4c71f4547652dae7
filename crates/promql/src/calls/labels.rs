//! Functions of labels; values are not looked at.

use trilith_model::re2::AnchoredRegex;
use trilith_model::{Error, Result};
use trilith_promql_syntax::Text;
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

/// A text that can name a label: any that is not empty.
pub(crate) fn label_name(text: &Text) -> Option<&str> {
    std::str::from_utf8(text.as_bytes()).ok().filter(|t| !t.is_empty())
}

fn destination<'a>(function: &str, text: &'a Text) -> Result<&'a str> {
    label_name(text).ok_or_else(|| {
        execution(format!(
            "invalid destination label name in {function}(): {}",
            text.to_str()
        ))
    })
}

/// `strings`: destination, replacement, source, regex.
///
/// # Errors
/// `Execution` for a bad regex or destination, and when two rows become one series; memory budget.
pub(super) fn replace(ctx: &QueryContext, mut block: Block, strings: &[Text]) -> Result<Block> {
    let [dst, replacement, src, regex] = strings else {
        return Err(Error::internal("label_replace takes four strings"));
    };
    let compiled = std::str::from_utf8(regex.as_bytes()).ok().map(AnchoredRegex::new);
    let Some(Ok(regex)) = compiled else {
        return Err(execution(format!(
            "invalid regular expression in label_replace(): {}",
            regex.to_str()
        )));
    };
    let dst = destination("label_replace", dst)?;
    let (replacement, src) = (replacement.to_str(), src.to_str());
    let mut value = String::new();
    for i in 0..block.rows.len() {
        if i % 1024 == 0 {
            ctx.check()?;
        }
        value.clear();
        let labels = block.rows[i].labels.clone();
        let source = labels.get(&src).unwrap_or("");
        // Every two bytes of the replacement may stand for the whole source.
        if replacement.len().saturating_mul(source.len()) > 16 * LABEL_VALUE_BYTES_MAX {
            return Err(too_long("label_replace"));
        }
        if regex.expand(source, &replacement, &mut value)? {
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
pub(super) fn join(ctx: &QueryContext, mut block: Block, strings: &[Text]) -> Result<Block> {
    let [dst, separator, sources @ ..] = strings else {
        return Err(Error::internal("label_join takes at least two strings"));
    };
    if let Some(bad) = sources.iter().find(|s| label_name(s).is_none()) {
        let bad = bad.to_str();
        return Err(execution(format!("invalid source label name in label_join(): {bad}")));
    }
    let sources: Vec<&str> = sources.iter().filter_map(label_name).collect();
    let dst = destination("label_join", dst)?;
    let separator = separator.to_str();
    for i in 0..block.rows.len() {
        if i % 1024 == 0 {
            ctx.check()?;
        }
        let labels = block.rows[i].labels.clone();
        let parts: Vec<&str> = sources.iter().map(|s| labels.get(s).unwrap_or("")).collect();
        if parts.iter().map(|p| p.len() + separator.len()).sum::<usize>() > LABEL_VALUE_BYTES_MAX {
            return Err(too_long("label_join"));
        }
        set_label(ctx, &mut block, i, dst, &parts.join(&*separator))?;
    }
    distinct_rows(&mut block)?;
    Ok(block)
}
