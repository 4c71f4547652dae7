//! Text to tokens, one at a time.
//!
//! What a character means depends on what is open: braces, brackets, or neither. The rules inside brackets are two:
//! up to the first number those of a duration expression, behind it the general ones with words restricted, and both
//! must be kept apart because their messages and what they let through differ. The first failure ends the text.

use crate::ast::Span;
use crate::error::ParseError;
use crate::text::{code_point, quote, quote_char};
use crate::token::{Keyword, Kind, Operator, Preprocessor, Token};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    General,
    /// Behind `[`, up to the first number.
    Duration,
}

pub(crate) struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    /// Where the token under way starts.
    start: usize,
    mode: Mode,
    parens: usize,
    in_braces: bool,
    in_brackets: bool,
    got_colon: bool,
    /// A number was seen behind any `[` so far.
    got_duration: bool,
    /// Start of the newest token.
    last_start: usize,
}

type Step<'a> = Result<Option<Token<'a>>, String>;

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Lexer {
            text,
            pos: 0,
            start: 0,
            mode: Mode::General,
            parens: 0,
            in_braces: false,
            in_brackets: false,
            got_colon: false,
            got_duration: false,
            last_start: 0,
        }
    }

    /// The next token, comments left out.
    pub(crate) fn token(&mut self) -> Result<Token<'a>, ParseError> {
        loop {
            let step = if self.in_braces {
                self.inside_braces()
            } else if self.mode == Mode::Duration {
                self.duration()
            } else {
                self.general()
            };
            match step {
                Ok(None) => {}
                Ok(Some(token)) => {
                    self.last_start = token.start as usize;
                    if token.kind != Kind::Comment {
                        return Ok(token);
                    }
                }
                Err(message) => {
                    let span = Span {
                        start: self.start as u32,
                        end: self.text.len() as u32,
                    };
                    return Err(ParseError::new(self.text, span, message));
                }
            }
        }
    }

    /// The end of an aggregation that stopped because of the newest token: when that is a parenthesis which closes
    /// something else, the end of the one before it, else `fallback`.
    pub(crate) fn end_before_last(&self, fallback: u32) -> u32 {
        let bytes = self.text.as_bytes();
        if fallback == 0 || self.last_start == 0 || bytes.get(self.last_start) != Some(&b')') {
            return fallback;
        }
        for i in (1..self.last_start).rev() {
            match bytes[i] {
                b')' => return i as u32 + 1,
                b' ' | b'\t' | b'\n' | b'\r' => {}
                _ => break,
            }
        }
        fallback
    }

    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, set: &str) -> bool {
        let accepted = self.is(set);
        if accepted {
            self.bump();
        }
        accepted
    }

    fn is(&self, set: &str) -> bool {
        self.peek().is_some_and(|c| set.contains(c))
    }

    fn taken(&self) -> &'a str {
        &self.text[self.start..self.pos]
    }

    fn emit(&mut self, kind: Kind) -> Step<'a> {
        let token = Token {
            kind,
            start: self.start as u32,
            text: self.taken(),
        };
        self.start = self.pos;
        Ok(Some(token))
    }

    /// Takes the next character too when it is `next`.
    fn emit_longer(&mut self, next: char, longer: Kind, shorter: Kind) -> Step<'a> {
        if self.peek() == Some(next) {
            self.bump();
            return self.emit(longer);
        }
        self.emit(shorter)
    }

    fn skip_spaces(&mut self) -> Step<'a> {
        while self.peek().is_some_and(is_space) {
            self.bump();
        }
        self.start = self.pos;
        Ok(None)
    }

    fn comment(&mut self) -> Step<'a> {
        let rest = self.rest();
        self.pos += rest.find(['\n', '\r']).unwrap_or(rest.len());
        self.emit(Kind::Comment)
    }

    fn general(&mut self) -> Step<'a> {
        use Operator as O;
        if self.rest().starts_with('#') {
            return self.comment();
        }
        let Some(c) = self.bump() else {
            return if self.parens != 0 {
                Err("unclosed left parenthesis".to_owned())
            } else if self.in_brackets {
                Err("unclosed left bracket".to_owned())
            } else {
                self.emit(Kind::Eof)
            };
        };
        match c {
            ',' => self.emit(Kind::Comma),
            _ if is_space(c) => self.skip_spaces(),
            '*' => self.emit(Kind::Operator(O::Mul)),
            '/' => self.emit(Kind::Operator(O::Div)),
            '%' => self.emit(Kind::Operator(O::Mod)),
            '+' => self.emit(Kind::Operator(O::Add)),
            '-' => self.emit(Kind::Operator(O::Sub)),
            '^' => self.emit(Kind::Operator(O::Pow)),
            '=' if self.peek() == Some('~') => Err("unexpected character after '=': '~'".to_owned()),
            '=' => self.emit_longer('=', Kind::Operator(O::Eq), Kind::Eql),
            '!' => match self.bump() {
                Some('=') => self.emit(Kind::Operator(O::Ne)),
                other => Err(format!("unexpected character after '!': {}", quote_char(other))),
            },
            '<' if self.peek() == Some('/') => self.emit_longer('/', Kind::Operator(O::TrimUpper), Kind::Eof),
            '<' => self.emit_longer('=', Kind::Operator(O::Le), Kind::Operator(O::Lt)),
            '>' if self.peek() == Some('/') => self.emit_longer('/', Kind::Operator(O::TrimLower), Kind::Eof),
            '>' => self.emit_longer('=', Kind::Operator(O::Ge), Kind::Operator(O::Gt)),
            _ if self.begins_number(c) => {
                self.pos = self.start;
                self.number_or_duration()
            }
            '"' | '\'' => self.string(c),
            '`' => self.raw_string(),
            _ if is_alpha(c) || c == ':' => {
                if !self.in_brackets {
                    return self.word();
                }
                if c == ':' {
                    if self.got_colon {
                        return Err("unexpected colon ':'".to_owned());
                    }
                    self.got_colon = true;
                    return self.emit(Kind::Colon);
                }
                match self.duration_word(c) {
                    Some(word) => self.emit(Kind::Preprocessor(word)),
                    None => Err(format!("unexpected character: {}, expected ':'", quote_char(Some(c)))),
                }
            }
            '(' => self.open_paren(),
            ')' => self.close_paren(),
            '{' => {
                self.in_braces = true;
                self.emit(Kind::LeftBrace)
            }
            '[' if self.in_brackets => Err("unexpected left bracket '['".to_owned()),
            '[' => {
                let token = self.emit(Kind::LeftBracket);
                self.got_colon = false;
                self.in_brackets = true;
                self.mode = Mode::Duration;
                self.skip_spaces()?;
                token
            }
            ']' if !self.in_brackets => Err("unexpected right bracket ']'".to_owned()),
            ']' => {
                self.in_brackets = false;
                self.emit(Kind::RightBracket)
            }
            '@' => self.emit(Kind::At),
            _ => Err(format!("unexpected character: {}", quote_char(Some(c)))),
        }
    }

    fn open_paren(&mut self) -> Step<'a> {
        self.parens += 1;
        self.emit(Kind::LeftParen)
    }

    /// One too many is reported behind it.
    fn close_paren(&mut self) -> Step<'a> {
        let token = self.emit(Kind::RightParen);
        if self.parens == 0 {
            return Err("unexpected right parenthesis ')'".to_owned());
        }
        self.parens -= 1;
        token
    }

    /// Behind `[`, before any number.
    fn duration(&mut self) -> Step<'a> {
        use Operator as O;
        let Some(c) = self.bump() else {
            return Err("unexpected end of input in duration expression".to_owned());
        };
        match c {
            ']' => {
                self.in_brackets = false;
                self.got_colon = false;
                self.mode = Mode::General;
                self.emit(Kind::RightBracket)
            }
            ':' => {
                let token = self.emit(Kind::Colon);
                if !self.got_duration {
                    return Err("unexpected colon before duration in duration expression".to_owned());
                }
                if self.got_colon {
                    return Err("unexpected repeated colon in duration expression".to_owned());
                }
                self.got_colon = true;
                token
            }
            '(' => self.open_paren(),
            ')' => self.close_paren(),
            _ if is_space(c) => self.skip_spaces(),
            '+' => self.emit(Kind::Operator(O::Add)),
            '-' => self.emit(Kind::Operator(O::Sub)),
            '*' => self.emit(Kind::Operator(O::Mul)),
            '/' => self.emit(Kind::Operator(O::Div)),
            '%' => self.emit(Kind::Operator(O::Mod)),
            '^' => self.emit(Kind::Operator(O::Pow)),
            ',' => self.emit(Kind::Comma),
            _ if self.begins_number(c) => {
                self.pos = self.start;
                self.got_duration = true;
                self.mode = Mode::General;
                self.number_or_duration()
            }
            _ => match self.duration_word(c) {
                Some(word) => self.emit(Kind::Preprocessor(word)),
                None => Err(format!(
                    "unexpected character in duration expression: {}",
                    quote_char(Some(c))
                )),
            },
        }
    }

    /// A word of duration expressions that starts with `first`, which is taken already.
    fn duration_word(&mut self, first: char) -> Option<Preprocessor> {
        // What any of these words starts with.
        if !matches!(first.to_ascii_lowercase(), 's' | 'r' | 'm') {
            return None;
        }
        while self.peek().is_some_and(is_alpha) {
            self.bump();
        }
        Preprocessor::of_duration(self.taken())
    }

    fn inside_braces(&mut self) -> Step<'a> {
        if self.rest().starts_with('#') {
            return self.comment();
        }
        let Some(c) = self.bump() else {
            return Err("unexpected end of input inside braces".to_owned());
        };
        match c {
            _ if is_space(c) => self.skip_spaces(),
            _ if is_alpha(c) => {
                while self.peek().is_some_and(is_alphanumeric) {
                    self.bump();
                }
                self.emit(Kind::Identifier)
            }
            ',' => self.emit(Kind::Comma),
            '"' | '\'' => self.string(c),
            '`' => self.raw_string(),
            '=' => self.emit_longer('~', Kind::EqlRegex, Kind::Eql),
            '!' => match self.bump() {
                Some('~') => self.emit(Kind::NeqRegex),
                Some('=') => self.emit(Kind::Operator(Operator::Ne)),
                other => Err(format!(
                    "unexpected character after '!' inside braces: {}",
                    quote_char(other)
                )),
            },
            '{' => Err("unexpected left brace '{'".to_owned()),
            '}' => {
                self.in_braces = false;
                self.emit(Kind::RightBrace)
            }
            _ => Err(format!("unexpected character inside braces: {}", quote_char(Some(c)))),
        }
    }

    fn word(&mut self) -> Step<'a> {
        while self.peek().is_some_and(|c| is_alphanumeric(c) || c == ':') {
            self.bump();
        }
        let word = self.taken();
        let kind = match Kind::of_word(word) {
            // Only with a value in parentheses; a metric may be called so.
            Some(Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.rest().trim_start_matches(is_space).starts_with('(') =>
            {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        };
        self.emit(kind)
    }

    fn string(&mut self, delimiter: char) -> Step<'a> {
        loop {
            match self.bump() {
                Some('\\') => self.escape(delimiter)?,
                Some(char::REPLACEMENT_CHARACTER) => return Err("invalid UTF-8 rune".to_owned()),
                None | Some('\n') => return Err("unterminated quoted string".to_owned()),
                Some(c) if c == delimiter => return self.emit(Kind::String),
                Some(_) => {}
            }
        }
    }

    fn raw_string(&mut self) -> Step<'a> {
        loop {
            match self.bump() {
                Some(char::REPLACEMENT_CHARACTER) => return Err("invalid UTF-8 rune".to_owned()),
                None => return Err("unterminated raw string".to_owned()),
                Some('`') => return self.emit(Kind::String),
                Some(_) => {}
            }
        }
    }

    fn escape(&mut self, delimiter: char) -> Result<(), String> {
        let unterminated = || Err("escape sequence not terminated".to_owned());
        let (digits, radix, max) = match self.peek() {
            None => return unterminated(),
            Some('0'..='7') => (3, 8, 255),
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, char::MAX as u32),
            Some('U') => (8, 16, char::MAX as u32),
            Some(c) if c == delimiter || "abfnrtv\\".contains(c) => {
                self.bump();
                return Ok(());
            }
            c => return Err(format!("unknown escape sequence {}", code_point(c))),
        };
        if radix == 16 {
            self.bump();
        }
        let mut code = 0u32;
        for _ in 0..digits {
            let c = self.bump();
            let Some(c) = c else { return unterminated() };
            let Some(digit) = c.to_digit(radix) else {
                return Err(format!("illegal character {} in escape sequence", code_point(Some(c))));
            };
            code = code.wrapping_mul(radix).wrapping_add(digit);
        }
        if code > max || (0xD800..0xE000).contains(&code) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }

    fn begins_number(&self, c: char) -> bool {
        c.is_ascii_digit() || (c == '.' && self.peek().is_some_and(|d| d.is_ascii_digit()))
    }

    fn number_or_duration(&mut self) -> Step<'a> {
        if self.scan_number() {
            return self.emit(Kind::Number);
        }
        if self.scan_units() {
            return self.emit(Kind::Duration);
        }
        Err(format!(
            "bad number or duration syntax: {}",
            quote(self.taken().as_bytes())
        ))
    }

    /// Takes as much as can belong to a number; whether it is one. What was taken stays taken when it is not.
    fn scan_number(&mut self) -> bool {
        let begin = self.pos;
        let mut digits = "0123456789";
        let mut hex = false;
        if self.accept("0") && self.accept("xX") {
            self.accept("_");
            digits = "0123456789abcdefABCDEF";
            hex = true;
        }
        let (mut dot, mut exponent) = (false, false);
        self.accept(".");
        self.accept(digits);
        while self.is(digits) || self.is("._eE") {
            if self.is(".") {
                self.bump();
                if dot || self.accept("_.") || hex {
                    return false;
                }
                dot = true;
            } else if self.is("eE") {
                self.bump();
                if exponent {
                    return false;
                }
                exponent = true;
                self.accept("+-");
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else if self.accept("_") {
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                while self.accept(digits) {}
            }
        }
        self.pos != begin && !self.peek().is_some_and(is_alphanumeric)
    }

    /// The units and further numbers of a duration whose first number is taken.
    fn scan_units(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.accept("0123456789") {
            while self.accept("0123456789") {}
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        if self.peek().is_some_and(is_alphanumeric) {
            // The message shows what is wrong.
            self.bump();
            return false;
        }
        true
    }
}

pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}
