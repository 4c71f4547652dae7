//! Opens and reads a block.
//!
//! Opening costs one round of four small reads (index, resources, scopes, Parquet footer) and is kept in a cache of bounded
//! bytes. A trace then costs one index page and the Parquet pages of its rows. Every byte of `spans.parquet` is checked
//! against the sums in `index.tlb` before it is decoded.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use hashbrown::HashMap;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataPushDecoder};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use trilith_block::{BlockHandle, Container};
use trilith_codec::{Reader, crc32c};
use trilith_model::trace::{Resource, Scope};
use trilith_model::{Error, ErrorKind, Result, TraceId, task};
use trilith_query::QueryStats;
use trilith_query::span_rows::{SpanRow, TraceRows};

use crate::contexts;
use crate::decode::{self, bad_parquet};
use crate::facts::Facts;
use crate::filter::TraceFilter;
use crate::schema::Column;
use crate::trace_index::{Entry, TopLevel, read_page};
use crate::writer::{INDEX, RESOURCES, SCOPES, SPANS, SUM_BYTES, section};

/// Decoded rows per batch, unless spans are so large that the batch would exceed the bytes below.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: u64 = 64 << 20;
/// Rows between two wanted runs that are read along rather than skipped.
const ROW_GAP: u64 = 64;
/// A footer larger than this is not ours.
const FOOTER_BYTES_MAX: u64 = 256 << 20;

/// One open block; shared by queries.
pub struct BlockReader {
    pub handle: BlockHandle,
    parquet: ArrowReaderMetadata,
    index: Container,
    top: TopLevel,
    filter: TraceFilter,
    sums: Arc<Sums>,
    pub facts: Facts,
    pub resources: Vec<Arc<Resource>>,
    pub scopes: Vec<Arc<Scope>>,
    batch_rows: usize,
    rows: u64,
    weight: u64,
}

/// Checksums of `spans.parquet`.
struct Sums {
    len: u64,
    sums: Vec<u32>,
}

impl Sums {
    fn from_bytes(bytes: &[u8]) -> Result<Sums> {
        let mut r = Reader::new(bytes);
        let bad = |e| Error::corrupt(format!("checksums: {e}"));
        let len = r.uvarint().map_err(bad)?;
        let rest = r.rest();
        if rest.len() as u64 != len.div_ceil(SUM_BYTES).saturating_mul(4) {
            return Err(Error::corrupt(format!(
                "{} bytes of checksums for a file of {len}",
                rest.len()
            )));
        }
        let sums = rest
            .chunks_exact(4)
            .map(|c| u32::from_le_bytes(c.try_into().expect("chunks of four")))
            .collect();
        Ok(Sums { len, sums })
    }

    /// The range that is read for this one.
    fn widen(&self, range: &Range<u64>) -> Result<Range<u64>> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::corrupt(format!(
                "range {range:?} leaves a file of {} bytes",
                self.len
            )));
        }
        let end = range.end.div_ceil(SUM_BYTES).saturating_mul(SUM_BYTES).min(self.len);
        Ok(range.start / SUM_BYTES * SUM_BYTES..end)
    }

    /// Checks a widened range.
    fn check(&self, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != range.end - range.start {
            return Err(Error::corrupt(format!("{} bytes for range {range:?}", bytes.len())));
        }
        for (i, chunk) in ((range.start / SUM_BYTES)..).zip(bytes.chunks(SUM_BYTES as usize)) {
            if self.sums.get(i as usize) != Some(&crc32c(chunk)) {
                return Err(Error::corrupt(format!("checksum mismatch at offset {}", i * SUM_BYTES)));
            }
        }
        Ok(())
    }
}

impl BlockReader {
    /// # Errors
    /// `Corrupt`, `NotFound`, and those of the store.
    pub async fn open(handle: &BlockHandle) -> Result<BlockReader> {
        Self::open_inner(handle)
            .await
            .map_err(|e| e.context(format!("block {}", handle.meta.id)))
    }

    async fn open_inner(handle: &BlockHandle) -> Result<BlockReader> {
        let index = async {
            let index = Container::open(handle, INDEX).await?;
            let wanted = [section::TOP, section::FILTER, section::SUMS, section::FACTS].map(|s| (s, 0));
            let sections = index.read_many(&wanted).await?;
            Ok::<_, Error>((index, sections))
        };
        let ((index, sections), resources, scopes, footer) = tokio::try_join!(
            index,
            whole_file(handle, RESOURCES),
            whole_file(handle, SCOPES),
            footer_bytes(handle)
        )?;
        let handle = handle.clone();
        // Parsing is CPU work, and foreign bytes that make the Parquet library panic fail here and not the process.
        task::compute(move || Self::parse(handle, index, &sections, resources, scopes, footer)).await?
    }

    fn parse(
        handle: BlockHandle,
        index: Container,
        sections: &[Bytes],
        resources: Bytes,
        scopes: Bytes,
        footer: (Range<u64>, Bytes),
    ) -> Result<BlockReader> {
        let [top, filter, sums, facts] = sections else {
            return Err(Error::internal("four sections were asked for"));
        };
        let sums = Sums::from_bytes(sums)?;
        let (widened, bytes) = footer;
        sums.check(&widened, &bytes)?;
        let mut metadata = ParquetMetaDataPushDecoder::try_new(sums.len)
            .map_err(bad_parquet)?
            .with_page_index_policy(PageIndexPolicy::Optional);
        metadata
            .push_range(widened.clone(), bytes.clone())
            .map_err(bad_parquet)?;
        let metadata = match metadata.try_decode().map_err(bad_parquet)? {
            DecodeResult::Data(m) => Arc::new(m),
            _ => {
                return Err(Error::corrupt("the recorded footer range does not hold the footer"));
            }
        };
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let raw: u64 = metadata
            .row_groups()
            .iter()
            .map(|g| u64::try_from(g.total_byte_size()).unwrap_or(0))
            .sum();
        let batch_rows = (BATCH_BYTES / (raw / rows.max(1)).max(1)).clamp(16, BATCH_ROWS as u64) as usize;
        let parquet = ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new()).map_err(bad_parquet)?;
        let reader = BlockReader {
            top: TopLevel::from_bytes(top)?,
            filter: TraceFilter::from_bytes(filter)?,
            facts: Facts::from_bytes(facts)?,
            weight: 0,
            resources: contexts::read_resources(resources.clone())?,
            scopes: contexts::read_scopes(scopes.clone())?,
            handle,
            parquet,
            index,
            sums: Arc::new(sums),
            batch_rows,
            rows,
        };
        let contexts = (resources.len() + scopes.len()) as u64 * 8;
        let facts = reader.facts.bytes() as u64;
        let small = reader.top.bytes() + reader.filter.bytes() + reader.sums.sums.len() * 4;
        Ok(BlockReader {
            weight: contexts + facts + small as u64 + bytes.len() as u64 * 3 + 4096,
            ..reader
        })
    }

    /// Traces of the block that are among these (sorted); ascending.
    pub async fn lookup(&self, ids: &[TraceId]) -> Result<Vec<Entry>> {
        let mut pages: Vec<(usize, Vec<TraceId>)> = Vec::new();
        for id in ids.iter().filter(|id| self.filter.may_contain(**id)) {
            let Some(page) = self.top.page_of(*id) else {
                continue;
            };
            match pages.last_mut() {
                Some((last, ids)) if *last == page => ids.push(*id),
                _ => pages.push((page, vec![*id])),
            }
        }
        let numbers: Vec<usize> = pages.iter().map(|p| p.0).collect();
        let read = self.pages(&numbers).await?;
        let mut out = Vec::new();
        for ((_, wanted), entries) in pages.iter().zip(read) {
            for id in wanted {
                if let Ok(i) = entries.binary_search_by(|e| e.id.cmp(id)) {
                    out.push(entries[i].clone());
                }
            }
        }
        Ok(out)
    }

    /// All traces in order, some pages at a time: the next page to ask for, until it is `None`.
    pub async fn entries(&self, first_page: usize) -> Result<(Vec<Entry>, Option<usize>)> {
        const PAGES: usize = 64;
        let end = (first_page + PAGES).min(self.top.pages.len());
        let numbers: Vec<usize> = (first_page..end).collect();
        let entries = self.pages(&numbers).await?.concat();
        Ok((entries, (end < self.top.pages.len()).then_some(end)))
    }

    async fn pages(&self, numbers: &[usize]) -> Result<Vec<Vec<Entry>>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let ranges: Vec<_> = numbers.iter().map(|n| self.top.pages[*n].range.clone()).collect();
        let pages = self.index.read_ranges(section::PAGES, 0, &ranges).await?;
        numbers
            .iter()
            .zip(pages)
            .map(|(n, bytes)| read_page(&self.top.pages[*n], &bytes))
            .collect()
    }

    /// Reads rows (ascending, not overlapping; `None`: all) of some columns.
    ///
    /// # Errors
    /// `Corrupt` when the rows are not in the file.
    pub fn scan(
        self: &Arc<Self>,
        rows: Option<&[Range<u64>]>,
        columns: &[Column],
        stats: Option<Arc<QueryStats>>,
    ) -> Result<Scan> {
        let schema = self.parquet.parquet_schema();
        let mask = ProjectionMask::columns(schema, columns.iter().map(|c| c.name()));
        let mut builder = ParquetPushDecoderBuilder::new_with_metadata(self.parquet.clone())
            .with_projection(mask)
            .with_batch_size(self.batch_rows);
        if let Some(rows) = rows {
            let mut selectors = Vec::new();
            let mut at = 0;
            for r in rows {
                if r.start < at || r.end < r.start || r.end > self.rows {
                    return Err(Error::corrupt(format!("rows {r:?} of {}", self.rows)));
                }
                if r.start > at {
                    selectors.push(RowSelector::skip((r.start - at) as usize));
                }
                selectors.push(RowSelector::select((r.end - r.start) as usize));
                at = r.end;
            }
            if at < self.rows {
                selectors.push(RowSelector::skip((self.rows - at) as usize));
            }
            builder = builder.with_row_selection(RowSelection::from(selectors));
        }
        let decoder = builder.build().map_err(bad_parquet)?;
        Ok(Scan {
            block: self.clone(),
            decoder: Some(decoder),
            stats,
        })
    }

    /// The spans of these traces (ascending entries of this block), with some columns read.
    pub async fn rows(
        self: &Arc<Self>,
        entries: &[Entry],
        columns: &[Column],
        stats: Option<Arc<QueryStats>>,
    ) -> Result<Vec<TraceRows>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        // Near neighbours become one run: skipping a few rows costs more than decoding them.
        let mut runs: Vec<Range<u64>> = Vec::new();
        for e in entries {
            match runs.last_mut() {
                Some(last) if e.rows.start <= last.end.saturating_add(ROW_GAP) => last.end = e.rows.end,
                _ => runs.push(e.rows.clone()),
            }
        }
        let mut columns = columns.to_vec();
        if !columns.contains(&Column::TraceId) {
            columns.push(Column::TraceId);
        }
        let mut by_id: HashMap<TraceId, Vec<SpanRow>, foldhash::fast::RandomState> =
            entries.iter().map(|e| (e.id, Vec::new())).collect();
        let mut scan = self.scan(Some(&runs), &columns, stats)?;
        while let Some(batch) = scan.next().await? {
            let block = self.clone();
            for row in task::compute(move || decode::spans(&batch, &block.resources, &block.scopes)).await?? {
                if let Some(rows) = by_id.get_mut(&row.span.trace_id) {
                    rows.push(row);
                }
            }
        }
        Ok(entries
            .iter()
            .filter_map(|e| by_id.remove(&e.id).map(|spans| TraceRows { id: e.id, spans }))
            .filter(|t| !t.spans.is_empty())
            .collect())
    }

    /// Ranges of `spans.parquet`, checked.
    async fn fetch(&self, ranges: &[Range<u64>], stats: Option<&QueryStats>) -> Result<Vec<Bytes>> {
        let path = self.handle.path(SPANS);
        let widened = ranges.iter().map(|r| self.sums.widen(r)).collect::<Result<Vec<_>>>()?;
        let bodies = self.handle.store.get_ranges(&path, &widened).await?;
        if let Some(stats) = stats {
            QueryStats::add(&stats.bytes_read, bodies.iter().map(|b| b.len() as u64).sum());
        }
        let mut out = Vec::with_capacity(ranges.len());
        for ((wanted, range), body) in ranges.iter().zip(&widened).zip(bodies) {
            let body = match self.sums.check(range, &body) {
                Ok(()) => body,
                Err(_) => {
                    // Perhaps only the cache's copy is damaged.
                    self.handle.store.forget(&path, range.clone());
                    let again = self.handle.store.get_range(&path, range.clone()).await?;
                    self.sums.check(range, &again).map_err(|e| e.context(&path))?;
                    again
                }
            };
            // Inside the widened range by construction.
            out.push(body.slice((wanted.start - range.start) as usize..(wanted.end - range.start) as usize));
        }
        Ok(out)
    }

    /// Reads the whole file and checks every sum, for `verify`.
    pub async fn check_file(&self) -> Result<()> {
        const STEP: u64 = 1 << 20;
        let mut at = 0;
        while at < self.sums.len {
            let end = (at + STEP).min(self.sums.len);
            self.fetch(std::slice::from_ref(&(at..end)), None).await?;
            at = end;
        }
        // The whole file, because the container's header is in no section.
        whole_file(&self.handle, INDEX).await?;
        self.index.verify().await
    }
}

async fn whole_file(handle: &BlockHandle, name: &str) -> Result<Bytes> {
    let meta = handle
        .meta
        .file(name)
        .ok_or_else(|| Error::corrupt(format!("the block has no file {name}")))?;
    let bytes = handle.store.get_range(&handle.path(name), 0..meta.size).await?;
    if crc32c(&bytes) != meta.crc32c {
        handle.store.forget(&handle.path(name), 0..meta.size);
        return Err(Error::corrupt(format!("{name}: checksum mismatch")));
    }
    Ok(bytes)
}

/// The recorded footer of `spans.parquet`, widened so that its checksums can be tested.
async fn footer_bytes(handle: &BlockHandle) -> Result<(Range<u64>, Bytes)> {
    let meta = handle
        .meta
        .file(SPANS)
        .ok_or_else(|| Error::corrupt(format!("the block has no file {SPANS}")))?;
    let footer = meta.footer.clone().filter(|f| f.start < f.end && f.end == meta.size);
    let footer = footer.ok_or_else(|| Error::corrupt("no footer range is recorded"))?;
    if footer.end - footer.start > FOOTER_BYTES_MAX {
        return Err(Error::corrupt(format!(
            "a footer of {} bytes",
            footer.end - footer.start
        )));
    }
    let widened = footer.start / SUM_BYTES * SUM_BYTES..footer.end;
    let bytes = handle.store.get_range(&handle.path(SPANS), widened.clone()).await?;
    Ok((widened, bytes))
}

/// Rows on their way out of a block, batch by batch.
pub struct Scan {
    block: Arc<BlockReader>,
    /// `None` only while it decodes elsewhere, or after an error.
    decoder: Option<ParquetPushDecoder>,
    stats: Option<Arc<QueryStats>>,
}

impl Scan {
    /// The next batch; I/O here, decoding in the compute pool.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        self.step(false).await
    }

    /// As `next`, decoding in the background pool.
    pub async fn next_in_background(&mut self) -> Result<Option<RecordBatch>> {
        self.step(true).await
    }

    async fn step(&mut self, background: bool) -> Result<Option<RecordBatch>> {
        let mut decoder = self
            .decoder
            .take()
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the block could not be decoded before"))?;
        loop {
            let work = move || {
                let result = decoder.try_decode();
                (decoder, result)
            };
            // A panic of the Parquet library on foreign bytes ends here as an error.
            let done = if background {
                task::background(work).await
            } else {
                task::compute(work).await
            };
            let (back, result) =
                done.map_err(|e| Error::corrupt(format!("block {}: {e}", self.block.handle.meta.id)))?;
            decoder = back;
            match result.map_err(bad_parquet)? {
                DecodeResult::Data(batch) => {
                    if let Some(stats) = &self.stats {
                        QueryStats::add(&stats.bytes_decoded, batch.get_array_memory_size() as u64);
                        QueryStats::add(&stats.spans_scanned, batch.num_rows() as u64);
                    }
                    self.decoder = Some(decoder);
                    return Ok(Some(batch));
                }
                DecodeResult::NeedsData(ranges) => {
                    let bodies = self.block.fetch(&ranges, self.stats.as_deref()).await?;
                    decoder.push_ranges(ranges, bodies).map_err(bad_parquet)?;
                }
                DecodeResult::Finished => {
                    self.decoder = Some(decoder);
                    return Ok(None);
                }
            }
        }
    }
}

/// Open blocks within a ceiling of bytes.
pub struct ReaderCache {
    cache: Cache<ulid::Ulid, Arc<BlockReader>, Weight>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<ulid::Ulid, Arc<BlockReader>> for Weight {
    fn weight(&self, _: &ulid::Ulid, reader: &Arc<BlockReader>) -> u64 {
        reader.weight
    }
}

impl ReaderCache {
    pub fn new(bytes: u64) -> Self {
        ReaderCache {
            cache: Cache::with_weighter(1000, bytes, Weight),
        }
    }

    /// # Errors
    /// Those of [`BlockReader::open`]; nothing is kept then.
    pub async fn get(&self, handle: &BlockHandle) -> Result<Arc<BlockReader>> {
        // Several queries for one block open it once.
        self.cache
            .get_or_insert_async(&handle.meta.id, async { BlockReader::open(handle).await.map(Arc::new) })
            .await
    }
}
