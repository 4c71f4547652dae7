//! Literals: numbers, durations and strings as Go reads them.

use crate::ast::NANOS_PER_SECOND;
use crate::text::{Text, quote};

/// The value of a number token.
///
/// Integers may be hexadecimal, or octal with a leading zero; digits may be separated by single underscores.
///
/// # Errors
/// The text that follows `error parsing number: `.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    if let Some(integer) = integer(text) {
        return Ok(integer as f64);
    }
    let refused = |why| Err(format!("strconv.ParseFloat: parsing {}: {why}", quote(text.as_bytes())));
    if matches!(text.to_ascii_lowercase().as_str(), "inf" | "nan") {
        return Ok(if text.eq_ignore_ascii_case("nan") {
            f64::NAN
        } else {
            f64::INFINITY
        });
    }
    if !underscores_separate_digits(text) {
        return refused("invalid syntax");
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    match digits.parse::<f64>() {
        Ok(v) if v.is_infinite() => refused("value out of range"),
        Ok(v) => Ok(v),
        Err(_) => refused("invalid syntax"),
    }
}

/// As Go's `ParseInt` with base 0; `None` when it refuses.
fn integer(text: &str) -> Option<i64> {
    if !underscores_separate_digits(text) {
        return None;
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits.as_str()),
    };
    // A sign is no part of the token.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok()
}

/// Every underscore stands between digits; the prefix `0x`, and a leading zero, count as digits.
fn underscores_separate_digits(text: &str) -> bool {
    let (hex, rest) = match text.as_bytes() {
        [b'0', b'x' | b'X', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let mut last_is_digit = hex;
    let mut last_is_underscore = false;
    for b in rest {
        let digit = b.is_ascii_digit() || (hex && b.is_ascii_hexdigit());
        if *b == b'_' && !last_is_digit || last_is_underscore && !digit {
            return false;
        }
        (last_is_digit, last_is_underscore) = (digit, *b == b'_');
    }
    !last_is_underscore
}

const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Nanoseconds of a duration token, `1h30m`: units from large to small, each at most once.
///
/// # Errors
/// The whole message.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let malformed = || format!("not a valid duration string: {}", quote(text.as_bytes()));
    let too_long = || "duration out of range".to_owned();
    let (mut rest, mut nanos, mut smaller) = (text, 0i64, &UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = rest[..digits].parse().map_err(|_| malformed())?;
        rest = &rest[digits..];
        let (name, after) = rest.split_at(rest.bytes().take_while(|b| !b.is_ascii_digit()).count());
        rest = after;
        let Some((_, unit_ms)) = UNITS.iter().find(|(unit, _)| *unit == name) else {
            return Err(match name {
                "" => malformed(),
                _ => format!(
                    "unknown unit {} in duration {}",
                    quote(name.as_bytes()),
                    quote(text.as_bytes())
                ),
            });
        };
        let place = smaller
            .iter()
            .position(|(unit, _)| *unit == name)
            .ok_or_else(malformed)?;
        smaller = &smaller[place + 1..];
        nanos = count
            .checked_mul(unit_ms * 1_000_000)
            .and_then(|n| n.checked_add(nanos))
            .ok_or_else(too_long)?;
    }
    Ok(nanos)
}

/// Seconds of a count of nanoseconds, in two parts, so that whole seconds and fractions are each exact.
pub(crate) fn seconds(nanos: i64) -> f64 {
    (nanos / NANOS_PER_SECOND) as f64 + (nanos % NANOS_PER_SECOND) as f64 / 1e9
}

/// A duration as Prometheus prints it, cut to ms: `1h30m`; `0s` below 1 ms; empty when negative.
pub(crate) fn format_duration(nanos: i64) -> String {
    let mut ms = nanos / 1_000_000;
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        return out;
    }
    for (unit, unit_ms) in UNITS {
        // Years and weeks only when nothing remains: 90d reads better than 12w6d.
        if matches!(unit, "y" | "w") && ms % unit_ms != 0 {
            continue;
        }
        if ms >= unit_ms {
            out.push_str(&format!("{}{unit}", ms / unit_ms));
            ms %= unit_ms;
        }
    }
    out
}

/// The value of a string token, quotes included, whose escapes the lexer has checked.
///
/// `None` when it is no such string.
pub(crate) fn unquote(token: &str) -> Option<Text> {
    let quote = token.chars().next()?;
    let body = token.get(1..token.len().checked_sub(1)?)?;
    if quote == '`' || !body.contains('\\') {
        return Some(Text::new(body.as_bytes()));
    }
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        let after = at + 2;
        let code = |from: usize, to: usize, radix| u32::from_str_radix(rest.get(from..to)?, radix).ok();
        let (end, byte) = match escape {
            b'a' => (after, 0x07),
            b'b' => (after, 0x08),
            b'f' => (after, 0x0c),
            b'n' => (after, b'\n'),
            b'r' => (after, b'\r'),
            b't' => (after, b'\t'),
            b'v' => (after, 0x0b),
            b'\\' | b'"' | b'\'' => (after, escape),
            b'0'..=b'7' => (after + 2, u8::try_from(code(at + 1, after + 2, 8)?).ok()?),
            b'x' => (after + 2, u8::try_from(code(after, after + 2, 16)?).ok()?),
            b'u' | b'U' => {
                let end = after + if escape == b'u' { 4 } else { 8 };
                let c = char::from_u32(code(after, end, 16)?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[end..];
                continue;
            }
            _ => return None,
        };
        out.push(byte);
        rest = &rest[end..];
    }
    out.extend_from_slice(rest.as_bytes());
    Some(Text::new(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, want) in [
            ("0755", 493.0),
            ("08", 8.0),
            ("0x1F", 31.0),
            ("0X_1f", 31.0),
            ("1_000", 1000.0),
            ("0_7", 7.0),
            ("1_0.5e1_0", 10.5e10),
            (".5", 0.5),
            ("5.", 5.0),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
            ("iNf", f64::INFINITY),
        ] {
            assert_eq!(number(text), Ok(want), "{text}");
        }
        assert!(number("NaN").unwrap().is_nan());
        for (text, why) in [
            ("1e400", "value out of range"),
            ("1_", "invalid syntax"),
            ("0xfffffffffffffffff", "invalid syntax"),
        ] {
            assert_eq!(
                number(text),
                Err(format!("strconv.ParseFloat: parsing \"{text}\": {why}"))
            );
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1y2w3d4h5m6s7ms", 33_019_506_007),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(ms * 1_000_000), "{text}");
        }
        for text in ["5m1h", "5m1m", "5", "99999999999999999999s"] {
            assert_eq!(duration(text), Err(format!("not a valid duration string: \"{text}\"")));
        }
        for (text, unit) in [("1.5m", "."), ("1e5m", "e"), ("5y1hs", "hs"), ("5M", "M")] {
            assert_eq!(
                duration(text),
                Err(format!("unknown unit \"{unit}\" in duration \"{text}\""))
            );
        }
        for text in ["300y", "292y1000w", "999999999999y"] {
            assert_eq!(duration(text), Err("duration out of range".to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_are_printed() {
        for (ms, want) in [
            (0, "0s"),
            (90 * 86_400_000, "90d"),
            (14 * 86_400_000, "2w"),
            (365 * 86_400_000, "1y"),
            (86_400_000 + 3_661_001, "1d1h1m1s1ms"),
            (-5, ""),
        ] {
            assert_eq!(format_duration(ms * 1_000_000), want);
        }
    }

    #[test]
    fn strings() {
        for (token, want) in [
            (
                r#""a\n\x41\101\u00fc\U0001F600\\\"""#,
                "a\nAA\u{fc}\u{1F600}\\\"".as_bytes(),
            ),
            (r"'\''", b"'"),
            (r"`\n`", b"\\n"),
            (r#""\xff\377""#, b"\xff\xff"),
        ] {
            assert_eq!(unquote(token).unwrap().as_bytes(), want);
        }
    }
}
