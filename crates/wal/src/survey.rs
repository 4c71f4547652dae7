//! What `open` finds in a store: which files are segments, where each ends, and how far the LSNs went.
//!
//! Only headers are read here, of every segment, and the frame headers of the newest one; the records come with the
//! replay.

use std::sync::Arc;

use trilith_model::rng::Rng;
use trilith_model::{Error, Result};

use crate::error::fatal;
use crate::frame::FRAME_HEADER_BYTES;
use crate::replay::ReplayReport;
use crate::scan::Scanner;
use crate::segment::{Cut, HeaderError, LSN_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_name};
use crate::store::SegmentStore;

const WRITER_FILE: &str = "writer";

/// The store's own files.
const KNOWN_FILES: [&str; 3] = [WRITER_FILE, "writer.tmp", "lock"];

pub(crate) struct Survey {
    /// By age.
    pub segments: Vec<FoundSegment>,
    pub report: ReplayReport,
    /// No LSN up to this one may be handed out again.
    pub burned_lsn: u64,
    /// The last record in the log.
    pub last_lsn: u64,
    /// A tail that could not be truncated; the next segment's header tells it.
    pub cut: Option<Cut>,
}

#[derive(Clone, Debug)]
pub(crate) struct FoundSegment {
    pub name: String,
    pub header: SegmentHeader,
    /// Bytes that count: less than the file's after a cut.
    pub end: u64,
}

impl FoundSegment {
    pub fn is_empty(&self) -> bool {
        self.end <= SEGMENT_HEADER_BYTES as u64
    }
}

pub(crate) fn survey(store: &Arc<dyn SegmentStore>) -> Result<Survey> {
    let mut survey = Survey {
        segments: Vec::new(),
        report: ReplayReport::default(),
        burned_lsn: 0,
        last_lsn: 0,
        cut: None,
    };
    let mut files = store.list().map_err(|e| fatal("cannot list the write-ahead log", &e))?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    for file in files {
        match parse_segment_name(&file.name) {
            Some(first_lsn) => survey.add(store, file.name, first_lsn, file.bytes)?,
            None if KNOWN_FILES.contains(&file.name.as_str()) => {}
            None => {
                tracing::warn!(file = file.name, "not a part of the write-ahead log; ignored");
                survey.report.foreign_files.push(file.name);
            }
        }
    }
    survey.apply_cuts();
    survey.examine_newest(store)?;
    Ok(survey)
}

impl Survey {
    fn add(&mut self, store: &Arc<dyn SegmentStore>, name: String, first_lsn: u64, bytes: u64) -> Result<()> {
        let mut head = [0; SEGMENT_HEADER_BYTES];
        let mut reader = store.open(&name).map_err(|e| fatal("cannot open a segment", &e))?;
        let n = reader
            .read_at(0, &mut head)
            .map_err(|e| fatal("cannot read a segment", &e))?;
        self.burned_lsn = self.burned_lsn.max(first_lsn);
        match SegmentHeader::decode(&head[..n]) {
            Ok(header) if header.first_lsn == first_lsn => {
                self.burned_lsn = self.burned_lsn.max(header.previous_lsn);
                self.segments.push(FoundSegment {
                    name,
                    header,
                    end: bytes,
                });
            }
            Err(HeaderError::Version(version)) => {
                return Err(Error::unsupported(format!(
                    "segment {name} of the write-ahead log has version {version}: it was written by a later version of this program"
                )));
            }
            Err(HeaderError::Damaged) if bytes <= SEGMENT_HEADER_BYTES as u64 => {
                // A crash while the file was made. It has no room for a record.
                tracing::info!(segment = name, "removing a segment that was never finished");
                if let Err(e) = store.delete(&name) {
                    tracing::warn!(error = %e, segment = name, "cannot remove it");
                }
            }
            Ok(_) | Err(HeaderError::Damaged) => {
                tracing::error!(
                    segment = name,
                    bytes,
                    "the segment's header is damaged; its records are lost"
                );
                self.burn_all_of(first_lsn, bytes);
                self.report.unreadable_segments.push(name);
            }
        }
        Ok(())
    }

    /// More records than this do not fit into so many bytes.
    fn burn_all_of(&mut self, first_lsn: u64, bytes: u64) {
        self.burned_lsn = self
            .burned_lsn
            .max(first_lsn.saturating_add(bytes / FRAME_HEADER_BYTES as u64));
    }

    fn apply_cuts(&mut self) {
        let cuts: Vec<Cut> = self.segments.iter().filter_map(|s| s.header.cut).collect();
        for cut in cuts {
            let Some(segment) = self.segments.iter_mut().find(|s| s.header.first_lsn == cut.first_lsn) else {
                continue;
            };
            if cut.offset < segment.end {
                self.report.refused_bytes += segment.end - cut.offset;
                segment.end = cut.offset.max(SEGMENT_HEADER_BYTES as u64);
            }
        }
    }

    /// Finds the last LSN and the torn tail that a crash leaves in the segment that was open.
    fn examine_newest(&mut self, store: &Arc<dyn SegmentStore>) -> Result<()> {
        let Some(newest) = self.segments.last_mut() else {
            return Ok(());
        };
        self.last_lsn = newest.header.previous_lsn;
        let first_lsn = newest.header.first_lsn;
        let reader = store
            .open(&newest.name)
            .map_err(|e| fatal("cannot open a segment", &e))?;
        let mut scanner = Scanner::new(reader, newest.header.key, newest.end, first_lsn..LSN_MAX + 1);
        while let Some(frame) = scanner.next().map_err(|e| fatal("cannot read a segment", &e))? {
            self.last_lsn = frame.lsn;
            scanner.skip(&frame);
        }
        let damage = scanner.damage;
        let file_end = newest.end;
        if damage.tail_bytes > 0 {
            newest.end -= damage.tail_bytes;
            self.report.torn_bytes = damage.tail_bytes;
            tracing::warn!(
                segment = newest.name,
                bytes = damage.tail_bytes,
                "truncating a torn tail: records that were not acknowledged"
            );
        }
        // Also without a torn tail: after a killed process the last group may be in the kernel's memory only. It is
        // replayed, so it must survive from now on.
        if file_end > SEGMENT_HEADER_BYTES as u64
            && let Err(e) = store.truncate(&newest.name, newest.end)
        {
            tracing::warn!(error = %e, segment = newest.name, "cannot truncate; the next segment records the cut");
            self.cut = Some(Cut {
                first_lsn,
                offset: newest.end,
            });
        }
        self.burned_lsn = self.burned_lsn.max(self.last_lsn);
        if damage.places > 0 || damage.tail_bytes > 0 {
            self.burn_all_of(first_lsn, file_end);
        }
        Ok(())
    }
}

/// Reads the writer's id, or makes it. 24 random hexadecimal digits and 8 of their checksum.
pub(crate) fn writer_id(store: &dyn SegmentStore, rng: &Rng) -> Result<String> {
    let stored = store
        .read_small(WRITER_FILE)
        .map_err(|e| fatal("cannot read the writer's id", &e))?;
    if let Some(bytes) = stored {
        return std::str::from_utf8(&bytes).ok().map(str::trim).filter(|id| is_writer_id(id)).map(str::to_owned).ok_or_else(
            || {
                Error::corrupt(
                    "the file 'writer' of the write-ahead log is damaged: restore it from a backup, or remove it and accept that records already in blocks are replayed once more",
                )
            },
        );
    }
    let digits = format!("{:024x}", rng.next_u128() >> 32);
    let id = format!("{digits}{:08x}", crc32c::crc32c(digits.as_bytes()));
    store
        .write_small(WRITER_FILE, id.as_bytes())
        .map_err(|e| fatal("cannot write the writer's id", &e))?;
    Ok(id)
}

fn is_writer_id(id: &str) -> bool {
    id.is_ascii()
        && id.len() == 32
        && u32::from_str_radix(&id[24..], 16).is_ok_and(|crc| crc == crc32c::crc32c(&id.as_bytes()[..24]))
}
