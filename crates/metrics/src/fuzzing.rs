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

/// The metadata section.
pub fn metadata(bytes: &[u8]) {
    let _ = metadata::decode(&mut Reader::new(bytes));
}

/// A whole block file.
pub fn block(bytes: &[u8]) {
    crate::reader::fuzz(bytes);
}
