//! Types, argument counts, and what else the grammar lets through.

use crate::ast::{Binary, Call, Cardinality, Expr, ExprKind, Selector, Span, ValueType};
use crate::error::ParseError;
use crate::lexer::is_space;
use crate::text::quote;
use crate::token::Aggregator;

pub(crate) const SUBQUERY_OF_MATRIX: &str = "subquery is only allowed on instant vector, got matrix instead";

/// # Errors
/// The first error, in the order in which upstream visits a tree.
pub(crate) fn check(text: &str, expr: &Expr) -> Result<(), ParseError> {
    Checker { text }.expr(expr)
}

struct Checker<'a> {
    text: &'a str,
}

type Checked = Result<(), ParseError>;

impl Checker<'_> {
    fn error(&self, at: Span, message: impl Into<String>) -> Checked {
        Err(ParseError::new(self.text, at, message))
    }

    fn expr(&self, e: &Expr) -> Checked {
        match &e.kind {
            ExprKind::Number(_) | ExprKind::String(_) => Ok(()),
            ExprKind::Selector(s) => self.selector(s, false),
            ExprKind::Range(r) => self.selector(&r.selector, false),
            ExprKind::Paren(inner) => self.expr(inner),
            ExprKind::Unary(u) => {
                self.expr(&u.expr)?;
                match u.expr.value_type() {
                    ValueType::Scalar | ValueType::Vector => Ok(()),
                    other => self.error(
                        e.span,
                        format!(
                            "unary expression only allowed on expressions of type scalar or instant vector, got \"{}\"",
                            other.as_str()
                        ),
                    ),
                }
            }
            ExprKind::Subquery(s) => {
                self.expr(&s.expr)?;
                match s.expr.value_type() {
                    ValueType::Vector => Ok(()),
                    other => self.error(
                        e.span,
                        format!(
                            "subquery is only allowed on instant vector, got {} instead",
                            other.short()
                        ),
                    ),
                }
            }
            ExprKind::Aggregate(a) => {
                self.expect(&a.expr, ValueType::Vector, "aggregation expression")?;
                let Some(param) = &a.param else { return Ok(()) };
                let want = match a.op {
                    Aggregator::CountValues => ValueType::String,
                    _ => ValueType::Scalar,
                };
                self.expect(param, want, "aggregation parameter")
            }
            ExprKind::Call(c) => self.call(e.span, c),
            ExprKind::Binary(_) => {
                let (links, innermost) = e.left_edge();
                self.expr(innermost)?;
                for (binary, span) in links.into_iter().rev() {
                    self.expr(&binary.rhs)?;
                    self.binary(binary, span)?;
                }
                Ok(())
            }
        }
    }

    fn expect(&self, e: &Expr, want: ValueType, context: &str) -> Checked {
        self.expr(e)?;
        let got = e.value_type();
        if got == want {
            return Ok(());
        }
        self.error(
            e.span,
            format!("expected type {} in {context}, got {}", want.as_str(), got.as_str()),
        )
    }

    /// Both sides are checked already.
    fn binary(&self, b: &Binary, span: Span) -> Checked {
        let (lt, rt) = (b.lhs.value_type(), b.rhs.value_type());
        let name = b.op.as_str();
        let matching = &b.written_matching;
        if b.return_bool && !b.op.is_comparison() {
            return self.error(
                self.operator(b),
                "bool modifier can only be used on comparison operators",
            );
        }
        if b.op.is_comparison() && !b.return_bool && lt == ValueType::Scalar && rt == ValueType::Scalar {
            return self.error(self.operator(b), "comparisons between scalars must use BOOL modifier");
        }
        if matching.on
            && let Some(label) = matching.labels.iter().find(|l| matching.include.contains(l))
        {
            return self.error(
                self.operator(b),
                format!("label {label} must not occur in ON and GROUP clause at once"),
            );
        }
        for (side, value_type) in [(&b.lhs, lt), (&b.rhs, rt)] {
            if !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
                return self.error(
                    side.span,
                    "binary expression must contain only scalar and instant vector types",
                );
            }
        }
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if b.matching().is_none() {
            if !matching.labels.is_empty() {
                return self.error(span, "vector matching only allowed between instant vectors");
            }
            if fills {
                return self.error(span, "filling in missing series only allowed between instant vectors");
            }
            if b.op.is_set() {
                return self.error(
                    span,
                    format!("set operator \"{name}\" not allowed in binary scalar expression"),
                );
            }
        } else if b.op.is_set() {
            if matching.cardinality != Cardinality::ManyToMany {
                return self.error(span, format!("no grouping allowed for \"{name}\" operation"));
            }
            if fills {
                return self.error(span, "filling in missing series not allowed for set operators");
            }
        }
        Ok(())
    }

    /// Where the operator and its modifiers stand.
    fn operator(&self, b: &Binary) -> Span {
        let after = self.text.get(b.lhs.span.end as usize..).unwrap_or_default();
        let spaces = after.len() - after.trim_start_matches(is_space).len();
        let before = self.text.get(..b.rhs.span.start as usize).unwrap_or_default();
        Span {
            start: b.lhs.span.end + spaces as u32,
            // Upstream's end is the last character rather than what follows it.
            end: (before.trim_end_matches(is_space).len() as u32).saturating_sub(1),
        }
    }

    fn call(&self, span: Span, c: &Call) -> Checked {
        let f = c.function;
        let (name, got) = (f.name, c.args.len());
        let required = f.args.len() - usize::from(f.variadic != 0);
        if f.variadic == 0 {
            if got != required {
                return self.error(
                    span,
                    format!("expected {required} argument(s) in call to \"{name}\", got {got}"),
                );
            }
        } else if got < required {
            return self.error(
                span,
                format!("expected at least {required} argument(s) in call to \"{name}\", got {got}"),
            );
        } else if let Ok(variadic) = usize::try_from(f.variadic)
            && got > required + variadic
        {
            return self.error(
                span,
                format!(
                    "expected at most {} argument(s) in call to \"{name}\", got {got}",
                    required + variadic
                ),
            );
        }
        let labels_only = name == "info";
        if let Some(labels) = c.args.get(1).filter(|_| labels_only) {
            match &labels.kind {
                _ if labels.value_type() != ValueType::Vector => {
                    return self.error(
                        span,
                        format!(
                            "expected type instant vector in call to function \"info\", got {}",
                            labels.value_type().as_str()
                        ),
                    );
                }
                ExprKind::Selector(s) if s.name.is_none() => {}
                ExprKind::Selector(_) => {
                    return self.error(
                        labels.span,
                        "expected label selectors only, got vector selector instead",
                    );
                }
                _ => return self.error(labels.span, "expected label selectors only"),
            }
        }
        for (i, arg) in c.args.iter().enumerate() {
            match &arg.kind {
                ExprKind::Selector(s) if labels_only && i == 1 => self.selector(s, true)?,
                _ => self.expr(arg)?,
            }
            let want = f.args[i.min(f.args.len() - 1)];
            let got = arg.value_type();
            if got != want {
                return self.error(
                    arg.span,
                    format!(
                        "expected type {} in call to function \"{name}\", got {}",
                        want.as_str(),
                        got.as_str()
                    ),
                );
            }
        }
        Ok(())
    }

    fn selector(&self, s: &Selector, may_match_all: bool) -> Checked {
        if let Some(name) = &s.name {
            let Some(second) = s.matchers.iter().find(|m| m.name == *"__name__") else {
                return Ok(());
            };
            let message = format!(
                "metric name must not be set twice: {} or {}",
                quote(name.as_bytes()),
                second.value
            );
            return self.error(s.span, message);
        }
        if may_match_all || s.matchers.iter().any(|m| !m.matcher.matches_empty()) {
            return Ok(());
        }
        self.error(s.span, "vector selector must contain at least one non-empty matcher")
    }
}
