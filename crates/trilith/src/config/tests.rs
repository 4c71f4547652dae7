use super::*;

fn config(text: &str, flags: &[(&'static str, &str)]) -> Result<Config, Vec<String>> {
    let file = file::parse(text, &|_| None)?;
    resolve(&file, &flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect())
}

#[test]
fn defaults_are_the_documented_ones() {
    let c = config("", &[]).expect("defaults are valid");
    assert_eq!(c.limits, Limits::default(), "the table and Limits::default must agree");
    assert_eq!(c.listen.metrics, "127.0.0.1:9090");
    assert_eq!(c.retention.metrics, Duration::from_secs(15 * 86400));
    assert_eq!(c.retention.logs, Duration::from_secs(30 * 86400));
    assert_eq!(c.retention.traces, Duration::from_secs(14 * 86400));
    assert!(!c.multi_tenancy && c.self_observe);
}

#[test]
fn flags_win_over_the_file() {
    let c = config(
        "listen: {host: 0.0.0.0, metrics: 1}\nretention.logs: 7d",
        &[("listen.metrics", "2")],
    )
    .expect("valid");
    assert_eq!(c.listen.metrics, "0.0.0.0:2");
    assert_eq!(c.listen.logs, "0.0.0.0:3100");
    assert_eq!(c.retention.logs, Duration::from_secs(7 * 86400));
}

#[test]
fn bad_values_name_their_origin() {
    let e = config("retention:\n  logs: soon", &[("self-observe", "maybe")]).unwrap_err();
    assert!(e.iter().any(|l| l.starts_with("line 2: retention.logs:")), "{e:?}");
    assert!(e.iter().any(|l| l.starts_with("--self-observe:")), "{e:?}");
}

#[test]
fn overrides_start_from_the_global_limits() {
    let c = config("limits.line-size: 1KiB\noverrides:\n  a: {active-series: 5}", &[]).expect("valid");
    let live = LiveLimits::new(&c);
    let a = live.limits(&TenantId::new("a").expect("valid id"));
    assert_eq!((a.active_series_max, a.line_bytes_max), (5, 1024));
    let b = live.limits(&TenantId::new("b").expect("valid id"));
    assert_eq!((b.active_series_max, b.line_bytes_max), (5_000_000, 1024));
}

#[test]
fn otlp_settings_per_tenant() {
    let text = "otlp:\n  promote-all-resource-attributes: true\n  ignore-resource-attributes: a, b.c\n\
                overrides:\n  t:\n    otlp:\n      translation-strategy: NoTranslation\n      ignore-resource-attributes: x\n";
    let c = config(text, &[("otlp.delta-temporality", "store")]).expect("valid");
    assert_eq!(
        c.limits.otlp.promotion,
        Promotion::AllBut(vec!["a".to_owned(), "b.c".to_owned()])
    );
    assert_eq!(c.limits.otlp.delta, DeltaTemporality::Store);
    let own = &c.overrides["t"].otlp;
    assert_eq!(own.strategy, TranslationStrategy::NoTranslation);
    assert_eq!(own.promotion, Promotion::AllBut(vec!["x".to_owned()]));
    for (bad, error) in [
        (
            "otlp.translation-strategy: None",
            "line 1: otlp.translation-strategy: \"None\" is none of",
        ),
        (
            "otlp.delta-temporality: x",
            "line 1: otlp.delta-temporality: \"x\" is none of",
        ),
        (
            "otlp.ignore-resource-attributes: a",
            "line 1: otlp.ignore-resource-attributes: cannot be set unless",
        ),
        (
            "otlp: {promote-all-resource-attributes: true, promote-resource-attributes: a}",
            "line 1: otlp.promote-resource-attributes: cannot be set together",
        ),
        (
            "otlp.promote-resource-attributes: a,a",
            "line 1: otlp.promote-resource-attributes: \"a\" stands twice",
        ),
    ] {
        let e = config(bad, &[]).unwrap_err();
        assert!(e[0].starts_with(error), "{e:?}");
    }
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        page,
        reference_page(),
        "run: cargo run -- config-reference > docs/configuration.md"
    );
}

/// A message that names a setting which does not exist sends its reader to an "unknown key" error.
#[test]
fn messages_name_settings_that_exist() {
    fn visit(dir: &Path, wrong: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                visit(&path, wrong);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are text");
                for (at, _) in text.match_indices("limits.") {
                    let rest = &text[at..];
                    let end = rest
                        .find(|c: char| !(c.is_ascii_lowercase() || c == '-' || c == '.'))
                        .unwrap_or(rest.len());
                    let key = rest[..end].trim_end_matches(['.', '-']);
                    // Fields are written with underscores; only keys have hyphens.
                    if key.contains('-') && settings::find(key).is_none() {
                        wrong.push(format!("{}: {key}", path.display()));
                    }
                }
            }
        }
    }
    let mut wrong = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
