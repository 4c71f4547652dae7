//! Walks over the frames of one segment, over damage where there is some.
//!
//! Memory: one chunk plus the record at hand. Time: linear in the bytes of the file whatever they are, as each search
//! for the next header goes on where the last one ended.

use std::io;

use bytes::Bytes;
use trilith_model::TenantId;

use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKey, body_checksum, split_body};
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::store::SegmentReader;

/// One read from the store. Larger ones do not get faster on local disks.
const CHUNK_BYTES: usize = 512 << 10;

/// What could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Frames with a wrong body and stretches without a valid header between two frames.
    pub places: u64,
    pub bytes: u64,
    /// Bytes after the last valid frame header that lead to no further one.
    pub tail_bytes: u64,
}

pub(crate) struct Scanner {
    reader: Box<dyn SegmentReader>,
    key: FrameKey,
    at: u64,
    end: u64,
    /// Frames have rising LSNs within this range; anything else is not a frame of this segment.
    lsn_min: u64,
    lsn_end: u64,
    window: Vec<u8>,
    window_at: u64,
    pub damage: Damage,
}

impl Scanner {
    /// `end`: bytes that count; `lsns`: first LSN that may occur and the first one that may not.
    pub fn new(reader: Box<dyn SegmentReader>, key: FrameKey, end: u64, lsns: std::ops::Range<u64>) -> Self {
        Scanner {
            key,
            at: SEGMENT_HEADER_BYTES as u64,
            end: end.min(reader.bytes()),
            reader,
            lsn_min: lsns.start,
            lsn_end: lsns.end,
            window: Vec::new(),
            window_at: 0,
            damage: Damage::default(),
        }
    }

    /// Goes to the next frame. The caller then calls `body` or `skip` for it.
    pub fn next(&mut self) -> io::Result<Option<FrameHeader>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let (found, header) = match self.header_at(self.at)? {
            Some(header) => (self.at, header),
            None => match self.search(self.at + 1)? {
                Some(found) => found,
                None => {
                    self.damage.tail_bytes = self.end - self.at;
                    self.at = self.end;
                    return Ok(None);
                }
            },
        };
        if found > self.at {
            self.damage.places += 1;
            self.damage.bytes += found - self.at;
            self.at = found;
        }
        self.lsn_min = header.lsn + 1;
        Ok(Some(header))
    }

    /// Passes over the frame that `next` found.
    pub fn skip(&mut self, header: &FrameHeader) {
        self.at += header.frame_bytes();
    }

    /// Reads the frame that `next` found and passes over it. `None` when its body is damaged.
    pub fn body(&mut self, header: &FrameHeader) -> io::Result<Option<(TenantId, Bytes)>> {
        let from = self.at + FRAME_HEADER_BYTES as u64;
        self.skip(header);
        let body_bytes = header.body_bytes as usize;
        let whole;
        // A copy, so that a record kept by an engine does not keep a whole chunk.
        let body = if body_bytes <= CHUNK_BYTES {
            Bytes::copy_from_slice(self.window(from, body_bytes)?)
        } else {
            whole = self.read_large(from, body_bytes)?;
            Bytes::from(whole)
        };
        let tenant = usize::from(header.tenant_bytes);
        let intact = body.len() == body_bytes && body_checksum(&body[..tenant], &body[tenant..]) == header.body_crc;
        let split = if intact { split_body(header, &body) } else { None };
        if split.is_none() {
            self.damage.places += 1;
            self.damage.bytes += header.frame_bytes();
        }
        Ok(split.map(|(tenant, at)| (tenant, body.slice(at..))))
    }

    /// The frame is known to fit into the file, so the allocation is bounded by what is there.
    fn read_large(&mut self, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; bytes];
        let n = self.reader.read_at(from, &mut body)?;
        body.truncate(n);
        Ok(body)
    }

    fn header_at(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        let key = self.key;
        let header = FrameHeader::decode(self.window(at, FRAME_HEADER_BYTES)?, key);
        Ok(header.filter(|h| self.plausible(h, at)))
    }

    /// LSNs rise, and a frame does not reach beyond the end.
    fn plausible(&self, header: &FrameHeader, at: u64) -> bool {
        (self.lsn_min..self.lsn_end).contains(&header.lsn) && header.frame_bytes() <= self.end.saturating_sub(at)
    }

    /// The first valid header at `from` or later.
    fn search(&mut self, mut from: u64) -> io::Result<Option<(u64, FrameHeader)>> {
        let marker = self.key.marker();
        let key = self.key;
        loop {
            self.window(from, CHUNK_BYTES)?;
            let start = usize::try_from(from - self.window_at).expect("the window begins at or before `from`");
            let bytes = &self.window[start.min(self.window.len())..];
            if bytes.len() < FRAME_HEADER_BYTES {
                return Ok(None);
            }
            let candidates = bytes.len() - FRAME_HEADER_BYTES + 1;
            for i in 0..candidates {
                if bytes[i] != marker[0] || bytes[i..i + 4] != marker {
                    continue;
                }
                let at = from + i as u64;
                if let Some(header) = FrameHeader::decode(&bytes[i..], key).filter(|h| self.plausible(h, at)) {
                    return Ok(Some((at, header)));
                }
            }
            from += candidates as u64;
        }
    }

    /// Up to `n` bytes (at most a chunk) from `at`, fewer only at the end.
    fn window(&mut self, at: u64, n: usize) -> io::Result<&[u8]> {
        let n = usize::try_from(self.end.saturating_sub(at))
            .unwrap_or(usize::MAX)
            .min(n)
            .min(CHUNK_BYTES);
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + n as u64 > window_end {
            let want = usize::try_from(self.end.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            self.window.resize(want, 0);
            let got = self.reader.read_at(at, &mut self.window)?;
            self.window.truncate(got);
            self.window_at = at;
        }
        let start = usize::try_from(at - self.window_at)
            .expect("within a chunk")
            .min(self.window.len());
        let end = (start + n).min(self.window.len());
        Ok(&self.window[start..end])
    }
}
