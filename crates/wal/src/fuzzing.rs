//! The decoders as functions of bytes, for the fuzz targets.

use std::sync::Arc;

use trilith_model::rng::Rng;
use trilith_model::{Signal, SystemClock, TenantId};

use crate::frame::{FrameHeader, FrameKey, u32_at};
use crate::segment::SegmentHeader;
use crate::store::MemoryStore;
use crate::{Lsn, Options, Prepared, Record};

const SEGMENT: &str = "00000000000000000001.wal";

/// Opens a log whose only segment is `data`, replays it and appends to it.
///
/// # Panics
/// When a rule of the log is broken: LSNs not rising, or a new LSN that is not above the old ones.
pub fn segment(data: &[u8]) {
    let store = MemoryStore::new(1);
    store.put(SEGMENT, data.to_vec());
    let options = Options::new("");
    let Ok(Prepared {
        shared,
        mut committer,
        replay,
        ..
    }) = crate::prepare(Arc::new(store), &options, Lsn(0), Arc::new(SystemClock), Rng::seeded(1))
    else {
        // A later version.
        return;
    };
    let mut last = 0;
    let report = replay
        .run(|record: Record| {
            assert!(record.lsn.0 > last, "LSNs must rise");
            last = record.lsn.0;
            Ok(())
        })
        .expect("memory can always be read");
    assert!(
        report.bytes + report.corrupt_bytes + report.torn_bytes <= data.len() as u64,
        "{report:?}"
    );
    let (lsn, _) = shared
        .append(Signal::Logs, &TenantId::anonymous(), bytes::Bytes::from_static(b"x"))
        .expect("a healthy log accepts");
    assert!(lsn > last, "LSNs must not be reused");
    committer.step();
}

/// As `segment`, with a segment whose frames have any content under right checksums: what a mutation of a valid
/// segment almost never reaches. Every 16 bytes of `data` make a frame.
///
/// # Panics
/// As `segment`.
pub fn frames(data: &[u8]) {
    let key = FrameKey(7);
    let header = SegmentHeader {
        key,
        first_lsn: 1,
        previous_lsn: 0,
        cut: None,
    };
    let mut bytes = header.encode().to_vec();
    for piece in data.chunks_exact(16) {
        let body = &piece[10..10 + usize::from(piece[9] % 7)];
        let right_length = piece[0] & 1 == 0;
        let frame = FrameHeader {
            body_bytes: if right_length {
                body.len() as u32
            } else {
                u32_at(piece, 1)
            },
            lsn: u64::from(piece[5]),
            signal: Signal::ALL[usize::from(piece[6]) % Signal::ALL.len()],
            tenant_bytes: piece[7] % 8,
            body_crc: if piece[8] & 1 == 0 { crc32c::crc32c(body) } else { 0 },
        };
        bytes.extend_from_slice(&frame.encode(key));
        bytes.extend_from_slice(body);
    }
    segment(&bytes);
}

/// For `frames`: three good records.
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let piece = |lsn: u8| {
        let mut piece = [0; 16];
        (piece[5], piece[6], piece[7], piece[9]) = (lsn, lsn, 1, 3);
        piece[10..13].copy_from_slice(b"abc");
        piece
    };
    vec![[piece(1), piece(2), piece(3)].concat()]
}

/// Valid segments to start from.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    for (seed, sizes) in [(1, &[][..]), (2, &[0, 1, 40]), (3, &[300, 5, 2000, 7])] {
        let store = MemoryStore::new(seed);
        let options = Options::new("");
        let Prepared {
            shared, mut committer, ..
        } = crate::prepare(
            Arc::new(store.clone()),
            &options,
            Lsn(0),
            Arc::new(SystemClock),
            Rng::seeded(seed),
        )
        .expect("an empty log opens");
        for (i, &size) in sizes.iter().enumerate() {
            let payload = vec![i as u8; size];
            let tenant = TenantId::anonymous();
            shared
                .append(Signal::ALL[i % 3], &tenant, payload.into())
                .expect("a healthy log accepts");
            committer.step();
        }
        seeds.extend(store.read(SEGMENT));
    }
    seeds
}
