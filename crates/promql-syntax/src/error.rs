//! What is wrong with a query, and where.

use crate::ast::Span;

/// The first thing that is wrong. Displays as `line:column: parse error: message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: parse error: {message}")]
pub struct ParseError {
    /// Bytes of the query.
    pub span: Span,
    pub message: String,
    /// `line:column` of the start of the span.
    position: String,
}

impl ParseError {
    pub(crate) fn new(query: &str, span: Span, message: impl Into<String>) -> Self {
        ParseError {
            span,
            message: message.into(),
            position: position(query, span.start),
        }
    }
}

/// `line:column` of a byte of the query, both counted from 1, columns in bytes.
pub fn position(query: &str, start: u32) -> String {
    if query.is_empty() {
        return "unknown position".to_owned();
    }
    let Some(before) = query.as_bytes().get(..start as usize) else {
        return "invalid position".to_owned();
    };
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    format!("{line}:{column}")
}
