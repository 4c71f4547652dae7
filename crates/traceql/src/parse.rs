//! Tokens into a query. Recognises all of TraceQL's constructs by their first token, so that what is not supported is
//! named in the error and not taken for a mistake.

use std::sync::Arc;

use trilith_model::re2::AnchoredRegex;
use trilith_model::{Error, Result};
use trilith_query::{ColumnRef, Intrinsic};

use crate::ast::{Expr, Field, Literal, Op, Query};
use crate::lexer::{Pos, Token, error_at, tokens};

/// Longest query text, as upstream.
const QUERY_BYTES_MAX: usize = 128 << 10;
/// Deepest nesting of parentheses and negations; evaluation recurses as deep.
const DEPTH_MAX: usize = 200;
/// Most operators of a filter: a chain of them is a tree as deep.
const OPERATORS_MAX: usize = 500;

const METRICS: &[&str] = &[
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
];
const STRUCTURAL: &[&str] = &[
    ">", "<", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "!~", "&>", "&<", "&>>", "&<<", "&~",
];

/// Parses and checks a search query.
///
/// # Errors
/// `Invalid` with line and column for text that is not TraceQL, and for operands of wrong types; `Unsupported` with the
/// name of the construct for TraceQL that this version cannot answer.
pub fn parse(text: &str) -> Result<Query> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "query of {} bytes is longer than {QUERY_BYTES_MAX}",
            text.len()
        )));
    }
    let mut p = Parser::new(text)?;
    let query = p.query()?;
    query.check()?;
    Ok(query)
}

/// Reads one identifier as tag values take it: `.a`, `span.a`, `resource."a b"`, `name`, `span:kind`.
///
/// # Errors
/// `Invalid` when it is none, `Unsupported` for an intrinsic that this version has not.
pub fn parse_identifier(text: &str) -> Result<ColumnRef> {
    let mut p = Parser::new(text)?;
    let field = p.field()?;
    p.expect_end()?;
    Ok(field.column())
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("TraceQL: {what} is not supported"))
}

struct Parser {
    tokens: Vec<(Token, Pos)>,
    at: usize,
    /// Of the token that `next` gave out last.
    last: usize,
    depth: usize,
    operators: usize,
}

impl Parser {
    fn new(text: &str) -> Result<Parser> {
        Ok(Parser {
            tokens: tokens(text)?,
            at: 0,
            last: 0,
            depth: 0,
            operators: 0,
        })
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    /// `End` stays.
    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.last = self.at;
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn unexpected<T>(&self) -> Result<T> {
        let (token, pos) = &self.tokens[self.at];
        Err(error_at(*pos, format!("syntax error: unexpected {token}")))
    }

    fn eat(&mut self, op: &str) -> bool {
        let hit = matches!(self.peek(), Token::Op(o) if *o == op);
        if hit {
            self.next();
        }
        hit
    }

    fn expect(&mut self, op: &str) -> Result<()> {
        if self.eat(op) { Ok(()) } else { self.unexpected() }
    }

    fn expect_end(&self) -> Result<()> {
        if *self.peek() == Token::End {
            Ok(())
        } else {
            self.unexpected()
        }
    }

    fn query(&mut self) -> Result<Query> {
        match self.peek().clone() {
            Token::Op("{") => {}
            Token::Op("(") => return Err(unsupported("a parenthesised spanset expression")),
            Token::Word(w) if METRICS.contains(&w.as_str()) => return self.unexpected(),
            Token::Word(w) if ["count", "avg", "min", "max", "sum", "by", "select"].contains(&w.as_str()) => {
                return Err(unsupported(&format!("a query that begins with {w}()")));
            }
            // `100 * ({} | rate())`
            Token::Int(_) | Token::Float(_) | Token::Duration(_) | Token::Op("-")
                if self.tokens.iter().any(|t| t.0 == Token::Op("{")) =>
            {
                return Err(unsupported("arithmetic between pipelines"));
            }
            _ => return self.unexpected(),
        }
        let filter = self.spanset()?;
        let mut select = Vec::new();
        loop {
            match self.next() {
                Token::End => return Ok(Query { filter, select }),
                Token::Op("|") => self.stage(&mut select)?,
                Token::Op(op @ ("&&" | "||")) => {
                    return self.after_operator(&format!("combining spansets with {op}"));
                }
                Token::Op(op) if STRUCTURAL.contains(&op) => {
                    return self.after_operator(&format!("the structural operator {op}"));
                }
                Token::Word(w) if w == "with" => {
                    self.hints()?;
                    self.expect_end()?;
                }
                _ => {
                    self.at = self.last;
                    return self.unexpected();
                }
            }
        }
    }

    /// After an operator between spansets something must follow, or the text is wrong rather than unsupported.
    fn after_operator<T>(&self, what: &str) -> Result<T> {
        match self.peek() {
            Token::Op("{" | "(") => Err(unsupported(what)),
            _ => self.unexpected(),
        }
    }

    fn stage(&mut self, select: &mut Vec<Field>) -> Result<()> {
        match self.peek().clone() {
            Token::Word(w) if w == "select" => {
                self.next();
                self.expect("(")?;
                loop {
                    select.push(self.field()?);
                    if self.eat(")") {
                        return Ok(());
                    }
                    self.expect(",")?;
                }
            }
            Token::Word(w) if METRICS.contains(&w.as_str()) => Err(unsupported(&format!("the metrics function {w}()"))),
            Token::Word(w) if ["count", "avg", "min", "max", "sum", "by", "coalesce"].contains(&w.as_str()) => {
                Err(unsupported(&format!("the pipeline stage {w}()")))
            }
            Token::Op("{") => {
                self.spanset()?;
                Err(unsupported("a spanset filter as a pipeline stage"))
            }
            Token::Op("(") => Err(unsupported("a parenthesised pipeline stage")),
            _ => self.unexpected(),
        }
    }

    /// `with(name=value, …)`: none of the hints changes a result that is exact and newest first anyway.
    fn hints(&mut self) -> Result<()> {
        self.expect("(")?;
        loop {
            let Token::Word(_) = self.next() else {
                self.at = self.last;
                return self.unexpected();
            };
            self.expect("=")?;
            self.eat("-");
            match self.next() {
                Token::Word(_) | Token::String(_) | Token::Int(_) | Token::Float(_) | Token::Duration(_) => {}
                _ => {
                    self.at = self.last;
                    return self.unexpected();
                }
            }
            if self.eat(")") {
                return Ok(());
            }
            self.expect(",")?;
        }
    }

    fn spanset(&mut self) -> Result<Expr> {
        self.expect("{")?;
        if self.eat("}") {
            return Ok(Expr::Literal(Literal::Bool(true)));
        }
        let filter = self.expr()?;
        self.expect("}")?;
        Ok(filter)
    }

    /// `&&` and `||`: one level, from the left.
    fn expr(&mut self) -> Result<Expr> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(error_at(
                self.tokens[self.at].1,
                format!("nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        let mut left = self.comparison()?;
        loop {
            let op = match self.peek() {
                Token::Op("&&") => Op::And,
                Token::Op("||") => Op::Or,
                _ => break,
            };
            self.next();
            self.count_operator()?;
            let right = self.comparison()?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn count_operator(&mut self) -> Result<()> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(error_at(
                self.tokens[self.at].1,
                format!("more than {OPERATORS_MAX} operators"),
            ));
        }
        Ok(())
    }

    fn comparison(&mut self) -> Result<Expr> {
        let mut left = self.operand()?;
        loop {
            let op = match self.peek() {
                Token::Op("=") => Op::Eq,
                Token::Op("!=") => Op::Ne,
                Token::Op("<") => Op::Lt,
                Token::Op("<=") => Op::Le,
                Token::Op(">") => Op::Gt,
                Token::Op(">=") => Op::Ge,
                Token::Op(op @ ("=~" | "!~")) => {
                    let op = *op;
                    self.next();
                    self.count_operator()?;
                    let right = self.operand()?;
                    let Expr::Literal(Literal::String(pattern)) = &right else {
                        return Err(Error::invalid(format!("the right side of {op} must be a string")));
                    };
                    let regex = Arc::new(AnchoredRegex::new(pattern)?);
                    let op = if op == "=~" { Op::Re(regex) } else { Op::NotRe(regex) };
                    left = Expr::Binary(op, Box::new(left), Box::new(right));
                    continue;
                }
                Token::Op(op @ ("+" | "-" | "*" | "/" | "%" | "^")) => {
                    return Err(unsupported(&format!("arithmetic ({op}) in a filter")));
                }
                _ => return Ok(left),
            };
            self.next();
            self.count_operator()?;
            let right = self.operand()?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
    }

    fn operand(&mut self) -> Result<Expr> {
        match self.peek().clone() {
            Token::Op("!") => {
                self.next();
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(error_at(
                        self.tokens[self.at].1,
                        format!("nested deeper than {DEPTH_MAX} levels"),
                    ));
                }
                let inner = self.operand()?;
                self.depth -= 1;
                Ok(Expr::Not(Box::new(inner)))
            }
            Token::Op("(") => {
                self.next();
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Op("-") => {
                self.next();
                let literal = match self.next() {
                    // The smallest integer has no positive counterpart; it is written `minInt`.
                    Token::Int(n) => Literal::Int(-n),
                    Token::Float(f) => Literal::Float(-f),
                    Token::Duration(d) => Literal::Duration(-d),
                    Token::Attribute(..) | Token::Scoped(_) | Token::Word(_) | Token::Op("(" | "-") => {
                        return Err(unsupported("arithmetic (-) in a filter"));
                    }
                    _ => {
                        self.at = self.last;
                        return self.unexpected();
                    }
                };
                Ok(Expr::Literal(literal))
            }
            Token::String(s) => self.literal(Literal::String(s)),
            Token::Int(n) => self.literal(Literal::Int(n)),
            Token::Float(f) => self.literal(Literal::Float(f)),
            Token::Duration(d) => self.literal(Literal::Duration(d)),
            Token::Word(w) => match word_literal(&w) {
                Some(l) => self.literal(l),
                None => self.field().map(Expr::Field),
            },
            _ => self.field().map(Expr::Field),
        }
    }

    fn literal(&mut self, literal: Literal) -> Result<Expr> {
        self.next();
        Ok(Expr::Literal(literal))
    }

    fn field(&mut self) -> Result<Field> {
        let field = match self.peek() {
            Token::Attribute(scope, name) => Field::Attribute(*scope, name.clone()),
            Token::ParentAttribute(_) => return Err(unsupported("the scope parent")),
            Token::Word(w) => match w.as_str() {
                "name" => Field::Intrinsic(Intrinsic::Name),
                "duration" => Field::Intrinsic(Intrinsic::Duration),
                "kind" => Field::Intrinsic(Intrinsic::Kind),
                "status" => Field::Intrinsic(Intrinsic::Status),
                "statusMessage" => Field::Intrinsic(Intrinsic::StatusMessage),
                "traceDuration" => Field::Intrinsic(Intrinsic::TraceDuration),
                "rootName" => Field::Intrinsic(Intrinsic::RootName),
                "rootServiceName" => Field::Intrinsic(Intrinsic::RootServiceName),
                w @ ("nestedSetLeft" | "nestedSetRight" | "nestedSetParent" | "parent" | "childCount") => {
                    return Err(unsupported(&format!("the intrinsic {w}")));
                }
                _ => return self.unexpected(),
            },
            Token::Scoped(s) => Field::Intrinsic(match s.as_str() {
                "span:name" => Intrinsic::Name,
                "span:duration" => Intrinsic::Duration,
                "span:kind" => Intrinsic::Kind,
                "span:status" => Intrinsic::Status,
                "span:statusMessage" => Intrinsic::StatusMessage,
                "span:id" => Intrinsic::SpanId,
                "span:parentID" => Intrinsic::ParentSpanId,
                "trace:duration" => Intrinsic::TraceDuration,
                "trace:rootName" => Intrinsic::RootName,
                "trace:rootService" => Intrinsic::RootServiceName,
                "trace:id" => Intrinsic::TraceId,
                "event:name" => Intrinsic::EventNames,
                "instrumentation:name" => Intrinsic::InstrumentationName,
                "instrumentation:version" => Intrinsic::InstrumentationVersion,
                s @ ("span:childCount" | "event:timeSinceStart" | "link:traceID" | "link:spanID") => {
                    return Err(unsupported(&format!("the intrinsic {s}")));
                }
                _ => return self.unexpected(),
            }),
            _ => return self.unexpected(),
        };
        self.next();
        Ok(field)
    }
}

fn word_literal(word: &str) -> Option<Literal> {
    Some(match word {
        "true" => Literal::Bool(true),
        "false" => Literal::Bool(false),
        "nil" => Literal::Nil,
        "minInt" => Literal::Int(i64::MIN),
        "maxInt" => Literal::Int(i64::MAX),
        "unset" => Literal::Status(0),
        "ok" => Literal::Status(1),
        "error" => Literal::Status(2),
        "unspecified" => Literal::Kind(0),
        "internal" => Literal::Kind(1),
        "server" => Literal::Kind(2),
        "client" => Literal::Kind(3),
        "producer" => Literal::Kind(4),
        "consumer" => Literal::Kind(5),
        _ => return None,
    })
}

/// For messages and attribute keys: the scope's prefix is left out.
pub fn display_key(field: &Field) -> Option<&str> {
    match field {
        Field::Attribute(_, name) => Some(name),
        Field::Intrinsic(i) => match i {
            Intrinsic::Kind => Some("kind"),
            Intrinsic::Status => Some("status"),
            Intrinsic::StatusMessage => Some("statusMessage"),
            Intrinsic::ParentSpanId => Some("span:parentID"),
            Intrinsic::EventNames => Some("event:name"),
            Intrinsic::InstrumentationName => Some("instrumentation:name"),
            Intrinsic::InstrumentationVersion => Some("instrumentation:version"),
            // These have fields of their own in a search result.
            _ => None,
        },
    }
}
