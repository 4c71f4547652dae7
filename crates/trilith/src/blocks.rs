//! `trilith blocks`: what the manifests know, and whether the objects agree. Reads only; the server may run.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use trilith_block::{BlockHandle, inspect};
use trilith_model::rng::Rng;
use trilith_model::{Signal, SystemClock};
use trilith_object::Store;

use crate::cli::{BlocksAction, Invocation};
use crate::config;
use crate::stores::open_object_store;

/// # Errors
/// The storage cannot be read, a block is unknown or damaged.
pub fn main(invocation: &Invocation, action: &BlocksAction) -> anyhow::Result<()> {
    let config = config::load(invocation.config_file.as_deref(), &invocation.flags)
        .map_err(|errors| anyhow::anyhow!("{}", errors.join("; ")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let store = open_object_store(&config, None, Arc::new(SystemClock), Arc::new(Rng::from_os())).await?;
        match action {
            BlocksAction::List { signal, tenant } => list(&store, signal.as_deref(), tenant.as_deref()).await,
            BlocksAction::Show { id } => show(&store, id).await,
            BlocksAction::Verify { id } => verify(&store, id.as_deref()).await,
        }
    })
}

async fn load(store: &Store, wanted: Option<&str>) -> anyhow::Result<Vec<(Signal, BlockHandle)>> {
    let mut out = Vec::new();
    for signal in Signal::ALL
        .into_iter()
        .filter(|s| wanted.is_none_or(|w| w == s.as_str()))
    {
        let state = inspect::load(store, signal)
            .await
            .with_context(|| format!("cannot load the manifest of {signal}"))?;
        out.extend(inspect::handles(&state, signal, store).into_iter().map(|b| (signal, b)));
    }
    Ok(out)
}

fn print(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write the output")
}

async fn list(store: &Store, signal: Option<&str>, tenant: Option<&str>) -> anyhow::Result<()> {
    print("id\tsignal\ttenant\tlevel\ttime_min\ttime_max\titems\tgroups\tbytes")?;
    for (signal, block) in load(store, signal).await? {
        let m = &block.meta;
        if tenant.is_none_or(|t| t == m.tenant) {
            print(&format!(
                "{}\t{signal}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
                m.id,
                m.tenant,
                m.level,
                m.time_min,
                m.time_max,
                m.items,
                m.groups,
                m.bytes()
            ))?;
        }
    }
    Ok(())
}

async fn find(store: &Store, id: &str) -> anyhow::Result<(Signal, BlockHandle)> {
    let all = load(store, None).await?;
    all.into_iter()
        .find(|(_, b)| b.meta.id.to_string() == id)
        .with_context(|| format!("there is no block {id}"))
}

async fn show(store: &Store, id: &str) -> anyhow::Result<()> {
    let (_, block) = find(store, id).await?;
    print(inspect::describe(&block).await?.trim_end())
}

async fn verify(store: &Store, id: Option<&str>) -> anyhow::Result<()> {
    let blocks = match id {
        Some(id) => vec![find(store, id).await?],
        None => load(store, None).await?,
    };
    let mut bad = 0;
    for (signal, block) in &blocks {
        let done = match signal {
            Signal::Metrics => inspect::verify(&trilith_metrics::MetricsEngine, block).await,
            Signal::Logs => inspect::verify(&trilith_logs::LogsEngine, block).await,
            Signal::Traces => inspect::verify(&trilith_traces::TracesEngine, block).await,
        };
        match done {
            Ok(()) => print(&format!("{}\t{signal}\tok", block.meta.id))?,
            Err(e) => {
                bad += 1;
                print(&format!("{}\t{signal}\t{e}", block.meta.id))?;
            }
        }
    }
    if bad > 0 {
        bail!("{bad} of {} blocks are damaged", blocks.len());
    }
    Ok(())
}
