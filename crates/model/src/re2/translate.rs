//! From RE2 syntax to the `regex` crate's, in one pass that follows the order of Go's `regexp/syntax` parser,
//! so that a refused expression is refused for the same reason and in the same words.
//!
//! Differences handled here: a `{` that starts no repetition is a literal; classes have no set operators and a
//! `[` in them is a literal; `\d \w \s \b` and their opposites are ASCII; `\Q..\E` and octal escapes exist;
//! stacked repetitions, repetitions above 1000, `(?x)`, `\u`, `\h` and the like do not.

use std::collections::HashSet;

use crate::error::{Error, Result};

/// Largest count of a repetition, nested ones multiplied.
const REPEAT_MAX: u64 = 1000;

/// Groups inside groups; below the `regex` crate's own limit of 250.
const NESTING_MAX: usize = 200;

/// Longest expression, so that hostile ones cost little before any limit of the compiler is reached.
const PATTERN_BYTES_MAX: usize = 1 << 20;

const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\f\r ";
const WORD: &str = "0-9A-Za-z_";

const POSIX_NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Rewrites an RE2 expression into the `regex` crate's syntax with the same meaning.
///
/// # Errors
/// `Invalid` with Go's wording when RE2 refuses the expression.
pub fn translate(pattern: &str) -> Result<String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(Error::invalid("error parsing regexp: expression too large"));
    }
    let mut t = Translator {
        src: pattern,
        pos: 0,
        out: String::with_capacity(pattern.len() + 16),
        groups: Vec::new(),
        widest: 1,
        atom: None,
        names: HashSet::new(),
    };
    t.run()?;
    Ok(t.out)
}

struct Translator<'a> {
    src: &'a str,
    pos: usize,
    out: String,
    /// `widest` of the enclosing groups.
    groups: Vec<u64>,
    /// Largest product of nested repetitions in the group so far.
    widest: u64,
    /// The product of nested repetitions in the item that a repetition operator would apply to.
    atom: Option<u64>,
    names: HashSet<&'a str>,
}

fn refuse<T>(code: &str, expr: &str) -> Result<T> {
    Err(Error::invalid(format!("error parsing regexp: {code}: `{expr}`")))
}

impl<'a> Translator<'a> {
    fn rest(&self) -> &'a str {
        &self.src[self.pos..]
    }

    fn run(&mut self) -> Result<()> {
        let mut last_repeat: Option<usize> = None;
        while let Some(c) = self.rest().chars().next() {
            let start = self.pos;
            let mut repeated = false;
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.bump(1, "|");
                    self.atom = None;
                }
                '^' | '$' | '.' => {
                    self.out.push(c);
                    self.pos += 1;
                    self.atom = Some(1);
                }
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.pos += 1;
                    self.repeat(start, last_repeat, None)?;
                    repeated = true;
                }
                '{' => match parse_repeat(self.rest()) {
                    None => {
                        self.pos += 1;
                        self.literal('{');
                    }
                    Some((count, len)) => {
                        self.pos += len;
                        match count {
                            Some((min, max))
                                if min <= REPEAT_MAX && max.is_none_or(|m| m <= REPEAT_MAX && min <= m) =>
                            {
                                self.repeat(start, last_repeat, Some((min, max)))?;
                            }
                            _ => return refuse("invalid repeat count", &self.src[start..self.pos]),
                        }
                        repeated = true;
                    }
                },
                '\\' => self.escape()?,
                c => {
                    self.pos += c.len_utf8();
                    self.literal(c);
                }
            }
            last_repeat = repeated.then_some(start);
        }
        if self.groups.is_empty() {
            Ok(())
        } else {
            refuse("missing closing )", self.src)
        }
    }

    fn bump(&mut self, bytes: usize, emit: &str) {
        self.pos += bytes;
        self.out.push_str(emit);
    }

    fn literal(&mut self, c: char) {
        push_literal(&mut self.out, c);
        self.atom = Some(1);
    }

    fn enter(&mut self, emit: &str) -> Result<()> {
        if self.groups.len() >= NESTING_MAX {
            return refuse("expression nests too deeply", self.src);
        }
        self.out.push_str(emit);
        self.groups.push(self.widest);
        self.widest = 1;
        self.atom = None;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(outer) = self.groups.pop() else {
            return refuse("unexpected )", self.src);
        };
        self.bump(1, ")");
        self.atom = Some(self.widest);
        self.widest = self.widest.max(outer);
        Ok(())
    }

    /// `(`, `(?flags)`, `(?flags:`, `(?P<name>`, `(?<name>`.
    fn open(&mut self) -> Result<()> {
        let s = self.rest();
        if !s.starts_with("(?") {
            self.pos += 1;
            return self.enter("(");
        }
        let name_at = if s.starts_with("(?P<") {
            Some(4)
        } else if s.starts_with("(?<") {
            Some(3)
        } else {
            None
        };
        if let Some(at) = name_at {
            let Some(end) = s.find('>') else {
                return refuse("invalid named capture", s);
            };
            let name = s.get(at..end).unwrap_or("");
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return refuse("invalid named capture", &s[..=end]);
            }
            self.pos += end + 1;
            // The crate knows neither repeated names nor names that start with a digit: such groups keep
            // their number and lose their name.
            let usable = !name.as_bytes()[0].is_ascii_digit() && self.names.insert(name);
            return if usable {
                self.enter(&format!("(?P<{name}>"))
            } else {
                self.enter("(")
            };
        }
        self.flags(s)
    }

    fn flags(&mut self, s: &'a str) -> Result<()> {
        // i, m, s, U: the last mention decides.
        const FLAGS: [char; 4] = ['i', 'm', 's', 'U'];
        let mut state = [None; 4];
        let (mut on, mut saw_flag) = (true, false);
        for (i, c) in s.char_indices().skip(2) {
            if let Some(f) = FLAGS.iter().position(|f| *f == c) {
                state[f] = Some(on);
                saw_flag = true;
                continue;
            }
            match c {
                '-' if on => {
                    on = false;
                    saw_flag = false;
                }
                ':' | ')' if on || saw_flag => {
                    let with = |want: bool| -> String {
                        (0..4).filter(|f| state[*f] == Some(want)).map(|f| FLAGS[f]).collect()
                    };
                    let (set, clear) = (with(true), with(false));
                    let dash = if clear.is_empty() { "" } else { "-" };
                    self.pos += i + 1;
                    if c == ':' {
                        return self.enter(&format!("(?{set}{dash}{clear}:"));
                    }
                    if !(set.is_empty() && clear.is_empty()) {
                        self.out.push_str(&format!("(?{set}{dash}{clear})"));
                    }
                    return Ok(());
                }
                _ => return refuse("invalid or unsupported Perl syntax", &s[..i + c.len_utf8()]),
            }
        }
        refuse("missing closing )", self.src)
    }

    /// A repetition operator whose text runs from `start` to here; `count` for the brace form.
    fn repeat(&mut self, start: usize, last_repeat: Option<usize>, count: Option<(u64, Option<u64>)>) -> Result<()> {
        if self.rest().starts_with('?') {
            self.pos += 1;
        }
        let text = &self.src[start..self.pos];
        if let Some(last) = last_repeat {
            return refuse("invalid nested repetition operator", &self.src[last..self.pos]);
        }
        let Some(inner) = self.atom else {
            return refuse("missing argument to repetition operator", text);
        };
        let product = match count {
            Some((min, max)) => inner.saturating_mul(max.unwrap_or(min).max(1)),
            None => inner,
        };
        if product > REPEAT_MAX {
            return refuse("invalid repeat count", text);
        }
        self.out.push_str(text);
        self.widest = self.widest.max(product);
        self.atom = Some(product);
        Ok(())
    }

    /// A backslash outside of a class.
    fn escape(&mut self) -> Result<()> {
        let s = self.rest();
        match s.as_bytes().get(1) {
            Some(b'A') => self.bump(2, r"\A"),
            Some(b'z') => self.bump(2, r"\z"),
            Some(b'b') => self.bump(2, r"(?-u:\b)"),
            Some(b'B') => self.bump(2, r"(?-u:\B)"),
            Some(b'C') => return refuse("invalid escape sequence", r"\C"),
            Some(b'Q') => {
                let body = &s[2..];
                let (text, len) = match body.find(r"\E") {
                    Some(end) => (&body[..end], 2 + end + 2),
                    None => (body, s.len()),
                };
                self.pos += len;
                for c in text.chars() {
                    self.literal(c);
                }
                return Ok(());
            }
            Some(b'p' | b'P') => {
                let class = self.unicode_class()?;
                self.out.push_str(&class);
            }
            Some(b'd' | b'D' | b's' | b'S' | b'w' | b'W') => {
                let (negated, set) = perl_class(s.as_bytes()[1]);
                self.bump(2, if negated { "[^" } else { "[" });
                self.out.push_str(set);
                self.out.push(']');
            }
            _ => {
                let c = self.escaped_char()?;
                self.literal(c);
                return Ok(());
            }
        }
        self.atom = Some(1);
        Ok(())
    }

    /// `\pL`, `\p{Greek}`, `\P{^Greek}`, checked against the crate's tables.
    fn unicode_class(&mut self) -> Result<String> {
        let s = self.rest();
        let mut negated = s.starts_with(r"\P");
        let Some(first) = s[2..].chars().next() else {
            return refuse("invalid character class range", s);
        };
        let (seq, mut name) = if first == '{' {
            let Some(end) = s.find('}') else {
                return refuse("invalid character class range", s);
            };
            (&s[..=end], &s[3..end])
        } else {
            let seq = &s[..2 + first.len_utf8()];
            (seq, &seq[2..])
        };
        if let Some(n) = name.strip_prefix('^') {
            negated = !negated;
            name = n;
        }
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        let out = format!("{}{{{name}}}", if negated { r"\P" } else { r"\p" });
        if !plain || regex_syntax::parse(&out).is_err() {
            return refuse("invalid character class range", seq);
        }
        self.pos += seq.len();
        Ok(out)
    }

    /// An escape that stands for one character.
    fn escaped_char(&mut self) -> Result<char> {
        let s = self.rest();
        let mut chars = s.char_indices().skip(1);
        let Some((_, c)) = chars.next() else {
            return refuse("trailing backslash at end of expression", "");
        };
        let bytes = s.as_bytes();
        let octal = |i: usize| {
            bytes
                .get(i)
                .copied()
                .filter(|b| (b'0'..=b'7').contains(b))
                .map(|b| u32::from(b - b'0'))
        };
        // (code point, length of the escape); a length without a code point is where Go stopped reading.
        let (code, len) = match c {
            'a' => (Some(7), 2),
            'f' => (Some(12), 2),
            'n' => (Some(10), 2),
            'r' => (Some(13), 2),
            't' => (Some(9), 2),
            'v' => (Some(11), 2),
            '0'..='7' if c == '0' || octal(2).is_some() => {
                let (mut code, mut len) = (octal(1).unwrap_or(0), 2);
                while len < 4
                    && let Some(d) = octal(len)
                {
                    code = code * 8 + d;
                    len += 1;
                }
                (Some(code), len)
            }
            'x' => hex_escape(s),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => (Some(u32::from(c)), 2),
            c => (None, 1 + c.len_utf8()),
        };
        match code.and_then(char::from_u32) {
            Some(c) => {
                self.pos += len;
                Ok(c)
            }
            None => refuse("invalid escape sequence", &s[..len]),
        }
    }

    fn class(&mut self) -> Result<()> {
        let whole = self.rest();
        self.bump(1, "[");
        if self.rest().starts_with('^') {
            self.bump(1, "^");
        }
        let mut first = true;
        loop {
            let s = self.rest();
            if s.starts_with(']') && !first {
                break;
            }
            first = false;
            if s.len() > 2
                && s.starts_with("[:")
                && let Some(end) = s[2..].find(":]")
            {
                let seq = &s[..end + 4];
                let name = &s[2..end + 2];
                if !POSIX_NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return refuse("invalid character class range", seq);
                }
                self.bump(seq.len(), seq);
                continue;
            }
            match s.as_bytes() {
                [b'\\', b'p' | b'P', ..] => {
                    let class = self.unicode_class()?;
                    self.out.push_str(&class);
                    continue;
                }
                [b'\\', b @ (b'd' | b'D' | b's' | b'S' | b'w' | b'W'), ..] => {
                    let (negated, set) = perl_class(*b);
                    self.pos += 2;
                    if negated {
                        self.out.push_str("[^");
                        self.out.push_str(set);
                        self.out.push(']');
                    } else {
                        self.out.push_str(set);
                    }
                    continue;
                }
                _ => {}
            }
            let low = self.class_char(whole)?;
            push_class_literal(&mut self.out, low);
            let tail = self.rest().as_bytes();
            if tail.len() >= 2 && tail[0] == b'-' && tail[1] != b']' {
                self.pos += 1;
                let high = self.class_char(whole)?;
                if high < low {
                    return refuse("invalid character class range", &s[..s.len() - self.rest().len()]);
                }
                self.out.push('-');
                push_class_literal(&mut self.out, high);
            }
        }
        self.bump(1, "]");
        self.atom = Some(1);
        Ok(())
    }

    fn class_char(&mut self, whole: &str) -> Result<char> {
        match self.rest().chars().next() {
            None => refuse("missing closing ]", whole),
            Some('\\') => self.escaped_char(),
            Some(c) => {
                self.pos += c.len_utf8();
                Ok(c)
            }
        }
    }
}

/// `\xFF` or `\x{10FFFF}`: code point and length, or how far Go reads before it refuses.
fn hex_escape(s: &str) -> (Option<u32>, usize) {
    let body = &s[2..];
    if let Some(digits) = body.strip_prefix('{') {
        let mut code = 0u32;
        for (i, c) in digits.char_indices() {
            let end = 3 + i + c.len_utf8();
            match c.to_digit(16) {
                Some(d) if code * 16 + d <= 0x10_FFFF => code = code * 16 + d,
                None if c == '}' && i > 0 => return (Some(code), end),
                _ => return (None, end),
            }
        }
        return (None, s.len());
    }
    let mut digits = body.chars();
    let (a, b) = (digits.next(), digits.next());
    let len = 2 + a.map_or(0, char::len_utf8) + b.map_or(0, char::len_utf8);
    match (a.and_then(|c| c.to_digit(16)), b.and_then(|c| c.to_digit(16))) {
        (Some(a), Some(b)) => (Some(a * 16 + b), len),
        _ => (None, len),
    }
}

/// `{n}`, `{n,}`, `{n,m}` at the start of `s`: (min, max) and the length. The counts are `None` when too big to
/// read; the whole is `None` when the brace is a literal.
fn parse_repeat(s: &str) -> Option<(Option<(u64, Option<u64>)>, usize)> {
    let body = &s[1..];
    let (min, rest) = parse_count(body)?;
    let (min, max, rest) = match rest.strip_prefix(',') {
        None => (min, Some(min), rest),
        Some(rest) if rest.starts_with('}') => (min, None, rest),
        Some(rest) => {
            let (max, rest) = parse_count(rest)?;
            (min, Some(max), rest)
        }
    };
    let rest = rest.strip_prefix('}')?;
    let counts = match (min, max) {
        (Some(min), None) => Some((min, None)),
        (Some(min), Some(Some(max))) => Some((min, Some(max))),
        _ => None,
    };
    Some((counts, s.len() - rest.len()))
}

/// Decimal digits without a leading zero; the number is `None` from 1e8 on.
fn parse_count(s: &str) -> Option<(Option<u64>, &str)> {
    let len = s.bytes().take_while(u8::is_ascii_digit).count();
    if len == 0 || (len > 1 && s.starts_with('0')) {
        return None;
    }
    let (digits, rest) = s.split_at(len);
    Some((digits.parse().ok().filter(|n| *n < 100_000_000), rest))
}

fn perl_class(letter: u8) -> (bool, &'static str) {
    let set = match letter.to_ascii_lowercase() {
        b'd' => DIGIT,
        b's' => SPACE,
        _ => WORD,
    };
    (letter.is_ascii_uppercase(), set)
}

fn push_literal(out: &mut String, c: char) {
    if regex_syntax::is_meta_character(c) {
        out.push('\\');
    }
    out.push(c);
}

fn push_class_literal(out: &mut String, c: char) {
    // Every punctuation mark is escaped: `&&`, `--`, `~~` and `[` mean something to the crate.
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}
