//! Duration expressions: ranges, steps and offsets.

use super::{Fail, Parsed, Parser, nanos};
use crate::ast::{DurationExpr, DurationOp, DurationOperator, Length, NANOS_PER_SECOND, Number, Offset, Span};
use crate::token::{Kind, Operator, Preprocessor, Token};

/// Operators in one duration expression: a chain of n makes a tree n deep, which is walked by recursion.
const OPERATORS_MAX: usize = 100;

impl DurationExpr {
    pub fn span(&self) -> Span {
        match self {
            DurationExpr::Number(_, span) => *span,
            DurationExpr::Op(op) => op.span,
        }
    }
}

impl<'a> Parser<'a> {
    /// A range or a step: more than 0, as far as that is known.
    pub(super) fn length(&mut self) -> Parsed<Length> {
        match self.duration_expr(0, &mut 0)? {
            DurationExpr::Number(n, span) if n.value <= 0.0 => self.error(span, "duration must be greater than 0"),
            DurationExpr::Number(n, _) => Ok(Length::Fixed(nanos(n.value))),
            DurationExpr::Op(op) => Ok(Length::Computed(op)),
        }
    }

    /// What follows `offset`. A literal, a function or a sign before either or before parentheses ends it at once, so
    /// that `a offset 5m * 2` is a product; after bare parentheses operators belong to the offset.
    pub(super) fn offset_value(&mut self) -> Parsed<Offset> {
        let first = self.peek()?;
        let value = match first.kind {
            Kind::Number | Kind::Duration => self.duration_number()?,
            Kind::Preprocessor(word) => self.duration_function(word, &mut 0)?,
            Kind::Operator(sign @ (Operator::Add | Operator::Sub)) => {
                self.take()?;
                self.signed_offset(first, sign == Operator::Sub)?
            }
            _ => self.duration_expr(0, &mut 0)?,
        };
        Ok(match value {
            DurationExpr::Number(n, _) => Offset::Fixed(nanos(n.value)),
            DurationExpr::Op(op) => Offset::Computed(op),
        })
    }

    fn signed_offset(&mut self, sign: Token<'a>, negative: bool) -> Parsed<DurationExpr> {
        match self.peek()?.kind {
            Kind::Number | Kind::Duration => {
                let (number, span) = self.number()?;
                self.signed(sign, negative, DurationExpr::Number(number, span))
            }
            Kind::Preprocessor(word) => {
                let DurationExpr::Op(inner) = self.duration_function(word, &mut 0)? else {
                    return Err(Fail::Unexpected);
                };
                let span = Span {
                    start: sign.start,
                    end: inner.span.end,
                };
                Ok(DurationExpr::Op(unary(negative, DurationExpr::Op(inner), span)))
            }
            Kind::LeftParen => {
                self.take()?;
                let inner = self.duration_expr(0, &mut 0)?;
                self.expect(Kind::RightParen)?;
                let span = inner.span();
                self.signed(sign, negative, wrapped(inner, span.start))
            }
            _ => {
                let inner = self.duration_expr(Operator::Pow.precedence(), &mut 0)?;
                let signed = self.signed(sign, negative, inner)?;
                self.duration_operators(signed, 0, &mut 0)
            }
        }
    }

    fn duration_expr(&mut self, min: u8, operators: &mut usize) -> Parsed<DurationExpr> {
        self.deeper(|p| {
            let operand = p.duration_operand(operators)?;
            p.duration_operators(operand, min, operators)
        })
    }

    fn duration_operators(&mut self, mut lhs: DurationExpr, min: u8, operators: &mut usize) -> Parsed<DurationExpr> {
        loop {
            let token = self.peek()?;
            let Kind::Operator(op) = token.kind else { return Ok(lhs) };
            let kind = match op {
                Operator::Add => DurationOperator::Add,
                Operator::Sub => DurationOperator::Sub,
                Operator::Mul => DurationOperator::Mul,
                Operator::Div => DurationOperator::Div,
                Operator::Mod => DurationOperator::Mod,
                Operator::Pow => DurationOperator::Pow,
                _ => return Ok(lhs),
            };
            let precedence = op.precedence();
            if precedence < min {
                return Ok(lhs);
            }
            self.take()?;
            *operators += 1;
            if *operators > OPERATORS_MAX {
                let message = format!("duration expression has more than {OPERATORS_MAX} operators");
                return self.error(token.span(), message);
            }
            let rhs = self.duration_expr(precedence + u8::from(op != Operator::Pow), operators)?;
            self.require_duration_expressions(lhs.span())?;
            if let (DurationExpr::Number(n, _), Operator::Div | Operator::Mod) = (&rhs, op)
                && n.value == 0.0
            {
                let what = if op == Operator::Div { "division" } else { "modulo" };
                return self.error(token.span(), format!("{what} by zero"));
            }
            lhs = DurationExpr::Op(DurationOp {
                op: kind,
                span: Span {
                    start: lhs.span().start,
                    end: rhs.span().end,
                },
                lhs: Some(Box::new(lhs)),
                rhs: Some(Box::new(rhs)),
                wrapped: false,
            });
        }
    }

    fn duration_operand(&mut self, operators: &mut usize) -> Parsed<DurationExpr> {
        let token = self.peek()?;
        match token.kind {
            Kind::Number | Kind::Duration => self.duration_number(),
            Kind::Preprocessor(word) => self.duration_function(word, operators),
            Kind::Operator(sign @ (Operator::Add | Operator::Sub)) => {
                self.take()?;
                let inner = self.duration_expr(Operator::Pow.precedence(), operators)?;
                self.signed(token, sign == Operator::Sub, inner)
            }
            Kind::LeftParen => {
                self.take()?;
                let inner = self.duration_expr(0, operators)?;
                self.expect(Kind::RightParen)?;
                self.require_duration_expressions(inner.span())?;
                Ok(wrapped(inner, token.start))
            }
            _ => Err(Fail::Unexpected),
        }
    }

    fn duration_number(&mut self) -> Parsed<DurationExpr> {
        let (number, span) = self.number()?;
        self.in_range(number, span)?;
        Ok(DurationExpr::Number(number, span))
    }

    fn in_range(&self, number: Number, at: Span) -> Parsed<()> {
        let bound = i64::MAX as f64 / NANOS_PER_SECOND as f64;
        if number.value.abs() <= bound {
            return Ok(());
        }
        self.error(at, "duration out of range")
    }

    fn require_duration_expressions(&self, at: Span) -> Parsed<()> {
        if self.features.duration_expressions {
            return Ok(());
        }
        self.error(at, "experimental duration expression is not enabled")
    }

    /// `step()`, `range()`, `min_of(a, b)`, `max_of(a, b)`
    fn duration_function(&mut self, word: Preprocessor, operators: &mut usize) -> Parsed<DurationExpr> {
        let op = match word {
            Preprocessor::Step => DurationOperator::Step,
            Preprocessor::Range => DurationOperator::Range,
            Preprocessor::MinOf => DurationOperator::MinOf,
            Preprocessor::MaxOf => DurationOperator::MaxOf,
            Preprocessor::Start | Preprocessor::End => return Err(Fail::Unexpected),
        };
        let start = self.take()?.start;
        self.expect(Kind::LeftParen)?;
        let (mut lhs, mut rhs) = (None, None);
        let mut span = None;
        if matches!(op, DurationOperator::MinOf | DurationOperator::MaxOf) {
            let a = self.duration_expr(0, operators)?;
            self.expect(Kind::Comma)?;
            let b = self.duration_expr(0, operators)?;
            span = Some(Span {
                start: a.span().start,
                end: b.span().end,
            });
            (lhs, rhs) = (Some(Box::new(a)), Some(Box::new(b)));
        }
        let end = self.expect(Kind::RightParen)?.end();
        let span = span.unwrap_or(Span { start, end });
        self.require_duration_expressions(span)?;
        Ok(DurationExpr::Op(DurationOp {
            op,
            lhs,
            rhs,
            wrapped: false,
            span,
        }))
    }

    /// A sign becomes part of a number; a plus before anything else has no effect.
    fn signed(&self, sign: Token<'a>, negative: bool, inner: DurationExpr) -> Parsed<DurationExpr> {
        Ok(match inner {
            DurationExpr::Number(mut number, span) => {
                if negative {
                    number.value = -number.value;
                }
                self.in_range(number, sign.span())?;
                let start = sign.start;
                DurationExpr::Number(number, Span { start, ..span })
            }
            DurationExpr::Op(op) if negative => {
                let span = Span {
                    start: sign.start,
                    end: op.span.end,
                };
                DurationExpr::Op(unary(true, DurationExpr::Op(op), span))
            }
            op => op,
        })
    }
}

fn unary(negative: bool, rhs: DurationExpr, span: Span) -> DurationOp {
    DurationOp {
        op: if negative {
            DurationOperator::Sub
        } else {
            DurationOperator::Add
        },
        lhs: None,
        rhs: Some(Box::new(rhs)),
        wrapped: false,
        span,
    }
}

/// In parentheses that open at `start`; a number needs an operation to carry them.
fn wrapped(inner: DurationExpr, start: u32) -> DurationExpr {
    let mut op = match inner {
        DurationExpr::Op(op) => op,
        DurationExpr::Number(number, span) => {
            let outer = Span { start, end: span.end };
            unary(false, DurationExpr::Number(number, span), outer)
        }
    };
    op.wrapped = true;
    DurationExpr::Op(op)
}
