//! Entry points for fuzzing: any bytes must end in `Ok` or `Err`, in bounded time and memory.

use bytes::Bytes;
use trilith_model::TimeRange;

use crate::filter::Filters;
use crate::format::directory::Directory;
use crate::format::{page, wal};
use crate::page::{Keys, Run};
use crate::scan::scan;

/// A WAL payload.
pub fn wal_payload(bytes: &[u8]) {
    if let Ok(batch) = wal::decode(bytes) {
        // What decodes encodes to something that decodes to the same.
        let again = wal::encode(&batch).and_then(|b| wal::decode(&b));
        assert_eq!(
            again.ok().as_ref(),
            Some(&batch),
            "a decoded record survives a round trip"
        );
    }
}

/// A directory, for blocks of up to 1000 streams.
pub fn directory(bytes: &[u8]) {
    if let Ok(directory) = Directory::decode(bytes, 1000) {
        let again = Directory::decode(&directory.encode(), 1000);
        assert_eq!(
            again.ok().as_ref(),
            Some(&directory),
            "a decoded directory survives a round trip"
        );
    }
}

/// The pieces of a page before compression: the first byte splits the input into keys, metadata and lines.
pub fn page(bytes: &[u8]) {
    let Some((&split, rest)) = bytes.split_first() else {
        return;
    };
    let (keys, rest) = rest.split_at(rest.len() * usize::from(split) / 256);
    let (meta, lines) = rest.split_at(rest.len() / 2);
    let pack = |raw: &[u8]| zstd::bulk::compress(raw, 1).unwrap_or_default();
    for rows in [1u32, 2, 7, u32::MAX] {
        let runs = [Run {
            stream: 0,
            first: 0,
            rows,
            ts_min: 0,
            ts_max: 0,
        }];
        let Ok(mut decoded) = page::decode_keys(&pack(keys), keys.len(), &runs, lines.len()) else {
            continue;
        };
        let _ = page::decode_meta(&pack(meta), meta.len(), &mut decoded);
        read_all(decoded, &runs, lines);
    }
    // And as stored bytes.
    let _ = page::decode_lines(bytes, bytes.len().saturating_mul(1000));
}

fn read_all(keys: Keys, runs: &[Run], lines: &[u8]) {
    let runs: Vec<(Run, u32)> = runs.iter().map(|r| (*r, 0)).collect();
    let lines = Bytes::copy_from_slice(lines);
    let scanned = scan(
        keys.into(),
        Some(lines),
        None,
        &runs,
        TimeRange::ALL,
        &Filters::new(&[]),
        None,
    );
    let Ok(scanned) = scanned else { return };
    for row in scanned.rows.into_iter().flat_map(|c| c.rows) {
        let _ = (
            scanned.page.line(row as usize),
            scanned.page.keys.metadata(row as usize),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            super::wal_payload(&bytes);
            super::directory(&bytes);
            super::page(&bytes);
            let mut payload = vec![1, bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
            payload.extend_from_slice(&zstd::bulk::compress(&bytes, 1).unwrap());
            super::wal_payload(&payload);
        }

        /// Small numbers everywhere get further than random bytes.
        #[test]
        fn small_bytes_are_safe(bytes in prop::collection::vec(0u8..4, 0..300)) {
            super::directory(&[&[1][..], &bytes].concat());
            super::page(&bytes);
            let mut payload = vec![1, bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
            payload.extend_from_slice(&zstd::bulk::compress(&bytes, 1).unwrap());
            super::wal_payload(&payload);
        }
    }
}
