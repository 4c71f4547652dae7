//! Tokens and how messages name them.

use crate::ast::Span;
use crate::text::quote;

/// The kinds of token. `Word` kinds are recognised in any case; most of them can also name a metric or a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Eof,
    Comment,
    /// A name without colons that is not a keyword.
    Identifier,
    /// A name with colons.
    MetricIdentifier,
    Number,
    Duration,
    /// With its quotes.
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Eql,
    EqlRegex,
    NeqRegex,
    At,
    Operator(Operator),
    Aggregator(Aggregator),
    Keyword(Keyword),
    Preprocessor(Preprocessor),
}

/// Binary operators, the set operators included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    /// `==`
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
    And,
    Or,
    Unless,
}

impl Operator {
    pub const ALL: [Operator; 18] = [
        Operator::Add,
        Operator::Sub,
        Operator::Mul,
        Operator::Div,
        Operator::Mod,
        Operator::Pow,
        Operator::Atan2,
        Operator::Eq,
        Operator::Ne,
        Operator::Lt,
        Operator::Le,
        Operator::Gt,
        Operator::Ge,
        Operator::TrimUpper,
        Operator::TrimLower,
        Operator::And,
        Operator::Or,
        Operator::Unless,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Sub => "-",
            Operator::Mul => "*",
            Operator::Div => "/",
            Operator::Mod => "%",
            Operator::Pow => "^",
            Operator::Atan2 => "atan2",
            Operator::Eq => "==",
            Operator::Ne => "!=",
            Operator::Lt => "<",
            Operator::Le => "<=",
            Operator::Gt => ">",
            Operator::Ge => ">=",
            Operator::TrimUpper => "</",
            Operator::TrimLower => ">/",
            Operator::And => "and",
            Operator::Or => "or",
            Operator::Unless => "unless",
        }
    }

    pub const fn is_set(self) -> bool {
        matches!(self, Operator::And | Operator::Or | Operator::Unless)
    }

    /// The operators that `bool` applies to.
    pub const fn is_comparison(self) -> bool {
        matches!(
            self,
            Operator::Eq | Operator::Ne | Operator::Lt | Operator::Le | Operator::Gt | Operator::Ge
        )
    }

    /// Binding strength, higher binds tighter; unary operators bind as `*` does.
    pub(crate) const fn precedence(self) -> u8 {
        match self {
            Operator::Or => 1,
            Operator::And | Operator::Unless => 2,
            Operator::Eq
            | Operator::Ne
            | Operator::Lt
            | Operator::Le
            | Operator::Gt
            | Operator::Ge
            | Operator::TrimUpper
            | Operator::TrimLower => 3,
            Operator::Add | Operator::Sub => 4,
            Operator::Mul | Operator::Div | Operator::Mod | Operator::Atan2 => 5,
            Operator::Pow => 6,
        }
    }
}

/// Aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregator {
    Avg,
    BottomK,
    Count,
    CountValues,
    Group,
    Max,
    Min,
    Quantile,
    Stddev,
    Stdvar,
    Sum,
    TopK,
    LimitK,
    LimitRatio,
}

impl Aggregator {
    pub const ALL: [Aggregator; 14] = [
        Aggregator::Avg,
        Aggregator::BottomK,
        Aggregator::Count,
        Aggregator::CountValues,
        Aggregator::Group,
        Aggregator::Max,
        Aggregator::Min,
        Aggregator::Quantile,
        Aggregator::Stddev,
        Aggregator::Stdvar,
        Aggregator::Sum,
        Aggregator::TopK,
        Aggregator::LimitK,
        Aggregator::LimitRatio,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Aggregator::Avg => "avg",
            Aggregator::BottomK => "bottomk",
            Aggregator::Count => "count",
            Aggregator::CountValues => "count_values",
            Aggregator::Group => "group",
            Aggregator::Max => "max",
            Aggregator::Min => "min",
            Aggregator::Quantile => "quantile",
            Aggregator::Stddev => "stddev",
            Aggregator::Stdvar => "stdvar",
            Aggregator::Sum => "sum",
            Aggregator::TopK => "topk",
            Aggregator::LimitK => "limitk",
            Aggregator::LimitRatio => "limit_ratio",
        }
    }

    /// Whether a parameter precedes the vector.
    pub const fn has_parameter(self) -> bool {
        matches!(
            self,
            Aggregator::TopK
                | Aggregator::BottomK
                | Aggregator::CountValues
                | Aggregator::Quantile
                | Aggregator::LimitK
                | Aggregator::LimitRatio
        )
    }

    pub const fn is_experimental(self) -> bool {
        matches!(self, Aggregator::LimitK | Aggregator::LimitRatio)
    }
}

/// Modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    Anchored,
    Bool,
    By,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Smoothed,
    Without,
}

impl Keyword {
    pub const ALL: [Keyword; 13] = [
        Keyword::Anchored,
        Keyword::Bool,
        Keyword::By,
        Keyword::Fill,
        Keyword::FillLeft,
        Keyword::FillRight,
        Keyword::GroupLeft,
        Keyword::GroupRight,
        Keyword::Ignoring,
        Keyword::Offset,
        Keyword::On,
        Keyword::Smoothed,
        Keyword::Without,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Keyword::Anchored => "anchored",
            Keyword::Bool => "bool",
            Keyword::By => "by",
            Keyword::Fill => "fill",
            Keyword::FillLeft => "fill_left",
            Keyword::FillRight => "fill_right",
            Keyword::GroupLeft => "group_left",
            Keyword::GroupRight => "group_right",
            Keyword::Ignoring => "ignoring",
            Keyword::Offset => "offset",
            Keyword::On => "on",
            Keyword::Smoothed => "smoothed",
            Keyword::Without => "without",
        }
    }
}

/// Words that stand for a property of the query, or combine durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preprocessor {
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

impl Preprocessor {
    const ALL: [(&'static str, Preprocessor); 6] = [
        ("start", Preprocessor::Start),
        ("end", Preprocessor::End),
        ("step", Preprocessor::Step),
        ("range", Preprocessor::Range),
        ("max_of", Preprocessor::MaxOf),
        ("min_of", Preprocessor::MinOf),
    ];

    /// The words that a duration expression knows.
    pub(crate) fn of_duration(word: &str) -> Option<Preprocessor> {
        Self::ALL[2..]
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|(_, p)| *p)
    }
}

impl Kind {
    /// The keyword of this spelling, in any case.
    pub(crate) fn of_word(word: &str) -> Option<Kind> {
        // No keyword is longer.
        if word.len() > 12 {
            return None;
        }
        let word = word.to_ascii_lowercase();
        let operator = Operator::ALL.iter().find(|o| o.as_str() == word);
        let aggregator = || Aggregator::ALL.iter().find(|a| a.as_str() == word);
        let keyword = || Keyword::ALL.iter().find(|k| k.as_str() == word);
        let preprocessor = || Preprocessor::ALL.iter().find(|(name, _)| *name == word);
        operator
            .map(|o| Kind::Operator(*o))
            .or_else(|| aggregator().map(|a| Kind::Aggregator(*a)))
            .or_else(|| keyword().map(|k| Kind::Keyword(*k)))
            .or_else(|| preprocessor().map(|(_, p)| Kind::Preprocessor(*p)))
            .or_else(|| matches!(word.as_str(), "inf" | "nan").then_some(Kind::Number))
    }

    /// Whether the token can be the name of a metric.
    pub(crate) fn names_metric(self) -> bool {
        match self {
            Kind::Identifier | Kind::MetricIdentifier | Kind::Aggregator(_) | Kind::Preprocessor(_) => true,
            Kind::Operator(o) => o.is_set(),
            Kind::Keyword(k) => !matches!(
                k,
                Keyword::Bool | Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight
            ),
            _ => false,
        }
    }

    pub(crate) fn begins_expression(self) -> bool {
        self.names_metric()
            || matches!(
                self,
                Kind::Number
                    | Kind::Duration
                    | Kind::String
                    | Kind::LeftParen
                    | Kind::LeftBrace
                    | Kind::Operator(Operator::Add | Operator::Sub)
            )
    }

    /// Whether the token can be a label in a grouping list.
    pub(crate) fn names_label(self) -> bool {
        match self {
            Kind::Identifier | Kind::MetricIdentifier | Kind::Aggregator(_) | Kind::Preprocessor(_) => true,
            Kind::Operator(o) => o.is_set() || o == Operator::Atan2,
            Kind::Keyword(k) => k != Keyword::Without,
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub kind: Kind,
    pub start: u32,
    /// As written.
    pub text: &'a str,
}

impl Token<'_> {
    pub(crate) fn end(&self) -> u32 {
        self.start + self.text.len() as u32
    }

    pub(crate) fn span(&self) -> Span {
        Span {
            start: self.start,
            end: self.end(),
        }
    }

    /// As messages name it: the class of the token and its text.
    pub(crate) fn describe(&self) -> String {
        let class = match self.kind {
            Kind::Eof => return "end of input".to_owned(),
            Kind::Identifier => return format!("identifier {}", quote(self.text.as_bytes())),
            Kind::MetricIdentifier => return format!("metric identifier {}", quote(self.text.as_bytes())),
            Kind::Operator(_) | Kind::EqlRegex | Kind::NeqRegex | Kind::At => return format!("<op:{}>", self.text),
            Kind::Aggregator(_) => return format!("<aggr:{}>", self.text),
            Kind::Keyword(_) => return format!("<{}>", self.text),
            Kind::Number => "number ",
            Kind::Duration => "duration ",
            Kind::String => "string ",
            Kind::Comment => "comment ",
            _ => "",
        };
        if self.text.len() > 10 {
            let short: String = self.text.chars().take(10).collect();
            format!("{class}{}...", quote(short.as_bytes()))
        } else {
            format!("{class}{}", quote(self.text.as_bytes()))
        }
    }
}
