//! The text formats 0.0.4 and 1.0.0, the latter with quoted names.

use std::io::Write as _;

use trilith_model::SampleValue;

use super::escape::{Escaping, is_legacy};
use super::{Kind, Newest, classic};
use crate::float::push_json;

/// `series` sorted by name.
pub fn write(series: &[Newest], escaping: Escaping) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last: Option<(&str, Kind)> = None;
    for s in series {
        let histogram = match &s.value {
            SampleValue::Float(_) => None,
            SampleValue::Histogram(h) if h.uses_custom_buckets() => Some(h),
            SampleValue::Histogram(_) => continue,
        };
        let family = (s.name(), s.kind());
        if last != Some(family) {
            last = Some(family);
            let kind = match family.1 {
                Kind::Untyped => "untyped",
                // The text format has no type of its own for gauges.
                Kind::Histogram | Kind::GaugeHistogram => "histogram",
            };
            out.extend_from_slice(b"# TYPE ");
            metric_name(&mut out, s.name(), "", escaping);
            writeln!(out, " {kind}").expect("writing to memory cannot fail");
        }
        match (histogram, &s.value) {
            (Some(h), _) => {
                for (bound, count) in classic(h) {
                    let mut le = Vec::new();
                    push_json(&mut le, bound);
                    sample(
                        &mut out,
                        s,
                        "_bucket",
                        Some(&String::from_utf8_lossy(&le)),
                        count,
                        escaping,
                    );
                }
                sample(&mut out, s, "_sum", None, h.sum, escaping);
                sample(&mut out, s, "_count", None, h.count, escaping);
            }
            (None, SampleValue::Float(v)) => sample(&mut out, s, "", None, *v, escaping),
            (None, SampleValue::Histogram(_)) => {}
        }
    }
    out
}

fn sample(out: &mut Vec<u8>, s: &Newest, suffix: &str, le: Option<&str>, value: f64, escaping: Escaping) {
    let utf8 = escaping == Escaping::AllowUtf8;
    let quoted = utf8 && !is_legacy(s.name(), true);
    let labels = s.told().chain(le.map(|le| ("le", le)));
    let mut open = false;
    if quoted {
        out.push(b'{');
        open = true;
        metric_name(out, s.name(), suffix, escaping);
    } else {
        metric_name(out, s.name(), suffix, escaping);
    }
    for (name, value) in labels {
        out.push(if open { b',' } else { b'{' });
        open = true;
        if utf8 && !is_legacy(name, false) {
            quote(out, name);
        } else {
            out.extend_from_slice(escaping.name(name, false).as_bytes());
        }
        out.push(b'=');
        quote(out, value);
    }
    if open {
        out.push(b'}');
    }
    out.push(b' ');
    push_json(out, value);
    writeln!(out, " {}", s.ts_ms).expect("writing to memory cannot fail");
}

fn metric_name(out: &mut Vec<u8>, name: &str, suffix: &str, escaping: Escaping) {
    if escaping == Escaping::AllowUtf8 && !is_legacy(name, true) {
        quote(out, &format!("{name}{suffix}"));
    } else {
        out.extend_from_slice(escaping.name(name, true).as_bytes());
        out.extend_from_slice(suffix.as_bytes());
    }
}

fn quote(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for b in text.bytes() {
        match b {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            b => out.push(b),
        }
    }
    out.push(b'"');
}
