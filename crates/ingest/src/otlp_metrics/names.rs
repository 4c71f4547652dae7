//! Metric, unit and label names of OTLP as Prometheus writes them.
//!
//! Source: prometheus/otlptranslator (`metric_namer.go`, `unit_namer.go`, `label_namer.go`); its tables of cases are run
//! by the tests.

use std::borrow::Cow;

use trilith_model::OtlpMetrics;

/// The type of a metric, as far as its name depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    Counter,
    Gauge,
    Other,
}

/// Plural words of units.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// Singular words of what comes after the slash.
const PER_UNITS: &[(&str, &str)] = &[
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn word<'a>(table: &[(&'static str, &'static str)], unit: &'a str) -> &'a str {
    table.iter().find(|(u, _)| *u == unit).map_or(unit, |(_, w)| w)
}

/// The words of a unit: what is counted, and `per_…`. Either may be empty.
fn unit_words(unit: &str) -> (&str, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let known = |part: &str| !part.is_empty() && !part.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if known(main) { word(UNITS, main) } else { "" };
    let per = if known(per) { word(PER_UNITS, per) } else { "" };
    (
        main,
        if per.is_empty() {
            String::new()
        } else {
            format!("per_{per}")
        },
    )
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// A unit in the classic character set, runs of underscores folded, none in front.
fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars() {
        if is_metric_char(c) {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    if out.starts_with('_') {
        out.remove(0);
    }
    out
}

/// The unit for metadata and, with `escape` off, as the label `__unit__` has it.
pub fn unit_name(unit: &str, escape: bool) -> String {
    let (main, per) = unit_words(unit);
    let (main, per) = if escape {
        (clean_unit(main), clean_unit(&per))
    } else {
        (main.to_owned(), per)
    };
    let joined = match (main.is_empty(), per.is_empty()) {
        (false, false) => format!("{main}_{per}"),
        (false, true) => main,
        _ => per,
    };
    let joined = joined.strip_prefix('_').unwrap_or(&joined);
    joined.strip_suffix('_').unwrap_or(joined).to_owned()
}

/// The name of a metric family.
///
/// # Errors
/// Upstream's text when nothing usable is left of the name.
pub fn metric_name(settings: &OtlpMetrics, name: &str, unit: &str, kind: NameKind) -> Result<String, String> {
    let suffixes = settings.strategy.adds_suffixes();
    if !settings.strategy.escapes() {
        return Ok(utf8_name(&settings.namespace, name, unit, kind, suffixes));
    }
    let out = if suffixes {
        suffixed_name(&settings.namespace, name, unit, kind)
    } else {
        plain_name(&settings.namespace, name)
    };
    if out.is_empty() {
        return Err(format!(
            "normalization for metric {} resulted in empty name",
            go_quoted(name)
        ));
    }
    if out != name && out.bytes().all(|b| b == b'_') {
        return Err(format!(
            "normalization for metric {} resulted in invalid name {}",
            go_quoted(name),
            go_quoted(&out)
        ));
    }
    Ok(out)
}

/// Escaped, without suffixes; underscores of the name stay as they are.
fn plain_name(namespace: &str, name: &str) -> String {
    let escape = |text: &str| -> String {
        let parts = text.split(|c| !is_metric_char(c) && c != '_').filter(|p| !p.is_empty());
        parts.collect::<Vec<_>>().join("_")
    };
    let name = escape(name);
    if !namespace.is_empty() {
        return format!("{}_{name}", escape(namespace));
    }
    guard_digit(name)
}

fn guard_digit(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("_{name}");
    }
    name
}

/// Escaped, with suffixes: the name is taken apart into words, which unit and type join at the end.
fn suffixed_name(namespace: &str, name: &str, unit: &str, kind: NameKind) -> String {
    let mut words: Vec<&str> = name.split(|c| !is_metric_char(c)).filter(|w| !w.is_empty()).collect();
    let (main, per) = unit_words(unit);
    let (main, per) = (clean_unit(main), clean_unit(&per));
    let mut main = if words.contains(&&*main) { "" } else { &*main };
    let per = match &*per {
        "per_" => "",
        per => per.strip_suffix('_').unwrap_or(per),
    };
    let per = if words.contains(&per) { "" } else { per };
    if !per.is_empty() {
        main = main.strip_suffix('_').unwrap_or(main);
    }
    words.extend([main, per].into_iter().filter(|w| !w.is_empty()));
    let last = match kind {
        NameKind::Counter => Some("total"),
        // Counters of things come with unit 1 as well, and are no ratios.
        NameKind::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(last) = last {
        words.retain(|w| *w != last);
        words.push(last);
    }
    if !namespace.is_empty() {
        words.insert(0, namespace);
    }
    guard_digit(words.join("_"))
}

/// Not escaped: suffixes that stand at the end already are not repeated.
fn utf8_name(namespace: &str, name: &str, unit: &str, kind: NameKind, suffixes: bool) -> String {
    let mut out = match namespace {
        "" => name.to_owned(),
        n => format!("{n}_{name}"),
    };
    if !suffixes {
        return out;
    }
    let mut tail = String::new();
    let mut take = |out: &mut String, suffix: &str| {
        cut_suffix(out, suffix);
        tail.insert_str(0, &format!("_{suffix}"));
    };
    if unit == "1" && kind == NameKind::Gauge {
        take(&mut out, "ratio");
    }
    if kind == NameKind::Counter {
        take(&mut out, "total");
    }
    let (main, per) = unit_words(unit);
    if !per.is_empty() {
        take(&mut out, &per);
    }
    if !main.is_empty() && !out.ends_with(main) {
        out.push('_');
        out.push_str(main);
    }
    out + &tail
}

/// Takes off a suffix and the character before it, unless nothing would be left.
fn cut_suffix(name: &mut String, suffix: &str) {
    if name.ends_with(suffix) && name.len() > suffix.len() + 1 {
        let end = name.floor_char_boundary(name.len() - suffix.len() - 1);
        name.truncate(end);
    }
}

/// The name of a label.
///
/// # Errors
/// Upstream's text for a name that is empty or has nothing but underscores.
pub fn label_name<'a>(settings: &OtlpMetrics, name: &'a str) -> Result<Cow<'a, str>, String> {
    if name.is_empty() {
        return Err("label name is empty".into());
    }
    let underscores = |n: &str| n.bytes().all(|b| b == b'_');
    if !settings.strategy.escapes() {
        if underscores(name) {
            return Err(format!("label name {} contains only underscores", go_quoted(name)));
        }
        return Ok(Cow::Borrowed(name));
    }
    if is_plain_label(name) {
        return Ok(Cow::Borrowed(name));
    }
    let mut out = escape_label(name, settings.preserve_multiple_underscores);
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "key_");
    } else if settings.underscore_sanitization && out.starts_with('_') && !out.starts_with("__") {
        out.insert_str(0, "key");
    }
    if underscores(&out) {
        return Err(format!(
            "normalization for label name {} resulted in invalid name {}",
            go_quoted(name),
            go_quoted(&out)
        ));
    }
    Ok(Cow::Owned(out))
}

/// Whether a name is its own translation under all settings, as many are: letters and digits, single underscores
/// inside.
pub fn is_plain_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && !name.contains("__")
}

fn escape_label(name: &str, preserve_runs: bool) -> String {
    let escaped = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    if preserve_runs {
        return name.chars().map(escaped).collect();
    }
    let inner = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"));
    let mut out = String::with_capacity(name.len());
    let mut last = None;
    for c in inner.unwrap_or(name).chars().map(escaped) {
        if c != '_' || last != Some('_') {
            out.push(c);
        }
        last = Some(c);
    }
    match inner {
        Some(_) => format!("__{out}__"),
        None => out,
    }
}

/// A Go string literal (`%q`), cut when very long.
pub fn go_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in crate::rejections::quoted(text).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
