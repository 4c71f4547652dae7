//! Which tree a text becomes, where its parts are, and that no text makes a tree that cannot be handled.

use crate::{ExprKind, Span, SyntaxFeatures, parse, pretty, to_json};

fn parsed(query: &str) -> crate::Expr {
    parse(query, &SyntaxFeatures::default()).unwrap_or_else(|e| panic!("{query:?} is refused: {e}"))
}

/// With every operation in brackets.
fn grouped(e: &crate::Expr) -> String {
    match &e.kind {
        ExprKind::Binary(b) => format!("[{} {} {}]", grouped(&b.lhs), b.op.as_str(), grouped(&b.rhs)),
        ExprKind::Unary(u) => format!("[{}{}]", if u.negative { "-" } else { "+" }, grouped(&u.expr)),
        _ => e.to_string(),
    }
}

#[test]
fn precedence() {
    for (query, want) in [
        ("a + b * c ^ d ^ e", "[a + [b * [c ^ [d ^ e]]]]"),
        ("a - b - c", "[[a - b] - c]"),
        ("-a ^ b * c", "[[-[a ^ b]] * c]"),
        ("a ^ -b ^ c + d", "[[a ^ [-[b ^ c]]] + d]"),
        ("- - a", "[-[-a]]"),
        ("-1 ^ 2", "[-[1 ^ 2]]"),
        ("-1 * 2", "[-1 * 2]"),
        ("a or b and c unless d == e", "[a or [[b and c] unless [d == e]]]"),
        ("a atan2 b % c </ d >/ e", "[[[[a atan2 b] % c] </ d] >/ e]"),
        ("a AND b", "[a and b]"),
        ("-a offset 5m ^ 2", "[-[a offset 5m ^ 2]]"),
        ("a offset -2 ^ 2", "[a offset -2s ^ 2]"),
        ("a offset (1) * 2", "a offset (1) * 2"),
        ("a offset -(1) * 2", "[a offset -(1) * 2]"),
        ("a offset step() + 3", "[a offset step() + 3]"),
    ] {
        assert_eq!(grouped(&parsed(query)), want, "{query}");
    }
}

#[test]
fn words_that_are_also_names() {
    for query in [
        "sum + by + offset + start + step{on=\"1\"} + fill + fill_left",
        "sum by (and, bool, by, group_left, atan2, start) (without)",
        "and and and",
        "unless{or=\"1\"} unless on (unless) unless",
        "anchored @ end() anchored offset -1m",
        "range[5m] smoothed",
        "limitk(1, limitk)",
    ] {
        assert_eq!(parsed(query).to_string(), query);
    }
}

#[test]
fn positions() {
    for (query, want) in [
        ("a{b='c'}[5m] offset 3m ", "a{b='c'}[5m] offset 3m"),
        ("sum(a) by (b) ", "sum(a) by (b)"),
        ("sum(a)  ", "sum(a)"),
        (" - (a) ", "- (a)"),
        ("a[5m:] @ end() ", "a[5m:] @ end()"),
        ("1 + rate( a [5m] ) ", "1 + rate( a [5m] )"),
    ] {
        let Span { start, end } = parsed(query).span;
        assert_eq!(&query[start as usize..end as usize], want);
    }
    let e = parsed("sum(sum(a) ) + b offset 1m");
    let ExprKind::Binary(b) = &e.kind else { panic!("{e}") };
    let ExprKind::Aggregate(outer) = &b.lhs.kind else {
        panic!("{e}")
    };
    assert_eq!((b.lhs.span.end, outer.expr.span.end, b.rhs.span.start), (12, 10, 15));
}

#[test]
fn deep_and_long() {
    let features = SyntaxFeatures::default();
    let deep = [
        "(".repeat(20_000),
        format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000)),
        "-".repeat(20_000) + "a",
        "a^".repeat(20_000) + "a",
        "abs(".repeat(20_000),
        format!("a[{}1]", "(".repeat(20_000)),
        format!("a[{}1]", "1+".repeat(20_000)),
        format!("a[{}1]", "min_of(1,".repeat(20_000)),
        format!("a offset {}1", "-".repeat(20_000)),
        format!("a{}", "[5m:]".repeat(20_000)),
        format!("{}a{}", "(".repeat(150), "[1m:][1m:][1m:])".repeat(150)),
        "a".repeat(2 << 20),
    ];
    for query in deep {
        let e = parse(&query, &features).expect_err("too deep or too long");
        assert!(!e.message.is_empty());
    }
    for (op, more) in [(" + ", "1"), (" or ", "b"), (" * on (x) ", "b{c=\"d\"}")] {
        let query = format!("a{}", format!("{op}{more}").repeat(10_000));
        let e = parsed(&query);
        assert_eq!(e.to_string(), query);
        assert!(to_json(&e).len() > query.len());
        assert!(pretty(&e).is_err(), "the lines would be longer than memory allows");
    }
    let nested = format!("{}a{}", "abs((".repeat(90), "))".repeat(90));
    assert_eq!(parsed(&nested).to_string(), nested);
    assert!(pretty(&parsed(&nested)).is_ok());
}

#[test]
fn json() {
    let query = "topk(2, rate(b{c=~\"d\"}[5m] offset 1m)) / on (a) group_left fill_right (3) -(e[1h:5m*2] @ start())";
    assert!(
        parse(query, &SyntaxFeatures::default()).is_err(),
        "a range vector has no sign"
    );
    let query = "topk(2, rate(b{c=~\"d\"}[5m] offset 1m)) / on (a) group_left fill_right (3) \
                 -max_over_time(e[1h:5m*2] @ start())";
    let tree: serde_json::Value = serde_json::from_str(&to_json(&parsed(query))).expect("it is JSON");
    let number = |v| serde_json::json!({"type": "numberLiteral", "val": v});
    let call = |name: &str, arg| {
        serde_json::json!({
            "type": "call",
            "func": {"name": name, "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
            "args": [arg],
        })
    };
    let range = serde_json::json!({
        "type": "matrixSelector", "name": "b", "range": 300_000, "rangeExpr": null, "offset": 60_000,
        "offsetExpr": null, "timestamp": null, "startOrEnd": null, "anchored": false, "smoothed": false,
        "matchers": [
            {"name": "c", "value": "d", "type": "=~"},
            {"name": "__name__", "value": "b", "type": "="},
        ],
    });
    let selector = serde_json::json!({
        "type": "vectorSelector", "name": "e", "offset": 0, "offsetExpr": null, "timestamp": null,
        "startOrEnd": null, "anchored": false, "smoothed": false,
        "matchers": [{"name": "__name__", "value": "e", "type": "="}],
    });
    let subquery = serde_json::json!({
        "type": "subquery", "expr": selector, "range": 3_600_000, "rangeExpr": null, "offset": 0,
        "offsetExpr": null, "step": 0, "timestamp": null, "startOrEnd": "start",
        "stepExpr": {
            "type": "durationExpr", "op": "*", "wrapped": false,
            "lhs": {"type": "numberLiteral", "val": "300", "duration": true},
            "rhs": {"type": "numberLiteral", "val": "2", "duration": false},
        },
    });
    let want = serde_json::json!({
        "type": "binaryExpr", "op": "/", "bool": false,
        "lhs": {
            "type": "aggregation", "op": "topk", "grouping": [], "without": false,
            "param": number("2"), "expr": call("rate", range),
        },
        "rhs": {"type": "unaryExpr", "op": "-", "expr": call("max_over_time", subquery)},
        "matching": {
            "card": "many-to-one", "labels": ["a"], "on": true, "include": [],
            "fillValues": {"lhs": null, "rhs": 3},
        },
    });
    assert_eq!(tree, want);
}
