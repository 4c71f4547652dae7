//! Tokens to tree, with every check that needs no data.

use std::sync::Arc;

use trilith_model::{Error, ErrorKind, MatchOp, Matcher, Result};
use trilith_query::series::Grouping;
use trilith_query::vector::{AggregateOp, BinaryOp, Cardinality, Matching, SetOp};
use trilith_query::{LineFilter, LineFilterOp};

use crate::ast::{LabelFilter, LabelItem, LogQuery, MetricExpr, Query, RangeAggregation, RangeOp, Stage};
use crate::lexer::{Position, RESERVED, Spanned, Token, describe, error_at, tokenize};

/// Nesting of parentheses and calls above which a query is refused; keeps recursion within any thread's stack.
const DEPTH_MAX: usize = 100;

/// Operators in one query; chains of them are trees as deep as long, which are dropped recursively.
const OPERATORS_MAX: usize = 500;

/// Parses a log or metric query.
///
/// # Errors
/// `Invalid` with Loki's `parse error at line …` for text that is not LogQL, `Unsupported` for what is not available.
pub fn parse(text: &str) -> Result<Query> {
    let mut p = Parser {
        tokens: tokenize(text)?,
        at: 0,
        depth: 0,
        operators: 0,
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
        Query::Log(log) if log.filters.is_empty() && log.stages.is_empty() => Ok(log.matchers),
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
    operators: usize,
}

enum AnyOp {
    Arithmetic(BinaryOp),
    Set(SetOp),
}

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
            format!("syntax error: unexpected {}, expecting {wanted}", describe(self.peek())),
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

    fn count_operator(&mut self) -> Result<()> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(error_at(
                self.position(),
                format!("the query has more than {OPERATORS_MAX} operators"),
            ));
        }
        Ok(())
    }

    /// Precedence climbing; `min` is the weakest operator that may be taken here.
    fn expr(&mut self, min: u8) -> Result<Operand> {
        let mut left = self.nested(Self::operand)?;
        while let Some((op, precedence, right_associative)) = self.operator() {
            if precedence < min {
                break;
            }
            let at = self.position();
            self.count_operator()?;
            self.advance();
            let (return_bool, matching) = self.modifiers()?;
            let right = self.nested(|p| p.expr(if right_associative { precedence } else { precedence + 1 }))?;
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
            Token::Identifier(i) if i.eq_ignore_ascii_case("unless") => (Set(SetOp::Unless), 2, false),
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
            Token::Number(_) | Token::Symbol("+" | "-") => Ok(Operand::Metric(MetricExpr::Number(self.number()?))),
            Token::Identifier(name) => Ok(Operand::Metric(self.function(&name.to_ascii_lowercase())?)),
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
            "absent_over_time" => Some(RangeOp::Absent),
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
            if let Some((p, _)) = parameter {
                return Err(error_at(at, format!("unsupported parameter for operation {name}({p},")));
            }
            return Ok(MetricExpr::Aggregate { op, grouping, argument });
        }
        match name {
            "topk" | "bottomk" => {
                let at = self.position();
                self.advance();
                let (grouping, parameter, argument) = self.aggregation_body()?;
                let (k, integer) =
                    parameter.ok_or_else(|| error_at(at, format!("parameter required for operation {name}")))?;
                if !integer {
                    return Err(error_at(at, format!("invalid parameter {name}({k},")));
                }
                if !(k >= 1.0 && k <= f64::from(u32::MAX)) {
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
                // Without a sign.
                let Token::Number(v) = *self.peek() else {
                    return Err(self.unexpected_wanting("NUMBER"));
                };
                self.advance();
                self.expect_symbol(")")?;
                Ok(MetricExpr::Vector(v))
            }
            "sum_over_time" | "avg_over_time" | "min_over_time" | "max_over_time" | "stddev_over_time"
            | "stdvar_over_time" | "quantile_over_time" | "first_over_time" | "last_over_time" | "rate_counter"
            | "label_replace" | "approx_topk" | "variants" => Err(self.unsupported(&format!("the function {name}"))),
            _ => Err(self.unexpected()),
        }
    }

    /// After `sum`: grouping on either side of the parenthesis, an optional number (and whether it is written as an
    /// integer), the argument.
    fn aggregation_body(&mut self) -> Result<(Option<Grouping>, Option<(f64, bool)>, Box<MetricExpr>)> {
        let mut grouping = self.grouping()?;
        self.expect_symbol("(")?;
        let parameter = match (self.peek(), self.peek_second()) {
            (Token::Number(v), Token::Symbol(",")) => {
                let parameter = (*v, self.tokens[self.at].integer);
                self.advance();
                self.advance();
                Some(parameter)
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
        let (filters, stages) = self.stages()?;
        let range = match early {
            Some(r) => Some(r),
            None => self.range()?,
        };
        let log = LogQuery {
            matchers,
            filters,
            stages,
        };
        Ok((log, range))
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
        let matchers = self.selector()?;
        let (filters, stages) = self.stages()?;
        Ok(LogQuery {
            matchers,
            filters,
            stages,
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

    fn stages(&mut self) -> Result<(Vec<LineFilter>, Vec<Stage>)> {
        let (mut filters, mut stages) = (Vec::new(), Vec::new());
        loop {
            let op = match self.peek() {
                Token::Symbol("|=") => LineFilterOp::Contains,
                Token::Symbol("!=") if matches!(self.peek_second(), Token::String(_) | Token::Identifier(_)) => {
                    LineFilterOp::NotContains
                }
                Token::Symbol("|~") => LineFilterOp::Matches,
                Token::Symbol("!~") => LineFilterOp::NotMatches,
                Token::Symbol("|>" | "!>") => return Err(self.unsupported("the pattern filter")),
                Token::Symbol("|") => {
                    self.advance();
                    stages.push(self.stage()?);
                    continue;
                }
                _ => return Ok((filters, stages)),
            };
            self.advance();
            filters.push(self.line_filter(op)?);
        }
    }

    /// What follows a `|`.
    fn stage(&mut self) -> Result<Stage> {
        let word = match self.peek() {
            Token::Identifier(i) => i.to_ascii_lowercase(),
            Token::Symbol("(") => return Ok(Stage::Filter(self.label_filter()?)),
            _ => return Err(self.unexpected()),
        };
        match word.as_str() {
            "drop" => {
                self.advance();
                Ok(Stage::Drop(self.label_items()?))
            }
            "keep" => {
                self.advance();
                Ok(Stage::Keep(self.label_items()?))
            }
            "json" | "logfmt" | "regexp" | "pattern" | "unpack" | "line_format" | "label_format" | "decolorize"
            | "unwrap" => Err(self.unsupported(&format!("the stage {word}"))),
            _ => Ok(Stage::Filter(self.label_filter()?)),
        }
    }

    /// `a, b="x", c=~"y"`. `drop a != "x"` has a matcher, not a name and a line filter.
    fn label_items(&mut self) -> Result<Vec<LabelItem>> {
        let mut out = Vec::new();
        loop {
            let matcher = matches!(self.peek_second(), Token::Symbol("=" | "!=" | "=~" | "!~"));
            out.push(if matcher {
                LabelItem::Matcher(self.matcher()?)
            } else {
                LabelItem::Name(self.identifier()?)
            });
            if !self.take_symbol(",") {
                return Ok(out);
            }
        }
    }

    /// `or` binds weaker than `and`, `,` and a blank between two conditions.
    fn label_filter(&mut self) -> Result<LabelFilter> {
        let mut left = self.nested(Self::label_conjunction)?;
        while self.is_word("or") {
            self.count_operator()?;
            self.advance();
            let right = self.nested(Self::label_conjunction)?;
            left = LabelFilter::Or(left.into(), right.into());
        }
        Ok(left)
    }

    fn label_conjunction(&mut self) -> Result<LabelFilter> {
        let mut left = self.label_condition()?;
        loop {
            let condition = match self.peek() {
                Token::Identifier(i) => !RESERVED.iter().any(|r| r.eq_ignore_ascii_case(i)),
                Token::Symbol("(") => true,
                _ => false,
            };
            if self.is_word("and") || self.is_symbol(",") {
                self.advance();
            } else if !condition {
                return Ok(left);
            }
            self.count_operator()?;
            let right = self.label_condition()?;
            left = LabelFilter::And(left.into(), right.into());
        }
    }

    fn label_condition(&mut self) -> Result<LabelFilter> {
        if self.take_symbol("(") {
            let inner = self.nested(Self::label_filter)?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        // Comparisons with numbers, durations, sizes and ip() need conversions that are not there yet.
        let third = self.tokens.get(self.at + 2).map(|t| &t.token);
        let compared = match (self.peek_second(), third) {
            (Token::Symbol("==" | ">" | ">=" | "<" | "<="), _) => true,
            (Token::Symbol("=" | "!="), Some(Token::Number(_) | Token::Duration(_) | Token::Bytes(_))) => true,
            (Token::Symbol("=" | "!="), Some(Token::Identifier(i))) => i.eq_ignore_ascii_case("ip"),
            _ => false,
        };
        if compared {
            return Err(self.unsupported("the label filter with a number, duration, size or ip()"));
        }
        Ok(LabelFilter::Matcher(self.matcher()?))
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
            if !(self.is_word("or") && matches!(self.peek_second(), Token::String(_) | Token::Identifier(_))) {
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
                        format!("unexpected literal for {side} leg of logical/set binary operation ({name}): {v:.6}"),
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

#[cfg(test)]
mod tests;
