use super::shape::{Shape, analyse};
use super::*;

#[track_caller]
fn matches(pattern: &str, yes: &[&str], no: &[&str]) {
    let r = AnchoredRegex::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
    // Every shape must agree with the automaton.
    let reference = compile(&translate(pattern).unwrap()).unwrap();
    for v in yes {
        assert!(r.is_match(v), "{pattern:?} must match {v:?} ({:?})", r.shape);
        assert!(reference.is_match(v), "automaton of {pattern:?} must match {v:?}");
    }
    for v in no {
        assert!(!r.is_match(v), "{pattern:?} must not match {v:?} ({:?})", r.shape);
        assert!(!reference.is_match(v), "automaton of {pattern:?} must not match {v:?}");
    }
}

#[track_caller]
fn refused(pattern: &str, message: &str) {
    let e = translate(pattern)
        .err()
        .unwrap_or_else(|| panic!("{pattern:?} must be refused"));
    assert_eq!(e.message, format!("error parsing regexp: {message}"), "for {pattern:?}");
}

#[test]
fn braces_are_literals_unless_they_repeat() {
    matches("a{", &["a{"], &["a"]);
    matches("{foo}", &["{foo}"], &["foo"]);
    matches("a{,3}", &["a{,3}"], &["aaa"]);
    matches("a{2", &["a{2"], &["aa"]);
    matches("a{02}", &["a{02}"], &["aa"]);
    matches("a{2}", &["aa"], &["a", "aaa"]);
    matches("a{1,}b", &["ab", "aab"], &["b"]);
    matches("a*{x}", &["aa{x}"], &["a"]);
}

#[test]
fn classes_have_no_set_operators() {
    matches("[[a]", &["[", "a"], &["b"]);
    matches("[a&&b]", &["a", "&", "b"], &["c"]);
    matches("[*--]", &["*", "+", ",", "-"], &["."]);
    matches("[x~~y]", &["x", "~", "y"], &["z"]);
    matches("[]a]", &["]", "a"], &["b"]);
    matches("[^]a]", &["b"], &["]", "a"]);
    matches("[a-]", &["a", "-"], &["b"]);
    matches("[-a]", &["a", "-"], &["b"]);
    matches("[[:alpha:]_]+", &["ab_"], &["a1"]);
    matches("[[:^digit:]]", &["a"], &["1"]);
    matches(r"[\D]", &["a"], &["1"]);
    matches(r"[\w.]+", &["a.b_9"], &["ä"]);
    matches(r"[^\d\s]", &["x"], &["1", " "]);
}

#[test]
fn perl_classes_are_ascii() {
    matches(r"\d", &["1"], &["٣", "a"]);
    matches(r"\w+", &["a_1"], &["é"]);
    matches(r"\s", &[" ", "\t"], &["\u{a0}", "\u{b}"]);
    matches(r"a\b.*", &["a", "a-", "aé"], &["ab"]);
    matches(r"a\B.*", &["ab"], &["a-", "a"]);
    matches(r"\pL+", &["aé"], &["1"]);
    matches(r"\p{Greek}", &["α"], &["a"]);
    matches(r"\P{^Greek}", &["α"], &["a"]);
}

#[test]
fn escapes() {
    matches(r"\Qa.b\E+", &["a.b", "a.bb"], &["axb"]);
    matches(r"\Qa.b", &["a.b"], &["axb"]);
    matches(r"\101\060", &["A0"], &[]);
    matches(r"\0", &["\0"], &["0"]);
    matches(r"\x41\x{42}", &["AB"], &[]);
    matches(r"\_\-\/\%", &["_-/%"], &[]);
    matches(r"\a\f\t\n\r\v", &["\u{7}\u{c}\t\n\r\u{b}"], &[]);
}

#[test]
fn anchoring_and_newlines() {
    matches("a.c", &["a\nc"], &["xa\nc"]);
    matches("a|b", &["a", "b"], &["ab", "xa"]);
    matches("(?-s)a.c", &["abc"], &["a\nc"]);
    matches("^a.*$", &["abc"], &["xa"]);
    matches("(?i)abc", &["ABC", "aBc"], &["ab"]);
    matches("(?i)k", &["K", "\u{212a}"], &[]);
    matches("(?ii)a(?i-i:b)", &["Ab"], &["aB"]);
    matches("(?)a", &["a"], &[]);
    matches("", &[""], &["a"]);
    matches("foo|", &["foo", ""], &["o"]);
}

#[test]
fn refuses_in_gos_words() {
    for (pattern, message) in [
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("x[a-", "missing closing ]: `[a-`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        (r"\p{Foo}", r"invalid character class range: `\p{Foo}`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("(?i)+", "missing argument to repetition operator: `+`"),
        ("x*+", "invalid nested repetition operator: `*+`"),
        ("(?:a)**", "invalid nested repetition operator: `**`"),
        ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("a{9999999999}", "invalid repeat count: `{9999999999}`"),
        ("(a{100}){100}", "invalid repeat count: `{100}`"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("(?P<x y>a)", "invalid named capture: `(?P<x y>`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        (r"\u00e9", r"invalid escape sequence: `\u`"),
        (r"\h", r"invalid escape sequence: `\h`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"\xG0", r"invalid escape sequence: `\xG0`"),
        ("a\\", "trailing backslash at end of expression: ``"),
    ] {
        refused(pattern, message);
    }
    assert!(translate(&"(".repeat(10_000)).is_err());
    let huge = AnchoredRegex::new(r"(\pL{999}|\pN{998})\pL{1000}\pL{1000}\pL{1000}\pL{1000}[0-9]*");
    assert_eq!(huge.unwrap_err().message, "error parsing regexp: expression too large");
}

#[test]
fn shapes_are_recognised() {
    let shape = |p: &str| analyse(&translate(p).unwrap()).unwrap().shape;
    assert_eq!(shape("abc"), Shape::Literal("abc".into()));
    assert_eq!(shape("a|b|cd"), Shape::Set);
    assert_eq!(shape("(a|b)c?"), Shape::Set);
    assert_eq!(shape(".*"), Shape::Any);
    assert_eq!(shape("(.*)"), Shape::Any);
    assert_eq!(shape(".+"), Shape::NonEmpty);
    assert_eq!(
        shape("a.*"),
        Shape::Prefix {
            literal: "a".into(),
            more: false
        }
    );
    assert_eq!(
        shape("a.+"),
        Shape::Prefix {
            literal: "a".into(),
            more: true
        }
    );
    assert_eq!(
        shape(".*a"),
        Shape::Suffix {
            literal: "a".into(),
            more: false
        }
    );
    assert_eq!(shape(".*a.*"), Shape::Contains("a".into()));
    assert_eq!(shape("a.*b"), Shape::Regex);
    assert_eq!(shape("(?-s).*"), Shape::Regex);
    assert_eq!(shape("[^a]"), Shape::Regex);

    let r = AnchoredRegex::new("prod|prod-eu|prod-us").unwrap();
    assert_eq!(r.literal_set().unwrap(), ["prod", "prod-eu", "prod-us"]);
    assert_eq!(r.literal_prefix(), "prod");
    assert_eq!(AnchoredRegex::new("api-[0-9]+").unwrap().literal_prefix(), "api-");
    assert_eq!(AnchoredRegex::new("a[0-9]|b[0-9]+").unwrap().literal_prefix(), "");
    matches("api-[0-9]+", &["api-1"], &["api-", "xapi-1"]);
    matches("(a|b)c?", &["a", "ac", "b", "bc"], &["c", ""]);
    matches(".*ab.*", &["ab", "xabx", "\nab"], &["a b"]);
    matches("ab.+", &["abc"], &["ab"]);
}

#[test]
fn expands_like_go() {
    let expand = |re: &str, v: &str, t: &str| {
        let mut out = String::new();
        AnchoredRegex::new(re)
            .unwrap()
            .expand(v, t, &mut out)
            .unwrap()
            .then_some(out)
    };
    assert_eq!(expand("(.*)-(.*)", "a-b", "$2/$1").as_deref(), Some("b/a"));
    assert_eq!(expand("(?P<x>.*)", "a", "${x}y$xy").as_deref(), Some("ay"));
    assert_eq!(expand("a.*", "abc", "lit$$").as_deref(), Some("lit$"));
    assert_eq!(expand("a", "b", "$1"), None);
    assert_eq!(expand("(.*)", "a", "$1x$01${1}$ ${1$-").as_deref(), Some("a$ ${1$-"));
    assert_eq!(expand("(?P<x>.*)", "a", "${x-y}").as_deref(), Some("${x-y}"));
}

#[test]
fn bytes_regexes_take_invalid_utf8() {
    let r = bytes_regex("err.*[0-9]").unwrap();
    assert!(r.is_match(b"\xff err 7"));
    assert!(bytes_regex("(?s)a.b").unwrap().is_match(b"a\nb"));
    assert!(!bytes_regex("a.b").unwrap().is_match(b"a\nb"));
    assert!(bytes_regex("(").is_err());
}
