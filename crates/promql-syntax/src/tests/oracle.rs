//! `promql-parser` as a second opinion on what is a query and what it means. Where it is known to be wrong it is not
//! asked: see [`known_difference`].

use std::path::PathBuf;

use promql_parser::parser as pp;

use super::generate::{Generator, noise};
use crate::{Expr, ExprKind, SyntaxFeatures, parse};

/// What the other parser does not know, or knows differently.
fn known_difference(query: &str) -> bool {
    let lower = query.to_ascii_lowercase();
    [
        // Syntax that it lacks.
        "anchored",
        "smoothed",
        "</",
        ">/",
        "step",
        "range()",
        "min_of",
        "max_of",
        "start(",
        "end(",
        "fill",
        // An empty selector as the second argument, and names that only it or only we know.
        "info(",
        "integral",
        "histogram_quantiles",
        "start_timestamp",
        // Durations of zero and separated digits are refused, numbers that overflow and bytes that are not UTF-8 are let through.
        "0s",
        "offset 0",
        "1_000",
        "\\x",
        "\\u",
        "e400",
        "inf",
        "nan",
        // Signs and arithmetic in durations.
        "offset -",
        "offset +",
        "offset (",
        "[-",
        "[+",
        "[(",
        // Two names in braces.
        "{\"",
    ]
    .iter()
    .any(|known| lower.contains(known))
        || {
            // Arithmetic in brackets.
            let mut in_brackets = false;
            query.chars().any(|c| {
                in_brackets = (in_brackets || c == '[') && c != ']';
                in_brackets && "+-*/%^(.".contains(c)
            })
        }
}

/// The tree in brackets, in a form that both can give.
fn ours(e: &Expr) -> String {
    match &e.kind {
        ExprKind::Binary(b) => format!("[{} {} {}]", ours(&b.lhs), b.op.as_str(), ours(&b.rhs)),
        ExprKind::Unary(u) => format!("neg {}", ours(&u.expr)),
        ExprKind::Paren(inner) => format!("({})", ours(inner)),
        ExprKind::Number(n) => format!("{}", n.value),
        ExprKind::String(s) => format!("{s}"),
        ExprKind::Selector(s) => format!("selector {}", s.matchers.len() + usize::from(s.name.is_some())),
        ExprKind::Range(r) => format!("range {}", r.range),
        ExprKind::Subquery(s) => format!("subquery {} {}", s.range, ours(&s.expr)),
        ExprKind::Call(c) => {
            let args: Vec<String> = c.args.iter().map(ours).collect();
            format!("{}({})", c.function.name, args.join(","))
        }
        ExprKind::Aggregate(a) => {
            let param = a.param.as_ref().map(ours).unwrap_or_default();
            format!(
                "{} {} {}({param};{})",
                a.op.as_str(),
                a.without,
                a.grouping.len(),
                ours(&a.expr)
            )
        }
    }
}

fn theirs(e: &pp::Expr) -> String {
    let millis =
        |d: std::time::Duration| crate::literal::format_duration(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    match e {
        pp::Expr::Binary(b) => format!("[{} {} {}]", theirs(&b.lhs), b.op, theirs(&b.rhs)),
        pp::Expr::Unary(u) => format!("neg {}", theirs(&u.expr)),
        pp::Expr::Paren(p) => format!("({})", theirs(&p.expr)),
        pp::Expr::NumberLiteral(n) => format!("{}", n.val),
        pp::Expr::StringLiteral(s) => format!("{}", crate::Text::from(s.val.as_str())),
        pp::Expr::VectorSelector(v) => {
            format!("selector {}", v.matchers.matchers.len() + usize::from(v.name.is_some()))
        }
        pp::Expr::MatrixSelector(m) => format!("range {}", millis(m.range)),
        pp::Expr::Subquery(s) => format!("subquery {} {}", millis(s.range), theirs(&s.expr)),
        pp::Expr::Call(c) => {
            let args: Vec<String> = c.args.args.iter().map(|a| theirs(a)).collect();
            format!("{}({})", c.func.name, args.join(","))
        }
        pp::Expr::Aggregate(a) => {
            let param = a.param.as_ref().map(|p| theirs(p)).unwrap_or_default();
            let (without, labels) = match &a.modifier {
                Some(m) if !m.is_include() => (true, m.labels().labels.len()),
                Some(m) => (false, m.labels().labels.len()),
                None => (false, 0),
            };
            format!("{} {without} {labels}({param};{})", a.op, theirs(&a.expr))
        }
        pp::Expr::Extension(_) => "extension".to_owned(),
    }
}

/// Whether it was asked.
fn agree(query: &str, wrong: &mut Vec<String>) -> bool {
    if known_difference(query) {
        return false;
    }
    match (parse(query, &SyntaxFeatures::default()), pp::parse(query)) {
        // A sign before a number, which it keeps apart, is the one difference between trees.
        (Ok(a), Ok(b)) if unsigned(&ours(&a)) == unsigned(&theirs(&b)) => {}
        (Ok(a), Ok(b)) => wrong.push(format!("{query:?}: {} here, {} there", ours(&a), theirs(&b))),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(e)) => wrong.push(format!("{query:?}: accepted here, refused there: {e}")),
        (Err(e), Ok(_)) => wrong.push(format!("{query:?}: refused here: {e}, accepted there")),
    }
    true
}

fn unsigned(tree: &str) -> String {
    tree.replace("neg ", "").replace('-', "")
}

#[test]
fn on_the_shared_scripts() {
    let root = std::env::var_os("TRILITH_CORPORA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora")),
        PathBuf::from,
    );
    let Ok(dir) = std::fs::read_dir(root.join("promqltest")) else {
        eprintln!("skipped: no {}", root.display());
        return;
    };
    let (mut asked, mut accepted, mut wrong) = (0, 0, Vec::new());
    for file in dir
        .filter_map(Result::ok)
        .filter(|f| f.path().extension().is_some_and(|e| e == "test"))
    {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let words: Vec<&str> = line.trim().splitn(4, ' ').collect();
            let query = match words.as_slice() {
                ["eval", "instant", "at", rest] => rest.split_once(' ').map(|(_, q)| q),
                ["eval", "range", "from", rest] => rest.splitn(6, ' ').nth(5),
                _ => None,
            };
            let Some(query) = query else { continue };
            let fails = lines.peek().is_some_and(|l| l.trim().starts_with("expect fail"));
            match parse(query, &SyntaxFeatures::default()) {
                Ok(_) => accepted += 1,
                Err(e) => assert!(fails, "{query:?} is refused: {e}"),
            }
            asked += usize::from(agree(query, &mut wrong));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accepted > 1000 && asked > 500, "{accepted} accepted, {asked} compared");
}

#[test]
fn on_random_queries() {
    let (mut asked, mut wrong) = (0, Vec::new());
    for seed in 0..3000 {
        let query = Generator::new(&noise(seed)).query();
        asked += usize::from(agree(&query, &mut wrong));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 500, "{asked} compared");
}
