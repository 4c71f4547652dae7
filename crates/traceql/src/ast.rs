//! The syntax tree of what is supported, and its type check.

use std::sync::Arc;

use trilith_model::re2::AnchoredRegex;
use trilith_model::{Error, Result};
use trilith_query::{AttributeScope, ColumnRef, Intrinsic};

/// `{ filter }`, perhaps with `| select(…)` behind it.
#[derive(Clone, Debug)]
pub struct Query {
    pub filter: Expr,
    pub select: Vec<Field>,
}

#[derive(Clone, Debug)]
pub enum Expr {
    Literal(Literal),
    Field(Field),
    Not(Box<Expr>),
    Binary(Op, Box<Expr>, Box<Expr>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    String(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// ns
    Duration(i64),
    /// OTLP code
    Status(i32),
    /// OTLP kind
    Kind(i32),
    Nil,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Attribute(AttributeScope, String),
    Intrinsic(Intrinsic),
}

impl Field {
    pub fn column(&self) -> ColumnRef {
        match self {
            Field::Attribute(scope, name) => ColumnRef::Attribute(*scope, name.clone()),
            Field::Intrinsic(i) => ColumnRef::Intrinsic(*i),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Op {
    And,
    Or,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// With the compiled right side.
    Re(Arc<AnchoredRegex>),
    NotRe(Arc<AnchoredRegex>),
}

impl Op {
    pub fn as_str(&self) -> &'static str {
        match self {
            Op::And => "&&",
            Op::Or => "||",
            Op::Eq => "=",
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
            Op::Re(_) => "=~",
            Op::NotRe(_) => "!~",
        }
    }

    /// The operator that says the same with the sides exchanged.
    pub fn flipped(&self) -> Op {
        match self {
            Op::Lt => Op::Gt,
            Op::Le => Op::Ge,
            Op::Gt => Op::Lt,
            Op::Ge => Op::Le,
            op => op.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// An attribute's.
    Any,
    String,
    Number,
    Bool,
    Status,
    Kind,
    Nil,
}

impl Expr {
    fn check(&self) -> Result<Type> {
        match self {
            Expr::Literal(l) => Ok(match l {
                Literal::String(_) => Type::String,
                Literal::Int(_) | Literal::Float(_) | Literal::Duration(_) => Type::Number,
                Literal::Bool(_) => Type::Bool,
                Literal::Status(_) => Type::Status,
                Literal::Kind(_) => Type::Kind,
                Literal::Nil => Type::Nil,
            }),
            Expr::Field(Field::Attribute(..)) => Ok(Type::Any),
            Expr::Field(Field::Intrinsic(i)) => Ok(match i {
                Intrinsic::Kind => Type::Kind,
                Intrinsic::Status => Type::Status,
                Intrinsic::Duration | Intrinsic::TraceDuration => Type::Number,
                _ => Type::String,
            }),
            Expr::Not(inner) => match inner.check()? {
                Type::Bool | Type::Any => Ok(Type::Bool),
                _ => Err(Error::invalid("expression must be a boolean after !")),
            },
            Expr::Binary(op, left, right) => {
                let (l, r) = (left.check()?, right.check()?);
                let bad = |why: &str| {
                    Err(Error::invalid(format!(
                        "binary operations must be valid: {why} {}",
                        op.as_str()
                    )))
                };
                if l == Type::Nil || r == Type::Nil {
                    return self.check_nil(op, left, right);
                }
                if l != r && l != Type::Any && r != Type::Any {
                    return bad("operands of different types beside");
                }
                let of = if l == Type::Any { r } else { l };
                let fits = match op {
                    Op::And | Op::Or => matches!(of, Type::Bool | Type::Any),
                    Op::Eq | Op::Ne => true,
                    Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                        matches!(of, Type::Number | Type::String | Type::Any)
                    }
                    Op::Re(_) | Op::NotRe(_) => matches!(l, Type::String | Type::Any),
                };
                if fits {
                    Ok(Type::Bool)
                } else {
                    bad("operands of a wrong type beside")
                }
            }
        }
    }

    fn check_nil(&self, op: &Op, left: &Expr, right: &Expr) -> Result<Type> {
        let other = if matches!(left, Expr::Literal(Literal::Nil)) {
            right
        } else {
            left
        };
        let always_there = match other {
            Expr::Field(Field::Intrinsic(_)) => true,
            Expr::Field(Field::Attribute(AttributeScope::Resource, name)) => name == "service.name",
            _ => false,
        };
        match op {
            Op::Eq if always_there => Err(Error::invalid("an intrinsic and resource.service.name cannot be nil")),
            Op::Eq | Op::Ne => match other {
                Expr::Field(Field::Attribute(AttributeScope::Event | AttributeScope::Link, _)) => Err(
                    Error::unsupported("comparing event and link attributes with nil is not supported"),
                ),
                _ => Ok(Type::Bool),
            },
            _ => Err(Error::invalid(format!("illegal operation for nil: {}", op.as_str()))),
        }
    }
}

impl Query {
    /// # Errors
    /// `Invalid` when operands do not fit their operators.
    pub fn check(&self) -> Result<()> {
        match self.filter.check()? {
            Type::Bool => Ok(()),
            Type::Any => Ok(()),
            _ => Err(Error::invalid(
                "span filter field expressions must resolve to a boolean",
            )),
        }
    }
}
