//! Text to [`Expr`], checked.
//!
//! The grammar is `promql-parser`'s; its tree is converted here, its known deviations are refused, matchers are
//! compiled with our own expressions, and types are checked again, so evaluation relies on this module alone.

use std::time::{Duration, SystemTime};

use promql_parser::label::MatchOp as ParsedOp;
use promql_parser::parser as pp;
use trilith_model::{Error, MatchOp, Matcher, Result};
use trilith_query::series::Grouping;
use trilith_query::vector::{AggregateOp, BinaryOp, Cardinality, Matching, SetOp};

use crate::ast::{
    Aggregate, Aggregation, At, Binary, Edges, Expr, ExprKind, Selector, Set, Span, Subquery, TimeShift, ValueType,
};
use crate::functions::Function;

/// Longest query text.
const QUERY_BYTES_MAX: usize = 256 << 10;

/// Parentheses, brackets and braces inside each other.
const NESTING_MAX: usize = 128;

/// Operators in one query: a chain of n operators is a tree n deep, and the parser drops it recursively.
const OPERATORS_MAX: usize = 512;

/// Depth of the tree, chains of left-associative operators counted once: they are converted and evaluated in a loop.
/// Bounds every recursion of evaluation.
const DEPTH_MAX: usize = 140;

/// Parses and checks a query.
///
/// # Errors
/// `Invalid` for what is not PromQL, `Unsupported` for what is PromQL but not available here.
pub fn parse(query: &str) -> Result<Expr> {
    check_size(query)?;
    // promql-parser 0.11 panics where a duration is a number of seconds that does not fit (`a offset 1e30`, `a[Inf]`).
    let parsed = std::panic::catch_unwind(|| pp::parse(query))
        .map_err(|_| refuse("duration out of range"))?
        .map_err(refuse)?;
    convert(&parsed, 0)
}

fn refuse(message: impl std::fmt::Display) -> Error {
    Error::invalid(format!("parse error: {message}"))
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::unsupported(format!("{what} is not supported"))
}

/// Refuses what would make the tree too deep, before anything recursive sees it.
fn check_size(query: &str) -> Result<()> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(refuse(format!("query is longer than {QUERY_BYTES_MAX} bytes")));
    }
    let (mut nesting, mut braces, mut operators) = (0usize, 0usize, 0usize);
    let mut bytes = query.bytes().peekable();
    let mut word: Vec<u8> = Vec::new();
    while let Some(b) = bytes.next() {
        if b.is_ascii_alphanumeric() || b == b'_' || b == b':' {
            word.push(b.to_ascii_lowercase());
            continue;
        }
        operators += usize::from(matches!(word.as_slice(), b"and" | b"or" | b"unless" | b"atan2"));
        word.clear();
        match b {
            b'"' | b'\'' | b'`' => {
                while let Some(c) = bytes.next() {
                    if c == b'\\' && b != b'`' {
                        bytes.next();
                    } else if c == b {
                        break;
                    }
                }
            }
            b'#' => while bytes.next_if(|c| *c != b'\n').is_some() {},
            b'(' | b'[' | b'{' => {
                nesting += 1;
                braces += usize::from(b == b'{');
                if nesting > NESTING_MAX {
                    return Err(refuse(format!("query nests deeper than {NESTING_MAX} levels")));
                }
            }
            b')' | b']' | b'}' => {
                nesting = nesting.saturating_sub(1);
                braces = braces.saturating_sub(usize::from(b == b'}'));
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'<' | b'>' | b'!' if braces == 0 => operators += 1,
            _ => {}
        }
        if operators > OPERATORS_MAX {
            return Err(refuse(format!("query has more than {OPERATORS_MAX} operators")));
        }
    }
    Ok(())
}

/// promql-parser knows no positions.
fn bare(kind: ExprKind) -> Expr {
    Expr {
        kind,
        span: Span::default(),
    }
}

fn convert(e: &pp::Expr, depth: usize) -> Result<Expr> {
    if depth > DEPTH_MAX {
        return Err(refuse(format!("query nests deeper than {DEPTH_MAX} levels")));
    }
    let depth = depth + 1;
    Ok(match e {
        pp::Expr::NumberLiteral(n) => bare(ExprKind::Number(n.val)),
        pp::Expr::StringLiteral(s) => bare(ExprKind::String(s.val.clone())),
        pp::Expr::Paren(p) => bare(ExprKind::Paren(Box::new(convert(&p.expr, depth)?))),
        pp::Expr::Unary(u) => {
            let inner = convert(&u.expr, depth)?;
            expect_number(&inner, || {
                "unary expression only allowed on expressions of type scalar or instant vector".into()
            })?;
            bare(ExprKind::Neg(Box::new(inner)))
        }
        pp::Expr::VectorSelector(v) => bare(ExprKind::Selector(selector(v)?)),
        pp::Expr::MatrixSelector(m) => bare(ExprKind::Range {
            selector: selector(&m.vs)?,
            range_ms: positive_ms(m.range)?,
        }),
        pp::Expr::Subquery(s) => {
            let expr = convert(&s.expr, depth)?;
            expect(&expr, ValueType::Vector, "subquery")?;
            bare(ExprKind::Subquery(Box::new(Subquery {
                expr,
                range_ms: positive_ms(s.range)?,
                step_ms: s.step.map(positive_ms).transpose()?,
                shift: shift(s.at.as_ref(), s.offset.as_ref())?,
            })))
        }
        pp::Expr::Call(c) => call(c, depth)?,
        pp::Expr::Aggregate(a) => aggregate(a, depth)?,
        pp::Expr::Binary(b) => chain(b, depth)?,
        pp::Expr::Extension(_) => return Err(unsupported("this expression")),
    })
}

fn expect(e: &Expr, want: ValueType, context: &str) -> Result<()> {
    let got = e.value_type();
    if got == want {
        return Ok(());
    }
    Err(refuse(format!(
        "expected type {} in {context}, got {}",
        want.as_str(),
        got.as_str()
    )))
}

fn expect_number(e: &Expr, message: impl FnOnce() -> String) -> Result<()> {
    match e.value_type() {
        ValueType::Scalar | ValueType::Vector => Ok(()),
        other => Err(refuse(format!("{}, got {}", message(), other.as_str()))),
    }
}

fn millis(d: Duration) -> Result<i64> {
    i64::try_from(d.as_millis()).map_err(|_| refuse("duration out of range"))
}

fn positive_ms(d: Duration) -> Result<i64> {
    match millis(d)? {
        0 => Err(refuse("duration must be greater than 0")),
        ms => Ok(ms),
    }
}

fn shift(at: Option<&pp::AtModifier>, offset: Option<&pp::Offset>) -> Result<TimeShift> {
    let at = match at {
        None => None,
        Some(pp::AtModifier::Start) => Some(At::Start),
        Some(pp::AtModifier::End) => Some(At::End),
        Some(pp::AtModifier::At(t)) => Some(At::Time(match t.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => millis(after)?,
            Err(before) => -millis(before.duration())?,
        })),
    };
    let offset_ms = match offset {
        None => 0,
        Some(pp::Offset::Pos(d)) => millis(*d)?,
        Some(pp::Offset::Neg(d)) => -millis(*d)?,
    };
    Ok(TimeShift { at, offset_ms })
}

fn selector(v: &pp::VectorSelector) -> Result<Selector> {
    if !v.matchers.or_matchers.is_empty() {
        return Err(refuse("unexpected \"or\" in label matching, expected \",\" or \"}\""));
    }
    let mut matchers = Vec::with_capacity(v.matchers.matchers.len() + 1);
    if let Some(name) = &v.name {
        matchers.push(Matcher::eq("__name__", name.as_str()));
    }
    for m in &v.matchers.matchers {
        let op = match m.op {
            ParsedOp::Equal => MatchOp::Eq,
            ParsedOp::NotEqual => MatchOp::Ne,
            ParsedOp::Re(_) => MatchOp::Re,
            ParsedOp::NotRe(_) => MatchOp::NotRe,
        };
        matchers.push(Matcher::new(op, m.name.as_str(), m.value.as_str()).map_err(refuse)?);
    }
    if matchers.iter().all(Matcher::matches_empty) {
        return Err(refuse("vector selector must contain at least one non-empty matcher"));
    }
    Ok(Selector {
        matchers,
        shift: shift(v.at.as_ref(), v.offset.as_ref())?,
        edges: Edges::Plain,
    })
}

fn call(c: &pp::Call, depth: usize) -> Result<Expr> {
    let name = c.func.name;
    let Some(function) = Function::by_name(name) else {
        // The parser knows every function of Prometheus and one that Prometheus does not know.
        return Err(if name == "integral" {
            refuse(format!("unknown function with name \"{name}\""))
        } else {
            unsupported(format!("function \"{name}\""))
        });
    };
    let args = c
        .args
        .args
        .iter()
        .map(|a| convert(a, depth))
        .collect::<Result<Vec<_>>>()?;
    let (types, required, repeated) = function.signature();
    if args.len() < required {
        return Err(refuse(format!(
            "expected at least {required} argument(s) in call to \"{name}\", got {}",
            args.len()
        )));
    }
    if args.len() > types.len() && !repeated {
        return Err(refuse(format!(
            "expected at most {} argument(s) in call to \"{name}\", got {}",
            types.len(),
            args.len()
        )));
    }
    for (i, arg) in args.iter().enumerate() {
        let want = types[i.min(types.len() - 1)];
        expect(arg, want, &format!("call to function \"{name}\""))?;
        if want == ValueType::String && !matches!(arg.unwrapped().kind, ExprKind::String(_)) {
            return Err(refuse(format!(
                "expected a string literal in call to function \"{name}\""
            )));
        }
    }
    Ok(bare(ExprKind::Call { function, args }))
}

fn aggregate(a: &pp::AggregateExpr, depth: usize) -> Result<Expr> {
    let name = a.op.to_string();
    let op = match name.as_str() {
        "sum" => Aggregation::Simple(AggregateOp::Sum),
        "avg" => Aggregation::Simple(AggregateOp::Avg),
        "min" => Aggregation::Simple(AggregateOp::Min),
        "max" => Aggregation::Simple(AggregateOp::Max),
        "count" => Aggregation::Simple(AggregateOp::Count),
        "group" => Aggregation::Simple(AggregateOp::Group),
        "stddev" => Aggregation::Simple(AggregateOp::Stddev),
        "stdvar" => Aggregation::Simple(AggregateOp::Stdvar),
        "topk" => Aggregation::TopK,
        "bottomk" => Aggregation::BottomK,
        "quantile" => Aggregation::Quantile,
        "count_values" => Aggregation::CountValues,
        _ => return Err(unsupported(format!("aggregation \"{name}\""))),
    };
    let expr = convert(&a.expr, depth)?;
    expect(&expr, ValueType::Vector, "aggregation expression")?;
    let param = a.param.as_ref().map(|p| convert(p, depth)).transpose()?;
    let want = match op {
        Aggregation::Simple(_) => None,
        Aggregation::CountValues => Some(ValueType::String),
        _ => Some(ValueType::Scalar),
    };
    match (want, &param) {
        (None, None) => {}
        (Some(want), Some(p)) => expect(p, want, "aggregation parameter")?,
        (want, _) => {
            let want = 1 + usize::from(want.is_some());
            return Err(refuse(format!(
                "wrong number of arguments for aggregate expression provided, expected {want}"
            )));
        }
    }
    let grouping = a.modifier.as_ref().map(|m| Grouping {
        labels: m.labels().labels.clone(),
        by: m.is_include(),
    });
    Ok(bare(ExprKind::Aggregate(Box::new(Aggregate {
        op,
        grouping,
        param,
        expr,
    }))))
}

/// Operators along the left edge, from the inside out.
fn chain(outermost: &pp::BinaryExpr, depth: usize) -> Result<Expr> {
    let mut links = vec![outermost];
    let mut innermost = &*outermost.lhs;
    while let pp::Expr::Binary(b) = innermost {
        links.push(b);
        innermost = &*b.lhs;
    }
    let mut lhs = convert(innermost, depth)?;
    for b in links.into_iter().rev() {
        let rhs = convert(&b.rhs, depth)?;
        lhs = binary(b, lhs, rhs)?;
    }
    Ok(lhs)
}

fn binary(b: &pp::BinaryExpr, lhs: Expr, rhs: Expr) -> Result<Expr> {
    for side in [&lhs, &rhs] {
        expect_number(side, || {
            "binary expression must contain only scalar and instant vector types".into()
        })?;
    }
    let both_vectors = lhs.value_type() == ValueType::Vector && rhs.value_type() == ValueType::Vector;
    let matching = matching(b.modifier.as_ref())?;
    if !both_vectors && matching != Matching::default() {
        return Err(refuse("vector matching only allowed between instant vectors"));
    }
    let symbol = b.op.to_string();
    let set = match symbol.as_str() {
        "and" => Some(SetOp::And),
        "or" => Some(SetOp::Or),
        "unless" => Some(SetOp::Unless),
        _ => None,
    };
    if let Some(op) = set {
        if !both_vectors {
            return Err(refuse(format!(
                "set operator \"{symbol}\" not allowed in binary scalar expression"
            )));
        }
        return Ok(bare(ExprKind::Set(Box::new(Set { op, matching, lhs, rhs }))));
    }
    let op = match symbol.as_str() {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" => BinaryOp::Mul,
        "/" => BinaryOp::Div,
        "%" => BinaryOp::Mod,
        "^" => BinaryOp::Pow,
        "atan2" => BinaryOp::Atan2,
        "==" => BinaryOp::Eq,
        "!=" => BinaryOp::Ne,
        "<" => BinaryOp::Lt,
        "<=" => BinaryOp::Le,
        ">" => BinaryOp::Gt,
        ">=" => BinaryOp::Ge,
        _ => return Err(unsupported(format!("operator \"{symbol}\""))),
    };
    let return_bool = b.return_bool();
    let scalars = lhs.value_type() == ValueType::Scalar && rhs.value_type() == ValueType::Scalar;
    if op.is_comparison() && scalars && !return_bool {
        return Err(refuse("comparisons between scalars must use BOOL modifier"));
    }
    let value_type = if scalars { ValueType::Scalar } else { ValueType::Vector };
    Ok(bare(ExprKind::Binary(Box::new(Binary {
        value_type,
        op,
        return_bool,
        matching,
        lhs,
        rhs,
    }))))
}

fn matching(modifier: Option<&pp::BinModifier>) -> Result<Matching> {
    let Some(m) = modifier else {
        return Ok(Matching::default());
    };
    if m.fill_values.lhs.is_some() || m.fill_values.rhs.is_some() {
        return Err(unsupported("modifier \"fill\""));
    }
    let (on, labels) = match &m.matching {
        None => (false, Vec::new()),
        Some(l) => (l.is_include(), l.labels().labels.clone()),
    };
    let (cardinality, include) = match &m.card {
        pp::VectorMatchCardinality::OneToOne | pp::VectorMatchCardinality::ManyToMany => {
            (Cardinality::OneToOne, Vec::new())
        }
        pp::VectorMatchCardinality::ManyToOne(l) => (Cardinality::ManyToOne, l.labels.clone()),
        pp::VectorMatchCardinality::OneToMany(l) => (Cardinality::OneToMany, l.labels.clone()),
    };
    Ok(Matching {
        on,
        labels,
        cardinality,
        include,
        ..Matching::default()
    })
}
