//! One entry per decoder of untrusted bytes; none may panic, loop or allocate without bound.

use trilith_codec::Reader;

use crate::format::{directory, exemplars, histogram, metadata, page, rich, times, values};
use crate::samples::Samples;

/// Timestamps of as many samples as a slot of the targets has at most.
const TIMES: [i64; 120] = {
    let mut times = [0; 120];
    let mut i = 0;
    while i < 120 {
        times[i] = i as i64 * 15_000;
        i += 1;
    }
    times
};

/// The payload of a log record.
pub fn wal_record(bytes: &[u8]) {
    let _ = crate::wal_record::decode(bytes);
}

/// The raw form of a log record, before compression.
pub fn wal_record_raw(bytes: &[u8]) {
    let _ = crate::wal_record::decode_raw(bytes, false);
}

/// As `wal_record_raw`, of version 2.
pub fn wal_record_raw_2(bytes: &[u8]) {
    let _ = crate::wal_record::decode_raw(bytes, true);
}

/// A decompressed value page, read completely.
pub fn value_page(bytes: &[u8]) {
    if let Ok(p) = page::Page::open(bytes.to_vec(), 0, 63, 1000) {
        for s in p.slots() {
            let _ = p.read(s, &TIMES, &mut Samples::default());
        }
    }
}

/// One slot of any encoding.
pub fn slot(bytes: &[u8]) {
    for n in [1, 2, 120] {
        let _ = rich::decode(bytes, &TIMES[..n], &mut Samples::default());
    }
}

/// A run of histograms.
pub fn histograms(bytes: &[u8]) {
    let (mut r, mut run) = (Reader::new(bytes), histogram::Run::default());
    while !r.is_empty() && run.take(&mut r, 1.0).is_ok() {}
}

/// The values of one slot of floats.
pub fn values(bytes: &[u8]) {
    for n in [1, 2, 120] {
        let _ = values::decode(bytes, n, &mut Vec::new());
    }
}

/// A decompressed page of timestamp vectors, read completely.
pub fn times_page(bytes: &[u8]) {
    let _ = times::decode_vector(bytes);
    if let Ok(p) = times::TimesPage::open(bytes.to_vec()) {
        for i in 0..64 {
            let _ = p.vector(i);
        }
    }
}

/// Both page directories.
pub fn directories(bytes: &[u8]) {
    let _ = directory::decode_pages(bytes, 1 << 20, 100);
    let _ = directory::decode_times(bytes, 1 << 20);
}

/// The exemplars section.
pub fn exemplars(bytes: &[u8]) {
    let _ = exemplars::ExemplarSet::decode(bytes);
}

/// The text of a tombstone.
pub fn tombstone(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::tombstones::fuzz(text);
    }
}

/// The metadata section.
pub fn metadata(bytes: &[u8]) {
    let _ = metadata::decode(&mut Reader::new(bytes));
}

/// A whole block file.
pub fn block(bytes: &[u8]) {
    crate::reader::fuzz(bytes);
}

/// Valid inputs to start from.
pub mod seeds {
    use std::sync::Arc;

    use trilith_block::FileBody;
    use trilith_histogram::{CUSTOM_SCHEMA, FloatHistogram, Span};
    use trilith_model::{Exemplar, HistogramSample, Labels, MetricBatch, Sample, SampleValue, TenantId, TimeRange};

    use super::{TIMES, histogram};
    use crate::format::exemplars::ExemplarSet;
    use crate::format::rich;
    use crate::samples::{AnySample, Samples};
    use crate::writer::{BlockWriter, Extras};

    fn histogram_of(i: i64) -> Arc<FloatHistogram> {
        let mut h = FloatHistogram {
            schema: if i % 4 == 3 { CUSTOM_SCHEMA } else { 2 },
            zero_threshold: 0.001,
            sum: i as f64 / 3.0,
            ..FloatHistogram::default()
        };
        let buckets = 2 + i as u32 / 3 % 3;
        h.positive.spans = vec![
            Span { offset: -3, length: 1 },
            Span {
                offset: 1,
                length: buckets,
            },
        ];
        h.positive.counts = (0..=buckets).map(|b| f64::from(b) * i as f64).collect();
        if i % 5 == 4 {
            h.negative = h.positive.clone();
            h.negative.counts[0] = 0.5;
        }
        h.custom_bounds = (h.schema == CUSTOM_SCHEMA).then(|| vec![0.5, 1.0, 2.0].into());
        Arc::new(h)
    }

    fn samples() -> Samples {
        let mut out = Samples::default();
        for (i, &ts_ms) in (0i64..).zip(&TIMES) {
            let value = match i % 6 {
                0 => SampleValue::Float(i as f64),
                _ => SampleValue::Histogram(histogram_of(i)),
            };
            out.push(AnySample {
                ts_ms,
                start_ms: if i > 50 { TIMES[30] } else { 0 },
                value,
            });
        }
        out
    }

    fn exemplar(ts_ms: i64) -> Exemplar {
        Exemplar {
            labels: Labels::from_pairs([("trace_id", ts_ms.to_string())]),
            value: 0.5,
            ts_ms,
        }
    }

    fn series(i: i64) -> Labels {
        Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())])
    }

    pub fn slot() -> Vec<Vec<u8>> {
        let all = samples();
        [1, 2, 120]
            .map(|n| {
                let mut out = Vec::new();
                rich::encode(&mut out, all.slice(120 - n..120));
                out
            })
            .into()
    }

    pub fn histograms() -> Vec<Vec<u8>> {
        let (mut out, mut run) = (Vec::new(), histogram::Run::default());
        (0..12).for_each(|i| run.put(&mut out, &histogram_of(i)));
        vec![out]
    }

    pub fn exemplars() -> Vec<Vec<u8>> {
        vec![exemplar_set().encode()]
    }

    fn exemplar_set() -> ExemplarSet {
        let mut set = ExemplarSet::default();
        (0..9).for_each(|i| set.insert(&series(i % 3), &exemplar(i)));
        set
    }

    pub fn wal_record() -> Vec<Vec<u8>> {
        let mut b = MetricBatch::default();
        for i in 0..5 {
            b.push_started(Sample { ts_ms: i, value: 1.5 }, i % 2);
            b.histograms.push(HistogramSample {
                ts_ms: 10 + i,
                start_ms: i,
                histogram: histogram_of(i),
            });
            b.exemplars.push(exemplar(i));
            b.finish_series(series(i).as_ref());
        }
        vec![crate::wal_record::encode(&b).expect("a small batch fits a record")]
    }

    pub fn block() -> Vec<Vec<u8>> {
        let all = samples();
        let build = || {
            let mut w = BlockWriter::in_memory()?;
            for i in 0..4 {
                w.add(series(i).as_ref(), all.slice(i as usize..60))?;
            }
            let extras = Extras {
                metadata: Vec::new(),
                exemplars: exemplar_set(),
            };
            w.finish(TenantId::anonymous(), &extras, TimeRange::EMPTY)
        };
        let draft = build().expect("a block in memory");
        let files = draft.files.into_iter().filter_map(|f| match f.body {
            FileBody::Memory(bytes) => Some(bytes.to_vec()),
            FileBody::Spooled(_) => None,
        });
        files.collect()
    }
}
