//! Tokens to a syntax tree.
//!
//! A Pratt parser with one token of lookahead. Upstream's parser is an LALR table whose semantic actions report errors
//! as they run; to report the same first error at the same place this one reads a token exactly where the table does.
//! A token that fits nowhere is reported by the innermost construct that has words for it: [`Fail::Unexpected`]
//! travels outwards until one of them, or the top, turns it into a message.

mod duration;
mod selector;

use crate::ast::{
    Aggregate, At, Binary, Call, Cardinality, Edges, Expr, ExprKind, Length, NANOS_PER_SECOND, Number, Offset,
    RangeSelector, Span, Subquery, TimeShift, Unary, ValueType, VectorMatching,
};
use crate::error::ParseError;
use crate::functions::Signature;
use crate::lexer::Lexer;
use crate::literal;
use crate::text::{Text, quote};
use crate::token::{Aggregator, Keyword, Kind, Operator, Preprocessor, Token};
use crate::{LabelMatcher, SyntaxFeatures, check};

/// Longest query text, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Depth of the tree, where the left operands of a chain of operators count once.
///
/// Bounds all recursion, here and in what walks the tree.
const DEPTH_MAX: usize = 200;

pub(crate) enum Fail {
    /// The token that was looked at last fits nowhere; nobody has said so yet.
    Unexpected,
    Error(ParseError),
}

impl From<ParseError> for Fail {
    fn from(e: ParseError) -> Self {
        Fail::Error(e)
    }
}

type Parsed<T> = Result<T, Fail>;

/// Parses and checks a query.
///
/// # Errors
/// The first error.
pub fn parse(text: &str, features: &SyntaxFeatures) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text, *features)?;
    let parsed = parser.query();
    let expr = parser.finish(parsed)?;
    check::check(text, &expr)?;
    Ok(expr)
}

/// Parses a series selector on its own, `match[]`; as everywhere upstream, one that may match everything is let
/// through. The matcher of a name before the braces comes last.
///
/// # Errors
/// The first error.
pub fn parse_selector(text: &str) -> Result<Vec<LabelMatcher>, ParseError> {
    let mut parser = Parser::new(text, SyntaxFeatures::default())?;
    let parsed = parser.lone_selector();
    parser.finish(parsed)
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    features: SyntaxFeatures,
    ahead: Option<Token<'a>>,
    /// End of the newest token, looked at or taken, that can close an expression.
    last_closing: u32,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, features: SyntaxFeatures) -> Result<Self, ParseError> {
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("query is longer than {TEXT_BYTES_MAX} bytes");
            return Err(ParseError::new(text, Span::default(), message));
        }
        Ok(Parser {
            text,
            lexer: Lexer::new(text),
            features,
            ahead: None,
            last_closing: 0,
            depth: 0,
        })
    }

    fn finish<T>(&mut self, parsed: Parsed<T>) -> Result<T, ParseError> {
        parsed.map_err(|fail| match self.explain(fail, "", "") {
            Fail::Error(e) => e,
            Fail::Unexpected => unreachable!("explain leaves nothing unexplained"),
        })
    }

    fn query(&mut self) -> Parsed<Expr> {
        if self.peek()?.kind == Kind::Eof {
            return self.error(Span::default(), "no expression found in input");
        }
        let expr = self.expr(0)?;
        self.expect(Kind::Eof)?;
        Ok(expr)
    }

    fn lone_selector(&mut self) -> Parsed<Vec<LabelMatcher>> {
        let token = self.peek()?;
        let selector = if token.kind == Kind::LeftBrace {
            self.selector(None)?
        } else if token.kind.names_metric() {
            let name = self.take()?;
            self.selector(Some(name))?
        } else {
            return Err(Fail::Unexpected);
        };
        self.expect(Kind::Eof)?;
        let mut matchers = selector.matchers;
        matchers.extend(selector.name.map(|name| LabelMatcher::name_is(&name)));
        Ok(matchers)
    }

    // Tokens and errors.

    fn peek(&mut self) -> Parsed<Token<'a>> {
        if let Some(token) = self.ahead {
            return Ok(token);
        }
        let token = self.lexer.token()?;
        if matches!(
            token.kind,
            Kind::RightBrace | Kind::RightParen | Kind::RightBracket | Kind::Duration | Kind::Number
        ) {
            self.last_closing = token.end();
        }
        self.ahead = Some(token);
        Ok(token)
    }

    fn take(&mut self) -> Parsed<Token<'a>> {
        let token = self.peek()?;
        self.ahead = None;
        Ok(token)
    }

    fn take_if(&mut self, kind: Kind) -> Parsed<Option<Token<'a>>> {
        if self.peek()?.kind == kind {
            self.take().map(Some)
        } else {
            Ok(None)
        }
    }

    fn expect(&mut self, kind: Kind) -> Parsed<Token<'a>> {
        self.take_if(kind)?.ok_or(Fail::Unexpected)
    }

    fn error<T>(&self, span: Span, message: impl Into<String>) -> Parsed<T> {
        Err(Fail::Error(ParseError::new(self.text, span, message)))
    }

    /// Words for a token that fits nowhere: what was being read, and what could have come.
    fn explain(&mut self, fail: Fail, context: &str, expected: &str) -> Fail {
        let Fail::Unexpected = fail else { return fail };
        let token = match self.peek() {
            Ok(token) => token,
            Err(fail) => return fail,
        };
        let mut message = format!("unexpected {}", token.describe());
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        Fail::Error(ParseError::new(self.text, token.span(), message))
    }

    /// Runs `inner`, whose unexpected tokens have these words.
    fn within<T>(&mut self, context: &str, expected: &str, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        inner(self).map_err(|fail| self.explain(fail, context, expected))
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            let span = self.peek()?.span();
            return self.error(span, format!("query nests deeper than {DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let parsed = inner(self);
        self.depth -= 1;
        parsed
    }

    // Expressions.

    /// An expression of operators that bind at least as tight as `min`.
    fn expr(&mut self, min: u8) -> Parsed<Expr> {
        self.deeper(|p| {
            let mut lhs = p.operand()?;
            loop {
                let Kind::Operator(op) = p.peek()?.kind else {
                    return Ok(lhs);
                };
                let precedence = op.precedence();
                if precedence < min {
                    return Ok(lhs);
                }
                p.take()?;
                lhs = p.binary(lhs, op)?;
            }
        })
    }

    fn binary(&mut self, lhs: Expr, op: Operator) -> Parsed<Expr> {
        let (return_bool, mut matching) = self.operator_modifiers()?;
        // Only `^` groups to the right.
        let precedence = op.precedence() + u8::from(op != Operator::Pow);
        let rhs = self.expr(precedence)?;
        let span = Span {
            start: lhs.span.start,
            end: rhs.span.end,
        };
        if !self.features.fill && (matching.fill_left.is_some() || matching.fill_right.is_some()) {
            return self.error(span, "binop fill modifiers are experimental and not enabled");
        }
        if op.is_set() && matching.cardinality == Cardinality::OneToOne {
            matching.cardinality = Cardinality::ManyToMany;
        }
        let scalars = lhs.value_type() == ValueType::Scalar && rhs.value_type() == ValueType::Scalar;
        let binary = Binary {
            op,
            return_bool,
            written_matching: matching,
            value_type: if scalars { ValueType::Scalar } else { ValueType::Vector },
            lhs,
            rhs,
        };
        Ok(Expr {
            kind: ExprKind::Binary(Box::new(binary)),
            span,
        })
    }

    fn operator_modifiers(&mut self) -> Parsed<(bool, VectorMatching)> {
        let return_bool = self.take_if(Kind::Keyword(Keyword::Bool))?.is_some();
        let mut matching = VectorMatching {
            cardinality: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let kind = self.peek()?.kind;
        if matches!(kind, Kind::Keyword(Keyword::On | Keyword::Ignoring)) {
            self.take()?;
            matching.on = kind == Kind::Keyword(Keyword::On);
            matching.labels = self.grouping_labels()?;
            matching.cardinality = match self.peek()?.kind {
                Kind::Keyword(Keyword::GroupLeft) => Cardinality::ManyToOne,
                Kind::Keyword(Keyword::GroupRight) => Cardinality::OneToMany,
                _ => Cardinality::OneToOne,
            };
            if matching.cardinality != Cardinality::OneToOne {
                self.take()?;
                let next = self.peek()?.kind;
                if next == Kind::LeftParen || !next.begins_expression() {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        match self.peek()?.kind {
            Kind::Keyword(Keyword::Fill) => {
                let value = self.fill_value()?;
                (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
            }
            Kind::Keyword(Keyword::FillLeft) => {
                matching.fill_left = Some(self.fill_value()?);
                if self.peek()?.kind == Kind::Keyword(Keyword::FillRight) {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            Kind::Keyword(Keyword::FillRight) => {
                matching.fill_right = Some(self.fill_value()?);
                if self.peek()?.kind == Kind::Keyword(Keyword::FillLeft) {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok((return_bool, matching))
    }

    /// `fill(-1)`, from the keyword on.
    fn fill_value(&mut self) -> Parsed<f64> {
        self.take()?;
        self.expect(Kind::LeftParen)?;
        let value = self.signed_number()?;
        self.expect(Kind::RightParen)?;
        Ok(value)
    }

    fn signed_number(&mut self) -> Parsed<f64> {
        let sign = match self.peek()?.kind {
            Kind::Operator(Operator::Add) => 1.0,
            Kind::Operator(Operator::Sub) => -1.0,
            _ => return Ok(self.number()?.0.value),
        };
        self.take()?;
        Ok(self.number()?.0.value * sign)
    }

    /// A number or a duration.
    fn number(&mut self) -> Parsed<(Number, Span)> {
        let token = self.peek()?;
        let number = match token.kind {
            Kind::Number => literal::number(token.text)
                .map(|value| Number {
                    value,
                    is_duration: false,
                })
                .map_err(|why| format!("error parsing number: {why}")),
            Kind::Duration => literal::duration(token.text).map(|nanos| Number {
                value: literal::seconds(nanos),
                is_duration: true,
            }),
            _ => return Err(Fail::Unexpected),
        };
        self.take()?;
        match number {
            Ok(number) => Ok((number, token.span())),
            Err(message) => self.error(token.span(), message),
        }
    }

    fn operand(&mut self) -> Parsed<Expr> {
        let token = self.peek()?;
        if let Kind::Operator(op @ (Operator::Add | Operator::Sub)) = token.kind {
            return self.unary(op == Operator::Sub);
        }
        let expr = match token.kind {
            Kind::Number | Kind::Duration => {
                let (number, span) = self.number()?;
                Expr {
                    kind: ExprKind::Number(number),
                    span,
                }
            }
            Kind::String => {
                self.take()?;
                Expr {
                    kind: ExprKind::String(self.unquote(token)?),
                    span: token.span(),
                }
            }
            Kind::LeftParen => {
                self.take()?;
                let inner = self.expr(0)?;
                let close = self.expect(Kind::RightParen)?;
                Expr {
                    kind: ExprKind::Paren(Box::new(inner)),
                    span: Span {
                        start: token.start,
                        end: close.end(),
                    },
                }
            }
            Kind::LeftBrace => self.selector_expr(None)?,
            Kind::Aggregator(op) => {
                self.take()?;
                match self.peek()?.kind {
                    Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without) => {
                        self.within("aggregation", "", |p| p.aggregate(op, token))?
                    }
                    _ => self.selector_expr(Some(token))?,
                }
            }
            Kind::Identifier | Kind::Preprocessor(_) => {
                self.take()?;
                match self.peek()?.kind {
                    Kind::LeftParen => self.call(token)?,
                    _ => self.selector_expr(Some(token))?,
                }
            }
            kind if kind.names_metric() => {
                self.take()?;
                self.selector_expr(Some(token))?
            }
            _ => return Err(Fail::Unexpected),
        };
        self.suffixes(expr)
    }

    /// Binds as `*` does; a sign before a number becomes part of it.
    fn unary(&mut self, negative: bool) -> Parsed<Expr> {
        let start = self.take()?.start;
        let mut expr = self.expr(Operator::Mul.precedence() + 1)?;
        if let ExprKind::Number(number) = &mut expr.kind {
            if negative {
                number.value = -number.value;
            }
            expr.span.start = start;
            return Ok(expr);
        }
        let end = expr.span.end;
        Ok(Expr {
            kind: ExprKind::Unary(Box::new(Unary { negative, expr })),
            span: Span { start, end },
        })
    }

    fn unquote(&self, token: Token<'_>) -> Parsed<Text> {
        literal::unquote(token.text).map_or_else(
            || {
                let message = format!(
                    "error unquoting string {}: invalid syntax",
                    quote(token.text.as_bytes())
                );
                self.error(token.span(), message)
            },
            Ok,
        )
    }

    fn selector_expr(&mut self, name: Option<Token<'a>>) -> Parsed<Expr> {
        let selector = self.selector(name)?;
        let span = selector.span;
        Ok(Expr {
            kind: ExprKind::Selector(Box::new(selector)),
            span,
        })
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect(Kind::LeftParen)?;
        let mut args = Vec::new();
        if self.take_if(Kind::RightParen)?.is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr(0)?);
            let Some(comma) = self.take_if(Kind::Comma)? else {
                self.expect(Kind::RightParen)?;
                return Ok(args);
            };
            if !self.peek()?.kind.begins_expression() {
                return self.error(comma.span(), "trailing commas not allowed in function call args");
            }
        }
    }

    fn call(&mut self, name: Token<'a>) -> Parsed<Expr> {
        let args = self.arguments()?;
        let span = Span {
            start: name.start,
            end: self.last_closing,
        };
        let quoted = || quote(name.text.as_bytes());
        let Some(function) = Signature::of(name.text) else {
            return self.error(name.span(), format!("unknown function with name {}", quoted()));
        };
        if function.experimental && !self.features.experimental_functions {
            return self.error(name.span(), format!("function {} is not enabled", quoted()));
        }
        Ok(Expr {
            kind: ExprKind::Call(Box::new(Call { function, args })),
            span,
        })
    }

    fn aggregate(&mut self, op: Aggregator, token: Token<'a>) -> Parsed<Expr> {
        let mut modifier = self.aggregate_modifier()?;
        let mut args = self.arguments()?;
        let mut end = self.last_closing;
        if modifier.is_none() {
            modifier = self.aggregate_modifier()?;
            end = match modifier {
                Some(_) => self.last_closing,
                None => self.lexer.end_before_last(self.last_closing),
            };
        }
        let span = Span {
            start: token.start,
            end,
        };
        if args.is_empty() {
            return self.error(span, "no arguments for aggregate expression provided");
        }
        if op.is_experimental() && !self.features.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            return self.error(span, message);
        }
        let (want, got) = (1 + usize::from(op.has_parameter()), args.len());
        let expr = match args.pop() {
            Some(expr) if got == want => expr,
            _ => {
                let message =
                    format!("wrong number of arguments for aggregate expression provided, expected {want}, got {got}");
                return self.error(span, message);
            }
        };
        let (without, grouping) = modifier.unwrap_or_default();
        let aggregate = Aggregate {
            op,
            grouping,
            without,
            param: args.pop(),
            expr,
        };
        Ok(Expr {
            kind: ExprKind::Aggregate(Box::new(aggregate)),
            span,
        })
    }

    /// Whether it is `without`, and the labels.
    fn aggregate_modifier(&mut self) -> Parsed<Option<(bool, Vec<Text>)>> {
        let without = match self.peek()?.kind {
            Kind::Keyword(Keyword::By) => false,
            Kind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.take()?;
        Ok(Some((without, self.grouping_labels()?)))
    }

    // What follows a selector.

    fn suffixes(&mut self, mut expr: Expr) -> Parsed<Expr> {
        loop {
            expr = match self.peek()?.kind {
                Kind::LeftBracket => self.brackets(expr)?,
                Kind::Keyword(Keyword::Offset) => self.offset(expr)?,
                Kind::At => self.at(expr)?,
                Kind::Keyword(Keyword::Anchored) => self.edges(expr, Edges::Anchored)?,
                Kind::Keyword(Keyword::Smoothed) => self.edges(expr, Edges::Smoothed)?,
                _ => return Ok(expr),
            };
        }
    }

    /// `[range]`, `[range:step]`
    fn brackets(&mut self, expr: Expr) -> Parsed<Expr> {
        const LENGTH: &str = "number, duration, step(), or range()";
        let open = self.take()?;
        let range = self.within("subquery or range selector", LENGTH, Self::length)?;
        let close = match self.peek()?.kind {
            Kind::RightBracket => self.take()?,
            Kind::Colon => {
                self.take()?;
                return self.subquery(expr, range);
            }
            _ => return Err(self.explain(Fail::Unexpected, "subquery or range", "\":\" or \"]\"")),
        };
        let span = Span {
            start: expr.span.start,
            end: close.end(),
        };
        let refused = match expr.kind {
            ExprKind::Selector(selector) => {
                if !matches!(selector.shift.offset, Offset::Fixed(0)) {
                    "no offset modifiers allowed before range"
                } else if selector.shift.at.is_some() {
                    "no @ modifiers allowed before range"
                } else {
                    return Ok(Expr {
                        kind: ExprKind::Range(Box::new(RangeSelector {
                            selector: *selector,
                            range,
                        })),
                        span,
                    });
                }
            }
            _ => "ranges only allowed for vector selectors",
        };
        self.error(
            Span {
                start: open.start,
                end: close.end(),
            },
            refused,
        )
    }

    /// From behind the colon on.
    fn subquery(&mut self, expr: Expr, range: Length) -> Parsed<Expr> {
        const STEP: &str = "number, duration, step(), range(), or \"]\"";
        let step = match self.peek()?.kind {
            Kind::RightBracket => None,
            _ => Some(self.within("subquery selector", STEP, Self::length)?),
        };
        let close = self.within("subquery selector", "\"]\"", |p| p.expect(Kind::RightBracket))?;
        let span = Span {
            start: expr.span.start,
            end: close.end(),
        };
        // Refused by the checker as well, but a row of them would make a tree of any depth.
        if let ExprKind::Subquery(inner) = &expr.kind
            && matches!(inner.expr.kind, ExprKind::Subquery(_))
        {
            return self.error(span, check::SUBQUERY_OF_MATRIX);
        }
        let subquery = Subquery {
            expr,
            range,
            step,
            shift: TimeShift::default(),
        };
        Ok(Expr {
            kind: ExprKind::Subquery(Box::new(subquery)),
            span,
        })
    }

    fn offset(&mut self, mut expr: Expr) -> Parsed<Expr> {
        self.take()?;
        let context = "number, duration, step(), or range()";
        let offset = self.within("offset", context, Self::offset_value)?;
        let span = expr.span;
        let Some(shift) = shift_of(&mut expr) else {
            let message =
                "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return self.error(span, message);
        };
        if !matches!(shift.offset, Offset::Fixed(0)) {
            return self.error(span, "offset may not be set multiple times");
        }
        shift.offset = offset;
        self.extend(&mut expr);
        Ok(expr)
    }

    fn at(&mut self, mut expr: Expr) -> Parsed<Expr> {
        self.take()?;
        let (at, seconds) = self.within("@", "timestamp", |p| {
            let at = match p.peek()?.kind {
                Kind::Preprocessor(Preprocessor::Start) => At::Start,
                Kind::Preprocessor(Preprocessor::End) => At::End,
                _ => {
                    let seconds = p.signed_number()?;
                    return Ok((At::Time((seconds * 1000.0).round() as i64), Some(seconds)));
                }
            };
            p.take()?;
            p.expect(Kind::LeftParen)?;
            p.expect(Kind::RightParen)?;
            Ok((at, None))
        })?;
        let span = expr.span;
        let bound = i64::MAX as f64;
        if let Some(t) = seconds.filter(|t| !(*t > -bound && *t < bound)) {
            let shown = if t.is_finite() {
                format!("{t:.6}")
            } else {
                crate::text::format_f(t)
            };
            return self.error(span, format!("timestamp out of bounds for @ modifier: {shown}"));
        }
        let Some(shift) = shift_of(&mut expr) else {
            let message =
                "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return self.error(span, message);
        };
        if shift.at.is_some() {
            return self.error(span, "@ <timestamp> may not be set multiple times");
        }
        shift.at = Some(at);
        self.extend(&mut expr);
        Ok(expr)
    }

    /// A modifier belongs to the expression before it.
    fn extend(&self, expr: &mut Expr) {
        expr.span.end = self.last_closing;
        if let ExprKind::Selector(s) = &mut expr.kind {
            s.span.end = self.last_closing;
        }
    }

    fn edges(&mut self, mut expr: Expr, edges: Edges) -> Parsed<Expr> {
        let word = self.take()?.text.to_ascii_lowercase();
        let span = expr.span;
        if !self.features.extended_ranges {
            return self.error(span, format!("{word} modifier is experimental and not enabled"));
        }
        let selector = match &mut expr.kind {
            ExprKind::Selector(s) => s,
            ExprKind::Range(r) => &mut r.selector,
            ExprKind::Subquery(_) => {
                return self.error(span, format!("{word} modifier is not supported for subqueries"));
            }
            _ => return self.error(span, format!("{word} modifier not implemented")),
        };
        if selector.edges != Edges::Plain && selector.edges != edges {
            return self.error(span, "anchored and smoothed modifiers cannot be used together");
        }
        selector.edges = edges;
        Ok(expr)
    }
}

/// The modifiers of an expression that can have some.
fn shift_of(expr: &mut Expr) -> Option<&mut TimeShift> {
    match &mut expr.kind {
        ExprKind::Selector(s) => Some(&mut s.shift),
        ExprKind::Range(r) => Some(&mut r.selector.shift),
        ExprKind::Subquery(s) => Some(&mut s.shift),
        _ => None,
    }
}

/// Nanoseconds of a number of seconds that is known to fit.
fn nanos(seconds: f64) -> i64 {
    (seconds * NANOS_PER_SECOND as f64).round() as i64
}
