//! Tokens to tree, with every check that needs no data.

use std::sync::Arc;

use trilith_model::{Error, ErrorKind, MatchOp, Matcher, Result};
use trilith_query::series::Grouping;
use trilith_query::vector::{AggregateOp, BinaryOp, Cardinality, Matching, SetOp};
use trilith_query::{LineFilter, LineFilterOp};

use crate::ast::{LogQuery, MetricExpr, Query, RangeAggregation, RangeOp};
use crate::lexer::{Position, Spanned, Token, error_at, tokenize};

/// Nesting of parentheses and calls above which a query is refused; keeps recursion within any thread's stack.
const DEPTH_MAX: usize = 100;

/// Parses a log or metric query.
///
/// # Errors
/// `Invalid` with Loki's `parse error at line …` for text that is not LogQL, `Unsupported` for what is not available.
pub fn parse(text: &str) -> Result<Query> {
    let mut p = Parser {
        tokens: tokenize(text)?,
        at: 0,
        depth: 0,
    };
    let query = match p.expr(0)? {
        Operand::Log(log) => Query::Log(log),
        Operand::Metric(m) => Query::Metric(m),
    };
    match p.peek() {
        Token::End => Ok(query),
        _ => Err(p.unexpected()),
    }
}

/// Parses a bare selector such as `{app="x"}`, as the label endpoints take it.
///
/// # Errors
/// As `parse`; `only label matchers are supported` for anything more than a selector.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    match parse(text)? {
        Query::Log(log) if log.filters.is_empty() => Ok(log.matchers),
        _ => Err(Error::invalid("only label matchers are supported")),
    }
}

enum Operand {
    Log(LogQuery),
    Metric(MetricExpr),
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
}

enum AnyOp {
    Arithmetic(BinaryOp),
    Set(SetOp),
}

/// Words that are never identifiers.
const RESERVED: [&str; 21] = [
    "by",
    "without",
    "bool",
    "offset",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
    "json",
    "logfmt",
    "regexp",
    "unpack",
    "pattern",
    "line_format",
    "label_format",
    "decolorize",
    "drop",
    "keep",
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token
    }

    fn position(&self) -> Position {
        self.tokens[self.at].at
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].token.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn is_symbol(&self, s: &str) -> bool {
        matches!(self.peek(), Token::Symbol(t) if *t == s)
    }

    fn take_symbol(&mut self, s: &str) -> bool {
        let found = self.is_symbol(s);
        if found {
            self.advance();
        }
        found
    }

    fn expect_symbol(&mut self, s: &str) -> Result<()> {
        if self.take_symbol(s) {
            Ok(())
        } else {
            Err(self.unexpected_wanting(s))
        }
    }

    /// Keywords are case-insensitive.
    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Identifier(i) if i.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn unexpected(&self) -> Error {
        error_at(
            self.position(),
            format!("syntax error: unexpected {}", describe(self.peek())),
        )
    }

    fn unexpected_wanting(&self, wanted: &str) -> Error {
        error_at(
            self.position(),
            format!(
                "syntax error: unexpected {}, expecting {wanted}",
                describe(self.peek())
            ),
        )
    }

    fn unsupported(&self, what: &str) -> Error {
        let at = self.position();
        Error::unsupported(format!(
            "line {}, col {}: {what} is not available in this version",
            at.line, at.column
        ))
    }

    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEPTH_MAX {
            return Err(error_at(
                self.position(),
                format!("the query is nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        self.depth += 1;
        let out = f(self);
        self.depth -= 1;
        out
    }

    /// Precedence climbing; `min` is the weakest operator that may be taken here.
    fn expr(&mut self, min: u8) -> Result<Operand> {
        let mut left = self.nested(Self::operand)?;
        while let Some((op, precedence, right_associative)) = self.operator() {
            if precedence < min {
                break;
            }
            let at = self.position();
            self.advance();
            let (return_bool, matching) = self.modifiers()?;
            let right = self.nested(|p| {
                p.expr(if right_associative {
                    precedence
                } else {
                    precedence + 1
                })
            })?;
            left = Operand::Metric(binary(at, op, return_bool, matching, left, right)?);
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(AnyOp, u8, bool)> {
        use AnyOp::{Arithmetic, Set};
        Some(match self.peek() {
            Token::Symbol("^") => (Arithmetic(BinaryOp::Pow), 6, true),
            Token::Symbol("*") => (Arithmetic(BinaryOp::Mul), 5, false),
            Token::Symbol("/") => (Arithmetic(BinaryOp::DivOrNan), 5, false),
            Token::Symbol("%") => (Arithmetic(BinaryOp::Mod), 5, false),
            Token::Symbol("+") => (Arithmetic(BinaryOp::Add), 4, false),
            Token::Symbol("-") => (Arithmetic(BinaryOp::Sub), 4, false),
            Token::Symbol("==") => (Arithmetic(BinaryOp::Eq), 3, false),
            Token::Symbol("!=") => (Arithmetic(BinaryOp::Ne), 3, false),
            Token::Symbol(">") => (Arithmetic(BinaryOp::Gt), 3, false),
            Token::Symbol(">=") => (Arithmetic(BinaryOp::Ge), 3, false),
            Token::Symbol("<") => (Arithmetic(BinaryOp::Lt), 3, false),
            Token::Symbol("<=") => (Arithmetic(BinaryOp::Le), 3, false),
            Token::Identifier(i) if i.eq_ignore_ascii_case("and") => (Set(SetOp::And), 2, false),
            Token::Identifier(i) if i.eq_ignore_ascii_case("unless") => {
                (Set(SetOp::Unless), 2, false)
            }
            Token::Identifier(i) if i.eq_ignore_ascii_case("or") => (Set(SetOp::Or), 1, false),
            _ => return None,
        })
    }

    fn modifiers(&mut self) -> Result<(bool, Matching)> {
        let return_bool = self.take_word("bool");
        let mut matching = Matching::default();
        let on = self.is_word("on");
        if on || self.is_word("ignoring") {
            self.advance();
            matching.on = on;
            matching.labels = self.label_list()?;
            let left = self.is_word("group_left");
            if left || self.is_word("group_right") {
                self.advance();
                matching.cardinality = if left {
                    Cardinality::ManyToOne
                } else {
                    Cardinality::OneToMany
                };
                if self.is_symbol("(") {
                    matching.include = self.label_list()?;
                }
            }
        }
        Ok((return_bool, matching))
    }

    fn operand(&mut self) -> Result<Operand> {
        match self.peek().clone() {
            Token::Symbol("{") => Ok(Operand::Log(self.log_query()?)),
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expr(0)?;
                self.expect_symbol(")")?;
                Ok(inner)
            }
            Token::Number(_) | Token::Symbol("+" | "-") => {
                Ok(Operand::Metric(MetricExpr::Number(self.number()?)))
            }
            Token::Identifier(name) => {
                Ok(Operand::Metric(self.function(&name.to_ascii_lowercase())?))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn number(&mut self) -> Result<f64> {
        let sign = if self.take_symbol("-") {
            -1.0
        } else {
            self.take_symbol("+");
            1.0
        };
        match *self.peek() {
            Token::Number(v) => {
                self.advance();
                Ok(sign * v)
            }
            _ => Err(self.unexpected_wanting("NUMBER")),
        }
    }

    fn function(&mut self, name: &str) -> Result<MetricExpr> {
        let called = matches!(self.peek_second(), Token::Symbol("("));
        let grouped = matches!(self.peek_second(), Token::Identifier(i)
            if i.eq_ignore_ascii_case("by") || i.eq_ignore_ascii_case("without"));
        if !called && !grouped {
            return Err(self.unexpected());
        }
        let range = match name {
            "count_over_time" => Some(RangeOp::CountOverTime),
            "rate" => Some(RangeOp::Rate),
            "bytes_over_time" => Some(RangeOp::BytesOverTime),
            "bytes_rate" => Some(RangeOp::BytesRate),
            _ => None,
        };
        if let Some(op) = range {
            self.advance();
            return self.range_aggregation(name, op);
        }
        let aggregate = match name {
            "sum" => Some(AggregateOp::Sum),
            "avg" => Some(AggregateOp::Avg),
            "min" => Some(AggregateOp::Min),
            "max" => Some(AggregateOp::Max),
            "count" => Some(AggregateOp::Count),
            "stddev" => Some(AggregateOp::Stddev),
            "stdvar" => Some(AggregateOp::Stdvar),
            _ => None,
        };
        if let Some(op) = aggregate {
            let at = self.position();
            self.advance();
            let (grouping, parameter, argument) = self.aggregation_body()?;
            if let Some(p) = parameter {
                return Err(error_at(
                    at,
                    format!("unsupported parameter for operation {name}({p},"),
                ));
            }
            return Ok(MetricExpr::Aggregate {
                op,
                grouping,
                argument,
            });
        }
        match name {
            "topk" | "bottomk" => {
                let at = self.position();
                self.advance();
                let (grouping, parameter, argument) = self.aggregation_body()?;
                let k = parameter.ok_or_else(|| {
                    error_at(at, format!("parameter required for operation {name}"))
                })?;
                if !(k >= 1.0 && k.fract() == 0.0 && k <= f64::from(u32::MAX)) {
                    return Err(error_at(
                        at,
                        format!("invalid parameter (must be greater than 0) {name}({k}"),
                    ));
                }
                Ok(MetricExpr::Rank {
                    largest: name == "topk",
                    k: k as usize,
                    grouping,
                    argument,
                })
            }
            "sort" | "sort_desc" => {
                let at = self.position();
                self.advance();
                let (grouping, parameter, argument) = self.aggregation_body()?;
                if grouping.is_some_and(|g| !g.labels.is_empty()) || parameter.is_some() {
                    return Err(error_at(
                        at,
                        format!("grouping and parameters are not allowed for {name}"),
                    ));
                }
                Ok(MetricExpr::Sort {
                    descending: name == "sort_desc",
                    argument,
                })
            }
            "vector" => {
                self.advance();
                self.expect_symbol("(")?;
                let v = self.number()?;
                self.expect_symbol(")")?;
                Ok(MetricExpr::Vector(v))
            }
            "sum_over_time" | "avg_over_time" | "min_over_time" | "max_over_time"
            | "stddev_over_time" | "stdvar_over_time" | "quantile_over_time"
            | "first_over_time" | "last_over_time" | "absent_over_time" | "rate_counter"
            | "label_replace" | "approx_topk" | "variants" => {
                Err(self.unsupported(&format!("the function {name}")))
            }
            _ => Err(self.unexpected()),
        }
    }

    /// After `sum`: grouping on either side of the parenthesis, an optional number, the argument.
    fn aggregation_body(&mut self) -> Result<(Option<Grouping>, Option<f64>, Box<MetricExpr>)> {
        let mut grouping = self.grouping()?;
        self.expect_symbol("(")?;
        let parameter = match (self.peek(), self.peek_second()) {
            (Token::Number(v), Token::Symbol(",")) => {
                let v = *v;
                self.advance();
                self.advance();
                Some(v)
            }
            _ => None,
        };
        let at = self.position();
        let argument = match self.expr(0)? {
            Operand::Metric(m) => m,
            Operand::Log(_) => {
                return Err(error_at(
                    at,
                    "syntax error: unexpected log query, expecting a metric query",
                ));
            }
        };
        self.expect_symbol(")")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        Ok((grouping, parameter, Box::new(argument)))
    }

    fn grouping(&mut self) -> Result<Option<Grouping>> {
        let by = self.is_word("by");
        if !by && !self.is_word("without") {
            return Ok(None);
        }
        self.advance();
        Ok(Some(Grouping {
            labels: self.label_list()?,
            by,
        }))
    }

    /// `(a, b)`, without trailing comma.
    fn label_list(&mut self) -> Result<Vec<String>> {
        self.expect_symbol("(")?;
        let mut out = Vec::new();
        if self.take_symbol(")") {
            return Ok(out);
        }
        loop {
            out.push(self.identifier()?);
            if self.take_symbol(")") {
                return Ok(out);
            }
            self.expect_symbol(",")?;
        }
    }

    fn identifier(&mut self) -> Result<String> {
        match self.peek() {
            Token::Identifier(i) if !RESERVED.iter().any(|r| r.eq_ignore_ascii_case(i)) => {
                let i = i.clone();
                self.advance();
                Ok(i)
            }
            _ => Err(self.unexpected_wanting("IDENTIFIER")),
        }
    }

    /// `(` log query with a range anywhere after the selector `)`.
    fn range_aggregation(&mut self, name: &str, op: RangeOp) -> Result<MetricExpr> {
        self.expect_symbol("(")?;
        let (log, range) = self.nested(Self::ranged_log)?;
        let Some((range_ns, offset_ns)) = range else {
            return Err(self.unexpected_wanting("RANGE"));
        };
        self.expect_symbol(")")?;
        if self.is_word("by") || self.is_word("without") {
            return Err(error_at(
                self.position(),
                format!("grouping not allowed for {name} aggregation"),
            ));
        }
        Ok(MetricExpr::Range(RangeAggregation {
            op,
            log,
            range_ns,
            offset_ns,
        }))
    }

    /// A log query in any number of parentheses, with the range inside or outside of them.
    fn ranged_log(&mut self) -> Result<(LogQuery, Option<(i64, i64)>)> {
        if self.take_symbol("(") {
            let (log, inner) = self.nested(Self::ranged_log)?;
            self.expect_symbol(")")?;
            let outer = self.range()?;
            if inner.is_some() && outer.is_some() {
                return Err(self.unexpected());
            }
            return Ok((log, inner.or(outer)));
        }
        let matchers = self.selector()?;
        let early = self.range()?;
        let filters = self.stages()?;
        let range = match early {
            Some(r) => Some(r),
            None => self.range()?,
        };
        Ok((LogQuery { matchers, filters }, range))
    }

    fn range(&mut self) -> Result<Option<(i64, i64)>> {
        let Token::Range(range) = *self.peek() else {
            return Ok(None);
        };
        self.advance();
        let mut offset = 0;
        if self.take_word("offset") {
            let negative = self.take_symbol("-");
            let Token::Duration(ns) = *self.peek() else {
                return Err(self.unexpected_wanting("DURATION"));
            };
            self.advance();
            offset = if negative { -ns } else { ns };
        }
        Ok(Some((range, offset)))
    }

    fn log_query(&mut self) -> Result<LogQuery> {
        Ok(LogQuery {
            matchers: self.selector()?,
            filters: self.stages()?,
        })
    }

    fn selector(&mut self) -> Result<Vec<Matcher>> {
        self.expect_symbol("{")?;
        let mut matchers = Vec::new();
        if !self.take_symbol("}") {
            loop {
                matchers.push(self.matcher()?);
                if self.take_symbol("}") {
                    break;
                }
                self.expect_symbol(",")?;
            }
        }
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(Error::invalid(
                "parse error : queries require at least one regexp or equality matcher that does not have an \
                 empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will",
            ));
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Result<Matcher> {
        let name = self.identifier()?;
        let op = match self.peek() {
            Token::Symbol("=") => MatchOp::Eq,
            Token::Symbol("!=") => MatchOp::Ne,
            Token::Symbol("=~") => MatchOp::Re,
            Token::Symbol("!~") => MatchOp::NotRe,
            _ => return Err(self.unexpected_wanting("= or != or =~ or !~")),
        };
        self.advance();
        let at = self.position();
        let Token::String(value) = self.peek().clone() else {
            return Err(self.unexpected_wanting("STRING"));
        };
        self.advance();
        Matcher::new(op, name, value).map_err(|e| error_at(at, e.message))
    }

    fn stages(&mut self) -> Result<Vec<LineFilter>> {
        let mut filters = Vec::new();
        loop {
            let op = match self.peek() {
                Token::Symbol("|=") => LineFilterOp::Contains,
                Token::Symbol("!=")
                    if matches!(self.peek_second(), Token::String(_) | Token::Identifier(_)) =>
                {
                    LineFilterOp::NotContains
                }
                Token::Symbol("|~") => LineFilterOp::Matches,
                Token::Symbol("!~") => LineFilterOp::NotMatches,
                Token::Symbol("|>" | "!>") => return Err(self.unsupported("the pattern filter")),
                Token::Symbol("|") => {
                    self.advance();
                    let what = match self.peek() {
                        Token::Identifier(i) => match i.to_ascii_lowercase().as_str() {
                            stage @ ("json" | "logfmt" | "regexp" | "pattern" | "unpack"
                            | "line_format" | "label_format" | "decolorize" | "drop"
                            | "keep" | "unwrap") => format!("the stage {stage}"),
                            _ => "the label filter".to_owned(),
                        },
                        Token::Symbol("(") => "the label filter".to_owned(),
                        _ => return Err(self.unexpected()),
                    };
                    return Err(self.unsupported(&what));
                }
                _ => return Ok(filters),
            };
            self.advance();
            filters.push(self.line_filter(op)?);
        }
    }

    fn line_filter(&mut self, op: LineFilterOp) -> Result<LineFilter> {
        let at = self.position();
        let mut needles: Vec<Arc<str>> = Vec::new();
        loop {
            match self.peek().clone() {
                Token::String(s) => {
                    self.advance();
                    needles.push(s.into());
                }
                Token::Identifier(i) if i.eq_ignore_ascii_case("ip") => {
                    return Err(self.unsupported("the ip() filter"));
                }
                _ => return Err(self.unexpected_wanting("STRING")),
            }
            // `or` between a filter and a metric operand cannot occur: a log query is no operand of it.
            if !(self.is_word("or")
                && matches!(self.peek_second(), Token::String(_) | Token::Identifier(_)))
            {
                break;
            }
            self.advance();
        }
        LineFilter::new(op, needles).map_err(|e| {
            if e.kind == ErrorKind::Invalid {
                error_at(at, e.message)
            } else {
                e
            }
        })
    }
}

fn binary(
    at: Position,
    op: AnyOp,
    return_bool: bool,
    matching: Matching,
    left: Operand,
    right: Operand,
) -> Result<MetricExpr> {
    let metric = |o: Operand, side: &str| match o {
        Operand::Metric(m) => Ok(m),
        Operand::Log(_) => Err(error_at(
            at,
            format!("unexpected type for {side} leg of binary operation: log query"),
        )),
    };
    let (left, right) = (metric(left, "left")?, metric(right, "right")?);
    match op {
        AnyOp::Set(op) => {
            for (leg, side) in [(&left, "left"), (&right, "right")] {
                if let MetricExpr::Number(v) = leg {
                    let name = match op {
                        SetOp::And => "and",
                        SetOp::Or => "or",
                        SetOp::Unless => "unless",
                    };
                    return Err(error_at(
                        at,
                        format!(
                            "unexpected literal for {side} leg of logical/set binary operation ({name}): {v:.6}"
                        ),
                    ));
                }
            }
            Ok(MetricExpr::Set {
                op,
                matching,
                left: left.into(),
                right: right.into(),
            })
        }
        AnyOp::Arithmetic(op) => {
            if let (MetricExpr::Number(a), MetricExpr::Number(b)) = (&left, &right) {
                let modulo_by_zero = op == BinaryOp::Mod && *b == 0.0;
                return Ok(MetricExpr::Number(if modulo_by_zero {
                    f64::NAN
                } else {
                    op.scalar(*a, *b)
                }));
            }
            Ok(MetricExpr::Binary {
                op,
                return_bool,
                matching,
                left: left.into(),
                right: right.into(),
            })
        }
    }
}

/// The token names of the reference's parser, which clients show.
fn describe(token: &Token) -> String {
    match token {
        Token::Identifier(i) if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(i)) => {
            i.to_ascii_lowercase()
        }
        Token::Identifier(_) => "IDENTIFIER".into(),
        Token::String(_) => "STRING".into(),
        Token::Number(_) => "NUMBER".into(),
        Token::Duration(_) => "DURATION".into(),
        Token::Range(_) => "RANGE".into(),
        Token::Symbol(s) => (*s).into(),
        Token::End => "$end".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Error {
        match parse(text) {
            Err(e) => e,
            Ok(q) => panic!("{text} must be refused: {q:?}"),
        }
    }

    #[test]
    fn log_queries() {
        for text in [
            r#"{a="b"}"#,
            r#"{a="b", c=~".+"} |= "x" != "y" |~ `z\d` !~ "w""#,
            r#"{a="b"} |= "x" or "y" or `z` != "q""#,
            r#"({a="b"} |= "x")"#,
            "{rate=\"x\", sum!=\"\"} # comment",
        ] {
            assert!(
                matches!(parse(text), Ok(Query::Log(_))),
                "{text}: {:?}",
                parse(text).err()
            );
        }
    }

    #[test]
    fn metric_queries() {
        for text in [
            "1+1",
            "vector(1)+vector(1)",
            r#"count_over_time({a="b"}[5m])"#,
            r#"rate({a="b"} |= "x" [1m] offset 5m)"#,
            r#"rate({a="b"}[1m] offset -5m |= "x")"#,
            r#"rate(({a="b"} |= "x")[1m])"#,
            r#"bytes_rate(({a="b"}[1m]))"#,
            r#"SUM BY (x, y) (RATE({a="b"}[1m]))"#,
            r#"sum(rate({a="b"}[1m])) without (x)"#,
            r#"topk by (x) (5, sum by (x, y) (rate({a="b"}[1m])))"#,
            r#"sum(rate({a="b"}[1m])) / on (x) group_left (y) sum(rate({c="d"}[1m])) > bool 0.5"#,
            r#"sum(rate({a="b"}[1m])) or vector(0)"#,
            r#"sort_desc(count(rate({a="b"}[1m])))"#,
        ] {
            assert!(
                matches!(parse(text), Ok(Query::Metric(_))),
                "{text}: {:?}",
                parse(text).err()
            );
        }
    }

    #[test]
    fn precedence() {
        let number = |text: &str| match parse(text) {
            Ok(Query::Metric(MetricExpr::Number(v))) => v,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(number("1 + 2 * 3 ^ 2"), 19.0);
        assert_eq!(number("2 ^ 3 ^ 2"), 512.0);
        assert_eq!(number("-2 ^ 2"), 4.0);
        assert_eq!(number("(1 + 2) * 3 - -1"), 10.0);
        assert_eq!(number("2 > 1"), 1.0);
        assert!(number("1/0").is_nan() && number("1%0").is_nan());
    }

    #[test]
    fn errors_as_loki_words_them() {
        for (text, want) in [
            (
                "{app=",
                "parse error at line 1, col 6: syntax error: unexpected $end",
            ),
            (
                "",
                "parse error at line 1, col 1: syntax error: unexpected $end",
            ),
            (
                "{a=\"b\"} foo",
                "parse error at line 1, col 9: syntax error: unexpected IDENTIFIER",
            ),
            (
                "{}",
                "queries require at least one regexp or equality matcher",
            ),
            (
                "{a!=\"x\"}",
                "queries require at least one regexp or equality matcher",
            ),
            (
                "{a=~\".*\"}",
                "queries require at least one regexp or equality matcher",
            ),
            ("{a=~\"(\"}", "error parsing regexp"),
            ("{a=\"b\",}", "unexpected }"),
            ("{a==\"b\"}", "unexpected =="),
            ("{by=\"b\"}", "unexpected by"),
            ("rate({a=\"b\"})", "expecting RANGE"),
            (
                "rate({a=\"b\"}[5m]) by (x)",
                "grouping not allowed for rate aggregation",
            ),
            (
                "sum(3, rate({a=\"b\"}[5m]))",
                "unsupported parameter for operation sum(3,",
            ),
            (
                "topk(0, rate({a=\"b\"}[5m]))",
                "invalid parameter (must be greater than 0) topk(0",
            ),
            ("sum({a=\"b\"})", "expecting a metric query"),
            ("--1", "unexpected --"),
            (
                "vector(1) or 1",
                "unexpected literal for right leg of logical/set binary operation (or): 1.000000",
            ),
        ] {
            let e = error(text);
            assert_eq!(e.kind, ErrorKind::Invalid, "{text}");
            assert!(e.message.contains(want), "{text}: {}", e.message);
        }
    }

    #[test]
    fn what_is_missing_says_so() {
        for (text, what) in [
            ("{a=\"b\"} | json", "the stage json"),
            ("{a=\"b\"} | logfmt | x=\"y\"", "the stage logfmt"),
            ("{a=\"b\"} | x > 5", "the label filter"),
            ("{a=\"b\"} |> \"<_>\"", "the pattern filter"),
            ("{a=\"b\"} |= ip(\"1.2.3.4\")", "the ip() filter"),
            (
                "sum_over_time({a=\"b\"} | unwrap x [5m])",
                "the function sum_over_time",
            ),
            (
                "label_replace(vector(1), \"a\", \"b\", \"c\", \"d\")",
                "the function label_replace",
            ),
        ] {
            let e = error(text);
            assert_eq!(e.kind, ErrorKind::Unsupported, "{text}: {}", e.message);
            assert!(
                e.message.contains(what) && e.message.contains("not available"),
                "{text}: {}",
                e.message
            );
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{}1{}", "(".repeat(50_000), ")".repeat(50_000));
        assert!(error(&deep).message.contains("nested deeper"));
        let chain = "1 ^ ".repeat(30_000) + "1";
        assert!(error(&chain).message.contains("nested deeper"));
    }

    #[test]
    fn selectors_only() {
        assert_eq!(parse_selector("{a=\"b\"}").map(|m| m.len()).ok(), Some(1));
        assert_eq!(
            parse_selector("{a=\"b\"} |= \"x\"").unwrap_err().message,
            "only label matchers are supported"
        );
    }
}
