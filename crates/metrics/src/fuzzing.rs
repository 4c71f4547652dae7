//! One entry per decoder of untrusted bytes; none may panic, loop or allocate without bound.

use trilith_codec::Reader;

use crate::format::{directory, metadata, page, times, values};

/// The payload of a log record.
pub fn wal_record(bytes: &[u8]) {
    let _ = crate::wal_record::decode(bytes);
}

/// The raw form of a log record, before compression.
pub fn wal_record_raw(bytes: &[u8]) {
    let _ = crate::wal_record::decode_raw(bytes);
}

/// A decompressed value page, read completely.
pub fn value_page(bytes: &[u8]) {
    if let Ok(p) = page::Page::open(bytes.to_vec(), 0, 63, 1000) {
        for s in p.slots() {
            let _ = p.values(s, 120, &mut Vec::new());
        }
    }
}

/// The values of one slot.
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

/// The metadata section.
pub fn metadata(bytes: &[u8]) {
    let _ = metadata::decode(&mut Reader::new(bytes));
}

/// A whole block file.
pub fn block(bytes: &[u8]) {
    crate::reader::fuzz(bytes);
}
