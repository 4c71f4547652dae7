//! Joins blocks of one tenant into one: a k-way merge of sorted rows, column batches in, column batches out.
//!
//! Rows are never decoded into spans. The merge looks at three columns (trace id, start, span id), gathers whole rows
//! with Arrow's `interleave`, renumbers resources and scopes, and drops rows that repeat one with the same key exactly.
//! Memory: one batch per input and the writer's row group; the output is spooled to the scratch folder.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::interleave;
use trilith_block::{BlockDraft, Merge};
use trilith_model::{Error, Result, SpanId, TenantId, TraceId, task};

use crate::contexts::Contexts;
use crate::decode::{self, SpanColumns};
use crate::facts::Facts;
use crate::reader::{BlockReader, Scan};
use crate::schema::{self, Column};
use crate::writer::{BlockWriter, clamp};

/// Rows gathered before they are written.
const OUT_ROWS: usize = 8192;

/// The order of rows in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    trace: TraceId,
    start_ns: u64,
    span: SpanId,
}

/// What a column batch says about its rows, besides the columns to copy.
struct Chunk {
    columns: Vec<ArrayRef>,
    keys: Vec<Key>,
    /// Latest of start and end, for retention.
    ends: Vec<u64>,
}

struct Input {
    scan: Scan,
    block: Arc<BlockReader>,
    /// Id in the input → id in the output.
    resources: Arc<Vec<u32>>,
    scopes: Arc<Vec<u32>>,
    row: usize,
    /// Into the pool of chunks.
    chunk: usize,
}

pub async fn merge(job: Merge) -> Result<Vec<BlockDraft>> {
    let tenant = job
        .inputs
        .first()
        .ok_or_else(|| Error::internal("a merge without inputs"))?
        .meta
        .tenant
        .clone();
    let tenant = TenantId::new(&tenant)?;
    let mut contexts = Contexts::default();
    let mut facts = Facts::default();
    let mut inputs = Vec::new();
    for handle in &job.inputs {
        let block = Arc::new(BlockReader::open(handle).await?);
        facts.merge(&block.facts)?;
        let resources = block.resources.iter().map(|r| contexts.resource(r.as_ref().clone()));
        let resources = Arc::new(resources.collect::<Result<_>>()?);
        let scopes = block.scopes.iter().map(|s| contexts.scope(s.as_ref().clone()));
        let scopes = Arc::new(scopes.collect::<Result<_>>()?);
        let scan = block.scan(None, &Column::ALL, None)?;
        inputs.push(Input {
            scan,
            block,
            resources,
            scopes,
            row: 0,
            chunk: usize::MAX,
        });
    }
    let mut merger = Merger {
        pool: Vec::new(),
        heap: BinaryHeap::new(),
        out: Vec::new(),
        same_key: 0,
        last_key: None,
        keep_from: job.keep_from,
    };
    let mut writer = BlockWriter::new(job.level, Some(&job.scratch))?;
    for i in 0..inputs.len() {
        merger.load(&mut inputs, i).await?;
    }
    while let Some(i) = merger.next_input() {
        let input = &mut inputs[i];
        merger.take(input.chunk, input.row);
        input.row += 1;
        let rest = merger.pool[input.chunk].as_ref().map_or(0, |c| c.keys.len());
        if input.row < rest {
            merger.push(i, input.chunk, input.row);
        } else {
            merger.load(&mut inputs, i).await?;
        }
        if merger.out.len() >= OUT_ROWS && merger.may_flush() {
            writer = merger.flush(writer, inputs.iter().map(|i| i.chunk).collect()).await?;
        }
    }
    writer = merger.flush(writer, inputs.iter().map(|i| i.chunk).collect()).await?;
    if writer.rows() == 0 {
        // Everything was older than the retention.
        return Ok(Vec::new());
    }
    task::background(move || writer.finish(tenant, &contexts, &facts))
        .await?
        .map(|draft| vec![draft])
}

struct Merger {
    /// Chunks that rows of `out` or the inputs' positions point to; the others are given up at a flush.
    pool: Vec<Option<Arc<Chunk>>>,
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    /// (chunk, row) in output order.
    out: Vec<(usize, usize)>,
    last_key: Option<Key>,
    /// How many at the end of `out` have `last_key`.
    same_key: usize,
    keep_from: Option<i64>,
}

impl Merger {
    fn next_input(&mut self) -> Option<usize> {
        self.heap.pop().map(|Reverse((_, i))| i)
    }

    fn push(&mut self, i: usize, chunk: usize, row: usize) {
        if let Some(c) = &self.pool[chunk] {
            self.heap.push(Reverse((c.keys[row], i)));
        }
    }

    /// Reads the next batch of an input; nothing happens at its end.
    async fn load(&mut self, inputs: &mut [Input], i: usize) -> Result<()> {
        let input = &mut inputs[i];
        let last = self
            .pool
            .get(input.chunk)
            .and_then(|c| c.as_ref())
            .and_then(|c| c.keys.last().copied());
        while let Some(batch) = input.scan.next_in_background().await? {
            if batch.num_rows() == 0 {
                continue;
            }
            let (resources, scopes) = (input.resources.clone(), input.scopes.clone());
            let chunk = task::background(move || chunk(&batch, &resources, &scopes)).await??;
            if last.is_some_and(|l| l > chunk.keys[0]) || !chunk.keys.is_sorted() {
                return Err(unsorted(&input.block));
            }
            let slot = self.pool.iter().position(Option::is_none).unwrap_or_else(|| {
                self.pool.push(None);
                self.pool.len() - 1
            });
            self.pool[slot] = Some(Arc::new(chunk));
            (input.chunk, input.row) = (slot, 0);
            self.push(i, slot, 0);
            return Ok(());
        }
        input.chunk = usize::MAX;
        Ok(())
    }

    /// Appends a row to the output unless it is too old or repeats one exactly.
    fn take(&mut self, chunk: usize, row: usize) {
        let Some(c) = &self.pool[chunk] else { return };
        if self.keep_from.is_some_and(|from| clamp(c.ends[row]) < from) {
            return;
        }
        let key = c.keys[row];
        if self.last_key == Some(key) {
            let twins = &self.out[self.out.len() - self.same_key..];
            let repeated = twins
                .iter()
                .any(|&(other, r)| self.pool[other].as_ref().is_some_and(|o| same(o, r, c, row)));
            if repeated {
                return;
            }
            self.same_key += 1;
        } else {
            self.last_key = Some(key);
            self.same_key = 1;
        }
        self.out.push((chunk, row));
    }

    /// Rows of one key stay together until all are seen, because later ones are compared with them. (Thousands of
    /// spans with one id and start would be someone's mistake; they are given up as twins then.)
    fn may_flush(&self) -> bool {
        let next = self.heap.peek().map(|Reverse((key, _))| *key);
        next != self.last_key || self.out.len() > 4 * OUT_ROWS
    }

    /// `in_use`: the chunks that inputs are still reading.
    async fn flush(&mut self, mut writer: BlockWriter, in_use: Vec<usize>) -> Result<BlockWriter> {
        let out = std::mem::take(&mut self.out);
        self.same_key = 0;
        self.last_key = None;
        // Positions in the pool → positions among the chunks in use.
        let mut used: Vec<usize> = out.iter().map(|o| o.0).collect();
        used.sort_unstable();
        used.dedup();
        let chunks: Vec<Arc<Chunk>> = used.iter().filter_map(|u| self.pool[*u].clone()).collect();
        let indices: Vec<(usize, usize)> = out
            .iter()
            .map(|(chunk, row)| (used.partition_point(|u| u < chunk), *row))
            .collect();
        for (slot, chunk) in self.pool.iter_mut().enumerate() {
            if !in_use.contains(&slot) {
                *chunk = None;
            }
        }
        if indices.is_empty() {
            return Ok(writer);
        }
        task::background(move || {
            let columns = (0..Column::ALL.len())
                .map(|c| {
                    let arrays: Vec<&dyn Array> = chunks.iter().map(|k| k.columns[c].as_ref()).collect();
                    interleave(&arrays, &indices).map_err(|e| Error::internal(format!("gathering rows: {e}")))
                })
                .collect::<Result<Vec<_>>>()?;
            let batch = RecordBatch::try_new(schema::spans(), columns)
                .map_err(|e| Error::corrupt(format!("columns of the inputs: {e}")))?;
            writer.write(&batch)?;
            Ok(writer)
        })
        .await?
    }
}

fn unsorted(block: &BlockReader) -> Error {
    Error::corrupt(format!("block {}: rows are out of order", block.handle.meta.id))
}

/// Takes over a batch: keys out, ids renumbered, columns in the order of the format.
fn chunk(batch: &RecordBatch, resources: &[u32], scopes: &[u32]) -> Result<Chunk> {
    let c = SpanColumns::new(batch);
    let ids = decode::fixed(c.require(Column::TraceId)?, "trace_id")?;
    let span_ids = decode::fixed(c.require(Column::SpanId)?, "span_id")?;
    let start = decode::u64s(c.require(Column::Start)?, "start_ns")?;
    let duration = decode::u64s(c.require(Column::Duration)?, "duration_ns")?;
    let keys = (0..batch.num_rows())
        .map(|i| {
            Ok(Key {
                trace: TraceId(decode::id(ids.value(i))?),
                start_ns: start.value(i),
                span: SpanId(decode::id(span_ids.value(i))?),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let ends = (0..batch.num_rows())
        .map(|i| start.value(i).saturating_add(duration.value(i)))
        .collect();
    let columns = Column::ALL
        .into_iter()
        .map(|column| {
            let array = batch
                .column_by_name(column.name())
                .ok_or_else(|| Error::corrupt(format!("column {} is missing", column.name())))?;
            match column {
                Column::ResourceId => renumber(array, resources),
                Column::ScopeId => renumber(array, scopes),
                _ => Ok(array.clone()),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Chunk { columns, keys, ends })
}

fn renumber(array: &ArrayRef, ids: &[u32]) -> Result<ArrayRef> {
    let array = decode::u32s(array.as_ref(), "resource_id or scope_id")?;
    let out: Option<Vec<u32>> = array.values().iter().map(|id| ids.get(*id as usize).copied()).collect();
    let out = out.ok_or_else(|| Error::corrupt("resource or scope id out of range"))?;
    Ok(Arc::new(UInt32Array::from(out)))
}

/// Whether two rows are equal in every column, floats by their bits.
fn same(a: &Chunk, i: usize, b: &Chunk, j: usize) -> bool {
    a.columns
        .iter()
        .zip(&b.columns)
        .all(|(a, b)| a.slice(i, 1).to_data() == b.slice(j, 1).to_data())
}
