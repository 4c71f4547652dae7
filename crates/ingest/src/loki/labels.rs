//! The label text of a stream: `{a="b", c="d"}`, read as the Prometheus metric parser does, with its errors.
//!
//! Accepted besides the plain form: a metric name in front (it becomes `__name__`), a trailing comma, white space,
//! and all three kinds of Go string literals. Names are `[a-zA-Z_][a-zA-Z0-9_]*`.

use trilith_model::{Error, LabelsBuilder, Result};

/// Parses label text into `out`, pairs in the order written; duplicates are the caller's to judge.
///
/// # Errors
/// `Invalid`: `couldn't parse labels: 1:5: parse error: …`, line and column of the first offending byte.
pub fn parse_labels(text: &str, out: &mut LabelsBuilder) -> Result<()> {
    let mut parser = Parser { text, at: 0 };
    parser.metric(out).map_err(|(at, what)| {
        let before = &text[..text.floor_char_boundary(at.min(text.len()))];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, str::len) + 1;
        Error::invalid(format!("couldn't parse labels: {line}:{column}: parse error: {what}"))
    })
}

/// Whether a label of this name can be written in label text.
pub(super) fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

type Parsed<T> = std::result::Result<T, (usize, String)>;

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn metric(&mut self, out: &mut LabelsBuilder) -> Parsed<()> {
        self.skip_space();
        if self
            .peek()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':')
        {
            let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            out.push("__name__", name);
            self.skip_space();
        }
        match self.peek() {
            Some('{') => self.at += 1,
            Some(c) => return Err((self.at, format!("unexpected {:?}", c.to_string()))),
            None => return Err((self.at, "unexpected end of input".into())),
        }
        self.label_set(out)?;
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(c) => Err((self.at, format!("unexpected {:?}", c.to_string()))),
        }
    }

    fn label_set(&mut self, out: &mut LabelsBuilder) -> Parsed<()> {
        let mut first = true;
        loop {
            self.skip_space();
            match self.peek() {
                Some('}') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(',') if !first => {
                    self.at += 1;
                    self.skip_space();
                    if self.peek() == Some('}') {
                        continue;
                    }
                }
                Some('"' | '\'' | '`') if !first => {
                    return Err(self.unexpected("in label set, expected \",\" or \"}\""));
                }
                Some(c) if !first && !is_name_start(c) => return Err(self.inside_braces()),
                Some(_) if !first => {
                    return Err(self.unexpected("in label set, expected \",\" or \"}\""));
                }
                _ => {}
            }
            first = false;
            let name = self.name()?;
            self.skip_space();
            match self.peek() {
                Some('=') => self.at += 1,
                Some(c) if is_name_start(c) || c == ',' || c == '}' => {
                    return Err(self.unexpected("in label set, expected \"=\""));
                }
                _ => return Err(self.inside_braces()),
            }
            self.skip_space();
            let value = self.value()?;
            out.push(name, &value);
        }
    }

    fn name(&mut self) -> Parsed<&'a str> {
        match self.peek() {
            Some(c) if is_name_start(c) => Ok(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')),
            Some('"' | '\'' | '`' | ',' | '=') => Err(self.unexpected("in label set, expected identifier or \"}\"")),
            _ => Err(self.inside_braces()),
        }
    }

    fn value(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.at += 1;
                self.quoted(quote)
            }
            Some('`') => {
                let start = self.at;
                self.at += 1;
                let raw = self.take_while(|c| c != '`');
                if self.peek().is_none() {
                    return Err((start, "unterminated raw string".into()));
                }
                self.at += 1;
                Ok(raw.to_owned())
            }
            Some(c) if is_name_start(c) || c == ',' || c == '}' => {
                Err(self.unexpected("in label set, expected string"))
            }
            _ => Err(self.inside_braces()),
        }
    }

    /// The rest of a Go string literal after its opening quote.
    fn quoted(&mut self, quote: char) -> Parsed<String> {
        let start = self.at - 1;
        // Bytes, because `\xff` and octal escapes name bytes; UTF-8 is checked at the end.
        let mut out: Vec<u8> = Vec::new();
        loop {
            let plain = self.take_while(|c| c != quote && c != '\\' && c != '\n');
            out.extend_from_slice(plain.as_bytes());
            match self.peek() {
                Some('\\') => self.escape(quote, &mut out)?,
                Some('\n') | None => return Err((start, "unterminated quoted string".into())),
                Some(_) => {
                    self.at += 1;
                    return String::from_utf8(out).map_err(|_| (start, "label value is not valid UTF-8".into()));
                }
            }
        }
    }

    fn escape(&mut self, quote: char, out: &mut Vec<u8>) -> Parsed<()> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.peek() else {
            return Err((start, "escape sequence not terminated".into()));
        };
        let simple = match c {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' => Some(b'\\'),
            c if c == quote => Some(c as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            self.at += 1;
            return Ok(());
        }
        let (digits, radix, skip) = match c {
            '0'..='7' => (3, 8, 0),
            'x' => (2, 16, 1),
            'u' => (4, 16, 1),
            'U' => (8, 16, 1),
            _ => {
                return Err((start, format!("unknown escape sequence {:?}", format!("\\{c}"))));
            }
        };
        self.at += skip;
        let number = self
            .text
            .get(self.at..self.at + digits)
            .filter(|d| d.bytes().all(|b| (b as char).is_digit(radix)))
            .and_then(|d| u32::from_str_radix(d, radix).ok());
        let Some(number) = number else {
            return Err((start, "illegal character in escape sequence".into()));
        };
        self.at += digits;
        if digits <= 3 {
            let byte = u8::try_from(number).map_err(|_| (start, "escape sequence is above 255".into()))?;
            out.push(byte);
        } else {
            let Some(c) = char::from_u32(number) else {
                return Err((start, "escape sequence is an invalid Unicode code point".into()));
            };
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }

    /// What stands at the cursor is a token, at the wrong place.
    fn unexpected(&self, place: &str) -> (usize, String) {
        let rest = &self.text[self.at..];
        let token = match self.peek() {
            Some(c) if is_name_start(c) => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                let word = &rest[..end.unwrap_or(rest.len())];
                format!("identifier {:?}", crate::rejections::quoted(word))
            }
            Some(c @ ('"' | '\'' | '`')) => {
                let end = rest[1..].find(c).map_or(rest.len(), |i| i + 2);
                format!("string {}", crate::rejections::quoted(&rest[..end]))
            }
            Some(c) => format!("{:?}", c.to_string()),
            None => "end of input".into(),
        };
        (self.at, format!("unexpected {token} {place}"))
    }

    /// What stands at the cursor is no token at all.
    fn inside_braces(&self) -> (usize, String) {
        match self.peek() {
            Some(c) => (self.at, format!("unexpected character inside braces: {c:?}")),
            None => (self.at, "unexpected end of input inside braces".into()),
        }
    }
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trilith_model::Labels;

    use super::*;

    fn parse(text: &str) -> std::result::Result<String, String> {
        let mut out = LabelsBuilder::new();
        parse_labels(text, &mut out).map_err(|e| e.message)?;
        Ok(out.finish().to_string())
    }

    #[test]
    fn reads_what_prometheus_reads() {
        for (text, want) in [
            ("{}", "{}"),
            (r#"{a="b"}"#, r#"{a="b"}"#),
            (r#"{ b = "2" , a = "1" , }"#, r#"{a="1", b="2"}"#),
            (r#"{b='say "x"'}"#, r#"{b="say \"x\""}"#),
            ("{b=`raw\\n`}", r#"{b="raw\\n"}"#),
            (r#"{b="\x41\102\u0043\U00000044\\\"\t"}"#, "{b=\"ABCD\\\\\\\"\\t\"}"),
            (r#"up{a="b"}"#, r#"{__name__="up", a="b"}"#),
            (r#"{a="",b="x"}"#, r#"{b="x"}"#),
            ("{a=\"ü ✓\"}\n", "{a=\"ü ✓\"}"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn errors_have_the_place() {
        for (text, want) in [
            (
                r#"{bad-name="x"}"#,
                "1:5: parse error: unexpected character inside braces: '-'",
            ),
            (
                "{a=x}",
                "1:4: parse error: unexpected identifier \"x\" in label set, expected string",
            ),
            (r#"a="x""#, "1:2: parse error: unexpected \"=\""),
            (r#"{a="x""#, "1:7: parse error: unexpected end of input inside braces"),
            (
                r#"{1a="x"}"#,
                "1:2: parse error: unexpected character inside braces: '1'",
            ),
            ("", "1:1: parse error: unexpected end of input"),
            (r#"{a="x"}}"#, "1:8: parse error: unexpected \"}\""),
            (r#"{a="x}"#, "1:4: parse error: unterminated quoted string"),
            ("{a=\"x\ny\"}", "1:4: parse error: unterminated quoted string"),
            (r#"{a="\q"}"#, "1:5: parse error: unknown escape sequence \"\\\\q\""),
            (r#"{a="\xff"}"#, "1:4: parse error: label value is not valid UTF-8"),
            (
                r#"{a="\ud800"}"#,
                "1:5: parse error: escape sequence is an invalid Unicode code point",
            ),
            (
                r#"{a="x" b="y"}"#,
                "1:8: parse error: unexpected identifier \"b\" in label set, expected \",\" or \"}\"",
            ),
            (
                r#"{,}"#,
                "1:2: parse error: unexpected \",\" in label set, expected identifier or \"}\"",
            ),
            (
                "{\na!=\"x\"}",
                "2:2: parse error: unexpected character inside braces: '!'",
            ),
            (
                "{=\"x\"}",
                "1:2: parse error: unexpected \"=\" in label set, expected identifier or \"}\"",
            ),
            (r#"{a="\0é"}"#, "1:5: parse error: illegal character in escape sequence"),
        ] {
            let want = format!("couldn't parse labels: {want}");
            assert_eq!(parse(text), Err(want), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_text_ends(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn nearly_right_text_ends(text in "[{}a=\"'`\\\\ ,x0é\n]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_go_quotes_is_read_back(pairs in proptest::collection::btree_map("[a-z_][a-z0-9_]{0,8}", ".{1,12}", 0..6)) {
            let labels = Labels::from_pairs(&pairs);
            let text: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={}", go_quote(v))).collect();
            let mut out = LabelsBuilder::new();
            parse_labels(&format!("{{{}}}", text.join(", ")), &mut out).unwrap();
            prop_assert_eq!(out.finish(), labels);
        }
    }

    /// `strconv.Quote`, escaping more than needed.
    fn go_quote(s: &str) -> String {
        let mut out = String::from("\"");
        for c in s.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if c as u32 > 0xffff => out.push_str(&format!("\\U{:08x}", c as u32)),
                c => out.push(c),
            }
        }
        out.push('"');
        out
    }
}
