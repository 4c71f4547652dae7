//! Answers of the store: samples by `select`, names and values by the label calls.
//!
//! A query takes one view (heads and blocks) and opens the blocks it needs. `plan` finds the wanted series in every
//! source and brings those of equal labels together; `batch` reads the samples of a run of planned series and
//! assembles columns. A block that turns out to be damaged is reported, left out, and named in the query's warnings.

pub(crate) mod batch;
pub(crate) mod cardinality;
pub(crate) mod exemplars;
pub(crate) mod labels;
pub(crate) mod plan;

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use trilith_block::{BlockHandle, View};
use trilith_model::{Error, ErrorKind, Result, TimeRange};
use trilith_query::{QueryContext, QueryStats};
use ulid::Ulid;

use crate::engine::MetricsEngine;
use crate::head::TenantHead;
use crate::merge::age_key;
use crate::reader::BlockReader;
use crate::tombstones::Mask;

/// Blocks opened, or read, at a time by one query.
const FAN_OUT: usize = 8;

#[derive(Clone)]
pub(crate) struct ReaderWeight;

impl Weighter<Ulid, Arc<BlockReader>> for ReaderWeight {
    fn weight(&self, _: &Ulid, reader: &Arc<BlockReader>) -> u64 {
        reader.bytes() as u64
    }
}

/// Open blocks, by id.
pub(crate) type ReaderCache = Cache<Ulid, Arc<BlockReader>, ReaderWeight>;

/// The places where a tenant's samples of a range may be. Sources are numbered: blocks from the oldest written to the
/// newest, then heads from the oldest; of equal timestamps the sample of the highest number counts.
pub(crate) struct Sources {
    pub(crate) blocks: Vec<OpenBlock>,
    pub(crate) heads: Vec<Arc<TenantHead>>,
}

pub(crate) struct OpenBlock {
    pub(crate) handle: BlockHandle,
    pub(crate) reader: Arc<BlockReader>,
    /// What is deleted of it within the range of the query.
    pub(crate) mask: Option<Mask>,
}

impl Sources {
    pub(crate) async fn open(
        ctx: &QueryContext,
        view: &View<MetricsEngine>,
        range: TimeRange,
        cache: &Arc<ReaderCache>,
    ) -> Result<Sources> {
        ctx.check()?;
        if range.is_empty() {
            return Ok(Sources {
                blocks: Vec::new(),
                heads: Vec::new(),
            });
        }
        let mut handles: Vec<BlockHandle> = view.blocks_of(&ctx.tenant, range).cloned().collect();
        handles.sort_by_cached_key(age_key);
        QueryStats::add(&ctx.stats.blocks_read, handles.len() as u64);
        let opened: Vec<Option<OpenBlock>> = futures::stream::iter(handles)
            .map(|handle| async move {
                ctx.check()?;
                let id = handle.meta.id;
                let mask = Mask::of(&handle, range)?;
                match cache.get_or_insert_async(&id, BlockReader::open(&handle)).await {
                    Ok(reader) => Ok(Some(OpenBlock { handle, reader, mask })),
                    Err(e) => skip_damaged(ctx, &handle, e).map(|()| None),
                }
            })
            .buffered(FAN_OUT)
            .try_collect()
            .await?;
        let heads = view
            .heads
            .iter()
            .filter_map(|h| h.tenant(&ctx.tenant))
            .filter(|h| h.time().overlaps(range))
            .collect();
        Ok(Sources {
            blocks: opened.into_iter().flatten().collect(),
            heads,
        })
    }
}

/// Swallows the error of a damaged or lost block, after telling everyone; gives others back.
pub(crate) fn skip_damaged(ctx: &QueryContext, block: &BlockHandle, error: Error) -> Result<()> {
    match error.kind {
        ErrorKind::Corrupt | ErrorKind::NotFound => {
            tracing::error!(block = %block.meta.id, tenant = %ctx.tenant, %error, "block is damaged, its samples are left out");
            ctx.warn(format!("block {} is damaged, its samples are left out", block.meta.id));
            Ok(())
        }
        _ => Err(error),
    }
}
