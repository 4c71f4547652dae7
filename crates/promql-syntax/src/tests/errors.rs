//! What is refused, with which words and where.

use crate::{SyntaxFeatures, parse, parse_selector};

const ALL: SyntaxFeatures = SyntaxFeatures {
    experimental_functions: true,
    duration_expressions: true,
    extended_ranges: true,
    fill: true,
};

fn refused_without(features: SyntaxFeatures, query: &str, message: &str) {
    match parse(query, &features) {
        Ok(e) => panic!("{query:?} is accepted as {e}"),
        Err(e) => assert_eq!(e.to_string(), message, "{query}"),
    }
}

fn refused(query: &str, message: &str) {
    refused_without(ALL, query, message);
}

#[test]
fn tokens_that_fit_nowhere() {
    for (query, message) in [
        ("", "unknown position: parse error: no expression found in input"),
        (" # c", "1:1: parse error: no expression found in input"),
        ("foo bar", "1:5: parse error: unexpected identifier \"bar\""),
        ("foo\n  + ]", "2:5: parse error: unexpected right bracket ']'"),
        ("1 2", "1:3: parse error: unexpected number \"2\""),
        (
            "1 'a string that is long'",
            "1:3: parse error: unexpected string \"'a string \"...",
        ),
        ("a b:c", "1:3: parse error: unexpected metric identifier \"b:c\""),
        ("a SUM", "1:3: parse error: unexpected <aggr:SUM>"),
        ("a or and and", "1:13: parse error: unexpected end of input"),
        (
            "sum(a b)",
            "1:7: parse error: unexpected identifier \"b\" in aggregation",
        ),
        (
            "sum(rate(a[1m]) or 1 1)",
            "1:22: parse error: unexpected number \"1\" in aggregation",
        ),
        (
            "abs(a, )",
            "1:6: parse error: trailing commas not allowed in function call args",
        ),
        ("abs(, a)", "1:5: parse error: unexpected \",\""),
        (
            "sum by a (b)",
            "1:8: parse error: unexpected identifier \"a\" in grouping opts, expected \"(\"",
        ),
        (
            "sum by (a b) (c)",
            "1:11: parse error: unexpected identifier \"b\" in grouping opts, expected \",\" or \")\"",
        ),
        (
            "sum by (\"\") (c)",
            "1:9: parse error: invalid label name for grouping: \"\"",
        ),
        (
            "a{b 'c'}",
            "1:5: parse error: unexpected string \"'c'\" in label matching, expected label matching operator",
        ),
        (
            "a{b='c' or d='e'}",
            "1:9: parse error: unexpected identifier \"or\" in label matching, expected \",\" or \"}\"",
        ),
        (
            "a @ foo",
            "1:5: parse error: unexpected identifier \"foo\" in @, expected timestamp",
        ),
        (
            "a offset (1m + b)",
            "1:16: parse error: unexpected identifier \"b\" in offset, expected number, duration, step(), or range()",
        ),
        (
            "a[5m 5m]",
            "1:6: parse error: unexpected duration \"5m\" in subquery or range, expected \":\" or \"]\"",
        ),
        (
            "a[5m:5m 5m]",
            "1:9: parse error: unexpected duration \"5m\" in subquery selector, expected \"]\"",
        ),
        (
            "a + on (b) group_left > c",
            "1:23: parse error: unexpected <op:>> in grouping opts, expected \"(\"",
        ),
        ("a + group_left b", "1:5: parse error: unexpected <group_left>"),
        ("a + fill (b) c", "1:11: parse error: unexpected identifier \"b\""),
    ] {
        refused(query, message);
    }
}

#[test]
fn characters() {
    for (query, message) in [
        ("a ! b", "1:3: parse error: unexpected character after '!': ' '"),
        ("a !", "1:3: parse error: unexpected character after '!': '\u{fffd}'"),
        ("a & b", "1:3: parse error: unexpected character: '&'"),
        ("(a", "1:3: parse error: unclosed left parenthesis"),
        ("(a))", "1:5: parse error: unexpected right parenthesis ')'"),
        ("a[5m", "1:5: parse error: unclosed left bracket"),
        (
            "a[[",
            "1:3: parse error: unexpected character in duration expression: '['",
        ),
        ("a[5m[", "1:5: parse error: unexpected left bracket '['"),
        (
            "a[:5m]",
            "1:4: parse error: unexpected colon before duration in duration expression",
        ),
        ("a[5m:1m:]", "1:8: parse error: unexpected colon ':'"),
        ("a{{", "1:3: parse error: unexpected left brace '{'"),
        (
            "a{!b}",
            "1:3: parse error: unexpected character after '!' inside braces: 'b'",
        ),
        (
            "'\\400'",
            "1:1: parse error: escape sequence is an invalid Unicode code point",
        ),
        (
            "'\\ud800'",
            "1:1: parse error: escape sequence is an invalid Unicode code point",
        ),
        ("'a\nb'", "1:1: parse error: unterminated quoted string"),
        ("\u{fffd}", "1:1: parse error: unexpected character: '\u{fffd}'"),
        ("'\u{fffd}'", "1:1: parse error: invalid UTF-8 rune"),
        ("0x1e", "1:1: parse error: bad number or duration syntax: \"0x1e\""),
        ("1_", "1:1: parse error: bad number or duration syntax: \"1_\""),
    ] {
        refused(query, message);
    }
}

#[test]
fn types_and_modifiers() {
    for (query, message) in [
        (
            "a{b=~'('}",
            "1:3: parse error: error parsing regexp: missing closing ): `(`",
        ),
        (
            "a{b=~'\\xff'}",
            "1:3: parse error: error parsing regexp: invalid UTF-8: `\u{fffd}`",
        ),
        (
            "a offset 1m offset 2m",
            "1:1: parse error: offset may not be set multiple times",
        ),
        (
            "a @ 1 @ 2",
            "1:1: parse error: @ <timestamp> may not be set multiple times",
        ),
        (
            "a @ 1e30",
            "1:1: parse error: timestamp out of bounds for @ modifier: 1000000000000000019884624838656.000000",
        ),
        (
            "a[5m:] anchored",
            "1:1: parse error: anchored modifier is not supported for subqueries",
        ),
        ("sum(a) smoothed", "1:1: parse error: smoothed modifier not implemented"),
        (
            "a anchored smoothed",
            "1:1: parse error: anchored and smoothed modifiers cannot be used together",
        ),
        (
            "a +\n (1 > 2)",
            "2:5: parse error: comparisons between scalars must use BOOL modifier",
        ),
        (
            "1 + fill(2) 3",
            "1:1: parse error: filling in missing series only allowed between instant vectors",
        ),
        (
            "a or fill(2) b",
            "1:1: parse error: filling in missing series not allowed for set operators",
        ),
        (
            "1 + on(a) b",
            "1:1: parse error: vector matching only allowed between instant vectors",
        ),
        (
            "a + b[5m]",
            "1:5: parse error: binary expression must contain only scalar and instant vector types",
        ),
        (
            "label_join(a, 'b')",
            "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 2",
        ),
        (
            "round(a, 1, 2)",
            "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3",
        ),
        (
            "info(a, b)",
            "1:9: parse error: expected label selectors only, got vector selector instead",
        ),
        (
            "info(a, 1)",
            "1:1: parse error: expected type instant vector in call to function \"info\", got scalar",
        ),
        (
            "count_values(a, b)",
            "1:14: parse error: expected type string in aggregation parameter, got instant vector",
        ),
        (
            "Sum(a) + Rate(b[1m])",
            "1:10: parse error: unknown function with name \"Rate\"",
        ),
    ] {
        refused(query, message);
    }
    assert!(parse("info(a, {})", &ALL).is_ok());
    assert!(parse("1 + on() 2", &ALL).is_ok());
    assert!(parse("1[5m:]", &ALL).is_err());
}

#[test]
fn every_switch() {
    let without = |change: fn(&mut SyntaxFeatures)| {
        let mut features = ALL;
        change(&mut features);
        features
    };
    let functions = without(|f| f.experimental_functions = false);
    refused_without(
        functions,
        "info(a)",
        "1:1: parse error: function \"info\" is not enabled",
    );
    refused_without(
        functions,
        "1 + step()",
        "1:5: parse error: function \"step\" is not enabled",
    );
    refused_without(
        functions,
        "limitk(1, a)",
        "1:1: parse error: limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
    );
    let durations = without(|f| f.duration_expressions = false);
    for query in [
        "a[5m*2]",
        "a[(5m)]",
        "a offset step()",
        "a[1m:range()]",
        "a offset -min_of(1,2)",
    ] {
        let e = parse(query, &durations).expect_err(query);
        assert_eq!(e.message, "experimental duration expression is not enabled", "{query}");
    }
    assert!(parse("a[5m:1m] offset -1m", &durations).is_ok());
    let ranges = without(|f| f.extended_ranges = false);
    refused_without(
        ranges,
        "a anchored",
        "1:1: parse error: anchored modifier is experimental and not enabled",
    );
    refused_without(
        ranges,
        "b + rate(a[1m] smoothed)",
        "1:10: parse error: smoothed modifier is experimental and not enabled",
    );
    let fill = without(|f| f.fill = false);
    refused_without(
        fill,
        "a + fill_left(1) b",
        "1:1: parse error: binop fill modifiers are experimental and not enabled",
    );
    assert!(parse("fill + fill_left", &fill).is_ok());
}

#[test]
fn selectors_on_their_own() {
    let shown = |text| match parse_selector(text) {
        Ok(matchers) => {
            let shown: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            shown.join(" ")
        }
        Err(e) => e.to_string(),
    };
    for (text, want) in [
        ("up", "__name__=\"up\""),
        ("up{b='1',a!~\"x|y\"}", "b=\"1\" a!~\"x|y\" __name__=\"up\""),
        ("{'a.b', \"c d\"=`e`}", "__name__=\"a.b\" \"c d\"=\"e\""),
        ("{}", ""),
        ("up[5m]", "1:3: parse error: unexpected \"[\""),
        ("sum(up)", "1:4: parse error: unexpected \"(\""),
        ("up or down", "1:4: parse error: unexpected <op:or>"),
        ("", "unknown position: parse error: unexpected end of input"),
        ("up{", "1:4: parse error: unexpected end of input inside braces"),
    ] {
        assert_eq!(shown(text), want, "{text}");
    }
}
