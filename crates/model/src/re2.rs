//! RE2 expressions on the `regex` crate.
//!
//! Go's RE2 and the `regex` crate agree on most syntax and on linear time; where they differ (braces as
//! literals, ASCII classes, `\Q..\E`, octal escapes, rejected forms) [`translate`] rewrites or refuses, so that an
//! expression means here what it means in Prometheus and Loki.
//!
//! Most label matchers are not really regular expressions: `a|b|c`, `prod-.*`, `.+`. [`AnchoredRegex`] recognises
//! these shapes and answers them with string comparisons; the automaton is built only for the rest.

mod shape;
mod translate;

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use crate::error::{Error, Result};
use shape::Shape;

pub use translate::translate;

/// Compiled program size above which an expression is refused.
const REGEX_SIZE_LIMIT_BYTES: usize = 10 << 20;

/// Cache of the lazy automaton per expression and thread.
const DFA_SIZE_LIMIT_BYTES: usize = 2 << 20;

/// An expression that must match the whole value; `.` matches a line feed.
#[derive(Debug)]
pub struct AnchoredRegex {
    shape: Shape,
    /// Sorted, distinct; set when the expression stands for finitely many values.
    literal_set: Option<Vec<String>>,
    literal_prefix: String,
    /// `^(?s:…)$`, compiled at once only when the shape needs it, otherwise when groups are first asked for.
    regex: OnceLock<regex::Regex>,
    translated: String,
}

impl AnchoredRegex {
    /// # Errors
    /// `Invalid` when the pattern is not an RE2 expression or compiles to a too large program.
    pub fn new(pattern: &str) -> Result<Self> {
        let translated = translate(pattern)?;
        let analysis = shape::analyse(&translated)?;
        let regex = OnceLock::new();
        if matches!(analysis.shape, Shape::Regex) {
            let compiled = compile(&translated)?;
            regex.get_or_init(|| compiled);
        }
        Ok(AnchoredRegex {
            shape: analysis.shape,
            literal_set: analysis.literal_set,
            literal_prefix: analysis.literal_prefix,
            regex,
            translated,
        })
    }

    pub fn is_match(&self, value: &str) -> bool {
        match &self.shape {
            Shape::Literal(l) => value == l,
            Shape::Set => self
                .literal_set
                .as_ref()
                .is_some_and(|set| set.binary_search_by(|l| l.as_str().cmp(value)).is_ok()),
            Shape::Any => true,
            Shape::NonEmpty => !value.is_empty(),
            Shape::Prefix { literal, more } => {
                value.starts_with(literal.as_str()) && (!more || value.len() > literal.len())
            }
            Shape::Suffix { literal, more } => {
                value.ends_with(literal.as_str()) && (!more || value.len() > literal.len())
            }
            Shape::Contains(literal) => value.contains(literal.as_str()),
            Shape::Regex => {
                value.starts_with(self.literal_prefix.as_str()) && self.regex.get().is_some_and(|r| r.is_match(value))
            }
        }
    }

    /// When the whole value matches, appends `template` with `$1`, `${1}` and `$name` replaced (Go's `Expand`)
    /// to `out`; false when it does not match.
    pub fn expand(&self, value: &str, template: &str, out: &mut String) -> Result<bool> {
        let regex = match self.regex.get() {
            Some(r) => r,
            None => {
                let compiled = compile(&self.translated)?;
                self.regex.get_or_init(|| compiled)
            }
        };
        Ok(match regex.captures(value) {
            Some(captures) => {
                expand(&captures, template, out);
                true
            }
            None => false,
        })
    }

    /// The values the expression stands for, sorted and distinct, when they are few.
    pub fn literal_set(&self) -> Option<&[String]> {
        self.literal_set.as_deref()
    }

    /// What every matching value starts with; may be empty.
    pub fn literal_prefix(&self) -> &str {
        &self.literal_prefix
    }
}

/// Go's `Regexp.Expand`: `$name` and `${name}` stand for a group by number or name, `$$` for a dollar; a name is made of
/// letters, digits and `_`, as long as possible without braces. A dollar without a name stands for itself, an unknown
/// group for nothing.
fn expand(captures: &regex::Captures<'_>, template: &str, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = group_name(rest) else {
            out.push('$');
            continue;
        };
        let group = if name.bytes().all(|c| c.is_ascii_digit()) {
            // `01` is a name, and no group has it.
            let plain = name.len() == 1 || !name.starts_with('0');
            name.parse().ok().filter(|_| plain).and_then(|n: usize| captures.get(n))
        } else {
            captures.name(name)
        };
        out.push_str(group.map_or("", |g| g.as_str()));
        rest = after;
    }
    out.push_str(rest);
}

/// The name behind a dollar, and what follows it.
fn group_name(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let text = braced.unwrap_or(text);
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let rest = if braced.is_some() {
        rest.strip_prefix('}')?
    } else {
        rest
    };
    (!name.is_empty()).then_some((name, rest))
}

fn compile(translated: &str) -> Result<regex::Regex> {
    regex::RegexBuilder::new(&format!("^(?s:{translated})$"))
        .size_limit(REGEX_SIZE_LIMIT_BYTES)
        .dfa_size_limit(DFA_SIZE_LIMIT_BYTES)
        .build()
        .map_err(compile_error)
}

/// Compiles an unanchored RE2 expression over bytes, for line filters and parsers.
///
/// # Errors
/// As `AnchoredRegex::new`.
pub fn bytes_regex(pattern: &str) -> Result<regex::bytes::Regex> {
    let translated = translate(pattern)?;
    regex::bytes::RegexBuilder::new(&translated)
        .size_limit(REGEX_SIZE_LIMIT_BYTES)
        .dfa_size_limit(DFA_SIZE_LIMIT_BYTES)
        .build()
        .map_err(compile_error)
}

fn compile_error(e: regex::Error) -> Error {
    match e {
        regex::Error::CompiledTooBig(_) => Error::invalid("error parsing regexp: expression too large"),
        // The crate draws its syntax errors over several lines; the last one says what is wrong.
        e => Error::invalid(format!("error parsing regexp: {}", last_line(&e.to_string()))),
    }
}

fn last_line(message: &str) -> &str {
    message.lines().last().unwrap_or(message).trim_start_matches("error: ")
}
