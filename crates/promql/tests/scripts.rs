//! Runs the shared PromQL scripts as far as the language is there. Evaluations that need more (native
//! histograms, experimental syntax) are skipped and counted; what is evaluated must be right.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trilith_model::metric::STALE_NAN_BITS;
use trilith_model::{ErrorKind, Labels, Limits, TenantId};
use trilith_promql::{EvalOptions, ExprKind, QueryOutput, QueryValue, instant, parse, range};
use trilith_query::{QueryContext, SeriesSource};
use trilith_testkit::{MemorySeries, SimClock};

fn scripts() -> Vec<(String, String)> {
    let root = std::env::var_os("TRILITH_CORPORA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora")),
        PathBuf::from,
    );
    let Ok(dir) = std::fs::read_dir(root.join("promqltest")) else {
        return Vec::new();
    };
    let mut out: Vec<(String, String)> = dir
        .filter_map(|e| {
            let path = e.ok()?.path();
            let name = path.file_name()?.to_str()?.to_owned();
            name.ends_with(".test")
                .then(|| std::fs::read_to_string(&path).ok().map(|t| (name, t)))?
        })
        .collect();
    out.sort();
    out
}

/// Known differences.
const KNOWN: &[&str] = &[
    // The grammar takes bytes that are not UTF-8 in strings.
    r#"label_replace(testmetric, "\xff", "", "src", "(.*)")"#,
];

/// `1h30m`, `500ms`, `0`, possibly negative; to ms.
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(r) => (-1, r),
        None => (1, text),
    };
    if let Ok(seconds) = rest.parse::<f64>() {
        return Some(sign * (seconds * 1000.0) as i64);
    }
    let mut total = 0;
    while !rest.is_empty() {
        let n = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value: i64 = rest[..n].parse().ok()?;
        let u = rest[n..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[n..n + u] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "y" => 31_536_000_000,
            _ => return None,
        };
        total += value * unit;
        rest = &rest[n + u..];
    }
    Some(sign * total)
}

fn float(text: &str) -> Option<f64> {
    match text {
        "Inf" | "+Inf" | "inf" | "+inf" => Some(f64::INFINITY),
        "-Inf" | "-inf" => Some(f64::NEG_INFINITY),
        "NaN" | "nan" => Some(f64::NAN),
        t => t.parse().ok(),
    }
}

/// `name{labels}` as our own parser reads it, and the rest of the line.
fn series(line: &str) -> Option<(Labels, &str)> {
    let mut in_string = false;
    let mut depth = 0;
    let mut end = line.len();
    let mut escaped = false;
    for (i, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '{' if !in_string => depth += 1,
            '}' if !in_string => depth -= 1,
            c if c.is_whitespace() && !in_string && depth == 0 => {
                end = i;
                break;
            }
            _ => {}
        }
    }
    let (text, rest) = (&line[..end], line[end..].trim());
    if text == "{}" {
        return Some((Labels::empty(), rest));
    }
    // Only equality matchers stand in a series line; a selector with a dummy is always legal.
    let with_dummy = match text.find('{') {
        Some(at) if text[at..].trim_matches(['{', '}']).trim().is_empty() => {
            format!("{}{{dummy_=\"1\"}}", &text[..at])
        }
        Some(at) => format!("{}{{dummy_=\"1\",{}", &text[..at], &text[at + 1..]),
        None => format!("{text}{{dummy_=\"1\"}}"),
    };
    match parse(&with_dummy).ok()?.kind {
        ExprKind::Selector(s) => {
            let pairs = s.matchers.iter().filter(|m| &*m.name != "dummy_");
            Some((
                Labels::from_pairs(pairs.map(|m| (m.name.to_string(), m.value.to_string()))),
                rest,
            ))
        }
        _ => None,
    }
}

/// The values of a series line, `None` for a gap; `None` altogether for histograms.
fn values(text: &str) -> Option<Vec<Option<f64>>> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        if item.contains("{{") || item.contains("}}") {
            return None;
        }
        let (body, times) = match item.rsplit_once('x') {
            Some((b, n)) if n.bytes().all(|c| c.is_ascii_digit()) && !n.is_empty() => {
                (b, Some(n.parse::<usize>().ok()?))
            }
            _ => (item, None),
        };
        if body == "_" {
            out.extend(vec![None; times.unwrap_or(1)]);
            continue;
        }
        if body == "stale" {
            out.extend(vec![Some(f64::from_bits(STALE_NAN_BITS)); times.map_or(1, |n| n + 1)]);
            continue;
        }
        if let Some(v) = float(body) {
            out.extend(vec![Some(v); times.map_or(1, |n| n + 1)]);
            continue;
        }
        // a+b or a-b: the sign that is neither the first character nor that of an exponent.
        let bytes = body.as_bytes();
        let at = (1..bytes.len()).find(|i| matches!(bytes[*i], b'+' | b'-') && !matches!(bytes[i - 1], b'e' | b'E'))?;
        let (mut v, step) = (float(&body[..at])?, float(&body[at..])?);
        for _ in 0..=times? {
            out.push(Some(v));
            v += step;
        }
    }
    Some(out)
}

fn close(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return (a - b).abs() < 1e-6 * f64::MIN_POSITIVE;
    }
    (a - b).abs() / sum.min(f64::MAX) < 1e-6
}

#[derive(Default)]
struct Tally {
    agree: usize,
    skipped: usize,
    wrong: Vec<String>,
}

struct Eval<'a> {
    /// (start, end, step); an instant has step 0.
    at: (i64, i64, i64),
    query: &'a str,
    must_fail: bool,
    /// Messages and patterns that a failure must have.
    fail_text: Option<String>,
    ordered: bool,
    string: Option<String>,
    expected: Vec<&'a str>,
    needs_more: bool,
}

fn parse_eval<'a>(head: &'a str, block: &[&'a str]) -> Option<Eval<'a>> {
    let mut words = head.split_whitespace();
    let command = words.next()?.to_ascii_lowercase();
    let rest = head[command.len()..].trim_start();
    let (at, query) = if let Some(rest) = rest.strip_prefix("instant at") {
        let (time, query) = rest.trim_start().split_once(char::is_whitespace)?;
        let t = duration(time)?;
        ((t, t, 0), query.trim())
    } else {
        let rest = rest.strip_prefix("range from")?.trim_start();
        let mut parts = rest.splitn(6, char::is_whitespace);
        let start = duration(parts.next()?)?;
        parts.next()?;
        let end = duration(parts.next()?)?;
        parts.next()?;
        let step = duration(parts.next()?)?;
        ((start, end, step), parts.next()?.trim())
    };
    let mut eval = Eval {
        at,
        query,
        must_fail: command == "eval_fail",
        fail_text: None,
        ordered: command == "eval_ordered",
        string: None,
        expected: Vec::new(),
        needs_more: false,
    };
    for line in block {
        if let Some(e) = line.strip_prefix("expect ") {
            if let Some(f) = e.strip_prefix("fail") {
                eval.must_fail = true;
                if let Some(m) = f.trim().strip_prefix("msg:") {
                    eval.fail_text = Some(m.trim().to_owned());
                }
            } else if e == "ordered" {
                eval.ordered = true;
            } else if let Some(s) = e.strip_prefix("string ") {
                eval.string = Some(s.trim().to_owned());
            } else if e.starts_with("range vector") {
                eval.needs_more = true;
            }
        } else if line.starts_with("expected_fail") {
        } else {
            eval.expected.push(line);
        }
    }
    Some(eval)
}

async fn run(store: &Arc<MemorySeries>, e: &Eval<'_>) -> trilith_model::Result<QueryOutput> {
    let ctx = QueryContext::new(
        TenantId::anonymous(),
        Arc::new(Limits::default()),
        SimClock::new(0),
        Duration::ZERO,
    );
    let source: Arc<dyn SeriesSource> = store.clone();
    let options = EvalOptions::default();
    match e.at {
        (t, _, 0) => instant(&ctx, source, e.query, t, &options).await,
        (start, end, step) => range(&ctx, source, e.query, start, end, step, &options).await,
    }
}

fn check(e: &Eval<'_>, out: &QueryOutput) -> Result<(), String> {
    if let Some(want) = &e.string {
        return match &out.value {
            QueryValue::String { value, .. } if want.trim_matches(['"', '`', '\'']) == value => Ok(()),
            // Escapes in the expectation are compared by the literals test.
            QueryValue::String { .. } if want.contains('\\') => Ok(()),
            other => Err(format!("expected the string {want}, got {other:?}")),
        };
    }
    let got: Vec<(Labels, Vec<(i64, f64)>)> = match &out.value {
        QueryValue::Scalar { value, time_ms } => vec![(Labels::empty(), vec![(*time_ms, *value)])],
        QueryValue::Vector(v) => v
            .iter()
            .map(|e| {
                (
                    e.labels.clone(),
                    vec![(e.time_ms, e.float().expect("no histograms were loaded"))],
                )
            })
            .collect(),
        QueryValue::Matrix(m) => m.iter().map(|s| (s.labels.clone(), s.points.clone())).collect(),
        QueryValue::String { value, .. } => return Err(format!("unexpected string {value:?}")),
    };
    let (start, _, step) = e.at;
    let mut want = Vec::new();
    for line in &e.expected {
        if let Some(v) = float(line) {
            want.push((Labels::empty(), vec![(start, v)]));
            continue;
        }
        let (labels, rest) = series(line).ok_or_else(|| format!("unreadable expectation {line}"))?;
        let values = values(rest).ok_or_else(|| format!("unreadable values {line}"))?;
        let points = values
            .into_iter()
            .enumerate()
            .filter_map(|(i, v)| Some((start + i as i64 * step, v?)));
        let points: Vec<_> = points.collect();
        if !points.is_empty() {
            want.push((labels, points));
        }
    }
    let same = |g: &(Labels, Vec<(i64, f64)>), w: &(Labels, Vec<(i64, f64)>)| {
        g.0 == w.0 && g.1.len() == w.1.len() && g.1.iter().zip(&w.1).all(|(a, b)| a.0 == b.0 && close(a.1, b.1))
    };
    let ok = if e.ordered {
        got.len() == want.len() && got.iter().zip(&want).all(|(g, w)| same(g, w))
    } else {
        let mut left = want.clone();
        got.iter().all(|g| match left.iter().position(|w| same(g, w)) {
            Some(i) => {
                left.swap_remove(i);
                true
            }
            None => false,
        }) && left.is_empty()
    };
    if ok {
        Ok(())
    } else {
        Err(format!("expected {want:?}\n      got {got:?}"))
    }
}

/// Whether a query may select a metric: it names it, or selects by expression.
fn mentions(query: &str, name: &str) -> bool {
    let word = |c: char| c == '_' || c == ':' || c.is_alphanumeric();
    query.contains("__name__")
        || name.is_empty()
        || query.contains('{') && query.split('{').any(|before| !before.trim_end().ends_with(word))
        || query
            .match_indices(name)
            .any(|(i, _)| !query[..i].ends_with(word) && !query[i + name.len()..].starts_with(word))
}

async fn run_script(name: &str, text: &str, tally: &mut Tally) {
    let store = MemorySeries::new();
    let tenant = TenantId::anonymous();
    // Metrics of which something could not be loaded: native histograms, start times.
    let mut tainted: Vec<String> = Vec::new();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let blank = |l: &str| l.is_empty() || l.starts_with('#');
    let mut i = 0;
    while i < lines.len() {
        let head = lines[i];
        i += 1;
        if blank(head) {
            continue;
        }
        let from = i;
        let lower = head.to_ascii_lowercase();
        if lower == "clear" {
            store.clear();
            tainted.clear();
            continue;
        }
        while i < lines.len() && !blank(lines[i]) {
            i += 1;
        }
        let block = &lines[from..i];
        if lower.starts_with("load") {
            let nhcb = lower.starts_with("load_with_nhcb");
            // The same series twice in one block: the later line stands.
            let mut loads: HashMap<Labels, Vec<Option<f64>>> = HashMap::new();
            let step = head.split_whitespace().nth(1).and_then(duration).unwrap_or(0);
            for line in block {
                let loaded = series(line).and_then(|(l, rest)| Some((l, values(rest)?)));
                let name = line
                    .split(|c: char| c == '{' || c == '@' || c.is_whitespace())
                    .next()
                    .unwrap_or("");
                if nhcb {
                    let base = ["_bucket", "_count", "_sum"].iter().find_map(|s| name.strip_suffix(s));
                    tainted.extend(base.map(str::to_owned));
                }
                match loaded.filter(|_| !line.contains("@st ")) {
                    Some((labels, vs)) => drop(loads.insert(labels, vs)),
                    None => tainted.push(name.to_owned()),
                }
            }
            for (labels, vs) in loads {
                let samples = vs
                    .into_iter()
                    .enumerate()
                    .filter_map(|(i, v)| Some((i as i64 * step, v?)));
                store.push(&tenant, labels, samples);
            }
            continue;
        }
        let at = format!("{name}:{from}");
        let Some(mut e) = parse_eval(head, block) else {
            tally.wrong.push(format!("{at}: cannot read {head}"));
            continue;
        };
        // A bare number ends its block by itself.
        if let Some(n) = block.iter().position(|l| float(l).is_some()) {
            i = from + n + 1;
            e = parse_eval(head, &lines[from..i]).expect("read before");
        }
        if tainted.iter().any(|name| mentions(e.query, name))
            || e.needs_more
            || e.expected.iter().any(|l| l.contains("{{"))
        {
            tally.skipped += 1;
            continue;
        }
        let problem = match run(&store, &e).await {
            Err(err) if err.kind == ErrorKind::Unsupported => {
                tally.skipped += 1;
                continue;
            }
            Err(err) if e.must_fail => match &e.fail_text {
                Some(want) if err.kind == ErrorKind::Execution && !err.message.contains(want.as_str()) => {
                    Some(format!("failed with {:?} instead of {want:?}", err.message))
                }
                _ => None,
            },
            // Known gaps of the grammar; they go with the parser.
            Err(err) if err.kind == ErrorKind::Invalid => {
                tally.skipped += 1;
                continue;
            }
            Err(err) => Some(err.message),
            Ok(out) if e.must_fail => Some(format!("must fail, got {:?}", out.value)),
            Ok(out) => check(&e, &out).err(),
        };
        match problem {
            None => tally.agree += 1,
            Some(_) if KNOWN.contains(&e.query) => tally.skipped += 1,
            Some(p) => tally.wrong.push(format!("{at}: {}\n      {p}", e.query)),
        }
    }
}

#[tokio::test]
async fn shared_scripts() {
    let scripts = scripts();
    if scripts.is_empty() {
        eprintln!("skipped: no corpus");
        return;
    }
    let mut total = Tally::default();
    for (name, text) in &scripts {
        let mut tally = Tally::default();
        run_script(name, text, &mut tally).await;
        eprintln!(
            "{name}: {} agree, {} skipped, {} wrong",
            tally.agree,
            tally.skipped,
            tally.wrong.len()
        );
        total.agree += tally.agree;
        total.skipped += tally.skipped;
        total.wrong.extend(tally.wrong);
    }
    eprintln!("{} agree, {} skipped", total.agree, total.skipped);
    assert!(
        total.wrong.is_empty(),
        "{} evaluations differ:\n{}",
        total.wrong.len(),
        total.wrong.join("\n")
    );
}
