//! Tokens of LogQL.

use trilith_model::{Error, Result};

/// Longest query text, bytes.
pub const QUERY_BYTES_MAX: usize = 131_071;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Identifier(String),
    /// Unquoted content of a string.
    String(String),
    Number(f64),
    /// Whole nanoseconds of a number glued to a unit, outside brackets.
    Duration(i64),
    /// A number glued to a unit of size: `5KB`, `1Mi`.
    Bytes(u64),
    /// Whole nanoseconds of `[…]`.
    Range(i64),
    /// Operators and punctuation, as written.
    Symbol(&'static str),
    End,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Spanned {
    pub token: Token,
    pub at: Position,
    /// Written with digits only; some parameters must be.
    pub integer: bool,
}

/// Loki's text of an error at a place.
pub fn error_at(at: Position, message: impl std::fmt::Display) -> Error {
    Error::invalid(format!("parse error at line {}, col {}: {message}", at.line, at.column))
}

/// Longest first.
const SYMBOLS: [&str; 30] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "{", "}", "(", ")", ",", "=", "|", "+", "-", "*", "/",
    "%", "^", "<", ">", ".", ":", ";", "[", "]",
];

/// # Errors
/// `Invalid` with position for text that is no token, or that is too long.
pub fn tokenize(text: &str) -> Result<Vec<Spanned>> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "input size too long ({} > {})",
            text.len(),
            QUERY_BYTES_MAX + 1
        )));
    }
    let mut lexer = Lexer {
        text,
        offset: 0,
        at: Position { line: 1, column: 1 },
    };
    let mut out = Vec::new();
    loop {
        lexer.skip_blank();
        let (at, from) = (lexer.at, lexer.offset);
        let token = lexer.next()?;
        let end = token == Token::End;
        let integer = !end && text[from..lexer.offset].bytes().all(|b| b.is_ascii_digit());
        out.push(Spanned { token, at, integer });
        if end {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    offset: usize,
    at: Position,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    fn advance(&mut self, bytes: usize) {
        for c in self.text[self.offset..self.offset + bytes].chars() {
            if c == '\n' {
                self.at.line += 1;
                self.at.column = 1;
            } else {
                self.at.column += 1;
            }
        }
        self.offset += bytes;
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            if blank > 0 {
                self.advance(blank);
            } else if rest.starts_with('#') {
                let comment = rest.find('\n').unwrap_or(rest.len());
                self.advance(comment);
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Result<Token> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if first == '"' || first == '`' {
            return self.string(first);
        }
        if first == '[' {
            return self.range();
        }
        let digit_next = rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        if first.is_ascii_digit() || (first == '.' && digit_next) {
            return self.number();
        }
        if first.is_alphabetic() || first == '_' {
            let len = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            self.advance(len);
            return Ok(Token::Identifier(rest[..len].to_owned()));
        }
        match SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            Some(s) => {
                self.advance(s.len());
                Ok(Token::Symbol(s))
            }
            None => Err(error_at(
                self.at,
                format!("syntax error: unexpected character {first:?}"),
            )),
        }
    }

    fn string(&mut self, quote: char) -> Result<Token> {
        let (at, rest) = (self.at, &self.rest()[1..]);
        if quote == '`' {
            let end = rest.find('`').ok_or_else(|| error_at(at, "literal not terminated"))?;
            self.advance(end + 2);
            return Ok(Token::String(rest[..end].to_owned()));
        }
        let mut out: Vec<u8> = Vec::new();
        let mut chars = rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.advance(i + 2);
                    let text = String::from_utf8(out).map_err(|_| error_at(at, "string is not UTF-8"))?;
                    return Ok(Token::String(text));
                }
                '\n' => break,
                '\\' => {
                    let (value, used) = escape(&rest[i + 1..]).ok_or_else(|| error_at(at, "invalid char escape"))?;
                    match value {
                        Escape::Byte(b) => out.push(b),
                        Escape::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                    let to = i + 1 + used;
                    while chars.clone().next().is_some_and(|(j, _)| j < to) {
                        chars.next();
                    }
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Err(error_at(at, "literal not terminated"))
    }

    fn range(&mut self) -> Result<Token> {
        let (at, rest) = (self.at, &self.rest()[1..]);
        let end = rest
            .find(']')
            .ok_or_else(|| error_at(at, "missing closing ']' in duration"))?;
        let ns = prometheus_duration(&rest[..end])
            .ok_or_else(|| error_at(at, format!("not a valid duration string: {:?}", &rest[..end])))?;
        self.advance(end + 2);
        Ok(Token::Range(ns))
    }

    fn number(&mut self) -> Result<Token> {
        let rest = self.rest();
        // Everything glued together, with the sign of an exponent: `1e-5`.
        let mut len = 0;
        for (i, c) in rest.char_indices() {
            let sign = matches!(c, '+' | '-')
                && rest[..i].ends_with(['e', 'E'])
                && rest[..i].starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && rest[..i - 1]
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b == b'.' || b == b'_');
            if c.is_alphanumeric() || matches!(c, '.' | '_') || sign {
                len = i + c.len_utf8();
            } else {
                break;
            }
        }
        let word = &rest[..len];
        let at = self.at;
        self.advance(len);
        if word
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'e' | b'E' | b'+' | b'-'))
            && let Ok(v) = word.replace('_', "").parse::<f64>()
        {
            return Ok(Token::Number(v));
        }
        if let Some(ns) = prometheus_duration(word).or_else(|| go_duration(word)) {
            return Ok(Token::Duration(ns));
        }
        if let Some(n) = byte_count(word) {
            return Ok(Token::Bytes(n));
        }
        Err(error_at(at, format!("unable to parse literal as a float: {word:?}")))
    }
}

enum Escape {
    Byte(u8),
    Char(char),
}

/// One Go escape after the backslash; the value and the bytes used.
fn escape(rest: &str) -> Option<(Escape, usize)> {
    let simple = |c| Some((Escape::Char(c), 1));
    let hex = |digits: usize| rest.get(1..=digits).and_then(|h| u32::from_str_radix(h, 16).ok());
    match rest.bytes().next()? {
        b'n' => simple('\n'),
        b't' => simple('\t'),
        b'r' => simple('\r'),
        b'a' => simple('\u{7}'),
        b'b' => simple('\u{8}'),
        b'f' => simple('\u{c}'),
        b'v' => simple('\u{b}'),
        b'\\' => simple('\\'),
        b'"' => simple('"'),
        b'x' => Some((Escape::Byte(hex(2)? as u8), 3)),
        b'u' => Some((Escape::Char(char::from_u32(hex(4)?)?), 5)),
        b'U' => Some((Escape::Char(char::from_u32(hex(8)?)?), 9)),
        b'0'..=b'7' => {
            let octal = rest
                .get(..3)
                .filter(|o| o.bytes().all(|b| (b'0'..=b'7').contains(&b)))?;
            Some((Escape::Byte(u8::from_str_radix(octal, 8).ok()?), 3))
        }
        _ => None,
    }
}

/// `1h30m`: y w d h m s ms, whole numbers, descending; or `0`. To ns.
fn prometheus_duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let (mut total, mut next) = (0i64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let n: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let at = next + UNITS[next..].iter().position(|(u, _)| *u == &rest[..letters])?;
        rest = &rest[letters..];
        total = total.checked_add(n.checked_mul(UNITS[at].1)?.checked_mul(1_000_000)?)?;
        next = at + 1;
    }
    (!text.is_empty()).then_some(total)
}

/// Go's `1.5s`, `10us`, `1m1h`. To ns.
fn go_duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("μs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let n: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let len = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let (_, factor) = UNITS.iter().find(|(u, _)| *u == &rest[..len])?;
        rest = &rest[len..];
        total += n * factor;
    }
    (total < 9.2e18).then_some(total as i64)
}

/// Decimal prefixes are powers of 1000, those with `i` of 1024; only `kB` and `B` have other letters.
fn byte_count(text: &str) -> Option<u64> {
    let len = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b'_'))
        .count();
    let n: f64 = text[..len].replace('_', "").parse().ok()?;
    let factor = match &text[len..] {
        "B" => 1.0,
        "kB" => 1e3,
        unit => {
            let prefix = unit.strip_suffix('B').unwrap_or(unit);
            let (letter, base) = match prefix.strip_suffix('i') {
                Some(letter) => (letter, 1024f64),
                None => (prefix, 1000f64),
            };
            let power = ["K", "M", "G", "T", "P"].iter().position(|p| *p == letter)? + 1;
            base.powi(power as i32)
        }
    };
    (n * factor < 1.8e19).then_some((n * factor) as u64)
}

/// Words that are never identifiers.
pub(crate) const RESERVED: [&str; 22] = [
    "by",
    "without",
    "bool",
    "offset",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
    "json",
    "logfmt",
    "regexp",
    "unpack",
    "pattern",
    "line_format",
    "label_format",
    "decolorize",
    "drop",
    "keep",
    "unwrap",
];

/// The token names of the reference's parser, which clients show.
pub(crate) fn describe(token: &Token) -> String {
    match token {
        Token::Identifier(i) if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(i)) => i.to_ascii_lowercase(),
        Token::Identifier(_) => "IDENTIFIER".into(),
        Token::String(_) => "STRING".into(),
        Token::Number(_) => "NUMBER".into(),
        Token::Duration(_) => "DURATION".into(),
        Token::Bytes(_) => "BYTES".into(),
        Token::Range(_) => "RANGE".into(),
        Token::Symbol(s) => (*s).into(),
        Token::End => "$end".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        tokenize(text).expect("valid").into_iter().map(|s| s.token).collect()
    }

    #[test]
    fn all_kinds() {
        use Token::*;
        assert_eq!(
            tokens("{a=~\"x\\n\\u00e9\"} |= `r\\` [1h5m] 1.5e-3 5ms # c\n>="),
            [
                Symbol("{"),
                Identifier("a".into()),
                Symbol("=~"),
                String("x\né".into()),
                Symbol("}"),
                Symbol("|="),
                String("r\\".into()),
                Range(3_900_000_000_000),
                Number(0.0015),
                Duration(5_000_000),
                Symbol(">="),
                End,
            ]
        );
        assert_eq!(
            tokens("1_000 .5 010 1.5s"),
            [Number(1000.0), Number(0.5), Number(10.0), Duration(1_500_000_000), End]
        );
    }

    #[test]
    fn mistakes_have_positions() {
        for (text, want) in [
            ("{a=\"x", "line 1, col 4: literal not terminated"),
            ("\n \"\\d\"", "line 2, col 2: invalid char escape"),
            ("[ 5m ]", "not a valid duration string"),
            ("[30m1h]", "not a valid duration string"),
            ("0x1F", "unable to parse literal as a float"),
            ("?", "unexpected character '?'"),
        ] {
            let e = tokenize(text).unwrap_err().message;
            assert!(e.contains(want), "{text}: {e}");
        }
    }
}
