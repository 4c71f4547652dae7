//! The search by tags: `service.name=api http.method="GET"`, from before TraceQL.
//!
//! A trace matches when every pair is found somewhere in it, on a span or a resource. Values match as a substring
//! without regard to case, except for numbers and keywords of the special keys. There are no span sets in the result.

use trilith_model::{Error, Result};
use trilith_query::{AttributeScope, ColumnRef, Intrinsic, Operand, Predicate, PredicateOp, QueryContext, SpanSource};

use crate::ast::Field;
use crate::eval::Columns;
use crate::search::{SearchOptions, TraceSearchResult, run};

/// Most pairs of one search: each is a column.
const TAGS_MAX: usize = 100;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TagQuery {
    tests: Vec<TagTest>,
    /// Of the trace, ns; 0 means none.
    pub min_duration_ns: u64,
    pub max_duration_ns: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum TagTest {
    /// Lower-case.
    Attribute {
        key: String,
        value: String,
    },
    Name(String),
    RootName(String),
    RootService(String),
    Status(i32),
    HttpStatusCode(String),
}

impl TagQuery {
    /// Takes the pairs of `tags` (logfmt) and the two durations, 0 for none.
    ///
    /// # Errors
    /// `Invalid` for what is not logfmt, an unknown status, a maximum below the minimum.
    pub fn new(tags: &str, min_duration_ns: u64, max_duration_ns: u64) -> Result<TagQuery> {
        if max_duration_ns != 0 && max_duration_ns < min_duration_ns {
            return Err(Error::invalid("invalid maxDuration: must be greater than minDuration"));
        }
        let pairs = logfmt(tags)?;
        if pairs.len() > TAGS_MAX {
            return Err(Error::invalid(format!("more than {TAGS_MAX} tags")));
        }
        let tests = pairs
            .into_iter()
            .map(|(key, value)| test_of(key, &value))
            .collect::<Result<_>>()?;
        Ok(TagQuery {
            tests,
            min_duration_ns,
            max_duration_ns,
        })
    }
}

fn test_of(key: String, value: &str) -> Result<TagTest> {
    let lower = value.to_lowercase();
    Ok(match key.as_str() {
        "name" => TagTest::Name(lower),
        "root.name" => TagTest::RootName(lower),
        "root.service.name" => TagTest::RootService(lower),
        "status.code" => TagTest::Status(match lower.as_str() {
            "unset" => 0,
            "ok" => 1,
            "error" => 2,
            _ => {
                return Err(Error::invalid(format!(
                    "invalid status.code {value:?}: must be error, ok or unset"
                )));
            }
        }),
        "error" if lower == "true" => TagTest::Status(2),
        "http.status_code" => TagTest::HttpStatusCode(lower),
        _ => TagTest::Attribute { key, value: lower },
    })
}

/// `key=value key2="quoted value" flag`: pairs in order; a key alone has the value `true`.
fn logfmt(text: &str) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = word(rest)?;
        if key.is_empty() {
            return Err(Error::invalid(format!(
                "invalid tags: a key is missing before {:?}",
                first_chars(rest)
            )));
        }
        rest = after;
        let mut value = "true".to_owned();
        if let Some(after) = rest.strip_prefix('=') {
            let (text, after) = word(after)?;
            value = text;
            rest = after;
        }
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
            return Err(Error::invalid(format!(
                "invalid tags: unexpected {:?}",
                first_chars(rest)
            )));
        }
        out.push((key, value));
        rest = rest.trim_start();
    }
    Ok(out)
}

fn first_chars(text: &str) -> String {
    text.chars().take(10).collect()
}

/// A bare or quoted word and what follows it.
fn word(text: &str) -> Result<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c.is_whitespace() || c == '=' || c == '"')
            .unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &quoted[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some((_, 'r')) => out.push('\r'),
                Some((_, c)) => out.push(c),
                None => break,
            },
            c => out.push(c),
        }
    }
    Err(Error::invalid("invalid tags: a quote is not closed"))
}

/// The newest traces that match, newest first.
///
/// # Errors
/// As [`crate::search()`].
pub async fn search_tags(
    ctx: &QueryContext,
    source: &dyn SpanSource,
    query: &TagQuery,
    options: SearchOptions,
) -> Result<Vec<TraceSearchResult>> {
    let mut fields = Vec::new();
    let mut best: Option<Predicate> = None;
    for test in &query.tests {
        let (of_test, predicate) = needs(test);
        fields.extend(of_test);
        // One condition is enough to prune; the pairs may be on different spans.
        best = best.or(predicate);
    }
    let query = std::sync::Arc::new(query.clone());
    let predicates = best.into_iter().collect();
    run(ctx, source, predicates, true, fields, options, move |columns, rows| {
        let duration = columns.u64(&Field::Intrinsic(Intrinsic::TraceDuration), rows.start);
        let fits =
            duration >= query.min_duration_ns && (query.max_duration_ns == 0 || duration <= query.max_duration_ns);
        let all = fits
            && query
                .tests
                .iter()
                .all(|t| rows.clone().any(|row| found(t, columns, row)));
        all.then(Vec::new)
    })
    .await
}

fn span(key: &str) -> Field {
    Field::Attribute(AttributeScope::Span, key.to_owned())
}

fn resource(key: &str) -> Field {
    Field::Attribute(AttributeScope::Resource, key.to_owned())
}

fn needs(test: &TagTest) -> (Vec<Field>, Option<Predicate>) {
    let exists = |key: &str| Predicate {
        column: ColumnRef::Attribute(AttributeScope::Any, key.to_owned()),
        op: PredicateOp::Exists,
        operand: Operand::Bool(true),
    };
    match test {
        TagTest::Attribute { key, value } => {
            let fields = vec![span(key), resource(key)];
            // A missing service name counts as "", which contains only "".
            let prune = !(key == "service.name" && value.is_empty());
            (fields, prune.then(|| exists(key)))
        }
        TagTest::HttpStatusCode(_) => (
            vec![span("http.status_code"), resource("http.status_code")],
            Some(exists("http.status_code")),
        ),
        TagTest::Status(code) => {
            let predicate = Predicate {
                column: ColumnRef::Intrinsic(Intrinsic::Status),
                op: PredicateOp::Eq,
                operand: Operand::Int(i64::from(*code)),
            };
            (Vec::new(), Some(predicate))
        }
        TagTest::Name(_) | TagTest::RootName(_) | TagTest::RootService(_) => (Vec::new(), None),
    }
}

fn found(test: &TagTest, columns: &Columns<'_>, row: usize) -> bool {
    let text = |field: &Field| columns.text(field, row);
    let contains = |text: Option<&str>, value: &str| text.is_some_and(|t| t.to_lowercase().contains(value));
    match test {
        TagTest::Attribute { key, value } => contains(text(&span(key)), value) || contains(text(&resource(key)), value),
        TagTest::HttpStatusCode(value) => {
            text(&span("http.status_code")) == Some(value) || text(&resource("http.status_code")) == Some(value)
        }
        TagTest::Name(value) => contains(text(&Field::Intrinsic(Intrinsic::Name)), value),
        TagTest::RootName(value) => contains(text(&Field::Intrinsic(Intrinsic::RootName)), value),
        TagTest::RootService(value) => contains(text(&Field::Intrinsic(Intrinsic::RootServiceName)), value),
        TagTest::Status(code) => columns.i32(&Field::Intrinsic(Intrinsic::Status), row) == *code,
    }
}
