//! Samples of one series as chunks in Prometheus' encodings: XOR (type 1) and float histograms (type 3).
//!
//! | count u16 BE | t₀ varint | v₀ 64 bits | Δt uvarint, v₁ xor | (ΔΔt code, v xor)… |                         XOR
//! | count u16 BE | flags u8 | layout | t₀, count, zero count, sum, buckets | (ΔΔt, the rest xor)… |    float histograms
//!
//! A chunk holds at most [`SAMPLES_MAX`] samples of one kind. Histograms of a chunk have one layout, and no counter reset
//! lies between them, because a reader takes that for granted; where one is seen or told, a new chunk begins and its
//! flags say so. Format: Prometheus `tsdb/docs/format/chunks.md`.

use trilith_histogram::{Buckets, CUSTOM_SCHEMA, FloatHistogram, ResetHint};
use trilith_model::SampleValue;
use trilith_proto::prometheus::{Chunk, chunk::Encoding};
use trilith_query::ColumnValues;

use super::bits::{BitWriter, XorColumn, fits};

/// As many as Prometheus puts into one.
const SAMPLES_MAX: usize = 120;

/// Upper two bits of the flags.
const COUNTER_RESET: u8 = 0b1000_0000;
const GAUGE: u8 = 0b1100_0000;

/// All samples of a series. `times` ms, ascending, as long as `values`.
pub fn encode(times: &[i64], values: ColumnValues<'_>) -> Vec<Chunk> {
    match values {
        ColumnValues::Float(values) => floats(times, values),
        ColumnValues::Mixed(values) => mixed(times, values),
    }
}

fn floats(times: &[i64], values: &[f64]) -> Vec<Chunk> {
    let parts = times.chunks(SAMPLES_MAX).zip(values.chunks(SAMPLES_MAX));
    parts.map(|(t, v)| xor(t, v)).collect()
}

fn mixed(times: &[i64], values: &[SampleValue]) -> Vec<Chunk> {
    let mut out = Vec::new();
    let mut from = 0;
    while from < values.len() {
        let is_float = |v: &SampleValue| matches!(v, SampleValue::Float(_));
        let kind = is_float(&values[from]);
        let n = values[from..].iter().take_while(|v| is_float(v) == kind).count();
        let (t, v) = (&times[from..from + n], &values[from..from + n]);
        if kind {
            let floats: Vec<f64> = v
                .iter()
                .filter_map(|v| match v {
                    SampleValue::Float(f) => Some(*f),
                    SampleValue::Histogram(_) => None,
                })
                .collect();
            out.extend(self::floats(t, &floats));
        } else {
            let histograms: Vec<&FloatHistogram> = v
                .iter()
                .filter_map(|v| match v {
                    SampleValue::Histogram(h) => Some(&**h),
                    SampleValue::Float(_) => None,
                })
                .collect();
            histogram_runs(t, &histograms, &mut out);
        }
        from += n;
    }
    out
}

fn chunk(times: &[i64], kind: Encoding, data: Vec<u8>) -> Chunk {
    Chunk {
        min_time_ms: times.first().copied().unwrap_or(0),
        max_time_ms: times.last().copied().unwrap_or(0),
        r#type: kind.into(),
        data,
    }
}

/// Room for the count, which is known to fit.
fn header(samples: usize) -> Vec<u8> {
    (samples as u16).to_be_bytes().to_vec()
}

/// At least one sample.
fn xor(times: &[i64], values: &[f64]) -> Chunk {
    let mut out = BitWriter::new(header(times.len()));
    let mut column = XorColumn::new(values[0]);
    let (mut before, mut delta) = (times[0], 0i64);
    for (i, (&t, &v)) in times.iter().zip(values).enumerate() {
        let d = t.wrapping_sub(before);
        match i {
            0 => {
                out.varint(t);
                out.float(v);
                continue;
            }
            1 => out.uvarint(d as u64),
            _ => match d.wrapping_sub(delta) {
                0 => out.bit(false),
                dd if fits(dd, 14) => {
                    out.bits(0b10, 2);
                    out.bits(dd as u64, 14);
                }
                dd if fits(dd, 17) => {
                    out.bits(0b110, 3);
                    out.bits(dd as u64, 17);
                }
                dd if fits(dd, 20) => {
                    out.bits(0b1110, 4);
                    out.bits(dd as u64, 20);
                }
                dd => {
                    out.bits(0b1111, 4);
                    out.bits(dd as u64, 64);
                }
            },
        }
        column.write(&mut out, v);
        (before, delta) = (t, d);
    }
    chunk(times, Encoding::Xor, out.into_bytes())
}

/// Cuts consecutive histograms into chunks.
fn histogram_runs(times: &[i64], values: &[&FloatHistogram], out: &mut Vec<Chunk>) {
    let mut from = 0;
    let mut reset = false;
    while from < values.len() {
        let mut to = from + 1;
        let mut next_reset = false;
        while to < values.len() && to - from < SAMPLES_MAX {
            let (a, b) = (values[to - 1], values[to]);
            // Gauges go down at will.
            let gauge = [a, b].iter().any(|h| h.reset_hint == ResetHint::Gauge);
            next_reset = !gauge && (b.reset_hint == ResetHint::Reset || decreases(a, b));
            if next_reset || !same_layout(a, b) {
                break;
            }
            next_reset = false;
            to += 1;
        }
        let first = values[from];
        let flags = match first.reset_hint {
            ResetHint::Gauge => GAUGE,
            ResetHint::Reset => COUNTER_RESET,
            _ if reset => COUNTER_RESET,
            _ => 0,
        };
        out.push(histograms(&times[from..to], &values[from..to], flags));
        (from, reset) = (to, next_reset);
    }
}

fn same_layout(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let gauge = |h: &FloatHistogram| h.reset_hint == ResetHint::Gauge;
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive.spans == b.positive.spans
        && a.negative.spans == b.negative.spans
        && a.positive.counts.len() == b.positive.counts.len()
        && a.negative.counts.len() == b.negative.counts.len()
        && a.custom_bounds() == b.custom_bounds()
        && gauge(a) == gauge(b)
}

/// Whether a population of `b` is below that of `a`, for equal layouts; of others only the totals are compared.
fn decreases(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let below = |a: &Buckets, b: &Buckets| a.spans == b.spans && a.counts.iter().zip(&b.counts).any(|(a, b)| b < a);
    b.count < a.count
        || (a.schema == b.schema
            && ((a.zero_threshold == b.zero_threshold && b.zero_count < a.zero_count)
                || below(&a.positive, &b.positive)
                || below(&a.negative, &b.negative)))
}

/// One chunk of at least one histogram, all of one layout.
fn histograms(times: &[i64], values: &[&FloatHistogram], flags: u8) -> Chunk {
    let mut head = header(values.len());
    head.push(flags);
    let mut out = BitWriter::new(head);
    layout(&mut out, values[0]);
    let mut columns: Vec<XorColumn> = Vec::new();
    let (mut before, mut delta) = (times[0], 0i64);
    for (i, (&t, h)) in times.iter().zip(values).enumerate() {
        let buckets = h.positive.counts.iter().chain(&h.negative.counts).copied();
        let fields = [h.count, h.zero_count, h.sum].into_iter().chain(buckets);
        if i == 0 {
            out.varbit_int(t);
            for v in fields {
                out.float(v);
                columns.push(XorColumn::new(v));
            }
            continue;
        }
        let d = t.wrapping_sub(before);
        out.varbit_int(d.wrapping_sub(delta));
        for (column, v) in columns.iter_mut().zip(fields) {
            column.write(&mut out, v);
        }
        (before, delta) = (t, d);
    }
    chunk(times, Encoding::FloatHistogram, out.into_bytes())
}

fn layout(out: &mut BitWriter, h: &FloatHistogram) {
    zero_threshold(out, h.zero_threshold);
    out.varbit_int(i64::from(h.schema));
    for side in [&h.positive, &h.negative] {
        out.varbit_uint(side.spans.len() as u64);
        for span in &side.spans {
            out.varbit_uint(u64::from(span.length));
            out.varbit_int(i64::from(span.offset));
        }
    }
    if h.schema == CUSTOM_SCHEMA {
        out.varbit_uint(h.custom_bounds().len() as u64);
        for bound in h.custom_bounds() {
            custom_bound(out, *bound);
        }
    }
}

/// One byte for 0 and for 2⁻²⁴³ to 2¹⁰, else 255 and the float.
fn zero_threshold(out: &mut BitWriter, v: f64) {
    const MANTISSA: u64 = (1 << 52) - 1;
    let exponent = (v.to_bits() >> 52) as i64 - 1023;
    if v == 0.0 {
        out.bits(0, 8);
    } else if v.to_bits() & MANTISSA == 0 && (-243..=10).contains(&exponent) {
        out.bits((exponent + 244) as u64, 8);
    } else {
        out.bits(255, 8);
        out.float(v);
    }
}

/// Multiples of 0.001 up to 33554.43 as a number, others as a zero bit and the float.
fn custom_bound(out: &mut BitWriter, v: f64) {
    let thousandths = v * 1000.0;
    let whole = thousandths.round();
    if (0.0..=33_554_430.0).contains(&thousandths) && whole / 1000.0 == v {
        out.varbit_uint(whole as u64 + 1);
    } else {
        out.bit(false);
        out.float(v);
    }
}

#[cfg(test)]
mod tests;
