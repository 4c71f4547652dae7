//! Text into tokens, each with its position.
//!
//! The one surprise of TraceQL's lexis: after a scope's dot every character belongs to the attribute's name until white
//! space or one of `{ } ( ) = ~ ! < > & | ^ ,`, so `span.a+b` is one name.

use std::fmt;

use trilith_model::{Error, Result};
use trilith_query::AttributeScope;

/// Line and column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pos {
    pub line: u32,
    pub col: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// `.a`, `span.a`, …
    Attribute(AttributeScope, String),
    /// `parent.a`, `parent.span.a`: known, not supported.
    ParentAttribute(String),
    /// `span:name`, `trace:id`
    Scoped(String),
    Word(String),
    String(String),
    Int(i64),
    Float(f64),
    /// ns
    Duration(i64),
    /// Operators and brackets.
    Op(&'static str),
    End,
}

impl fmt::Display for Token {
    /// As upstream's parser names it in its errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Attribute(scope, _) => f.write_str(match scope {
                AttributeScope::Any => ".",
                AttributeScope::Span => "span.",
                AttributeScope::Resource => "resource.",
                AttributeScope::Event => "event.",
                AttributeScope::Link => "link.",
                AttributeScope::Instrumentation => "instrumentation.",
            }),
            Token::ParentAttribute(_) => f.write_str("parent."),
            Token::Scoped(s) => f.write_str(s),
            Token::Word(w) if KEYWORDS.contains(&w.as_str()) => f.write_str(w),
            Token::Word(_) => f.write_str("IDENTIFIER"),
            Token::String(_) => f.write_str("STRING"),
            Token::Int(_) => f.write_str("INTEGER"),
            Token::Float(_) => f.write_str("FLOAT"),
            Token::Duration(_) => f.write_str("DURATION"),
            Token::Op(op) => f.write_str(op),
            Token::End => f.write_str("$end"),
        }
    }
}

/// Words that mean something outside of attribute names.
const KEYWORDS: &[&str] = &[
    "true",
    "false",
    "nil",
    "minInt",
    "maxInt",
    "ok",
    "error",
    "unset",
    "unspecified",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
    "duration",
    "name",
    "kind",
    "status",
    "statusMessage",
    "traceDuration",
    "rootName",
    "rootServiceName",
    "nestedSetLeft",
    "nestedSetRight",
    "nestedSetParent",
    "parent",
    "childCount",
    "count",
    "avg",
    "max",
    "min",
    "sum",
    "by",
    "coalesce",
    "select",
    "with",
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
    "topk",
    "bottomk",
];

/// Longest first, because they are recognised greedily.
const OPS: &[&str] = &[
    "!>>", "!<<", "&>>", "&<<", "!=", "!~", "!>", "!<", "&&", "&>", "&<", "&~", "||", "=~", ">=", ">>", "<=", "<<",
    "{", "}", "(", ")", "=", ">", "<", "~", "!", "|", "+", "-", "*", "/", "%", "^", ",",
];

pub fn error_at(pos: Pos, message: impl fmt::Display) -> Error {
    Error::invalid(format!("parse error at line {}, col {}: {message}", pos.line, pos.col))
}

/// # Errors
/// `Invalid` with the position of what cannot be read.
pub fn tokens(text: &str) -> Result<Vec<(Token, Pos)>> {
    let mut lexer = Lexer {
        text,
        at: 0,
        counted: 0,
        pos: Pos { line: 1, col: 1 },
    };
    let mut out = Vec::new();
    loop {
        lexer.skip_space()?;
        let pos = lexer.pos();
        let token = lexer.token(pos)?;
        let end = token == Token::End;
        out.push((token, pos));
        if end {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Where `pos` counted to last, and the position there; so that counting is linear in all.
    counted: usize,
    pos: Pos,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Of `at`, which never moves back.
    fn pos(&mut self) -> Pos {
        for c in self.text[self.counted..self.at].chars() {
            if c == '\n' {
                self.pos = Pos {
                    line: self.pos.line + 1,
                    col: 1,
                };
            } else {
                self.pos.col += 1;
            }
        }
        self.counted = self.at;
        self.pos
    }

    fn skip_space(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                let Some(end) = comment.find("*/") else {
                    return Err(error_at(self.pos(), "comment not terminated"));
                };
                self.at += 2 + end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self, pos: Pos) -> Result<Token> {
        let Some(c) = self.peek() else {
            return Ok(Token::End);
        };
        match c {
            '"' => self.quoted(pos).map(Token::String),
            '`' => {
                let body = &self.rest()[1..];
                let end = body.find('`').ok_or_else(|| error_at(pos, "literal not terminated"))?;
                self.at += end + 2;
                Ok(Token::String(body[..end].to_owned()))
            }
            '.' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(pos),
            '.' => {
                self.at += 1;
                Ok(Token::Attribute(AttributeScope::Any, self.attribute_name(pos)?))
            }
            c if c.is_ascii_digit() => self.number(pos),
            c if c.is_alphabetic() || c == '_' => self.word(pos),
            _ => {
                let op = OPS.iter().find(|op| self.rest().starts_with(**op));
                let op = op.ok_or_else(|| error_at(pos, format!("syntax error: unexpected {c}")))?;
                self.at += op.len();
                Ok(Token::Op(op))
            }
        }
    }

    fn word(&mut self, pos: Pos) -> Result<Token> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let word = &rest[..end];
        self.at += end;
        match rest[end..].chars().next() {
            Some('.') => {
                let scope = match word {
                    "span" => AttributeScope::Span,
                    "resource" => AttributeScope::Resource,
                    "event" => AttributeScope::Event,
                    "link" => AttributeScope::Link,
                    "instrumentation" => AttributeScope::Instrumentation,
                    "parent" => {
                        self.at += 1;
                        return self.attribute_name(pos).map(Token::ParentAttribute);
                    }
                    _ => return Ok(Token::Word(word.to_owned())),
                };
                self.at += 1;
                Ok(Token::Attribute(scope, self.attribute_name(pos)?))
            }
            Some(':') if ["span", "trace", "event", "link", "instrumentation"].contains(&word) => {
                let name = &rest[end + 1..];
                let len = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
                self.at += 1 + len;
                Ok(Token::Scoped(rest[..end + 1 + len].to_owned()))
            }
            _ => Ok(Token::Word(word.to_owned())),
        }
    }

    fn attribute_name(&mut self, pos: Pos) -> Result<String> {
        let mut name = String::new();
        let mut seen = false;
        while let Some(c) = self.peek() {
            if c == '"' {
                seen = true;
                self.at += 1;
                loop {
                    let c = self
                        .peek()
                        .ok_or_else(|| error_at(pos, "unexpected EOF, expecting `\"`"))?;
                    self.at += c.len_utf8();
                    match c {
                        '"' => break,
                        '\\' => {
                            let escaped = self.peek().filter(|c| matches!(c, '"' | '\\'));
                            let escaped = escaped.ok_or_else(|| {
                                error_at(pos, "invalid escape sequence, only \\\" and \\\\ are known")
                            })?;
                            self.at += 1;
                            name.push(escaped);
                        }
                        c => name.push(c),
                    }
                }
                continue;
            }
            if c.is_whitespace() || "{}()=~!<>&|^,".contains(c) {
                break;
            }
            seen = true;
            name.push(c);
            self.at += c.len_utf8();
        }
        if !seen {
            return Err(error_at(
                pos,
                "syntax error: unexpected END_ATTRIBUTE, expecting IDENTIFIER",
            ));
        }
        Ok(name)
    }

    /// A Go string literal.
    fn quoted(&mut self, pos: Pos) -> Result<String> {
        let mut out: Vec<u8> = Vec::new();
        self.at += 1;
        let unterminated = || error_at(pos, "literal not terminated");
        loop {
            let c = self.peek().ok_or_else(unterminated)?;
            self.at += c.len_utf8();
            match c {
                '"' => break,
                '\n' => return Err(unterminated()),
                '\\' => self.escape(pos, &mut out)?,
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(out).map_err(|_| error_at(pos, "string is not UTF-8"))
    }

    fn escape(&mut self, pos: Pos, out: &mut Vec<u8>) -> Result<()> {
        let invalid = || error_at(pos, "invalid char escape");
        let c = self.peek().ok_or_else(invalid)?;
        self.at += c.len_utf8();
        let mut digits = |n: usize, radix: u32| -> Result<u32> {
            let digits = self.rest().get(..n).ok_or_else(invalid)?;
            if !digits.chars().all(|c| c.is_digit(radix)) {
                return Err(invalid());
            }
            self.at += n;
            u32::from_str_radix(digits, radix).map_err(|_| invalid())
        };
        let byte = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            '"' => b'"',
            'x' => digits(2, 16)? as u8,
            '0'..='7' => {
                self.at -= 1;
                let n = {
                    let digits = self
                        .rest()
                        .get(..3)
                        .filter(|d| d.chars().all(|c| c.is_digit(8)))
                        .ok_or_else(invalid)?;
                    u32::from_str_radix(digits, 8).map_err(|_| invalid())?
                };
                self.at += 3;
                u8::try_from(n).map_err(|_| invalid())?
            }
            'u' | 'U' => {
                let code = digits(if c == 'u' { 4 } else { 8 }, 16)?;
                let c = char::from_u32(code).ok_or_else(invalid)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(invalid()),
        };
        out.push(byte);
        Ok(())
    }

    fn number(&mut self, pos: Pos) -> Result<Token> {
        let rest = self.rest();
        let mut end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let exponent = rest[end..]
            .strip_prefix(['e', 'E'])
            .map(|r| r.strip_prefix(['+', '-']).unwrap_or(r));
        if let Some(r) = exponent
            && r.starts_with(|c: char| c.is_ascii_digit())
        {
            let digits = r.find(|c: char| !c.is_ascii_digit()).unwrap_or(r.len());
            end = rest.len() - r.len() + digits;
        } else if rest[end..].starts_with(|c: char| c.is_alphabetic()) {
            end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '.')
                .unwrap_or(rest.len());
            self.at += end;
            let text = &rest[..end];
            return parse_duration(text)
                .map(Token::Duration)
                .ok_or_else(|| error_at(pos, format!("invalid duration: {text}")));
        }
        self.at += end;
        let text = &rest[..end];
        let bad = || error_at(pos, format!("invalid number: {text}"));
        if text.contains(['.', 'e', 'E']) {
            text.parse().map(Token::Float).map_err(|_| bad())
        } else {
            text.parse().map(Token::Int).map_err(|_| bad())
        }
    }
}

/// A duration literal in ns: by Prometheus' rules (descending units, integers, days and longer), else by Go's (fractions,
/// hours and shorter). `None` for anything else.
pub fn parse_duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 10] = [
        ("y", 365 * 86_400_000_000_000),
        ("w", 7 * 86_400_000_000_000),
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("ms", 1_000_000),
        ("m", 60_000_000_000),
        ("us", 1_000),
        ("µs", 1_000),
        ("ns", 1),
        ("s", 1_000_000_000),
    ];
    const HOUR: i64 = 3_600_000_000_000;
    let (mut prometheus, mut go) = (true, true);
    let mut total: i64 = 0;
    let mut last_unit = i64::MAX;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|n| *n > 0)?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (name, next) = tail.split_at(unit_len);
        let unit = UNITS.iter().find(|u| u.0 == name || (u.0 == "µs" && name == "μs"))?.1;
        go &= unit <= HOUR;
        prometheus &= unit < last_unit && unit >= 1_000_000 && !number.contains('.');
        last_unit = unit;
        let value = match number.split_once('.') {
            None => number.parse::<i64>().ok()?.checked_mul(unit)?,
            Some((whole, fraction)) if !(whole.is_empty() && fraction.is_empty()) => {
                let whole = if whole.is_empty() {
                    0
                } else {
                    whole.parse::<i64>().ok()?
                };
                let mut part: i128 = 0;
                let mut scale: i128 = 1;
                // Digits beyond a nanosecond of an hour do not count.
                for c in fraction.chars().take(18) {
                    part = part * 10 + i128::from(c.to_digit(10)?);
                    scale *= 10;
                }
                let part = i64::try_from(part * i128::from(unit) / scale).ok()?;
                whole.checked_mul(unit)?.checked_add(part)?
            }
            Some(_) => return None,
        };
        total = total.checked_add(value)?;
        rest = next;
    }
    (prometheus || go).then_some(total)
}
