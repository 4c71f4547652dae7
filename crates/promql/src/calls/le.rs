//! Numbers in labels, as Go reads and writes them.

use trilith_histogram::format_g;

/// The bound in an `le` label: what Go's `strconv.ParseFloat` takes, but for NaN, which bounds nothing. Digits may be
/// separated by `_`, hexadecimal numbers need an exponent (`0x1p-2`), and what is too large is an error.
pub(crate) fn parse_bound(text: &str) -> Option<f64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.as_bytes().first()?.is_ascii_alphanumeric() && !digits.starts_with('.') {
        return None;
    }
    let hex = digits.starts_with("0x") || digits.starts_with("0X");
    let plain = if digits.contains('_') {
        if !separators_fit(digits, hex) {
            return None;
        }
        digits.replace('_', "")
    } else {
        digits.to_owned()
    };
    let value = if hex {
        parse_hex(&plain[2..])?
    } else {
        plain.parse().ok()?
    };
    let infinite = plain.eq_ignore_ascii_case("inf") || plain.eq_ignore_ascii_case("infinity");
    if value.is_nan() || value.is_infinite() != infinite {
        return None;
    }
    Some(if negative { -value } else { value })
}

/// Separators stand between digits, or between a prefix and a digit.
fn separators_fit(digits: &str, hex: bool) -> bool {
    let body = if hex { &digits[2..] } else { digits };
    let is_digit = |b: u8| b.is_ascii_digit() || hex && b.is_ascii_hexdigit();
    let mut after_digit = hex;
    let mut after_separator = false;
    for b in body.bytes() {
        if (b == b'_' && !after_digit) || (after_separator && !is_digit(b)) {
            return false;
        }
        after_separator = b == b'_';
        after_digit = is_digit(b);
    }
    !after_separator
}

/// `mantissa p exponent`, the prefix taken off.
fn parse_hex(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let sign_fits = exponent
        .trim_start_matches(['+', '-'])
        .bytes()
        .all(|b| b.is_ascii_digit());
    let mut exponent: i64 = exponent.parse().ok().filter(|_| sign_fits)?;
    let (mut bits, mut lost) = (0u64, false);
    for (i, b) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let digit = char::from(b).to_digit(16)?;
        let in_fraction = i >= whole.len();
        if bits >> 59 == 0 {
            bits = bits << 4 | u64::from(digit);
            exponent = exponent.checked_sub(if in_fraction { 4 } else { 0 })?;
        } else {
            // Past what a float holds; it matters for rounding only.
            lost |= digit != 0;
            exponent = exponent.checked_add(if in_fraction { 0 } else { 4 })?;
        }
    }
    let mut value = (bits | u64::from(lost)) as f64;
    let mut left = exponent.clamp(-3000, 3000);
    while left != 0 && value != 0.0 && value.is_finite() {
        let step = left.clamp(-900, 900);
        value *= f64::exp2(step as f64);
        left -= step;
    }
    Some(value)
}

/// As in `le` and `quantile` labels of OpenMetrics: `1.0`, `0.9`, `1e+06`, `+Inf`.
pub(crate) fn format_label(v: f64) -> String {
    let mut text = format_g(v);
    if v.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_as_go_reads_them() {
        for (text, want) in [
            ("1", Some(1.0)),
            ("+1.5e3", Some(1500.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1_000", Some(1000.0)),
            ("+Inf", Some(f64::INFINITY)),
            ("-infinity", Some(f64::NEG_INFINITY)),
            ("inF", Some(f64::INFINITY)),
            ("0x1p-2", Some(0.25)),
            ("0X_1.8P+1", Some(3.0)),
            ("0x1.fffffffffffffp1023", Some(f64::MAX)),
            ("0x10000000000000000000p0", Some(f64::exp2(76.0))),
            ("0x1", None),
            ("0x1p", None),
            ("0xp1", None),
            ("0x1p99999999999999999999", None),
            ("1e999", None),
            ("1__0", None),
            ("_1", None),
            ("1_", None),
            ("1_.5", None),
            ("NaN", None),
            ("", None),
            ("+", None),
            ("--1", None),
            ("in", None),
            (" 1", None),
            ("1s", None),
        ] {
            assert_eq!(parse_bound(text), want, "{text:?}");
        }
    }

    #[test]
    fn label_values_keep_a_point() {
        for (v, want) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (0.99, "0.99"),
            (1e7, "1e+07"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(format_label(v), want);
        }
    }
}
