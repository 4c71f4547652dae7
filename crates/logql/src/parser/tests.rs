use super::*;

fn error(text: &str) -> Error {
    match parse(text) {
        Err(e) => e,
        Ok(q) => panic!("{text} must be refused: {q:?}"),
    }
}

#[test]
fn log_queries() {
    for text in [
        r#"{a="b"}"#,
        r#"{a="b", c=~".+"} |= "x" != "y" |~ `z\d` !~ "w""#,
        r#"{a="b"} |= "x" or "y" or `z` != "q""#,
        r#"({a="b"} |= "x")"#,
        "{rate=\"x\", sum!=\"\"} # comment",
    ] {
        assert!(
            matches!(parse(text), Ok(Query::Log(_))),
            "{text}: {:?}",
            parse(text).err()
        );
    }
}

#[test]
fn metric_queries() {
    for text in [
        "1+1",
        "vector(1)+vector(1)",
        r#"count_over_time({a="b"}[5m])"#,
        r#"rate({a="b"} |= "x" [1m] offset 5m)"#,
        r#"rate({a="b"}[1m] offset -5m |= "x")"#,
        r#"rate(({a="b"} |= "x")[1m])"#,
        r#"bytes_rate(({a="b"}[1m]))"#,
        r#"SUM BY (x, y) (RATE({a="b"}[1m]))"#,
        r#"sum(rate({a="b"}[1m])) without (x)"#,
        r#"topk by (x) (5, sum by (x, y) (rate({a="b"}[1m])))"#,
        r#"sum(rate({a="b"}[1m])) / on (x) group_left (y) sum(rate({c="d"}[1m])) > bool 0.5"#,
        r#"sum(rate({a="b"}[1m])) or vector(0)"#,
        r#"sort_desc(count(rate({a="b"}[1m])))"#,
    ] {
        assert!(
            matches!(parse(text), Ok(Query::Metric(_))),
            "{text}: {:?}",
            parse(text).err()
        );
    }
}

#[test]
fn precedence() {
    let number = |text: &str| match parse(text) {
        Ok(Query::Metric(MetricExpr::Number(v))) => v,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(number("1 + 2 * 3 ^ 2"), 19.0);
    assert_eq!(number("2 ^ 3 ^ 2"), 512.0);
    assert_eq!(number("-2 ^ 2"), 4.0);
    assert_eq!(number("(1 + 2) * 3 - -1"), 10.0);
    assert_eq!(number("2 > 1"), 1.0);
    assert!(number("1/0").is_nan() && number("1%0").is_nan());
}

#[test]
fn errors_as_loki_words_them() {
    for (text, want) in [
        ("{app=", "parse error at line 1, col 6: syntax error: unexpected $end"),
        ("", "parse error at line 1, col 1: syntax error: unexpected $end"),
        (
            "{a=\"b\"} foo",
            "parse error at line 1, col 9: syntax error: unexpected IDENTIFIER",
        ),
        ("{}", "queries require at least one regexp or equality matcher"),
        ("{a!=\"x\"}", "queries require at least one regexp or equality matcher"),
        ("{a=~\".*\"}", "queries require at least one regexp or equality matcher"),
        ("{a=~\"(\"}", "error parsing regexp"),
        ("{a=\"b\",}", "unexpected }"),
        ("{a==\"b\"}", "unexpected =="),
        ("{by=\"b\"}", "unexpected by"),
        ("rate({a=\"b\"})", "expecting RANGE"),
        (
            "rate({a=\"b\"}[5m]) by (x)",
            "grouping not allowed for rate aggregation",
        ),
        (
            "sum(3, rate({a=\"b\"}[5m]))",
            "unsupported parameter for operation sum(3,",
        ),
        (
            "topk(0, rate({a=\"b\"}[5m]))",
            "invalid parameter (must be greater than 0) topk(0",
        ),
        ("sum({a=\"b\"})", "expecting a metric query"),
        ("--1", "unexpected -, expecting NUMBER"),
        (
            "vector(1) or 1",
            "unexpected literal for right leg of logical/set binary operation (or): 1.000000",
        ),
    ] {
        let e = error(text);
        assert_eq!(e.kind, ErrorKind::Invalid, "{text}");
        assert!(e.message.contains(want), "{text}: {}", e.message);
    }
}

#[test]
fn what_is_missing_says_so() {
    for (text, what) in [
        ("{a=\"b\"} | json", "the stage json"),
        ("{a=\"b\"} | logfmt | x=\"y\"", "the stage logfmt"),
        ("{a=\"b\"} | x > 5", "the label filter"),
        ("{a=\"b\"} |> \"<_>\"", "the pattern filter"),
        ("{a=\"b\"} |= ip(\"1.2.3.4\")", "the ip() filter"),
        ("sum_over_time({a=\"b\"} | unwrap x [5m])", "the function sum_over_time"),
        (
            "label_replace(vector(1), \"a\", \"b\", \"c\", \"d\")",
            "the function label_replace",
        ),
    ] {
        let e = error(text);
        assert_eq!(e.kind, ErrorKind::Unsupported, "{text}: {}", e.message);
        assert!(
            e.message.contains(what) && e.message.contains("not available"),
            "{text}: {}",
            e.message
        );
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("{}1{}", "(".repeat(50_000), ")".repeat(50_000));
    assert!(error(&deep).message.contains("nested deeper"));
    let chain = "1 ^ ".repeat(30_000) + "1";
    assert!(error(&chain).message.contains("nested deeper"));
}

#[test]
fn selectors_only() {
    assert_eq!(parse_selector("{a=\"b\"}").map(|m| m.len()).ok(), Some(1));
    assert_eq!(
        parse_selector("{a=\"b\"} |= \"x\"").unwrap_err().message,
        "only label matchers are supported"
    );
}

#[test]
fn label_stages() {
    for text in [
        r#"{a="b"} | drop __error__"#,
        r#"{a="b"} | drop x, y="1", z=~"q.*" |= "x""#,
        r#"{a="b"} | keep x | y="1""#,
        r#"{a="b"} | x="1" or y!="2" and z=~"3", (u="4" or v!~"5") w="6""#,
        r#"sum by (level, detected_level) (count_over_time({a="b"} | drop __error__ [1m]))"#,
        r#"absent_over_time({a="b"}[5m])"#,
    ] {
        assert!(parse(text).is_ok(), "{text}: {:?}", parse(text).err());
    }
    for text in [
        "{a=\"b\"} |",
        "{a=\"b\"} | drop",
        "{a=\"b\"} | drop x,",
        "{a=\"b\"} | x=",
        "{a=\"b\"} | x=\"1\" or",
        "{a=\"b\"} | (x=\"1\"",
    ] {
        assert_eq!(error(text).kind, ErrorKind::Invalid, "{text}");
    }
    for text in ["{a=\"b\"} | x=5", "{a=\"b\"} | x>5ms", "{a=\"b\"} | x=ip(\"::1\")"] {
        assert_eq!(error(text).kind, ErrorKind::Unsupported, "{text}");
    }
}

#[test]
fn chains_are_bounded() {
    let chain = |n: usize| vec!["vector(1)"; n].join("+");
    assert!(parse(&chain(400)).is_ok());
    assert!(error(&chain(10_000)).message.contains("more than 500 operators"));
    let filters = format!("{{a=\"b\"}} | {}", vec!["x=\"1\""; 10_000].join(" "));
    assert!(error(&filters).message.contains("more than 500 operators"));
}
