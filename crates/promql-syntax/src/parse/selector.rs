//! Label matchers and lists of labels.

use trilith_model::{MatchOp, Matcher};

use super::{Fail, Parsed, Parser};
use crate::ast::{Edges, LabelMatcher, Selector, Span, TimeShift};
use crate::text::{Text, quote};
use crate::token::{Kind, Operator, Token};

const NAME: &str = "__name__";

impl LabelMatcher {
    /// The matcher that a metric name stands for.
    pub fn name_is(name: &str) -> Self {
        LabelMatcher {
            name: NAME.into(),
            value: name.into(),
            matcher: Matcher::eq(NAME, name),
        }
    }

    /// # Errors
    /// The message when the value of a regex matcher is none.
    fn new(op: MatchOp, name: Text, value: Text) -> Result<Self, String> {
        if matches!(op, MatchOp::Re | MatchOp::NotRe) && std::str::from_utf8(value.as_bytes()).is_err() {
            return Err(format!("error parsing regexp: invalid UTF-8: `{}`", value.to_str()));
        }
        let matcher = Matcher::new(op, &*name.to_str(), &*value.to_str()).map_err(|e| e.message)?;
        Ok(LabelMatcher { name, value, matcher })
    }
}

impl<'a> Parser<'a> {
    /// `name` is taken already, a brace is not.
    pub(super) fn selector(&mut self, name: Option<Token<'a>>) -> Parsed<Selector> {
        let (mut matchers, mut span) = (Vec::new(), None);
        if self.peek()?.kind == Kind::LeftBrace {
            let (found, braces) = self.label_matchers()?;
            (matchers, span) = (found, Some(braces));
        }
        let start = name.map(|n| n.start).or(span.map(|s| s.start)).unwrap_or_default();
        let end = span.map(|s| s.end).or(name.map(|n| n.end())).unwrap_or_default();
        Ok(Selector {
            name: name.map(|n| n.text.to_owned()),
            matchers,
            shift: TimeShift::default(),
            edges: Edges::Plain,
            span: Span { start, end },
        })
    }

    fn label_matchers(&mut self) -> Parsed<(Vec<LabelMatcher>, Span)> {
        let open = self.expect(Kind::LeftBrace)?;
        let mut matchers = Vec::new();
        let close = loop {
            if let Some(close) = self.take_if(Kind::RightBrace)? {
                break close;
            }
            matchers.push(self.label_matcher()?);
            if self.take_if(Kind::Comma)?.is_none() {
                break self.within("label matching", "\",\" or \"}\"", |p| p.expect(Kind::RightBrace))?;
            }
        };
        let span = Span {
            start: open.start,
            end: close.end(),
        };
        Ok((matchers, span))
    }

    fn label_matcher(&mut self) -> Parsed<LabelMatcher> {
        const CONTEXT: &str = "label matching";
        let label = self.within(CONTEXT, "identifier or \"}\"", |p| match p.peek()?.kind {
            Kind::Identifier | Kind::String => p.take(),
            _ => Err(Fail::Unexpected),
        })?;
        let name = match label.kind {
            Kind::String => self.unquote(label)?,
            _ => label.text.into(),
        };
        let op = match self.peek()?.kind {
            Kind::Eql => MatchOp::Eq,
            Kind::Operator(Operator::Ne) => MatchOp::Ne,
            Kind::EqlRegex => MatchOp::Re,
            Kind::NeqRegex => MatchOp::NotRe,
            // A quoted name on its own is that of the metric.
            _ if label.kind == Kind::String => {
                return Ok(LabelMatcher {
                    matcher: Matcher::eq(NAME, &*name.to_str()),
                    name: NAME.into(),
                    value: name,
                });
            }
            _ => return Err(self.explain(Fail::Unexpected, CONTEXT, "label matching operator")),
        };
        self.take()?;
        let token = self.within(CONTEXT, "string", |p| p.expect(Kind::String))?;
        let value = self.unquote(token)?;
        LabelMatcher::new(op, name, value).or_else(|message| {
            let span = Span {
                start: label.start,
                end: token.end(),
            };
            self.error(span, message)
        })
    }

    /// `(a, "b c")`
    pub(super) fn grouping_labels(&mut self) -> Parsed<Vec<Text>> {
        const CONTEXT: &str = "grouping opts";
        self.within(CONTEXT, "\"(\"", |p| p.expect(Kind::LeftParen))?;
        let mut labels = Vec::new();
        // A comma may follow the last label, but not stand alone.
        while labels.is_empty() || self.peek()?.kind != Kind::RightParen {
            if self.peek()?.kind == Kind::RightParen {
                break;
            }
            labels.push(self.within(CONTEXT, "label", Self::grouping_label)?);
            if self.take_if(Kind::Comma)?.is_none() {
                break;
            }
        }
        self.within(CONTEXT, "\",\" or \")\"", |p| p.expect(Kind::RightParen))?;
        Ok(labels)
    }

    fn grouping_label(&mut self) -> Parsed<Text> {
        let token = self.peek()?;
        let label = match token.kind {
            Kind::String => {
                self.take()?;
                self.unquote(token)?
            }
            kind if kind.names_label() => {
                self.take()?;
                token.text.into()
            }
            _ => return Err(Fail::Unexpected),
        };
        if label.as_bytes().is_empty() || std::str::from_utf8(label.as_bytes()).is_err() {
            let message = format!("invalid label name for grouping: {}", quote(label.as_bytes()));
            return self.error(token.span(), message);
        }
        Ok(label)
    }
}
