//! Chunks read back the way Prometheus reads them.

use std::sync::Arc;

use trilith_histogram::Span;

use super::*;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bits(&mut self, n: u32) -> u64 {
        (0..n).fold(0, |v, _| {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            self.at += 1;
            v << 1 | u64::from(bit)
        })
    }

    fn float(&mut self) -> f64 {
        f64::from_bits(self.bits(64))
    }

    fn uvarint(&mut self) -> u64 {
        let (mut v, mut shift) = (0, 0);
        loop {
            let b = self.bits(8);
            v |= (b & 0x7f) << shift;
            if b < 0x80 {
                return v;
            }
            shift += 7;
        }
    }

    fn varint(&mut self) -> i64 {
        let v = self.uvarint();
        (v >> 1) as i64 ^ -((v & 1) as i64)
    }

    fn ones(&mut self, max: u32) -> u32 {
        (0..max).take_while(|_| self.bits(1) == 1).count() as u32
    }

    fn signed(&mut self, n: u32) -> i64 {
        let v = self.bits(n);
        if n < 64 && v > 1 << (n - 1) {
            v as i64 - (1 << n)
        } else {
            v as i64
        }
    }

    fn varbit_width(&mut self) -> u32 {
        [0, 3, 6, 9, 12, 18, 25, 56, 64][self.ones(8) as usize]
    }

    fn varbit_int(&mut self) -> i64 {
        match self.varbit_width() {
            0 => 0,
            n => self.signed(n),
        }
    }

    fn varbit_uint(&mut self) -> u64 {
        let n = self.varbit_width();
        self.bits(n)
    }

    fn xor(&mut self, value: &mut f64, window: &mut (u32, u32)) {
        if self.bits(1) == 0 {
            return;
        }
        if self.bits(1) == 1 {
            let leading = self.bits(5) as u32;
            let width = match self.bits(6) as u32 {
                0 => 64,
                n => n,
            };
            *window = (leading, 64 - leading - width);
        }
        let delta = self.bits(64 - window.0 - window.1) << window.1;
        *value = f64::from_bits(value.to_bits() ^ delta);
    }
}

fn read_xor(c: &Chunk) -> Vec<(i64, f64)> {
    assert_eq!(c.r#type, Encoding::Xor as i32);
    let n = u16::from_be_bytes([c.data[0], c.data[1]]);
    let mut r = Reader { bytes: &c.data, at: 16 };
    let (mut t, mut delta, mut v, mut window) = (0i64, 0i64, 0.0, (0, 0));
    (0..n)
        .map(|i| {
            match i {
                0 => (t, v) = (r.varint(), r.float()),
                1 => {
                    delta = r.uvarint() as i64;
                    t += delta;
                    r.xor(&mut v, &mut window);
                }
                _ => {
                    let dd = match r.ones(4) {
                        0 => 0,
                        1 => r.signed(14),
                        2 => r.signed(17),
                        3 => r.signed(20),
                        _ => r.signed(64),
                    };
                    delta += dd;
                    t += delta;
                    r.xor(&mut v, &mut window);
                }
            }
            (t, v)
        })
        .collect()
}

/// Flags and samples; the hint is what a reader makes of the flags.
fn read_histograms(c: &Chunk) -> (u8, Vec<(i64, FloatHistogram)>) {
    assert_eq!(c.r#type, Encoding::FloatHistogram as i32);
    let n = u16::from_be_bytes([c.data[0], c.data[1]]);
    let flags = c.data[2];
    let mut r = Reader { bytes: &c.data, at: 24 };
    let zero_threshold = match r.bits(8) {
        0 => 0.0,
        255 => r.float(),
        b => 2f64.powi(b as i32 - 244),
    };
    let schema = r.varbit_int() as i32;
    let mut side = || {
        let n = r.varbit_uint();
        let spans: Vec<Span> = (0..n)
            .map(|_| Span {
                length: r.varbit_uint() as u32,
                offset: r.varbit_int() as i32,
            })
            .collect();
        spans
    };
    let (positive, negative) = (side(), side());
    let custom_bounds = (schema == CUSTOM_SCHEMA).then(|| {
        let n = r.varbit_uint();
        (0..n)
            .map(|_| match r.varbit_uint() {
                0 => r.float(),
                v => (v - 1) as f64 / 1000.0,
            })
            .collect::<Arc<[f64]>>()
    });
    let count = |spans: &[Span]| spans.iter().map(|s| s.length as usize).sum::<usize>();
    let (p, q) = (count(&positive), count(&negative));
    let (mut t, mut delta) = (0, 0);
    let mut columns = vec![(0.0, (0, 0)); 3 + p + q];
    let samples = (0..n)
        .map(|i| {
            if i == 0 {
                t = r.varbit_int();
                columns.iter_mut().for_each(|c| c.0 = r.float());
            } else {
                delta += r.varbit_int();
                t += delta;
                columns.iter_mut().for_each(|(v, w)| r.xor(v, w));
            }
            let values: Vec<f64> = columns.iter().map(|c| c.0).collect();
            let h = FloatHistogram {
                schema,
                zero_threshold,
                count: values[0],
                zero_count: values[1],
                sum: values[2],
                positive: Buckets {
                    spans: positive.clone(),
                    counts: values[3..3 + p].to_vec(),
                },
                negative: Buckets {
                    spans: negative.clone(),
                    counts: values[3 + p..].to_vec(),
                },
                custom_bounds: custom_bounds.clone(),
                reset_hint: ResetHint::Unknown,
            };
            (t, h)
        })
        .collect();
    (flags, samples)
}

fn histogram(n: f64) -> FloatHistogram {
    FloatHistogram {
        schema: 2,
        zero_threshold: 2f64.powi(-128),
        zero_count: n,
        count: 6.0 * n,
        sum: 1.5 * n,
        positive: Buckets {
            spans: vec![Span { offset: -3, length: 2 }, Span { offset: 4, length: 1 }],
            counts: vec![n, 2.0 * n, n],
        },
        negative: Buckets {
            spans: vec![Span {
                offset: 100_000,
                length: 1,
            }],
            counts: vec![n],
        },
        ..FloatHistogram::default()
    }
}

#[test]
fn floats_come_back() {
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let mut times = vec![
        i64::MIN / 4,
        -5,
        0,
        1,
        15_001,
        30_001,
        45_001,
        60_000,
        8_000_000,
        1 << 40,
    ];
    let mut values = vec![
        0.0,
        -0.0,
        1.0,
        1.0,
        1.5,
        stale,
        f64::INFINITY,
        1e-300,
        12_345.678,
        f64::NAN,
    ];
    for i in 0..300 {
        times.push((1 << 41) + i * 15_000 + i % 7);
        values.push(i as f64 * 0.1);
    }
    let chunks = encode(&times, ColumnValues::Float(&values));
    assert_eq!(chunks.len(), 3);
    let got: Vec<(i64, u64)> = chunks
        .iter()
        .flat_map(read_xor)
        .map(|(t, v)| (t, v.to_bits()))
        .collect();
    let want: Vec<(i64, u64)> = times.iter().zip(&values).map(|(t, v)| (*t, v.to_bits())).collect();
    assert_eq!(got, want);
    assert_eq!((chunks[0].min_time_ms, chunks[2].max_time_ms), (times[0], times[309]));
}

/// The bytes of a chunk that Prometheus 3 wrote: four samples 15 s apart.
#[test]
fn floats_are_the_bytes_of_prometheus() {
    let chunk = xor(&[1000, 16_000, 31_000, 46_001], &[1.0, 2.0, 2.0, 3.5]);
    let mut want = vec![0, 4, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
    // Δ 15000; xor of 1 and 2 is 0x7ff0 << 48: 1 1, 1 leading zero, 11 bits.
    let mut bits = BitWriter::new(Vec::new());
    bits.bits(0x98, 8);
    bits.bits(0x75, 8);
    bits.bits(0b11, 2);
    bits.bits(1, 5);
    bits.bits(11, 6);
    bits.bits(0x7ff, 11);
    // Same distance, same value; then 1 ms more and the window used again.
    bits.bits(0b00, 2);
    bits.bits(0b10, 2);
    bits.bits(1, 14);
    bits.bits(0b11, 2);
    bits.bits(12, 5);
    bits.bits(2, 6);
    bits.bits(0b11, 2);
    want.extend(bits.into_bytes());
    assert_eq!(chunk.data, want);
}

#[test]
fn histograms_come_back() {
    let mut values: Vec<SampleValue> = (1..=150)
        .map(|i| SampleValue::Histogram(histogram(f64::from(i)).into()))
        .collect();
    // Another layout, a staleness marker, a reset, a gauge, custom bounds.
    let wider = FloatHistogram {
        schema: 1,
        count: 2000.0,
        ..histogram(300.0)
    };
    values.push(SampleValue::Histogram(wider.into()));
    values.push(SampleValue::Float(f64::from_bits(0x7ff0_0000_0000_0002)));
    values.push(SampleValue::Histogram(histogram(9.0).into()));
    values.push(SampleValue::Histogram(histogram(8.0).into()));
    values.push(SampleValue::Histogram(
        FloatHistogram {
            reset_hint: ResetHint::Reset,
            ..histogram(9.0)
        }
        .into(),
    ));
    for n in [5.0, 4.0] {
        values.push(SampleValue::Histogram(
            FloatHistogram {
                reset_hint: ResetHint::Gauge,
                ..histogram(n)
            }
            .into(),
        ));
    }
    let custom = FloatHistogram {
        schema: CUSTOM_SCHEMA,
        count: 3.0,
        positive: Buckets {
            spans: vec![Span { offset: 0, length: 3 }],
            counts: vec![1.0, 1.0, 1.0],
        },
        custom_bounds: Some([-1.5, 0.005, 33_554.431].as_slice().into()),
        ..FloatHistogram::default()
    };
    values.push(SampleValue::Histogram(custom.into()));
    let times: Vec<i64> = (0..values.len() as i64).map(|i| i * 60_000 + i % 3).collect();
    let chunks = encode(&times, ColumnValues::Mixed(&values));
    let mut got: Vec<(i64, SampleValue)> = Vec::new();
    let mut shape = Vec::new();
    for c in &chunks {
        if c.r#type == Encoding::Xor as i32 {
            shape.push((0, 1));
            got.extend(read_xor(c).into_iter().map(|(t, v)| (t, SampleValue::Float(v))));
        } else {
            let (flags, samples) = read_histograms(c);
            shape.push((flags, samples.len()));
            got.extend(samples.into_iter().map(|(t, h)| (t, SampleValue::Histogram(h.into()))));
        }
    }
    assert_eq!(
        shape,
        [
            (0, 120),
            (0, 30),
            (0, 1),
            (0, 1),
            (0, 1),
            (COUNTER_RESET, 1),
            (COUNTER_RESET, 1),
            (GAUGE, 2),
            (0, 1)
        ]
    );
    for (((t, v), want_t), want) in got.iter().zip(&times).zip(&values) {
        assert_eq!(t, want_t);
        match (v, want) {
            (SampleValue::Float(a), SampleValue::Float(b)) => assert_eq!(a.to_bits(), b.to_bits()),
            (SampleValue::Histogram(a), SampleValue::Histogram(b)) => {
                let b = FloatHistogram {
                    reset_hint: ResetHint::Unknown,
                    ..(**b).clone()
                };
                assert_eq!(**a, b);
            }
            _ => panic!("another kind at {t}"),
        }
    }
    assert_eq!(got.len(), values.len());
}
