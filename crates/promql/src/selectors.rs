//! Which series a query names, without evaluating it.

use trilith_model::{Matcher, Result};
use trilith_promql_syntax as syntax;

use crate::Features;

/// The matchers of every series selector of a query, that for the metric name included; each set once, in the order
/// written.
///
/// # Errors
/// As [`crate::parse`].
pub fn selectors(query: &str, features: &Features) -> Result<Vec<Vec<Matcher>>> {
    let expr = crate::parse(query, features)?;
    let mut out: Vec<Vec<Matcher>> = Vec::new();
    // A stack and no recursion: chains of operators are as deep as they are long.
    let mut open = vec![&expr];
    while let Some(e) = open.pop() {
        let selector: &syntax::Selector = match &e.kind {
            syntax::ExprKind::Selector(s) => s,
            syntax::ExprKind::Range(r) => &r.selector,
            syntax::ExprKind::Subquery(s) => {
                open.push(&s.expr);
                continue;
            }
            syntax::ExprKind::Call(c) => {
                open.extend(c.args.iter().rev());
                continue;
            }
            syntax::ExprKind::Aggregate(a) => {
                open.push(&a.expr);
                open.extend(&a.param);
                continue;
            }
            syntax::ExprKind::Binary(b) => {
                open.extend([&b.rhs, &b.lhs]);
                continue;
            }
            syntax::ExprKind::Unary(u) => {
                open.push(&u.expr);
                continue;
            }
            syntax::ExprKind::Paren(e) => {
                open.push(e);
                continue;
            }
            syntax::ExprKind::Number(_) | syntax::ExprKind::String(_) => continue,
        };
        let name = selector.name.as_deref().map(|n| Matcher::eq("__name__", n));
        let set: Vec<Matcher> = name
            .into_iter()
            .chain(selector.matchers.iter().map(|m| m.matcher.clone()))
            .collect();
        if !out.contains(&set) {
            out.push(set);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_selector_once() {
        let of = |query: &str| {
            let sets = selectors(query, &Features::default()).expect("valid");
            sets.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>()
        };
        assert!(of("1 + 1").is_empty());
        assert_eq!(of("test"), [r#"[__name__="test"]"#]);
        assert_eq!(
            of("histogram_quantile(0.9, sum by (le) (rate(a{b!=\"c\"}[5m])))"),
            [r#"[__name__="a", b!="c"]"#]
        );
        assert_eq!(of("a / on (x) b + a").len(), 2);
        assert_eq!(of("max_over_time(rate(a[1m])[1h:]) and -(b)").len(), 2);
        assert_eq!(
            of("topk(scalar(k), {\"v\"})"),
            [r#"[__name__="k"]"#, r#"[__name__="v"]"#]
        );
        assert!(selectors("sum(", &Features::default()).is_err());
    }
}
