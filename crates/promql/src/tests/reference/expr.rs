//! Random expressions.

use std::fmt::{Display, Formatter, Result};

use super::data::{METRICS, Random};

#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub metric: &'static str,
    /// `job="…"`
    pub job: Option<&'static str>,
    /// Seconds.
    pub range: Option<i64>,
    pub shift: Shift,
}

/// Seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shift {
    pub at: Option<At>,
    pub offset: i64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Start,
    End,
    Time(i64),
}

#[derive(Clone, Debug)]
pub(super) enum Expr {
    Select(Selector),
    /// Of a window of samples; the first is the parameter, if any.
    Over(&'static str, Option<f64>, Window),
    /// Name and scalars before the vector.
    Call(&'static str, Vec<f64>, Box<Expr>),
    Negate(Box<Expr>),
    Scalar {
        op: &'static str,
        return_bool: bool,
        scalar: f64,
        scalar_left: bool,
        expr: Box<Expr>,
    },
    Binary {
        op: &'static str,
        return_bool: bool,
        matching: Matching,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Aggregate {
        op: &'static str,
        param: Option<f64>,
        by: Option<(bool, Vec<&'static str>)>,
        expr: Box<Expr>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Window {
    Range(Selector),
    Subquery {
        expr: Box<Expr>,
        range: i64,
        step: i64,
        shift: Shift,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Matching {
    pub on: bool,
    pub labels: Vec<&'static str>,
    pub group_left: bool,
}

impl Expr {
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Select(_) | Expr::Over(_, _, Window::Range(_)) => Vec::new(),
            Expr::Over(_, _, Window::Subquery { expr, .. })
            | Expr::Call(_, _, expr)
            | Expr::Negate(expr)
            | Expr::Scalar { expr, .. }
            | Expr::Aggregate { expr, .. } => vec![expr],
            Expr::Binary { left, right, .. } => vec![left, right],
        }
    }

    pub fn has_subquery(&self) -> bool {
        matches!(self, Expr::Over(_, _, Window::Subquery { .. })) || self.children().iter().any(|e| e.has_subquery())
    }

    /// Whether its numbers are exact whatever the order of sums: what jumps may be applied to it.
    fn is_exact(&self) -> bool {
        match self {
            Expr::Select(_) => true,
            Expr::Negate(e) | Expr::Call("abs" | "ceil" | "histogram_count" | "histogram_sum", _, e) => e.is_exact(),
            Expr::Over("last_over_time" | "max_over_time" | "count_over_time", _, w) => match w {
                Window::Range(_) => true,
                Window::Subquery { expr, .. } => expr.is_exact(),
            },
            Expr::Aggregate {
                op: "sum" | "min" | "max" | "count",
                expr,
                ..
            } => expr.is_exact(),
            Expr::Binary {
                op: "+" | "-",
                left,
                right,
                ..
            } => left.is_exact() && right.is_exact(),
            _ => false,
        }
    }
}

const OVER: [&str; 19] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "first_over_time",
    "present_over_time",
    "stddev_over_time",
    "quantile_over_time",
    "changes",
    "resets",
    "rate",
    "increase",
];

pub(super) fn expression(random: &mut Random, depth: u32) -> Expr {
    if depth == 0 {
        return Expr::Select(selector(random, false));
    }
    let inner = |random: &mut Random| Box::new(expression(random, depth - 1));
    match random.below(13) {
        0 | 1 => Expr::Select(selector(random, false)),
        2..=4 => over(random, depth),
        5 => {
            let expr = inner(random);
            match random.below(4) {
                0 if expr.is_exact() => Expr::Call("ceil", Vec::new(), expr),
                1 => Expr::Call("abs", Vec::new(), expr),
                2 => Expr::Call("absent", Vec::new(), expr),
                _ => Expr::Negate(expr),
            }
        }
        6 => {
            let expr = inner(random);
            match random.below(7) {
                0 => Expr::Call("histogram_count", Vec::new(), expr),
                1 => Expr::Call("histogram_sum", Vec::new(), expr),
                2 => Expr::Call("histogram_avg", Vec::new(), expr),
                3 => Expr::Call("histogram_stdvar", Vec::new(), expr),
                4 => Expr::Call("histogram_fraction", vec![*random.pick(&[0.0, 0.7, 1.5]), 3.2], expr),
                _ => Expr::Call(
                    "histogram_quantile",
                    vec![*random.pick(&[0.0, 0.1, 0.5, 0.93, 1.0])],
                    expr,
                ),
            }
        }
        7 | 8 => {
            let comparison = random.once_in(3);
            let op = *random.pick(if comparison {
                &[">", "<=", "!="][..]
            } else {
                &["+", "-", "*", "/"][..]
            });
            Expr::Scalar {
                op,
                return_bool: comparison && random.once_in(2),
                scalar: *random.pick(&[-1.5, 0.25, 2.0, 7.37]),
                scalar_left: random.once_in(3),
                expr: inner(random),
            }
        }
        9 | 10 => binary(random, depth),
        _ => {
            let expr = inner(random);
            let simple = [
                "sum", "sum", "avg", "min", "max", "count", "group", "stddev", "quantile",
            ];
            let op = match expr.is_exact() && random.once_in(3) {
                true => *random.pick(&["count_values", "topk", "bottomk"]),
                false => *random.pick(&simple),
            };
            let param = match op {
                "quantile" => Some(*random.pick(&[0.0, 0.3, 0.5, 1.0])),
                "topk" | "bottomk" => Some(*random.pick(&[1.0, 2.0, 3.0])),
                _ => None,
            };
            let labels = *random.pick(&[&["job"][..], &["i"], &["job", "i"], &["le"], &["job", "le"], &[]]);
            Expr::Aggregate {
                op,
                param,
                by: (!random.once_in(4)).then(|| (!random.once_in(3), labels.to_vec())),
                expr,
            }
        }
    }
}

fn over(random: &mut Random, depth: u32) -> Expr {
    let function = *random.pick(&OVER);
    let window = if random.once_in(4) {
        Window::Subquery {
            expr: Box::new(expression(random, depth - 1)),
            range: 60 + random.below(400) as i64,
            step: 10 + random.below(80) as i64,
            shift: shift(random),
        }
    } else {
        Window::Range(selector(random, true))
    };
    let exact = match &window {
        Window::Range(_) => true,
        Window::Subquery { expr, .. } => expr.is_exact(),
    };
    // What looks at whether a value fell or changed is told apart by the last bit.
    let function = match function {
        "changes" | "resets" | "rate" | "increase" | "irate" if !exact => "sum_over_time",
        f => f,
    };
    let param = (function == "quantile_over_time").then_some(0.4);
    Expr::Over(function, param, window)
}

fn binary(random: &mut Random, depth: u32) -> Expr {
    let left = Box::new(expression(random, depth - 1));
    let right = Box::new(expression(random, depth - 1));
    let set = random.once_in(3);
    let exact = left.is_exact() && right.is_exact();
    let op = if set {
        *random.pick(&["and", "or", "unless"])
    } else if exact && random.once_in(3) {
        *random.pick(&["==", "!=", ">"])
    } else {
        *random.pick(&["+", "-", "*", "/"])
    };
    let comparison = matches!(op, "==" | "!=" | ">");
    let labels = *random.pick(&[&["job"][..], &["job", "i"], &["i"], &["job", "i", "le"], &[]]);
    Expr::Binary {
        op,
        return_bool: comparison && random.once_in(3),
        matching: Matching {
            on: random.once_in(2),
            labels: labels.to_vec(),
            group_left: !set && random.once_in(2),
        },
        left,
        right,
    }
}

fn selector(random: &mut Random, range: bool) -> Selector {
    Selector {
        metric: random.pick::<&str>(&METRICS),
        job: random.once_in(3).then_some("a"),
        range: range.then(|| 20 + random.below(300) as i64),
        shift: shift(random),
    }
}

fn shift(random: &mut Random) -> Shift {
    let at = match random.below(24) {
        0 => Some(At::Start),
        1 => Some(At::End),
        2 => Some(At::Time(700 + random.below(300) as i64)),
        _ => None,
    };
    let offset = match random.below(6) {
        0 => random.below(300) as i64,
        1 => -(random.below(100) as i64),
        _ => 0,
    };
    Shift { at, offset }
}

impl Display for Shift {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.at {
            Some(At::Start) => f.write_str(" @ start()")?,
            Some(At::End) => f.write_str(" @ end()")?,
            Some(At::Time(t)) => write!(f, " @ {t}")?,
            None => {}
        }
        match self.offset {
            0 => Ok(()),
            offset => write!(f, " offset {offset}s"),
        }
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.metric)?;
        if let Some(job) = self.job {
            write!(f, "{{job=\"{job}\"}}")?;
        }
        if let Some(range) = self.range {
            write!(f, "[{range}s]")?;
        }
        write!(f, "{}", self.shift)
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Window::Range(selector) => write!(f, "{selector}"),
            Window::Subquery {
                expr,
                range,
                step,
                shift,
            } => write!(f, "({expr})[{range}s:{step}s]{shift}"),
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let bool_of = |b: bool| if b { "bool " } else { "" };
        match self {
            Expr::Select(s) => write!(f, "{s}"),
            Expr::Over(function, None, window) => write!(f, "{function}({window})"),
            Expr::Over(function, Some(param), window) => write!(f, "{function}({param}, {window})"),
            Expr::Call(function, scalars, expr) => {
                write!(f, "{function}(")?;
                for s in scalars {
                    write!(f, "{s}, ")?;
                }
                write!(f, "{expr})")
            }
            Expr::Negate(expr) => write!(f, "-({expr})"),
            Expr::Scalar {
                op,
                return_bool,
                scalar,
                scalar_left,
                expr,
            } => {
                let b = bool_of(*return_bool);
                match scalar_left {
                    true => write!(f, "({scalar} {op} {b}({expr}))"),
                    false => write!(f, "(({expr}) {op} {b}{scalar})"),
                }
            }
            Expr::Binary {
                op,
                return_bool,
                matching,
                left,
                right,
            } => {
                let kind = if matching.on { "on" } else { "ignoring" };
                let group = if matching.group_left { " group_left ()" } else { "" };
                let labels = matching.labels.join(", ");
                let b = bool_of(*return_bool);
                write!(f, "(({left}) {op} {b}{kind} ({labels}){group} ({right}))")
            }
            Expr::Aggregate { op, param, by, expr } => {
                write!(f, "{op}")?;
                if let Some((by, labels)) = by {
                    write!(f, " {} ({}) ", if *by { "by" } else { "without" }, labels.join(", "))?;
                }
                match (*op, param) {
                    ("count_values", _) => write!(f, "(\"v\", {expr})"),
                    (_, Some(param)) => write!(f, "({param}, {expr})"),
                    _ => write!(f, "({expr})"),
                }
            }
        }
    }
}
