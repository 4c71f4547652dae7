//! Floats and times as Go prints them.

use std::io::Write as _;

/// Go's `strconv.FormatFloat(v, 'f', -1, 64)`: shortest digits that round-trip, never an exponent. Loki's form.
pub fn push_plain(out: &mut Vec<u8>, v: f64) {
    if push_special(out, v) {
        return;
    }
    // Rust's Display is the shortest round-trip form without exponent, and prints -0 as "-0" like Go.
    write!(out, "{v}").expect("writing to memory cannot fail");
}

/// Prometheus' JSON form: as `push_plain` for 1e-6 ≤ |v| < 1e21 and zero, `1e-07` and `1e+21` outside, which is Go's
/// `'e'` with at least two digits of exponent.
pub fn push_json(out: &mut Vec<u8>, v: f64) {
    if push_special(out, v) {
        return;
    }
    let abs = v.abs();
    if abs == 0.0 || (1e-6..1e21).contains(&abs) {
        write!(out, "{v}").expect("writing to memory cannot fail");
        return;
    }
    let text = format!("{v:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    write!(out, "{mantissa}e{sign}{digits:0>2}").expect("writing to memory cannot fail");
}

fn push_special(out: &mut Vec<u8>, v: f64) -> bool {
    let text = if v.is_nan() {
        "NaN"
    } else if v == f64::INFINITY {
        "+Inf"
    } else if v == f64::NEG_INFINITY {
        "-Inf"
    } else {
        return false;
    };
    out.extend_from_slice(text.as_bytes());
    true
}

/// Milliseconds as a JSON number of seconds with at most three decimals, none when whole.
pub fn push_seconds(out: &mut Vec<u8>, ms: i64) {
    if ms < 0 {
        out.push(b'-');
    }
    let abs = ms.unsigned_abs();
    write!(out, "{}", abs / 1000).expect("writing to memory cannot fail");
    let frac = abs % 1000;
    if frac != 0 {
        let text = format!("{frac:03}");
        out.push(b'.');
        out.extend_from_slice(text.trim_end_matches('0').as_bytes());
    }
}

/// A JSON string with quotes. `html` also escapes `<`, `>`, `&` and the two line separators, as Go's encoder does by default.
pub fn push_string(out: &mut Vec<u8>, s: &str, html: bool) {
    push_text(out, s.as_bytes(), html);
}

/// Whether any of eight bytes is below 0x20, a quote or a backslash: the tests for a zero byte of
/// "Bit Twiddling Hacks" (Anderson), on the word and on its differences to the two characters.
#[inline]
fn may_need_escape(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let below = |w: u64, n: u64| w.wrapping_sub(ONES * n) & !w & HIGH;
    (below(word, 0x20) | below(word ^ (ONES * 0x22), 1) | below(word ^ (ONES * 0x5c), 1)) != 0
}

/// As [`push_string`], of bytes that are UTF-8.
fn push_text(out: &mut Vec<u8>, bytes: &[u8], html: bool) {
    if !html {
        let (words, rest) = bytes.as_chunks::<8>();
        let plain = words.iter().all(|w| !may_need_escape(u64::from_le_bytes(*w)))
            && rest.iter().all(|b| *b >= 0x20 && *b != b'"' && *b != b'\\');
        if plain {
            out.reserve(bytes.len() + 2);
            out.push(b'"');
            out.extend_from_slice(bytes);
            out.push(b'"');
            return;
        }
    }
    out.push(b'"');
    let mut from = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let special = b < 0x20 || b == b'"' || b == b'\\' || (html && (matches!(b, b'<' | b'>' | b'&') || b == 0xe2));
        if !special {
            continue;
        }
        if b == 0xe2 {
            // U+2028 and U+2029 are e2 80 a8 and e2 80 a9.
            if bytes.get(i + 1) == Some(&0x80) && matches!(bytes.get(i + 2), Some(0xa8 | 0xa9)) {
                out.extend_from_slice(&bytes[from..i]);
                out.extend_from_slice(if bytes[i + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                from = i + 3;
            }
            continue;
        }
        out.extend_from_slice(&bytes[from..i]);
        from = i + 1;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => write!(out, "\\u{b:04x}").expect("writing to memory cannot fail"),
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// `{"a":"b"}` of a label set, in its order.
pub fn push_labels(out: &mut Vec<u8>, labels: &trilith_model::Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter_bytes().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_text(out, name, false);
        out.push(b':');
        push_text(out, value, false);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).expect("output is text")
    }

    #[test]
    fn json_floats() {
        for (v, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (1.5e-9, "1.5e-09"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-2.5e300, "-2.5e+300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (123456.789, "123456.789"),
        ] {
            assert_eq!(text(|o| push_json(o, v)), want);
        }
        assert_eq!(text(|o| push_plain(o, 1e21)), "1000000000000000000000");
    }

    #[test]
    fn seconds() {
        for (ms, want) in [
            (0, "0"),
            (1500, "1.5"),
            (1001, "1.001"),
            (-1500, "-1.5"),
            (-1, "-0.001"),
            (1_435_781_451_781, "1435781451.781"),
        ] {
            assert_eq!(text(|o| push_seconds(o, ms)), want);
        }
    }

    #[test]
    fn strings_are_valid_json() {
        let s = "a\"b\\c\n\u{1}<é\u{2028}>";
        for html in [false, true] {
            let t = text(|o| push_string(o, s, html));
            assert_eq!(serde_json::from_str::<String>(&t).expect("valid JSON"), s);
            assert_eq!(t.contains('<'), !html);
        }
    }
}
