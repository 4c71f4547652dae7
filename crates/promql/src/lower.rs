//! A syntax tree to the plan that is evaluated.
//!
//! What is known before any sample is read is worked out here: durations that are expressions, functions of the query's
//! own times (`start()`, `end()`, `step()`, `range()`), and arithmetic between numbers. Positions are carried over, as
//! annotations point at them.

mod duration;

use trilith_model::{Error, Matcher, Result};
use trilith_promql_syntax as syntax;
use trilith_promql_syntax::{Aggregator, Cardinality, Operator, SyntaxFeatures};
use trilith_query::series::Grouping;
use trilith_query::vector::{self, AggregateOp, BinaryOp, Matching, SetOp};

use crate::ast::{
    Aggregate, Aggregation, At, Binary, Expr, ExprKind, Selector, Set, Span, Subquery, TimeShift, ValueType,
};
use crate::bucketless;
use crate::eval::{Features, execution};
use crate::functions::Function;

/// Operators in one chain: it becomes a tree as deep as it is long, which is dropped recursively.
const CHAIN_MAX: usize = 1000;

/// Times further from the epoch than this, in ms, hold no samples; the arithmetic on times stays in range.
const TIME_MAX_MS: i64 = 1 << 60;

/// The times that a query is evaluated at, in ms. An instant query has one and the step 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub start_ms: i64,
    pub end_ms: i64,
    pub step_ms: i64,
}

/// Parses, checks and lowers a query.
///
/// # Errors
/// `Invalid` for what is not PromQL and for durations that make no sense at these times, `Unsupported` for what cannot
/// be evaluated.
pub(crate) fn plan(query: &str, features: &Features, times: Times) -> Result<Expr> {
    let tree = parse_with(query, features)?;
    let mut expr = Lowering { times }.expr(&tree)?;
    bucketless::mark(&mut expr);
    Ok(expr)
}

/// # Errors
/// `Invalid`, with the position.
pub(crate) fn parse_with(query: &str, features: &Features) -> Result<syntax::Expr> {
    let features = SyntaxFeatures {
        experimental_functions: features.experimental_functions,
        duration_expressions: features.duration_expressions,
        extended_ranges: features.extended_selectors,
        fill: features.fill_modifiers,
    };
    syntax::parse(query, &features).map_err(|e| Error::invalid(e.to_string()))
}

/// The matchers of a series selector, as in `match[]`.
///
/// # Errors
/// `Invalid`, with the position.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    match syntax::parse_selector(text) {
        Ok(matchers) => Ok(matchers.into_iter().map(|m| m.matcher).collect()),
        Err(e) => Err(Error::invalid(e.to_string())),
    }
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::unsupported(format!("{what} is not supported"))
}

struct Lowering {
    times: Times,
}

impl Lowering {
    fn expr(&self, e: &syntax::Expr) -> Result<Expr> {
        let kind = match &e.kind {
            syntax::ExprKind::Number(n) => ExprKind::Number(n.value),
            syntax::ExprKind::String(s) => ExprKind::String(s.clone()),
            syntax::ExprKind::Selector(s) => ExprKind::Selector(self.selector(s)?),
            syntax::ExprKind::Range(r) => ExprKind::Range {
                range_ms: self.range(&r.range)?,
                selector: self.selector(&r.selector)?,
            },
            syntax::ExprKind::Subquery(s) => ExprKind::Subquery(Box::new(Subquery {
                expr: self.expr(&s.expr)?,
                range_ms: self.range(&s.range)?,
                // A step that rounds to nothing is as good as none.
                step_ms: s
                    .step
                    .as_ref()
                    .map(|s| self.length(s))
                    .transpose()?
                    .filter(|ms| *ms > 0),
                shift: self.shift(&s.shift)?,
            })),
            syntax::ExprKind::Call(c) => self.call(c)?,
            syntax::ExprKind::Aggregate(a) => self.aggregate(a)?,
            syntax::ExprKind::Binary(_) => return self.chain(e),
            syntax::ExprKind::Unary(u) => {
                let inner = Box::new(self.expr(&u.expr)?);
                match (u.negative, &inner.unwrapped().kind) {
                    (true, ExprKind::Number(v)) => ExprKind::Number(-v),
                    (true, _) => ExprKind::Neg(inner),
                    (false, _) => ExprKind::Plus(inner),
                }
            }
            syntax::ExprKind::Paren(inner) => ExprKind::Paren(Box::new(self.expr(inner)?)),
        };
        Ok(Expr { kind, span: e.span })
    }

    fn selector(&self, s: &syntax::Selector) -> Result<Selector> {
        let name = s.name.as_deref().map(|name| Matcher::eq("__name__", name));
        let matchers = name.into_iter().chain(s.matchers.iter().map(|m| m.matcher.clone()));
        Ok(Selector {
            matchers: matchers.collect(),
            shift: self.shift(&s.shift)?,
            edges: s.edges,
            buckets: true,
        })
    }

    fn shift(&self, shift: &syntax::TimeShift) -> Result<TimeShift> {
        let at = shift.at.map(|at| match at {
            At::Time(ms) => At::Time(ms.clamp(-TIME_MAX_MS, TIME_MAX_MS)),
            At::Start | At::End => at,
        });
        Ok(TimeShift {
            at,
            offset_ms: self.offset(&shift.offset)?,
        })
    }

    fn call(&self, c: &syntax::Call) -> Result<ExprKind> {
        let seconds = |ms: i64| Ok(ExprKind::Number(ms as f64 / 1000.0));
        let times = &self.times;
        match c.function.name {
            "start" => return seconds(times.start_ms),
            "end" => return seconds(times.end_ms),
            "range" => return seconds(times.end_ms - times.start_ms),
            "step" if times.start_ms == times.end_ms => return seconds(0),
            "step" => return seconds(times.step_ms),
            _ => {}
        }
        let name = c.function.name;
        let function = Function::by_name(name).ok_or_else(|| unsupported(format_args!("function \"{name}\"")))?;
        let args = c.args.iter().map(|a| self.expr(a)).collect::<Result<Vec<_>>>()?;
        for (i, arg) in c
            .args
            .iter()
            .enumerate()
            .filter(|(_, a)| a.value_type() == ValueType::String)
        {
            let syntax::ExprKind::String(text) = &arg.unwrapped().kind else {
                return Err(Error::invalid(format!(
                    "expected a string literal in call to function \"{name}\""
                )));
            };
            check_string(name, i, text)?;
        }
        Ok(ExprKind::Call { function, args })
    }

    fn aggregate(&self, a: &syntax::Aggregate) -> Result<ExprKind> {
        let op = match a.op {
            Aggregator::Sum => Aggregation::Simple(AggregateOp::Sum),
            Aggregator::Avg => Aggregation::Simple(AggregateOp::Avg),
            Aggregator::Min => Aggregation::Simple(AggregateOp::Min),
            Aggregator::Max => Aggregation::Simple(AggregateOp::Max),
            Aggregator::Count => Aggregation::Simple(AggregateOp::Count),
            Aggregator::Group => Aggregation::Simple(AggregateOp::Group),
            Aggregator::Stddev => Aggregation::Simple(AggregateOp::Stddev),
            Aggregator::Stdvar => Aggregation::Simple(AggregateOp::Stdvar),
            Aggregator::TopK => Aggregation::TopK,
            Aggregator::BottomK => Aggregation::BottomK,
            Aggregator::Quantile => Aggregation::Quantile,
            Aggregator::CountValues => Aggregation::CountValues,
            Aggregator::LimitK => Aggregation::LimitK,
            Aggregator::LimitRatio => Aggregation::LimitRatio,
        };
        if let (Aggregator::CountValues, Some(label)) = (a.op, &a.param)
            && let syntax::ExprKind::String(text) = &label.unwrapped().kind
            && std::str::from_utf8(text.as_bytes()).is_err()
        {
            return Err(execution(format!("invalid label name {text}")));
        }
        let grouping = (a.without || !a.grouping.is_empty()).then(|| Grouping {
            labels: names(&a.grouping),
            by: !a.without,
        });
        Ok(ExprKind::Aggregate(Box::new(Aggregate {
            op,
            grouping,
            param: a.param.as_ref().map(|p| self.expr(p)).transpose()?,
            expr: self.expr(&a.expr)?,
        })))
    }

    /// Operators along the left edge, from the inside out.
    fn chain(&self, outermost: &syntax::Expr) -> Result<Expr> {
        let (links, innermost) = outermost.left_edge();
        if links.len() > CHAIN_MAX {
            return Err(Error::invalid(format!(
                "query has more than {CHAIN_MAX} operators in a row"
            )));
        }
        let mut lhs = self.expr(innermost)?;
        for (binary, span) in links.into_iter().rev() {
            let rhs = self.expr(&binary.rhs)?;
            let kind = self.binary(binary, lhs, rhs)?;
            lhs = Expr { kind, span };
        }
        Ok(lhs)
    }

    fn binary(&self, b: &syntax::Binary, lhs: Expr, rhs: Expr) -> Result<ExprKind> {
        let matching = b.matching().map(matching).unwrap_or_default();
        let op = match b.op {
            Operator::Add => BinaryOp::Add,
            Operator::Sub => BinaryOp::Sub,
            Operator::Mul => BinaryOp::Mul,
            Operator::Div => BinaryOp::Div,
            Operator::Mod => BinaryOp::Mod,
            Operator::Pow => BinaryOp::Pow,
            Operator::Atan2 => BinaryOp::Atan2,
            Operator::Eq => BinaryOp::Eq,
            Operator::Ne => BinaryOp::Ne,
            Operator::Lt => BinaryOp::Lt,
            Operator::Le => BinaryOp::Le,
            Operator::Gt => BinaryOp::Gt,
            Operator::Ge => BinaryOp::Ge,
            Operator::TrimUpper => BinaryOp::TrimUpper,
            Operator::TrimLower => BinaryOp::TrimLower,
            Operator::And | Operator::Or | Operator::Unless => {
                let op = match b.op {
                    Operator::And => SetOp::And,
                    Operator::Or => SetOp::Or,
                    _ => SetOp::Unless,
                };
                return Ok(ExprKind::Set(Box::new(Set { op, matching, lhs, rhs })));
            }
        };
        if let (ExprKind::Number(l), ExprKind::Number(r)) = (&lhs.unwrapped().kind, &rhs.unwrapped().kind) {
            return Ok(ExprKind::Number(op.scalar(*l, *r)));
        }
        Ok(ExprKind::Binary(Box::new(Binary {
            value_type: b.value_type,
            op,
            return_bool: b.return_bool,
            matching,
            lhs,
            rhs,
        })))
    }
}

/// Refuses what is not UTF-8 where it would be a label's name or an expression. Elsewhere such bytes become U+FFFD: no
/// label has them.
fn check_string(function: &str, i: usize, text: &syntax::Text) -> Result<()> {
    if std::str::from_utf8(text.as_bytes()).is_ok() {
        return Ok(());
    }
    match (function, i) {
        ("label_replace" | "label_join", 1) => Err(execution(format!(
            "invalid destination label name in {function}(): {}",
            text.to_str()
        ))),
        ("label_replace", 4) => Err(execution(format!(
            "invalid regular expression in {function}(): {}",
            text.to_str()
        ))),
        _ => Ok(()),
    }
}

fn names(texts: &[syntax::Text]) -> Vec<String> {
    texts.iter().map(|t| t.to_str().into_owned()).collect()
}

fn matching(m: &syntax::VectorMatching) -> Matching {
    Matching {
        on: m.on,
        labels: names(&m.labels),
        cardinality: match m.cardinality {
            Cardinality::OneToOne | Cardinality::ManyToMany => vector::Cardinality::OneToOne,
            Cardinality::ManyToOne => vector::Cardinality::ManyToOne,
            Cardinality::OneToMany => vector::Cardinality::OneToMany,
        },
        include: names(&m.include),
        fill_left: m.fill_left,
        fill_right: m.fill_right,
    }
}

/// With the first and last byte of the expression rather than line and column, as upstream has it.
fn at(span: Span, message: &str) -> Error {
    Error::invalid(format!("{}:{}: {message}", span.start, span.end))
}
