use std::path::{Path, PathBuf};

use trilith_model::TranslationStrategy;

use super::*;
use crate::otlp_metrics::names::{NameKind, go_quoted, label_name, metric_name, unit_name};

fn corpus(file: &str) -> Option<Vec<Value>> {
    let root = std::env::var_os("TRILITH_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        PathBuf::from,
    );
    let path = root.join("otlp").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        tracing::warn!(path = %path.display(), "no corpora here, skipped");
        return None;
    };
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    Some(lines.map(|l| serde_json::from_str(l).expect("a JSON line")).collect())
}

fn settings(escapes: bool, suffixes: bool) -> OtlpMetrics {
    let strategy = TranslationStrategy::ALL
        .into_iter()
        .find(|s| s.escapes() == escapes && s.adds_suffixes() == suffixes);
    OtlpMetrics {
        strategy: strategy.expect("there is one of each"),
        ..OtlpMetrics::default()
    }
}

#[test]
fn corpus_of_metric_names() {
    let Some(cases) = corpus("metric-names.jsonl") else {
        return;
    };
    for case in &cases {
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        let kind = match text("type") {
            "MonotonicCounter" => NameKind::Counter,
            "Gauge" => NameKind::Gauge,
            _ => NameKind::Other,
        };
        let settings = OtlpMetrics {
            namespace: text("namespace").into(),
            ..settings(case["utf8"] != true, case["suffixes"] == true)
        };
        let got = metric_name(&settings, text("metric"), text("unit"), kind);
        match case["error"].as_str() {
            Some(error) => assert_eq!(got, Err(error.to_owned()), "{case}"),
            None => assert_eq!(got, Ok(text("want").to_owned()), "{case}"),
        }
        if !text("want_unit").is_empty() {
            assert_eq!(unit_name(text("unit"), true), text("want_unit"), "{case}");
        }
    }
    assert!(cases.len() > 50, "{} cases", cases.len());
}

#[test]
fn corpus_of_label_names() {
    let Some(cases) = corpus("label-names.jsonl") else {
        return;
    };
    for case in &cases {
        let label = case["label"].as_str().expect("a label");
        let field = |names: &[&str]| {
            let found = names.iter().find_map(|n| case[n].as_str().filter(|s| !s.is_empty()));
            found.unwrap_or_default().to_owned()
        };
        let fails = |names: &[&str]| names.iter().any(|n| case[n] == true);
        let check = |underscores, preserve, want: String, fails: bool| {
            let settings = OtlpMetrics {
                underscore_sanitization: underscores,
                preserve_multiple_underscores: preserve,
                ..OtlpMetrics::default()
            };
            let got = label_name(&settings, label);
            assert_eq!(got.is_err(), fails, "{case}: {got:?}");
            if let Ok(got) = got {
                assert_eq!(got, want, "{case}, {underscores}, {preserve}");
            }
        };
        const PLAIN: &str = "sanitized";
        const UNDERSCORE: &str = "sanitizedUnderscoreLabelSanitization";
        const MULTIPLE: &str = "sanitizedMultipleUnderscores";
        const BOTH: &str = "sanitizedMultipleUnderscoresAndUnderscoreLabelSanitization";
        let fails_plain = fails(&["wantSanitizationError"]);
        let fails_multiple = fails(&["wantSanitizationError", "wantSanitizationMultipleUnderscoresError"]);
        check(false, false, field(&[PLAIN]), fails_plain);
        // The table says nothing of errors with the underscores guarded.
        if !fails_plain {
            check(true, false, field(&[UNDERSCORE, PLAIN]), false);
        }
        check(false, true, field(&[MULTIPLE, PLAIN]), fails_multiple);
        if !fails_multiple {
            check(true, true, field(&[BOTH, UNDERSCORE, MULTIPLE, PLAIN]), false);
        }
        let utf8 = label_name(&settings(false, true), label).map(|l| l.into_owned()).ok();
        let want = (!fails(&["wantUTF8Error"])).then(|| label.to_owned());
        assert_eq!(utf8, want, "{case}");
    }
    assert!(cases.len() > 10, "{} cases", cases.len());
}

#[test]
fn metric_names_of_all_strategies() {
    let name = |escapes, suffixes, name: &str, unit: &str, kind| {
        metric_name(&settings(escapes, suffixes), name, unit, kind).expect("a name")
    };
    use NameKind::{Counter, Gauge, Other};
    let full = |n: &str, unit: &str, kind| name(true, true, n, unit, kind);
    assert_eq!(full("total.requests", "", Counter), "requests_total");
    assert_eq!(full("http.server.duration", "s", Other), "http_server_duration_seconds");
    assert_eq!(full("seconds.of.cpu", "s", Counter), "seconds_of_cpu_total");
    assert_eq!(full("ratio of x", "1", Gauge), "of_x_ratio");
    assert_eq!(full("io", "By/s", Gauge), "io_bytes_per_second");
    assert_eq!(full("io", "{packets}/s", Gauge), "io_per_second");
    assert_eq!(full("io", "{packets}", Counter), "io_total");
    assert_eq!(full("3rd.metric", "", Gauge), "_3rd_metric");
    assert_eq!(full("a:b", "m/h", Gauge), "a:b_meters_per_hour");
    let plain = |n: &str| name(true, false, n, "s", Counter);
    assert_eq!(plain("a..b--c"), "a_b_c");
    assert_eq!(plain("a__b"), "a__b");
    let utf8 = |n: &str, unit: &str, kind| name(false, true, n, unit, kind);
    assert_eq!(utf8("http.requests", "1/s", Counter), "http.requests_per_second_total");
    assert_eq!(utf8("cpu.seconds.total", "s", Counter), "cpu.seconds_total");
    assert_eq!(utf8("used.ratio", "1", Gauge), "used_ratio");
    // The character before a suffix may be of several bytes.
    assert_eq!(utf8("aétotal", "", Counter), "a_total");
    assert_eq!(name(false, false, "http.requests", "s", Counter), "http.requests");
    assert!(
        metric_name(&settings(true, true), "", "s", Gauge).is_ok(),
        "the unit is a name"
    );
    assert!(metric_name(&settings(true, true), "…", "", Gauge).is_err());
}

#[test]
fn units() {
    for (unit, want) in [
        ("", ""),
        ("1", ""),
        ("s", "seconds"),
        ("By/min", "bytes_per_min"),
        ("kg.m", "kg_m"),
        ("_x_", "x"),
        ("{a}/{b}", ""),
        ("a/b/c", "a_per_b_c"),
        ("%", "percent"),
    ] {
        assert_eq!(unit_name(unit, true), want, "{unit}");
    }
    assert_eq!(unit_name("µs/%", false), "µs_per_%");
}

#[test]
fn go_literals() {
    assert_eq!(go_quoted("a\"b\\c\n\u{1}é"), r#""a\"b\\c\n\x01é""#);
}
