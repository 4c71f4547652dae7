//! Random queries: valid ones by the grammar, with some words out of place.

use crate::{Aggregator, FUNCTIONS, Operator, ValueType};

/// 200 bytes without a pattern, the same for a seed.
pub(super) fn noise(seed: u64) -> Vec<u8> {
    let rng = trilith_model::rng::Rng::seeded(seed);
    (0..200).map(|_| rng.next_u64() as u8).collect()
}

/// Choices made from bytes, so that a failing case shrinks.
pub(super) struct Generator<'a> {
    choices: std::slice::Iter<'a, u8>,
    depth: usize,
}

impl<'a> Generator<'a> {
    pub(super) fn new(choices: &'a [u8]) -> Self {
        Generator {
            choices: choices.iter(),
            depth: 0,
        }
    }

    /// Below `n`; 0 when no choice is left.
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.choices.next().copied().unwrap_or(0)) * n / 256
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    fn maybe(&mut self, text: impl FnOnce(&mut Self) -> String) -> String {
        if self.below(3) == 2 { text(self) } else { String::new() }
    }

    /// A query of any type.
    pub(super) fn query(&mut self) -> String {
        match self.below(8) {
            0 => self.scalar(),
            1 => self.matrix(),
            2 => self.string(),
            _ => self.vector(),
        }
    }

    fn typed(&mut self, value_type: ValueType) -> String {
        match value_type {
            // Something else at times, for the checker.
            _ if self.below(50) == 49 => self.scalar(),
            ValueType::Scalar => self.scalar(),
            ValueType::String => self.string(),
            ValueType::Vector => self.vector(),
            ValueType::Matrix => self.matrix(),
        }
    }

    fn string(&mut self) -> String {
        self.one(&["\"a\"", "'it\\'s \"\\n\"'", "`\\raw`", "\"\\xff\\u00fc\"", "\"\""])
            .to_owned()
    }

    fn number(&mut self) -> String {
        self.one(&[
            "1", "0", "2.5", "1e3", "0x1F", "017", "Inf", "NaN", "-1", "+3", ".5", "1_000", "1e-9", "5m", "1h30m",
            "0s", "7ms",
        ])
        .to_owned()
    }

    fn scalar(&mut self) -> String {
        if self.depth > 4 {
            return self.number();
        }
        self.depth += 1;
        let out = match self.below(8) {
            0 => format!("({})", self.scalar()),
            1 => format!("-{}", self.scalar()),
            2 => {
                let op = self.one(&["+", "-", "*", "/", "%", "^", "atan2", "> bool", "== bool"]);
                format!("{} {op} {}", self.scalar(), self.scalar())
            }
            3 => format!("scalar({})", self.vector()),
            4 => self
                .one(&["time()", "pi()", "step()", "start()", "max_of(1, 2)"])
                .to_owned(),
            _ => self.number(),
        };
        self.depth -= 1;
        out
    }

    fn name(&mut self) -> &'static str {
        self.one(&[
            "a",
            "b_total",
            "job:c:rate5m",
            "sum",
            "offset",
            "start",
            "and",
            "anchored",
            "fill",
            "by",
            "Inf_x",
        ])
    }

    fn label(&mut self) -> &'static str {
        self.one(&[
            "x",
            "job",
            "le",
            "by",
            "and",
            "\"a.b\"",
            "\"é\"",
            "__name__",
            "\"nan\"",
            "\"without\"",
        ])
    }

    fn labels(&mut self) -> String {
        let mut out: Vec<&str> = Vec::new();
        for _ in 0..self.below(4) {
            out.push(self.label());
        }
        let comma = if out.is_empty() || self.below(4) != 3 { "" } else { "," };
        format!("({}{comma})", out.join(", "))
    }

    fn matchers(&mut self) -> String {
        let mut out: Vec<String> = Vec::new();
        for _ in 0..self.below(4) {
            let label = self.one(&["x", "job", "\"a b\"", "sum", "''"]);
            let op = self.one(&["=", "!=", "=~", "!~"]);
            let value = self.one(&["\"v\"", "'a|b'", "`.+`", "\"\"", "\"\\\\d+\""]);
            out.push(format!("{label}{op}{value}"));
        }
        out.join(", ")
    }

    fn selector(&mut self) -> String {
        match self.below(6) {
            0 => format!("{{\"utf8.name\", {}}}", self.matchers()),
            1 => format!("{{__name__=~\"a.*b\", x!=\"\"{}}}", self.one(&["", ","])),
            2 | 3 => self.name().to_owned(),
            _ => format!("{}{{{}}}", self.name(), self.matchers()),
        }
    }

    fn at(&mut self) -> &'static str {
        self.one(&[" @ 10", " @ start()", " @ END()", " @ -1.5", " @ 1m"])
    }

    fn offset(&mut self) -> String {
        match self.below(4) {
            0 => format!(" offset ({})", self.duration()),
            1 => format!(" offset -({})", self.duration()),
            2 => {
                let signs = self.one(&["", "-", "+", "--", "-+", "+-", "++"]);
                let of = self.one(&[
                    "5m",
                    "3",
                    "step()",
                    "range()",
                    "min_of(5m, 2)",
                    "2 ^ 2",
                    "step() * 2",
                    "1.5",
                ]);
                format!(" offset {signs}{of}")
            }
            _ => format!(" offset {}", self.one(&["5m", "-1h30m", "0", "300", "0.0001"])),
        }
    }

    fn modifiers(&mut self) -> String {
        let edges = match self.below(8) {
            6 => " anchored",
            7 => " SMOOTHED",
            _ => "",
        };
        let at = self.maybe(|g| g.at().to_owned());
        let offset = self.maybe(Self::offset);
        match self.below(3) {
            0 => format!("{offset}{edges}{at}"),
            _ => format!("{edges}{at}{offset}"),
        }
    }

    fn duration(&mut self) -> String {
        if self.depth > 5 {
            return "5m".to_owned();
        }
        self.depth += 1;
        let out = match self.below(10) {
            0 => format!("({})", self.duration()),
            1 => format!("{}{}", self.one(&["-", "+"]), self.duration()),
            2 => format!(
                "{} {} {}",
                self.duration(),
                self.one(&["+", "-", "*", "/", "%", "^"]),
                self.duration()
            ),
            3 => self.one(&["step()", "range()", "STEP( )"]).to_owned(),
            4 => format!(
                "{}({}, {})",
                self.one(&["min_of", "max_of"]),
                self.duration(),
                self.duration()
            ),
            _ => self
                .one(&["5m", "1h30m", "300", "1.5", "10s", "2", "1e3", "0.0004", "1w"])
                .to_owned(),
        };
        self.depth -= 1;
        out
    }

    fn matrix(&mut self) -> String {
        if self.depth > 4 || self.below(2) == 0 {
            return format!("{}[{}]{}", self.selector(), self.duration(), self.modifiers());
        }
        self.depth += 1;
        let inner = match self.below(3) {
            0 => self.selector(),
            1 => format!("({})", self.vector()),
            _ => self.call(),
        };
        let step = self.maybe(Self::duration);
        let at = self.maybe(|g| g.at().to_owned());
        let out = format!("{inner}[{}:{step}]{at}{}", self.duration(), self.maybe(Self::offset));
        self.depth -= 1;
        out
    }

    fn call(&mut self) -> String {
        let f = &FUNCTIONS[self.below(FUNCTIONS.len())];
        if f.returns != ValueType::Vector {
            return format!("vector({})", self.scalar());
        }
        if f.name == "info" {
            return format!("info({}, {{{}}})", self.vector(), self.matchers());
        }
        let required = f.args.len() - usize::from(f.variadic != 0);
        let more = match f.variadic {
            0 => 0,
            -1 => self.below(3),
            _ => self.below(2),
        };
        let args: Vec<String> = (0..required + more)
            .map(|i| self.typed(f.args[i.min(f.args.len() - 1)]))
            .collect();
        format!("{}({})", f.name, args.join(", "))
    }

    fn vector(&mut self) -> String {
        if self.depth > 4 {
            return self.selector();
        }
        self.depth += 1;
        let out = match self.below(12) {
            0 => format!("({})", self.vector()),
            1 => format!("{}{}", self.one(&["-", "+", "- -"]), self.vector()),
            2 | 3 => self.call(),
            4 | 5 => self.aggregation(),
            6 | 7 => self.binary(),
            8 => {
                let op = self.one(&["+", "^", "*", "> bool", "<=", "</", ">/"]);
                format!("{} {op} {}", self.vector(), self.scalar())
            }
            _ => format!("{}{}", self.selector(), self.modifiers()),
        };
        self.depth -= 1;
        out
    }

    fn aggregation(&mut self) -> String {
        let op = Aggregator::ALL[self.below(Aggregator::ALL.len())];
        let param = match op {
            Aggregator::CountValues => format!("{}, ", self.string()),
            _ if op.has_parameter() => format!("{}, ", self.scalar()),
            _ => String::new(),
        };
        let grouping = self.maybe(|g| format!(" {} {}", g.one(&["by", "without", "BY"]), g.labels()));
        let vector = self.vector();
        match self.below(2) {
            0 => format!("{}{grouping} ({param}{vector})", op.as_str()),
            _ => format!("{}({param}{vector}){grouping}", op.as_str()),
        }
    }

    fn binary(&mut self) -> String {
        let op = Operator::ALL[self.below(Operator::ALL.len())];
        let bool_modifier = if op.is_comparison() {
            self.maybe(|_| " bool".to_owned())
        } else {
            String::new()
        };
        let mut matching = self.maybe(|g| format!(" {} {}", g.one(&["on", "ignoring"]), g.labels()));
        if !matching.is_empty() && !op.is_set() {
            matching += &self.maybe(|g| format!(" {}{}", g.one(&["group_left", "group_right"]), g.labels()));
        }
        if !op.is_set() {
            matching += &self.maybe(|g| {
                let fill = g.one(&["fill", "fill_left", "fill_right", "fill_left(1) fill_right"]);
                format!(" {fill}({})", g.one(&["0", "-1", "NaN", "+Inf", "1e9", "5m"]))
            });
        }
        format!(
            "{} {}{bool_modifier}{matching} {}",
            self.vector(),
            op.as_str(),
            self.vector()
        )
    }
}
