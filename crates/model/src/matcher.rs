//! Label predicates, shared by PromQL and LogQL selectors and by every index.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::re2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    Eq,
    Ne,
    Re,
    NotRe,
}

impl MatchOp {
    pub const fn as_str(self) -> &'static str {
        match self {
            MatchOp::Eq => "=",
            MatchOp::Ne => "!=",
            MatchOp::Re => "=~",
            MatchOp::NotRe => "!~",
        }
    }

    pub const fn is_negative(self) -> bool {
        matches!(self, MatchOp::Ne | MatchOp::NotRe)
    }
}

/// One label predicate. A missing label has the value `""`, so `a!="x"` and `a=~".*"` match series
/// without `a`. Regular expressions are anchored at both ends and `.` matches a line feed, as in Prometheus 3.
#[derive(Clone)]
pub struct Matcher {
    pub name: Arc<str>,
    pub op: MatchOp,
    pub value: Arc<str>,
    regex: Option<Arc<re2::AnchoredRegex>>,
}

impl Matcher {
    /// # Errors
    /// `Invalid` when the value of a regex matcher is not an RE2 expression.
    pub fn new(op: MatchOp, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Result<Self> {
        let value: Arc<str> = value.into();
        let regex = match op {
            MatchOp::Re | MatchOp::NotRe => Some(Arc::new(re2::AnchoredRegex::new(&value)?)),
            MatchOp::Eq | MatchOp::Ne => None,
        };
        Ok(Matcher {
            name: name.into(),
            op,
            value,
            regex,
        })
    }

    pub fn eq(name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Matcher {
            name: name.into(),
            op: MatchOp::Eq,
            value: value.into(),
            regex: None,
        }
    }

    pub fn ne(name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Matcher {
            name: name.into(),
            op: MatchOp::Ne,
            value: value.into(),
            regex: None,
        }
    }

    /// Whether a label of this value (`""` when missing) satisfies the predicate.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Eq, _) => *self.value == *value,
            (MatchOp::Ne, _) => *self.value != *value,
            (MatchOp::Re, Some(re)) => re.is_match(value),
            (MatchOp::NotRe, Some(re)) => !re.is_match(value),
            (MatchOp::Re | MatchOp::NotRe, None) => unreachable!("a regex matcher is built with its regex"),
        }
    }

    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// For `Re`/`NotRe`: the finite set of values the expression stands for, when it is a plain
    /// alternation of literals (`a|b|c`). An index looks these up instead of scanning its values.
    pub fn literal_set(&self) -> Option<&[String]> {
        self.regex.as_ref().and_then(|r| r.literal_set())
    }

    /// For `Re`/`NotRe`: a literal that every matching value starts with; may be empty.
    pub fn literal_prefix(&self) -> &str {
        self.regex.as_ref().map_or("", |r| r.literal_prefix())
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}
impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.op.hash(state);
        self.name.hash(state);
        self.value.hash(state);
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}
