//! Trees as text on one line, as upstream's `String()`: what was written, with matchers sorted, modifiers in one order
//! and durations in their shortest form.
//!
//! The text parses again, to a tree that prints the same. Upstream's does not always; where it fails, and only there,
//! this one differs: lengths below a millisecond, labels in a grouping that are spelled like numbers or `without`, an
//! empty selector in `info`, an infinity before `^`, and operators in an offset that would fall outside of it.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::ast::{
    Aggregate, At, Binary, Cardinality, DurationExpr, DurationOp, DurationOperator, Edges, Expr, ExprKind,
    LabelMatcher, Length, Number, Offset, RangeSelector, Selector, Subquery, TimeShift,
};
use crate::literal::format_duration;
use crate::text::{Text, format_f, format_g};
use crate::token::{Kind, Operator};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", one_line(self, false))
    }
}

/// `followed`: an arithmetic operator comes next, see [`offset`].
pub(crate) fn one_line(e: &Expr, followed: bool) -> impl Display {
    fmt::from_fn(move |f| write_expr(f, e, followed))
}

fn write_expr(f: &mut Formatter<'_>, e: &Expr, followed: bool) -> fmt::Result {
    match &e.kind {
        ExprKind::Number(n) => n.fmt(f),
        ExprKind::String(s) => s.fmt(f),
        ExprKind::Selector(s) => write!(
            f,
            "{}{}{}{}",
            bare(s),
            at(&s.shift),
            s.edges,
            offset(&s.shift, followed)
        ),
        ExprKind::Range(r) => {
            let RangeSelector { selector: s, range } = &**r;
            let offset = offset(&s.shift, followed);
            write!(f, "{}[{range}]{}{}{offset}", bare(s), s.edges, at(&s.shift))
        }
        ExprKind::Subquery(s) => write!(f, "{}{}", s.expr, suffix(s, followed)),
        ExprKind::Call(c) => {
            write!(f, "{}(", c.function.name)?;
            for (i, arg) in c.args.iter().enumerate() {
                f.write_str(if i > 0 { ", " } else { "" })?;
                arg.fmt(f)?;
            }
            f.write_char(')')
        }
        ExprKind::Aggregate(a) => {
            head(a).fmt(f)?;
            f.write_char('(')?;
            if let Some(param) = &a.param {
                write!(f, "{param}, ")?;
            }
            write!(f, "{})", a.expr)
        }
        ExprKind::Binary(_) => {
            let (mut links, innermost) = e.left_edge();
            links.reverse();
            match (&innermost.kind, links.first()) {
                (ExprKind::Number(n), Some((b, _))) if n.value == f64::INFINITY && b.op == Operator::Pow => {
                    f.write_str("Inf")?;
                }
                (_, first) => write_expr(f, innermost, first.is_some_and(|(b, _)| is_arithmetic(b)))?,
            }
            for (i, (binary, _)) in links.iter().enumerate() {
                write!(f, " {} ", operator(binary))?;
                let next = links.get(i + 1);
                write_expr(f, &binary.rhs, next.map_or(followed, |(b, _)| is_arithmetic(b)))?;
            }
            Ok(())
        }
        ExprKind::Unary(u) => {
            f.write_char(if u.negative { '-' } else { '+' })?;
            write_expr(f, &u.expr, followed)
        }
        ExprKind::Paren(inner) => write!(f, "({inner})"),
    }
}

/// Whether duration expressions have the operator too.
pub(crate) fn is_arithmetic(b: &Binary) -> bool {
    use Operator as O;
    matches!(b.op, O::Add | O::Sub | O::Mul | O::Div | O::Mod | O::Pow)
}

/// The printed form.
impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.is_duration {
            return f.write_str(&format_f(self.value));
        }
        if self.value < 0.0 {
            f.write_char('-')?;
        }
        f.write_str(&format_duration((self.value.abs() * 1e9) as i64))
    }
}

impl Display for LabelMatcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match plain(&self.name) {
            Some(name) => f.write_str(name)?,
            None => self.name.fmt(f)?,
        }
        write!(f, "{}{}", self.matcher.op.as_str(), self.value)
    }
}

/// The name when it needs no quotes in braces.
fn plain(name: &Text) -> Option<&str> {
    let bytes = name.as_bytes();
    let in_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let plain = bytes.iter().all(in_word) && !bytes.first().is_none_or(u8::is_ascii_digit);
    std::str::from_utf8(bytes).ok().filter(|_| plain)
}

fn labels(names: &[Text]) -> impl Display {
    fmt::from_fn(move |f| {
        for (i, name) in names.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            match plain(name) {
                Some(name) if Kind::of_word(name).is_none_or(Kind::names_label) => f.write_str(name)?,
                _ => name.fmt(f)?,
            }
        }
        Ok(())
    })
}

/// Name and braces, without modifiers.
fn bare(s: &Selector) -> impl Display {
    fmt::from_fn(move |f| {
        if let Some(name) = &s.name {
            f.write_str(name)?;
        }
        if s.matchers.is_empty() {
            return f.write_str(if s.name.is_none() { "{}" } else { "" });
        }
        let mut matchers: Vec<String> = s.matchers.iter().map(ToString::to_string).collect();
        matchers.sort_unstable();
        write!(f, "{{{}}}", matchers.join(","))
    })
}

/// What follows the expression of a subquery.
pub(crate) fn suffix(s: &Subquery, followed: bool) -> impl Display {
    fmt::from_fn(move |f| {
        write!(f, "[{}:", s.range)?;
        if let Some(step) = &s.step {
            step.fmt(f)?;
        }
        write!(f, "]{}{}", at(&s.shift), offset(&s.shift, followed))
    })
}

impl Display for Edges {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Edges::Plain => "",
            Edges::Anchored => " anchored",
            Edges::Smoothed => " smoothed",
        })
    }
}

fn at(shift: &TimeShift) -> impl Display {
    let at = shift.at;
    fmt::from_fn(move |f| match at {
        None => Ok(()),
        Some(At::Time(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0),
        Some(At::Start) => f.write_str(" @ start()"),
        Some(At::End) => f.write_str(" @ end()"),
    })
}

/// Operators behind bare parentheses or two signs belong to the offset. Where an operator follows that does not, a
/// single sign in front of parentheses keeps it out.
fn offset(shift: &TimeShift, followed: bool) -> impl Display {
    fmt::from_fn(move |f| match &shift.offset {
        Offset::Fixed(0) => Ok(()),
        Offset::Fixed(nanos) => {
            let sign = if *nanos < 0 { "-" } else { "" };
            write!(f, " offset {sign}{}", length(nanos.saturating_abs()))
        }
        Offset::Computed(op) => {
            let (open, close) = match extent(op) {
                Extent::Closed => ("", ""),
                Extent::Open if !followed => ("", ""),
                Extent::Open if op.wrapped => ("+", ""),
                Extent::Open => ("+(", ")"),
                Extent::Short if !followed => ("(", ")"),
                Extent::Short => ("+(", ")"),
            };
            write!(f, " offset {open}{op}{close}")
        }
    })
}

/// How much of a printed operation is read as the value of an offset.
enum Extent {
    /// All of it, and nothing behind it.
    Closed,
    /// All of it, and operators behind it.
    Open,
    /// A part: it starts with what ends an offset at once.
    Short,
}

fn extent(op: &DurationOp) -> Extent {
    use DurationOperator as D;
    match (op.op, op.lhs.as_deref(), op.rhs.as_deref()) {
        _ if op.wrapped => Extent::Open,
        _ if is_function(op) => Extent::Closed,
        (_, Some(DurationExpr::Number(..)), _) => Extent::Short,
        // What comes first decides.
        (_, Some(DurationExpr::Op(lhs)), _) => match extent(lhs) {
            Extent::Open => Extent::Open,
            Extent::Closed | Extent::Short => Extent::Short,
        },
        (D::Sub, None, Some(DurationExpr::Op(rhs))) if rhs.wrapped || is_function(rhs) => Extent::Closed,
        (D::Sub, None, Some(DurationExpr::Op(rhs))) if is_minus(rhs) => Extent::Open,
        (D::Sub, None, _) => Extent::Short,
        // A plus sign is not printed.
        (_, None, Some(DurationExpr::Op(rhs))) => extent(rhs),
        (_, None, _) => Extent::Closed,
    }
}

fn is_function(op: &DurationOp) -> bool {
    use DurationOperator as D;
    matches!(op.op, D::Step | D::Range | D::MinOf | D::MaxOf)
}

fn is_minus(op: &DurationOp) -> bool {
    op.op == DurationOperator::Sub && op.lhs.is_none() && !op.wrapped
}

/// As seconds when it is too short for a unit.
fn length(nanos: i64) -> String {
    if (1..1_000_000).contains(&nanos) {
        return format_f(nanos as f64 / 1e9);
    }
    format_duration(nanos)
}

impl Display for Length {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Length::Fixed(nanos) => f.write_str(&length(*nanos)),
            Length::Computed(op) => op.fmt(f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DurationExpr::Number(n, _) => n.fmt(f),
            DurationExpr::Op(op) => op.fmt(f),
        }
    }
}

impl Display for DurationOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.wrapped {
            f.write_char('(')?;
        }
        let op = self.op.as_str();
        match (self.op, &self.lhs, &self.rhs) {
            (DurationOperator::MinOf | DurationOperator::MaxOf, Some(a), Some(b)) => write!(f, "{op}({a}, {b})")?,
            (_, Some(a), Some(b)) => write!(f, "{a} {op} {b}")?,
            // A plus sign is not printed.
            (DurationOperator::Add, None, Some(b)) => b.fmt(f)?,
            (_, None, Some(b)) => write!(f, "{op}{b}")?,
            _ => write!(f, "{op}()")?,
        }
        if self.wrapped {
            f.write_char(')')?;
        }
        Ok(())
    }
}

/// The aggregation and its grouping.
pub(crate) fn head(a: &Aggregate) -> impl Display {
    fmt::from_fn(move |f| {
        f.write_str(a.op.as_str())?;
        if a.without {
            write!(f, " without ({}) ", labels(&a.grouping))
        } else if a.grouping.is_empty() {
            Ok(())
        } else {
            write!(f, " by ({}) ", labels(&a.grouping))
        }
    })
}

/// The operator and its modifiers.
pub(crate) fn operator(b: &Binary) -> impl Display {
    fmt::from_fn(move |f| {
        f.write_str(b.op.as_str())?;
        if b.return_bool {
            f.write_str(" bool")?;
        }
        let Some(m) = b.matching() else { return Ok(()) };
        let group = match m.cardinality {
            Cardinality::ManyToOne => Some("left"),
            Cardinality::OneToMany => Some("right"),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if !m.labels.is_empty() || m.on || group.is_some() {
            let word = if m.on { "on" } else { "ignoring" };
            write!(f, " {word} ({})", labels(&m.labels))?;
        }
        if let Some(side) = group {
            write!(f, " group_{side} ({})", labels(&m.include))?;
        }
        match (m.fill_left, m.fill_right) {
            (Some(l), Some(r)) if l == r => write!(f, " fill ({})", format_g(l)),
            (l, r) => {
                if let Some(l) = l {
                    write!(f, " fill_left ({})", format_g(l))?;
                }
                if let Some(r) = r {
                    write!(f, " fill_right ({})", format_g(r))?;
                }
                Ok(())
            }
        }
    })
}
