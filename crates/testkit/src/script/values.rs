//! Labels, sample items, histogram literals, durations.

use std::collections::BTreeMap;
use std::sync::Arc;

use trilith_histogram::{Buckets, CUSTOM_SCHEMA, FloatHistogram, ResetHint, Span};
use trilith_model::{Labels, STALE_NAN_BITS, SampleValue};

/// A sample of a series line.
#[derive(Clone, Debug)]
pub struct Item {
    pub value: SampleValue,
    /// A histogram literal that spells out its reset hint.
    pub hint_given: bool,
}

/// Milliseconds of `1h30m`, `-5s`, `0`.
pub fn duration(text: &str) -> Result<i64, String> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(r) => (-1, r),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    let bad = || format!("not a duration: {text:?}");
    let mut total = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let n = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value: i64 = rest[..n].parse().map_err(|_| bad())?;
        let u = rest[n..].bytes().take_while(u8::is_ascii_alphabetic).count();
        total += value
            * match &rest[n..n + u] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "w" => 604_800_000,
                "y" => 31_536_000_000,
                _ => return Err(bad()),
            };
        rest = &rest[n + u..];
    }
    Ok(sign * total)
}

/// A number as Go reads it: integers of any base prefix, floats, infinities.
pub fn number(text: &str) -> Option<f64> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(r) => (-1.0, r),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = body.to_ascii_lowercase();
    let value = match lower.as_str() {
        "inf" | "infinity" => f64::INFINITY,
        "nan" => f64::NAN,
        hex if hex.starts_with("0x") => i64::from_str_radix(&hex[2..].replace('_', ""), 16).ok()? as f64,
        octal if octal.len() > 1 && octal.starts_with('0') && octal.bytes().all(|b| (b'0'..b'8').contains(&b)) => {
            i64::from_str_radix(octal, 8).ok()? as f64
        }
        plain if plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') => plain.parse().ok()?,
        _ => return None,
    };
    Some(sign * value)
}

/// A quoted string at the start of `text` and what follows it.
pub fn quoted(text: &str) -> Result<(String, &str), String> {
    let bad = || format!("not a string: {text:?}");
    let quote = text
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\'' | '`'))
        .ok_or_else(bad)?;
    let mut out: Vec<u8> = Vec::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        if c == quote {
            return Ok((String::from_utf8_lossy(&out).into_owned(), &text[i + 1..]));
        }
        if c != '\\' || quote == '`' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let (_, escape) = chars.next().ok_or_else(bad)?;
        let mut digits = |n: usize, radix: u32, first: Option<char>| -> Result<u32, String> {
            let mut value = first.and_then(|c| c.to_digit(radix)).unwrap_or(0);
            for _ in 0..n {
                let digit = chars.next().and_then(|(_, c)| c.to_digit(radix)).ok_or_else(bad)?;
                value = value * radix + digit;
            }
            Ok(value)
        };
        match escape {
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            'r' => out.push(b'\r'),
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'v' => out.push(11),
            'x' => out.push(digits(2, 16, None)? as u8),
            'u' | 'U' => {
                let code = digits(if escape == 'u' { 4 } else { 8 }, 16, None)?;
                let c = char::from_u32(code).ok_or_else(bad)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '0'..='7' => out.push(digits(2, 8, Some(escape))? as u8),
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err(bad())
}

fn word(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.')))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `name{label="value", …}` at the start of a line, and what follows it.
pub fn labels(line: &str) -> Result<(Labels, &str), String> {
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    let (name, mut rest) = word(line);
    if !name.is_empty() {
        pairs.insert("__name__".into(), name.into());
    }
    if rest.starts_with('{') && !rest.starts_with("{{") {
        rest = rest[1..].trim_start();
        while !rest.starts_with('}') {
            let (key, after, is_string) = match quoted(rest) {
                Ok((key, after)) => (key, after.trim_start(), true),
                Err(_) => {
                    let (key, after) = word(rest);
                    (key.to_owned(), after.trim_start(), false)
                }
            };
            if let Some(value) = after.strip_prefix('=') {
                let (value, after) = quoted(value.trim_start())?;
                pairs.insert(key, value);
                rest = after.trim_start();
            } else if is_string {
                pairs.insert("__name__".into(), key);
                rest = after;
            } else {
                return Err(format!("bad labels at {rest:?}"));
            }
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
            if rest.is_empty() {
                return Err(format!("unclosed labels in {line:?}"));
            }
        }
        rest = &rest[1..];
    } else if name.is_empty() {
        return Err(format!("neither a name nor labels in {line:?}"));
    }
    pairs.retain(|_, v| !v.is_empty());
    Ok((Labels::from_pairs(pairs), rest.trim()))
}

fn float(v: f64) -> Option<Item> {
    Some(Item {
        value: SampleValue::Float(v),
        hint_given: false,
    })
}

/// `x3` at the start: the count and what follows.
fn times(text: &str) -> Option<(usize, &str)> {
    let digits = text.strip_prefix('x')?;
    let n = digits.bytes().take_while(u8::is_ascii_digit).count();
    Some((digits[..n].parse().ok()?, &digits[n..]))
}

/// The items of a series line; `None` for a step without a sample.
pub fn items(text: &str) -> Result<Vec<Option<Item>>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            rest = histogram_items(rest, &mut out)?.trim_start();
            continue;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let item = &rest[..end];
        rest = rest[end..].trim_start();
        let (body, count) = match item.rfind('x').and_then(|i| Some((&item[..i], times(&item[i..])?))) {
            Some((body, (n, ""))) => (body, Some(n)),
            _ => (item, None),
        };
        if body == "_" {
            out.extend(vec![None; count.unwrap_or(1)]);
        } else if body == "stale" {
            out.extend(vec![float(f64::from_bits(STALE_NAN_BITS)); count.map_or(1, |n| n + 1)]);
        } else if let Some(v) = number(body) {
            out.extend(vec![float(v); count.map_or(1, |n| n + 1)]);
        } else {
            // a+b or a-b: the sign that is neither the first character nor that of an exponent.
            let bytes = body.as_bytes();
            let at = (1..bytes.len())
                .find(|i| matches!(bytes[*i], b'+' | b'-') && !matches!(bytes[i - 1], b'e' | b'E'))
                .ok_or_else(|| format!("bad item {item:?}"))?;
            let (first, step) = (number(&body[..at]), number(&body[at..]));
            let (Some(mut v), Some(step), Some(count)) = (first, step, count) else {
                return Err(format!("bad item {item:?}"));
            };
            for _ in 0..=count {
                out.push(float(v));
                v += step;
            }
        }
    }
    Ok(out)
}

fn histogram_items<'a>(text: &'a str, out: &mut Vec<Option<Item>>) -> Result<&'a str, String> {
    let (first, mut rest) = histogram(text)?;
    let item = |l: &Literal| {
        Some(Item {
            value: SampleValue::Histogram(Arc::new(l.build())),
            hint_given: l.hint.is_some(),
        })
    };
    let sign = match rest.as_bytes() {
        [b'+', b'{', ..] => 1.0,
        [b'-', b'{', ..] => -1.0,
        _ => {
            let mut count = 0;
            if let Some((n, after)) = times(rest) {
                (count, rest) = (n, after);
            }
            out.extend(vec![item(&first); count + 1]);
            return Ok(rest);
        }
    };
    let (step, after) = histogram(&rest[1..])?;
    let (count, after) = times(after).ok_or_else(|| format!("a histogram step without a count in {text:?}"))?;
    let mut current = first;
    current.hint = current.hint.or(step.hint);
    for _ in 0..=count {
        out.push(item(&current));
        current.add(&step, sign)?;
    }
    Ok(after)
}

/// A histogram literal with its buckets by index.
#[derive(Clone, Debug, Default)]
struct Literal {
    schema: i32,
    count: f64,
    sum: f64,
    zero_count: f64,
    zero_threshold: f64,
    positive: BTreeMap<i32, f64>,
    negative: BTreeMap<i32, f64>,
    bounds: Vec<f64>,
    hint: Option<ResetHint>,
}

/// `{{key:value …}}` at the start, and what follows.
fn histogram(text: &str) -> Result<(Literal, &str), String> {
    let bad = || format!("bad histogram literal at {text:?}");
    let body = text.strip_prefix("{{").ok_or_else(bad)?;
    let end = body.find("}}").ok_or_else(bad)?;
    let (mut body, rest) = (body[..end].trim(), &body[end + 2..]);
    let mut h = Literal::default();
    let (mut offset, mut n_offset) = (0, 0);
    let (mut buckets, mut n_buckets) = (Vec::new(), Vec::new());
    while !body.is_empty() {
        let (key, after) = body.split_once(':').ok_or_else(bad)?;
        let after = after.trim_start();
        let end = if after.starts_with('[') {
            after.find(']').ok_or_else(bad)? + 1
        } else {
            after.find(char::is_whitespace).unwrap_or(after.len())
        };
        let value = &after[..end];
        body = after[end..].trim_start();
        let one = || number(value).ok_or_else(bad);
        let index = || value.parse::<i32>().map_err(|_| bad());
        let list = || -> Result<Vec<f64>, String> {
            value
                .trim_matches(['[', ']'])
                .split([' ', ',', '\t'])
                .filter(|v| !v.is_empty())
                .map(|v| number(v).ok_or_else(bad))
                .collect()
        };
        match key.trim() {
            "schema" => h.schema = index()?,
            "count" => h.count = one()?,
            "sum" => h.sum = one()?,
            "z_bucket" => h.zero_count = one()?,
            "z_bucket_w" => h.zero_threshold = one()?,
            "offset" => offset = index()?,
            "n_offset" => n_offset = index()?,
            "buckets" => buckets = list()?,
            "n_buckets" => n_buckets = list()?,
            "custom_values" => h.bounds = list()?,
            "counter_reset_hint" => {
                h.hint = Some(match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => return Err(bad()),
                });
            }
            _ => return Err(bad()),
        }
    }
    h.positive = (offset..).zip(buckets).collect();
    h.negative = (n_offset..).zip(n_buckets).collect();
    Ok((h, rest))
}

impl Literal {
    fn build(&self) -> FloatHistogram {
        FloatHistogram {
            reset_hint: self.hint.unwrap_or_default(),
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive: to_buckets(&self.positive),
            negative: to_buckets(&self.negative),
            custom_bounds: (self.schema == CUSTOM_SCHEMA).then(|| self.bounds.as_slice().into()),
        }
    }

    fn add(&mut self, other: &Literal, sign: f64) -> Result<(), String> {
        let custom = [self.schema, other.schema].contains(&CUSTOM_SCHEMA);
        if custom && (self.schema != other.schema || self.bounds != other.bounds) || self.schema > other.schema {
            return Err("a histogram step must have the layout of its start or a finer schema".into());
        }
        let reduce = |i: i32| {
            if custom {
                i
            } else {
                ((i - 1) >> (other.schema - self.schema)) + 1
            }
        };
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        self.zero_count += sign * other.zero_count;
        for (to, from) in [
            (&mut self.positive, &other.positive),
            (&mut self.negative, &other.negative),
        ] {
            for (i, n) in from {
                *to.entry(reduce(*i)).or_default() += sign * n;
            }
        }
        Ok(())
    }
}

fn to_buckets(populations: &BTreeMap<i32, f64>) -> Buckets {
    let mut out = Buckets::default();
    let mut next: Option<i32> = None;
    for (i, n) in populations {
        match (next, out.spans.last_mut()) {
            (Some(at), Some(span)) if at == *i => span.length += 1,
            _ => out.spans.push(Span {
                offset: i - next.unwrap_or(0),
                length: 1,
            }),
        }
        out.counts.push(*n);
        next = Some(i + 1);
    }
    out
}

/// Start times after `@st`, as offsets from the sample, ms.
pub fn start_offsets(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        let (body, count) = match item.rfind('x').and_then(|i| Some((&item[..i], times(&item[i..])?))) {
            Some((body, (n, ""))) => (body, Some(n)),
            _ => (item, None),
        };
        if body == "_" {
            out.extend(vec![None; count.unwrap_or(1)]);
            continue;
        }
        let at = body[1..].find(['+', '-']).map(|i| i + 1);
        let (first, step) = match at {
            Some(at) => (&body[..at], duration(&body[at..])?),
            None => (body, 0),
        };
        let mut offset = duration(first)?;
        for _ in 0..=count.unwrap_or(0) {
            out.push(Some(offset));
            offset += step;
        }
    }
    Ok(out)
}
