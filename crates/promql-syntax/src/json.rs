//! Trees as JSON for a tree view, in the shape of upstream's `/parse_query`.

use std::fmt::Write as _;

use crate::ast::{
    At, Binary, DurationExpr, DurationOp, Expr, ExprKind, LabelMatcher, Length, Offset, Selector, TimeShift,
};
use crate::functions::Signature;
use crate::text::{Text, format_f};

/// The tree as a JSON object.
pub fn to_json(expr: &Expr) -> String {
    let mut out = String::new();
    write(&mut out, expr);
    out
}

fn write(out: &mut String, e: &Expr) {
    match &e.kind {
        ExprKind::Number(n) => {
            let _ = write!(out, r#"{{"type":"numberLiteral","val":"{}"}}"#, format_f(n.value));
        }
        ExprKind::String(s) => {
            out.push_str(r#"{"type":"stringLiteral","val":"#);
            string(out, &s.to_str());
            out.push('}');
        }
        ExprKind::Paren(inner) => {
            out.push_str(r#"{"expr":"#);
            write(out, inner);
            out.push_str(r#","type":"parenExpr"}"#);
        }
        ExprKind::Unary(u) => {
            out.push_str(r#"{"expr":"#);
            write(out, &u.expr);
            let _ = write!(
                out,
                r#","op":"{}","type":"unaryExpr"}}"#,
                if u.negative { '-' } else { '+' }
            );
        }
        ExprKind::Selector(s) => {
            out.push('{');
            selector(out, s);
            at(out, &s.shift);
            out.push_str(r#","type":"vectorSelector"}"#);
        }
        ExprKind::Range(r) => {
            out.push('{');
            selector(out, &r.selector);
            length(out, "range", Some(&r.range));
            at(out, &r.selector.shift);
            out.push_str(r#","type":"matrixSelector"}"#);
        }
        ExprKind::Subquery(s) => {
            out.push_str(r#"{"expr":"#);
            write(out, &s.expr);
            offset(out, &s.shift.offset);
            length(out, "range", Some(&s.range));
            length(out, "step", s.step.as_ref());
            at(out, &s.shift);
            out.push_str(r#","type":"subquery"}"#);
        }
        ExprKind::Call(c) => {
            out.push_str(r#"{"args":["#);
            for (i, arg) in c.args.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write(out, arg);
            }
            out.push_str(r#"],"func":"#);
            signature(out, c.function);
            out.push_str(r#","type":"call"}"#);
        }
        ExprKind::Aggregate(a) => {
            out.push_str(r#"{"expr":"#);
            write(out, &a.expr);
            out.push_str(r#","grouping":"#);
            texts(out, &a.grouping);
            let _ = write!(out, r#","op":"{}","param":"#, a.op.as_str());
            match &a.param {
                Some(param) => write(out, param),
                None => out.push_str("null"),
            }
            let _ = write!(out, r#","type":"aggregation","without":{}}}"#, a.without);
        }
        ExprKind::Binary(_) => {
            let (links, innermost) = e.left_edge();
            for (binary, _) in &links {
                let _ = write!(out, r#"{{"bool":{},"lhs":"#, binary.return_bool);
            }
            write(out, innermost);
            for (binary, _) in links.into_iter().rev() {
                out.push_str(r#","matching":"#);
                matching(out, binary);
                let _ = write!(out, r#","op":"{}","rhs":"#, binary.op.as_str());
                write(out, &binary.rhs);
                out.push_str(r#","type":"binaryExpr"}"#);
            }
        }
    }
}

fn string(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn texts(out: &mut String, texts: &[Text]) {
    out.push('[');
    for (i, text) in texts.iter().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        string(out, &text.to_str());
    }
    out.push(']');
}

fn signature(out: &mut String, f: &Signature) {
    out.push_str(r#"{"argTypes":["#);
    for (i, arg) in f.args.iter().enumerate() {
        let _ = write!(out, r#"{}"{}""#, if i > 0 { "," } else { "" }, arg.short());
    }
    let _ = write!(
        out,
        r#"],"name":"{}","returnType":"{}","variadic":{}}}"#,
        f.name,
        f.returns.short(),
        f.variadic
    );
}

/// All but time, range and type.
fn selector(out: &mut String, s: &Selector) {
    use crate::ast::Edges;
    let _ = write!(out, r#""anchored":{},"matchers":["#, s.edges == Edges::Anchored);
    let name = s.name.as_deref().map(LabelMatcher::name_is);
    for (i, m) in s.matchers.iter().chain(&name).enumerate() {
        out.push_str(if i > 0 { r#",{"name":"# } else { r#"{"name":"# });
        string(out, &m.name.to_str());
        let _ = write!(out, r#","type":"{}","value":"#, m.matcher.op.as_str());
        string(out, &m.value.to_str());
        out.push('}');
    }
    out.push_str(r#"],"name":"#);
    string(out, s.name.as_deref().unwrap_or_default());
    offset(out, &s.shift.offset);
    let _ = write!(out, r#","smoothed":{}"#, s.edges == Edges::Smoothed);
}

fn offset(out: &mut String, offset: &Offset) {
    match offset {
        Offset::Fixed(nanos) => {
            let _ = write!(out, r#","offset":{},"offsetExpr":null"#, nanos / 1_000_000);
        }
        Offset::Computed(op) => {
            out.push_str(r#","offset":0,"offsetExpr":"#);
            operation(out, op);
        }
    }
}

fn length(out: &mut String, key: &str, length: Option<&Length>) {
    let ms = match length {
        Some(Length::Fixed(nanos)) => nanos / 1_000_000,
        Some(Length::Computed(_)) | None => 0,
    };
    let _ = write!(out, r#","{key}":{ms},"{key}Expr":"#);
    match length {
        Some(Length::Computed(op)) => operation(out, op),
        Some(Length::Fixed(_)) | None => out.push_str("null"),
    }
}

fn at(out: &mut String, shift: &TimeShift) {
    let (time, word) = match shift.at {
        None => (None, "null"),
        Some(At::Time(ms)) => (Some(ms), "null"),
        Some(At::Start) => (None, "\"start\""),
        Some(At::End) => (None, "\"end\""),
    };
    let _ = write!(out, r#","startOrEnd":{word},"timestamp":"#);
    match time {
        Some(ms) => {
            let _ = write!(out, "{ms}");
        }
        None => out.push_str("null"),
    }
}

fn duration(out: &mut String, e: Option<&DurationExpr>) {
    match e {
        None => out.push_str("null"),
        Some(DurationExpr::Op(op)) => operation(out, op),
        Some(DurationExpr::Number(n, _)) => {
            let _ = write!(
                out,
                r#"{{"duration":{},"type":"numberLiteral","val":"{}"}}"#,
                n.is_duration,
                format_f(n.value)
            );
        }
    }
}

fn operation(out: &mut String, op: &DurationOp) {
    out.push_str(r#"{"lhs":"#);
    duration(out, op.lhs.as_deref());
    let _ = write!(out, r#","op":"{}","rhs":"#, op.op.as_str());
    duration(out, op.rhs.as_deref());
    let _ = write!(out, r#","type":"durationExpr","wrapped":{}}}"#, op.wrapped);
}

fn matching(out: &mut String, b: &Binary) {
    let Some(m) = b.matching() else {
        out.push_str("null");
        return;
    };
    // JSON has no NaN and no infinities.
    let fill = |v: Option<f64>| v.filter(|v| v.is_finite()).map_or("null".to_owned(), format_f);
    let _ = write!(
        out,
        r#"{{"card":"{}","fillValues":{{"lhs":{},"rhs":{}}},"include":"#,
        m.cardinality.as_str(),
        fill(m.fill_left),
        fill(m.fill_right)
    );
    texts(out, &m.include);
    out.push_str(r#","labels":"#);
    texts(out, &m.labels);
    let _ = write!(out, r#","on":{}}}"#, m.on);
}
