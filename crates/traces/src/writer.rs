//! Writes a block: `spans.parquet`, `resources.parquet`, `scopes.parquet` and `index.tlb`.
//!
//! Spans come as batches sorted by trace id; the trace index, the filter, the time range and the checksums are made on the
//! way. Parquet has no page checksums in this writer, so `index.tlb` carries a CRC-32C per 16 KiB of `spans.parquet` and
//! every read is checked against it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use trilith_block::container::{Compression as Packed, ContainerWriter};
use trilith_block::{BlockDraft, BlockFile, FileBody};
use trilith_codec::{Crc32c, put_uvarint};
use trilith_model::{Error, ErrorKind, Result, TenantId, TimeRange, TraceId};

use crate::contexts::Contexts;
use crate::decode::{self, SpanColumns};
use crate::facts::Facts;
use crate::filter::TraceFilter;
use crate::schema::{self, Column};
use crate::trace_index::IndexWriter;

pub const SPANS: &str = "spans.parquet";
pub const RESOURCES: &str = "resources.parquet";
pub const SCOPES: &str = "scopes.parquet";
pub const INDEX: &str = "index.tlb";

/// Sections of `index.tlb`; numbers are part of the format.
pub mod section {
    /// Trace index pages, read by range.
    pub const PAGES: u16 = 1;
    /// Trace index top level.
    pub const TOP: u16 = 2;
    pub const FILTER: u16 = 3;
    /// Checksums of `spans.parquet`.
    pub const SUMS: u16 = 4;
    pub const FACTS: u16 = 5;
}

/// What one checksum covers. Reads are rounded to it, so it is a fraction of a typical page.
pub const SUM_BYTES: u64 = 16 << 10;
/// Rows of a row group; bounds the writer's and the reader's memory.
const ROW_GROUP_ROWS: usize = 64 << 10;
const ROW_GROUP_BYTES: usize = 64 << 20;
/// A trace by id reads at least one page per column.
const PAGE_ROWS: usize = 2048;
/// A trace by id also reads the dictionaries.
const DICTIONARY_BYTES: usize = 128 << 10;

pub fn failed(e: parquet::errors::ParquetError) -> Error {
    // Disk full passes; anything else is a mistake of ours.
    let full = match &e {
        parquet::errors::ParquetError::External(e) => e.downcast_ref::<std::io::Error>().is_some_and(|e| {
            matches!(
                e.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        }),
        _ => false,
    };
    Error::new(
        if full {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Internal
        },
        format!("writing parquet: {e}"),
    )
}

fn zstd(level: i32) -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(level).unwrap_or_default())
}

pub fn context_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(zstd(3))
        .set_statistics_enabled(EnabledStatistics::None)
        .build()
}

fn span_properties(level: u8) -> WriterProperties {
    let path = |c: Column| ColumnPath::from(c.name());
    let nested = |text: &str| ColumnPath::from(text.split('.').map(str::to_owned).collect::<Vec<_>>());
    // Freshly cut blocks are rewritten soon.
    let mut p = WriterProperties::builder()
        .set_compression(zstd(if level == 0 { 1 } else { 3 }))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_statistics_enabled(EnabledStatistics::None);
    for c in [
        Column::TraceId,
        Column::Start,
        Column::Duration,
        Column::Name,
        Column::ServiceName,
        Column::StatusCode,
    ] {
        p = p.set_column_statistics_enabled(path(c), EnabledStatistics::Page);
    }
    // Ids repeat within a page at most, where zstd finds them; span ids do not.
    for c in [Column::TraceId, Column::SpanId, Column::ParentSpanId] {
        p = p.set_column_dictionary_enabled(path(c), false);
    }
    p = p.set_column_compression(path(Column::SpanId), Compression::UNCOMPRESSED);
    let times = [
        path(Column::Start),
        path(Column::Duration),
        nested("events.list.element.time_ns"),
    ];
    for c in times {
        p = p
            .set_column_dictionary_enabled(c.clone(), false)
            .set_column_encoding(c, Encoding::DELTA_BINARY_PACKED);
    }
    p.build()
}

/// Sums what passes through.
struct SummedWriter {
    sink: Sink,
    crc: Crc32c,
    filled: u64,
    sums: Vec<u8>,
    len: u64,
}

enum Sink {
    Memory(Vec<u8>),
    File(PathBuf, BufWriter<File>),
}

impl SummedWriter {
    fn new(sink: Sink) -> Self {
        SummedWriter {
            sink,
            crc: Crc32c::new(),
            filled: 0,
            sums: Vec::new(),
            len: 0,
        }
    }

    fn end_chunk(&mut self) {
        if self.filled > 0 {
            let crc = std::mem::replace(&mut self.crc, Crc32c::new());
            self.sums.extend_from_slice(&crc.value().to_le_bytes());
            self.filled = 0;
        }
    }
}

impl Write for SummedWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.sink {
            Sink::Memory(out) => out.extend_from_slice(bytes),
            Sink::File(_, file) => file.write_all(bytes)?,
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = rest.len().min((SUM_BYTES - self.filled) as usize);
            self.crc.update(&rest[..n]);
            self.filled += n as u64;
            rest = &rest[n..];
            if self.filled == SUM_BYTES {
                self.end_chunk();
            }
        }
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.sink {
            Sink::Memory(_) => Ok(()),
            Sink::File(_, file) => file.flush(),
        }
    }
}

/// One block on its way out.
pub struct BlockWriter {
    parquet: ArrowWriter<SummedWriter>,
    index: IndexWriter,
    /// The trace being written and its rows so far.
    current: Option<(TraceId, u64)>,
    ids: Vec<TraceId>,
    rows: u64,
    time: TimeRange,
}

impl BlockWriter {
    /// In memory, or spooled to a new file in `scratch`. `level` 0 is written fast, others small.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn new(level: u8, scratch: Option<&Path>) -> Result<Self> {
        let sink = match scratch {
            None => Sink::Memory(Vec::new()),
            Some(folder) => {
                let path = folder.join(SPANS);
                let file = File::create_new(&path)
                    .map_err(|e| Error::unavailable(format!("cannot create {}: {e}", path.display())))?;
                Sink::File(path, BufWriter::with_capacity(1 << 20, file))
            }
        };
        let out = SummedWriter::new(sink);
        // Without the embedded Arrow schema: the Parquet types say everything, and readers other than Arrow need nothing else.
        let options = ArrowWriterOptions::new()
            .with_properties(span_properties(level))
            .with_skip_arrow_metadata(true);
        Ok(BlockWriter {
            parquet: ArrowWriter::try_new_with_options(out, schema::spans(), options).map_err(failed)?,
            index: IndexWriter::default(),
            current: None,
            ids: Vec::new(),
            rows: 0,
            time: TimeRange::EMPTY,
        })
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends spans; trace ids must not descend, across batches too.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let c = SpanColumns::new(batch);
        let ids = decode::fixed(c.require(Column::TraceId)?, "trace_id")?;
        let start = decode::u64s(c.require(Column::Start)?, "start_ns")?;
        let duration = decode::u64s(c.require(Column::Duration)?, "duration_ns")?;
        for i in 0..batch.num_rows() {
            let id = TraceId(decode::id(ids.value(i))?);
            match &mut self.current {
                Some((current, rows)) if *current == id => *rows += 1,
                Some((current, _)) if *current > id => {
                    return Err(Error::internal(format!("trace {id} after {current} in a block")));
                }
                _ => {
                    self.end_trace();
                    self.current = Some((id, 1));
                }
            }
            self.time.extend(clamp(start.value(i)));
            self.time
                .extend(clamp(start.value(i).saturating_add(duration.value(i))));
        }
        self.rows += batch.num_rows() as u64;
        self.parquet.write(batch).map_err(failed)
    }

    fn end_trace(&mut self) {
        if let Some((id, rows)) = self.current.take() {
            self.index.push(id, rows);
            self.ids.push(id);
        }
    }

    /// Completes the block.
    pub fn finish(mut self, tenant: TenantId, contexts: &Contexts, facts: &Facts) -> Result<BlockDraft> {
        self.end_trace();
        let metadata = self.parquet.finish().map_err(failed)?;
        // Page indexes stand right before the footer: one range opens the file.
        let mut footer_start = u64::MAX;
        for column in metadata.row_groups().iter().flat_map(|g| g.columns()) {
            for offset in [column.column_index_offset(), column.offset_index_offset()]
                .into_iter()
                .flatten()
            {
                footer_start = footer_start.min(u64::try_from(offset).unwrap_or(u64::MAX));
            }
        }
        // `finish` flushed everything; `into_inner` would write the footer a second time.
        let mut out = std::mem::replace(self.parquet.inner_mut(), SummedWriter::new(Sink::Memory(Vec::new())));
        out.flush()
            .map_err(|e| Error::unavailable(format!("writing {SPANS}: {e}")))?;
        out.end_chunk();
        let footer = (footer_start < out.len).then_some(footer_start..out.len);
        let mut filter = TraceFilter::new(self.ids.len());
        self.ids.iter().for_each(|id| filter.insert(*id));
        let groups = self.index.traces;
        let (pages, top) = self.index.finish();
        let mut sums = Vec::with_capacity(out.sums.len() + 10);
        put_uvarint(&mut sums, out.len);
        sums.extend_from_slice(&out.sums);

        let mut index = ContainerWriter::in_memory();
        index.section(section::PAGES, 0, &pages, Packed::None)?;
        index.section(section::FILTER, 0, &filter.to_bytes(), Packed::None)?;
        index.section(section::FACTS, 0, &facts.to_bytes(), Packed::Zstd(3))?;
        index.section(section::SUMS, 0, &sums, Packed::None)?;
        index.start_hot();
        index.section(section::TOP, 0, &top, Packed::None)?;
        let (resources, scopes) = contexts.to_parquet()?;
        let spans = match out.sink {
            Sink::Memory(bytes) => FileBody::Memory(Bytes::from(bytes)),
            Sink::File(path, _) => FileBody::Spooled(path),
        };
        let memory = |name: &str, bytes| BlockFile {
            name: name.to_owned(),
            body: FileBody::Memory(bytes),
            footer: None,
        };
        Ok(BlockDraft {
            tenant,
            time: self.time,
            items: self.rows,
            groups,
            files: vec![
                BlockFile {
                    name: SPANS.to_owned(),
                    body: spans,
                    footer,
                },
                memory(RESOURCES, resources),
                memory(SCOPES, scopes),
                index.finish(INDEX)?,
            ],
            facts: Default::default(),
        })
    }
}

/// Block times are signed; the year 2262 stands for everything after it.
pub fn clamp(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}
