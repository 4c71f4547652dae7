mod corpus;
mod search;

use proptest::prelude::*;
use trilith_model::ErrorKind;

use crate::{go_duration, parse, parse_duration, parse_identifier};

fn refused(query: &str) -> (ErrorKind, String) {
    let e = parse(query).expect_err(query);
    (e.kind, e.message)
}

#[test]
fn syntax_errors_have_line_and_column() {
    for (query, message) in [
        ("", "parse error at line 1, col 1: syntax error: unexpected $end"),
        ("{ .a = ", "parse error at line 1, col 8: syntax error: unexpected $end"),
        (
            "{ .a } | { .b",
            "parse error at line 1, col 14: syntax error: unexpected $end",
        ),
        (
            "{ .a | .b }",
            "parse error at line 1, col 6: syntax error: unexpected |",
        ),
        (
            "wharblgarbl",
            "parse error at line 1, col 1: syntax error: unexpected IDENTIFIER",
        ),
        ("{ + }", "parse error at line 1, col 3: syntax error: unexpected +"),
        (
            "{ . foo }",
            "parse error at line 1, col 3: syntax error: unexpected END_ATTRIBUTE, expecting IDENTIFIER",
        ),
        (
            "{\n  name = \"ä\" &&\n  }",
            "parse error at line 3, col 3: syntax error: unexpected }",
        ),
        (
            "{ \"ä\" = } ",
            "parse error at line 1, col 9: syntax error: unexpected }",
        ),
        (
            "{ name = \"a }",
            "parse error at line 1, col 10: literal not terminated",
        ),
        (
            "{ duration > 1.5d }",
            "parse error at line 1, col 14: invalid duration: 1.5d",
        ),
        (
            "{ .a = 99999999999999999999 }",
            "parse error at line 1, col 8: invalid number: 99999999999999999999",
        ),
        ("{} }", "parse error at line 1, col 4: syntax error: unexpected }"),
        ("{} /* open", "parse error at line 1, col 4: comment not terminated"),
        ("{} with", "parse error at line 1, col 8: syntax error: unexpected $end"),
    ] {
        assert_eq!(refused(query), (ErrorKind::Invalid, message.to_owned()), "{query:?}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for (query, what) in [
        ("{ } >> { }", "the structural operator >>"),
        ("{ .a } && { .b }", "combining spansets with &&"),
        ("({ .a })", "a parenthesised spanset expression"),
        ("{ } | count() > 2", "the pipeline stage count()"),
        ("{ } | by(.a)", "the pipeline stage by()"),
        ("{ } | rate()", "the metrics function rate()"),
        ("{ } | { .b }", "a spanset filter as a pipeline stage"),
        ("{ .a + 1 = 2 }", "arithmetic (+) in a filter"),
        ("{ -.a = 2 }", "arithmetic (-) in a filter"),
        ("{ nestedSetParent < 0 }", "the intrinsic nestedSetParent"),
        ("{ parent.a = 1 }", "the scope parent"),
        ("{ link:traceID = \"a\" }", "the intrinsic link:traceID"),
        ("count() > 2", "a query that begins with count()"),
    ] {
        assert_eq!(
            refused(query),
            (ErrorKind::Unsupported, format!("TraceQL: {what} is not supported")),
            "{query:?}"
        );
    }
    assert_eq!(refused("{ event.a = nil }").0, ErrorKind::Unsupported);
}

#[test]
fn operands_must_fit() {
    for query in [
        "{ name }",
        "{ 1 }",
        "{ \"a\" }",
        "{ name = 1 }",
        "{ kind = 2 }",
        "{ status = \"error\" }",
        "{ status > ok }",
        "{ duration =~ \"a\" }",
        "{ \"a\" =~ .b }",
        "{ .a =~ \"(\" }",
        "{ name && true }",
        "{ !name }",
        "{ duration = nil }",
        "{ resource.service.name = nil }",
        "{ .a > nil }",
        "{ true < false }",
        "{ !1 = 2 }",
    ] {
        assert_eq!(refused(query).0, ErrorKind::Invalid, "{query}");
    }
    for query in [
        "{ .a }",
        "{ }",
        "{ duration != nil }",
        "{ span:duration = 1000000000 }",
        "{ kind = server && .a }",
    ] {
        parse(query).expect(query);
    }
}

#[test]
fn long_and_deep_queries_are_refused() {
    let nested = format!("{{ {}true{} }}", "(".repeat(100_000 / 2), ")".repeat(100_000 / 2));
    assert_eq!(refused(&nested).0, ErrorKind::Invalid);
    assert_eq!(
        refused(&format!("{{ {}.a }}", "!".repeat(100_000))).0,
        ErrorKind::Invalid
    );
    assert_eq!(
        refused(&format!("{{ {}.a }}", ".a && ".repeat(10_000))).0,
        ErrorKind::Invalid
    );
    assert_eq!(
        refused(&format!("{{ name = \"{}\" }}", "x".repeat(200_000))).0,
        ErrorKind::Invalid
    );
}

#[test]
fn durations_follow_prometheus_then_go() {
    for (text, ns) in [
        ("1d", Some(86_400_000_000_000)),
        ("1w2d", Some(9 * 86_400_000_000_000)),
        ("1h30m", Some(5_400_000_000_000)),
        ("1.5s", Some(1_500_000_000)),
        (".5s", Some(500_000_000)),
        ("1h15m30.918273645s", Some(4_530_918_273_645)),
        ("2µs", Some(2_000)),
        ("1s1m", Some(61_000_000_000)),
        ("1.5d", None),
        ("1d1us", None),
        ("1m1d", None),
        ("", None),
        ("s", None),
        ("1", None),
        ("1x", None),
        (".s", None),
        ("999999999y", None),
    ] {
        assert_eq!(parse_duration(text), ns, "{text:?}");
    }
    for (ns, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (100_000_000, "100ms"),
        (1_500_000_000, "1.5s"),
        (120_000_000_000, "2m0s"),
        (3_661_000_000_001, "1h1m1.000000001s"),
    ] {
        assert_eq!(go_duration(ns), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed_or_refused(text in "[{}()=~!<>&|^,.a1\"`\\\\ /*\\n+ä:-]{0,40}|\\PC{0,40}") {
        crate::fuzz_parse(text.as_bytes());
    }

    #[test]
    fn pieces_of_queries_are_parsed_or_refused(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "(", ")", ".a", "span.b", "resource.\"x y\"", "name", "duration", "= ", "!= ", "=~ ", "> ", "&& ", "|| ", "! ", "- ",
        "1 ", "1.5 ", "2m ", "\"s\" ", "`r` ", "nil ", "true ", "error ", "client ", "| ", "select", ",", "with", "by", "rate", ">> ",
    ]), 0..16)) {
        crate::fuzz_parse(pieces.concat().as_bytes());
    }
}

#[test]
fn identifiers_of_tag_values() {
    use trilith_query::{AttributeScope, ColumnRef, Intrinsic};
    let attribute = |s, n: &str| Some(ColumnRef::Attribute(s, n.to_owned()));
    for (text, column) in [
        (".service.name", attribute(AttributeScope::Any, "service.name")),
        (
            "resource.service.name",
            attribute(AttributeScope::Resource, "service.name"),
        ),
        ("span.\"my attr\"", attribute(AttributeScope::Span, "my attr")),
        ("name", Some(ColumnRef::Intrinsic(Intrinsic::Name))),
        ("span:kind", Some(ColumnRef::Intrinsic(Intrinsic::Kind))),
        ("event:name", Some(ColumnRef::Intrinsic(Intrinsic::EventNames))),
        ("service.name", None),
        (".a .b", None),
        ("", None),
    ] {
        assert_eq!(parse_identifier(text).ok(), column, "{text:?}");
    }
}
