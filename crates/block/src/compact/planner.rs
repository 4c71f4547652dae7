//! Which blocks to merge and which to drop.
//!
//! Blocks of one tenant climb levels. Level ℓ has a time window (2 h, 12 h, 8 d …); a merge takes blocks of level ≤ ℓ
//! that end in the same window and makes one of level ℓ + 1. The last window repeats for [`EXTRA_LEVELS`] more
//! levels, where only full hands are merged, so that late data, which trickles into old windows for ever, is gathered
//! in ever larger portions instead of being rewritten each time.
//!
//! - A hand is full with `fan_in_min` blocks of level ℓ. In a window that has closed and settled two of level ≤ ℓ are
//!   enough: no more will come soon.
//! - A block that spans several windows is merged only with others that do, so that narrow blocks stay narrow.
//! - A block of half the size ceiling or more is finished, and no output exceeds the ceiling.
//! - A hand holds neighbours by id, which is the order in which they were made.
//!
//! Every merge lifts all its inputs to a higher level, and levels end: a record is written at most
//! `windows + EXTRA_LEVELS` times after its cut, and planning and merging in turns comes to rest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ulid::Ulid;

use crate::meta::BlockMeta;

/// Levels above the windows, for full hands of finished windows.
pub const EXTRA_LEVELS: usize = 2;

/// Times are in the signal's unit (ms for metrics, ns for logs and traces) unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerOptions {
    /// Ascending lengths, one per level. Empty turns merging off.
    pub windows: Vec<i64>,
    /// Blocks that make a merge worth it while a window is open. At least 2.
    pub fan_in_min: usize,
    /// Most inputs of one merge.
    pub fan_in_max: usize,
    /// Largest sum of the inputs' sizes.
    pub block_bytes_max: u64,
    /// A closed window has settled when its newest block is older.
    pub settle_ms: i64,
    /// Age by record time after which a block goes; `None` keeps for ever.
    pub retention: Option<i64>,
}

/// Blocks of one tenant to merge into one of `level`.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub tenant: String,
    pub level: u8,
    /// Oldest first; at least two, or one whose deleted records go.
    pub inputs: Vec<Arc<BlockMeta>>,
}

/// No block is in two jobs, or in a job and dropped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Lower levels first.
    pub jobs: Vec<Job>,
    /// Blocks that are older than the retention as a whole.
    pub drop: Vec<Ulid>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.drop.is_empty()
    }
}

/// The moment of planning.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// In the signal's unit.
    pub time: i64,
    pub ms: i64,
}

/// Oldest record time that is kept; `None` keeps all.
pub fn keep_from(now: Now, options: &PlannerOptions) -> Option<i64> {
    options.retention.map(|age| now.time.saturating_sub(age))
}

/// Plans from the blocks of a manifest. Blocks in `skip` (damaged ones) take part in nothing but retention. `force`
/// treats every window as closed and settled. Deterministic.
pub fn plan<'a>(
    blocks: impl IntoIterator<Item = &'a Arc<BlockMeta>>,
    now: Now,
    options: &PlannerOptions,
    skip: &HashSet<Ulid>,
    force: bool,
) -> Plan {
    let keep_from = keep_from(now, options);
    let mut drop = Vec::new();
    let mut tenants: BTreeMap<&str, Vec<&Arc<BlockMeta>>> = BTreeMap::new();
    for block in blocks {
        if keep_from.is_some_and(|from| block.time_max < from) {
            drop.push(block.id);
        } else if !skip.contains(&block.id) && block.bytes() < options.block_bytes_max / 2 {
            tenants.entry(&block.tenant).or_default().push(block);
        }
    }
    let mut jobs = Vec::new();
    for (tenant, mut blocks) in tenants {
        blocks.sort_by_key(|b| b.id);
        plan_tenant(tenant, &blocks, now, options, force, &mut jobs);
    }
    jobs.sort_by_key(|job| job.level);
    drop.sort_unstable();
    Plan { jobs, drop }
}

/// Blocks that end in the same window, apart by whether they fit into it.
type GroupKey = (i64, bool);

fn plan_tenant(
    tenant: &str,
    blocks: &[&Arc<BlockMeta>],
    now: Now,
    options: &PlannerOptions,
    force: bool,
    jobs: &mut Vec<Job>,
) {
    let Some(&last_window) = options.windows.last() else {
        return;
    };
    let mut used: HashSet<Ulid> = HashSet::new();
    for level in 0..options.windows.len() + EXTRA_LEVELS {
        let window = options.windows.get(level).copied().unwrap_or(last_window).max(1);
        let extra = level >= options.windows.len();
        // A block of a lower level waits for siblings until the window below has closed.
        let below = level
            .checked_sub(1)
            .map(|l| options.windows.get(l).copied().unwrap_or(last_window));
        let mut groups: BTreeMap<GroupKey, Vec<&Arc<BlockMeta>>> = BTreeMap::new();
        for &block in blocks {
            if usize::from(block.level) > level {
                continue;
            }
            let waits = usize::from(block.level) < level
                && !force
                && below.is_some_and(|w| !has_closed(block.time_max, w, now));
            if !waits {
                let end = block.time_max.div_euclid(window);
                let narrow = block.time_min.div_euclid(window) == end;
                groups.entry((end, narrow)).or_default().push(block);
            }
        }
        for group in groups.into_values() {
            // What a lower level makes of these belongs to the group: wait for it.
            if group.iter().any(|b| used.contains(&b.id)) {
                continue;
            }
            let settled = force
                || group
                    .iter()
                    .all(|b| now.ms.saturating_sub(b.created_ms) >= options.settle_ms)
                    && group.iter().all(|b| has_closed(b.time_max, window, now));
            // Lower blocks climb along only where no siblings will come to lift them: otherwise a block and a few fresh
            // ones would fill a hand again and again, and levels would be used up by small portions.
            let few_do = settled && (force || !extra);
            let group: Vec<_> = group
                .into_iter()
                .filter(|b| few_do || usize::from(b.level) == level)
                .collect();
            let least = match few_do {
                true => 2,
                false => options.fan_in_min.max(2),
            };
            for inputs in hands(&group, least, options) {
                used.extend(inputs.iter().map(|b| b.id));
                jobs.push(Job {
                    tenant: tenant.to_owned(),
                    // Few windows and two more: far below 255.
                    level: u8::try_from(level + 1).unwrap_or(u8::MAX),
                    inputs,
                });
            }
        }
    }
}

fn has_closed(time: i64, window: i64, now: Now) -> bool {
    now.time.div_euclid(window) > time.div_euclid(window)
}

/// Cuts a group into runs of `least` to `fan_in_max` neighbours that fit the size ceiling.
fn hands(group: &[&Arc<BlockMeta>], least: usize, options: &PlannerOptions) -> Vec<Vec<Arc<BlockMeta>>> {
    let mut hands = Vec::new();
    let (mut hand, mut bytes) = (Vec::new(), 0u64);
    for &block in group {
        let full =
            hand.len() >= options.fan_in_max.max(2) || bytes.saturating_add(block.bytes()) > options.block_bytes_max;
        if full {
            hands.push(std::mem::take(&mut hand));
            bytes = 0;
        }
        bytes = bytes.saturating_add(block.bytes());
        hand.push(block.clone());
    }
    hands.push(hand);
    hands.retain(|hand: &Vec<_>| hand.len() >= least);
    hands
}

#[cfg(test)]
mod tests;
