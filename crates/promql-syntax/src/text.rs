//! Strings of a query and how Go writes strings, characters and floats, which is how messages and printed queries
//! show them.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

/// The value of a string literal. An escape such as `\xff` makes any bytes possible, so it need not be UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Box<[u8]>);

impl Text {
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Text(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes that are not UTF-8 become U+FFFD.
    pub fn to_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&str> for Text {
    fn from(s: &str) -> Self {
        Text(s.as_bytes().into())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

/// In double quotes with Go's escapes.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.0))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// In double quotes with Go's escapes; bytes that are not UTF-8 as `\x..`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c, '"');
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out.push('"');
    out
}

/// A character in single quotes with Go's escapes; `None`, the end of the text, is shown as U+FFFD.
pub(crate) fn quote_char(c: Option<char>) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, c.unwrap_or(char::REPLACEMENT_CHARACTER), '\'');
    out.push('\'');
    out
}

/// `U+0041 'A'`, without the character when it is not printable.
pub(crate) fn code_point(c: Option<char>) -> String {
    let Some(c) = c else {
        return "U+FFFFFFFFFFFFFFFF".to_owned();
    };
    let code = c as u32;
    if is_printable(c) {
        format!("U+{code:04X} '{c}'")
    } else {
        format!("U+{code:04X}")
    }
}

fn push_escaped(out: &mut String, c: char, delimiter: char) {
    match c {
        _ if c == delimiter => {
            out.push('\\');
            out.push(c);
        }
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        _ if is_printable(c) => out.push(c),
        _ => {
            let code = c as u32;
            let _ = match code {
                0..0x20 | 0x7f => write!(out, "\\x{code:02x}"),
                ..0x10000 => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
        }
    }
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // The standard library shows its table of printable characters only by escaping the others. It escapes a mark
    // at the start of a string too, hence the letter before it.
    let mut probe = String::from("a");
    probe.push(c);
    let mut escaped = probe.escape_debug();
    escaped.next();
    escaped.next() == Some(c)
}

/// Go's `%g`, which is `%v` too: the shortest digits, an exponent below 1e-4 and from 1e6 on.
pub fn format_g(v: f64) -> String {
    if v.is_nan() || v.is_infinite() {
        return format_f(v);
    }
    let s = format!("{v:e}");
    let (mantissa, exponent) = s.split_once('e').unwrap_or((&s, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if v != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{v}")
}

/// Go's `%f` with the shortest digits: never an exponent.
pub fn format_f(v: f64) -> String {
    if v.is_nan() {
        "NaN".to_owned()
    } else if v.is_infinite() {
        if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{v}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_as_go_quotes_them() {
        for (bytes, want) in [
            (&b"a\"b'\\"[..], r#""a\"b'\\""#),
            (b"\x00\x1f\x7f\n\t", r#""\x00\x1f\x7f\n\t""#),
            (
                "ü\u{a0}\u{200b}\u{301}\u{e0001}".as_bytes(),
                "\"ü\\u00a0\\u200b\u{301}\\U000e0001\"",
            ),
            (b"\xff\xc3(", r#""\xff\xc3(""#),
        ] {
            assert_eq!(quote(bytes), want);
        }
        assert_eq!(quote_char(Some('\'')), r"'\''");
        assert_eq!(quote_char(Some('"')), "'\"'");
        assert_eq!(code_point(Some('c')), "U+0063 'c'");
        assert_eq!(code_point(Some('\n')), "U+000A");
    }

    #[test]
    fn floats_as_go_prints_them() {
        for (v, g, f) in [
            (1e6, "1e+06", "1000000"),
            (123_456.0, "123456", "123456"),
            (1e-5, "1e-05", "0.00001"),
            (-0.0, "-0", "-0"),
            (f64::INFINITY, "+Inf", "+Inf"),
        ] {
            assert_eq!((format_g(v), format_f(v)), (g.to_owned(), f.to_owned()));
        }
    }
}
