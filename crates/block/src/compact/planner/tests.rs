use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::meta::FileMeta;

const HOUR: i64 = 3_600_000;

fn options() -> PlannerOptions {
    PlannerOptions {
        windows: vec![2 * HOUR, 12 * HOUR, 192 * HOUR],
        fan_in_min: 4,
        fan_in_max: 8,
        block_bytes_max: 1000,
        settle_ms: 60_000,
        retention: None,
    }
}

fn block(id: u64, tenant: &str, level: u8, time: (i64, i64), bytes: u64) -> Arc<BlockMeta> {
    Arc::new(BlockMeta {
        id: Ulid(u128::from(id)),
        tenant: tenant.to_owned(),
        level,
        time_min: time.0,
        time_max: time.1,
        items: 1,
        groups: 1,
        created_ms: time.1,
        files: vec![FileMeta {
            name: "data".into(),
            size: bytes,
            crc32c: 0,
            footer: None,
        }],
        facts: BTreeMap::new(),
    })
}

fn at(ms: i64) -> Now {
    Now { time: ms, ms }
}

fn plan_at(blocks: &[Arc<BlockMeta>], now: Now, force: bool) -> Plan {
    plan(blocks, now, &options(), &HashSet::new(), force)
}

/// Ids of the inputs, job by job, with the level of the output.
fn jobs(plan: &Plan) -> Vec<(u8, Vec<u128>)> {
    plan.jobs
        .iter()
        .map(|j| (j.level, j.inputs.iter().map(|b| b.id.0).collect()))
        .collect()
}

#[test]
fn an_open_window_waits_for_a_full_hand() {
    let mut blocks: Vec<_> = (1..=3).map(|n| block(n, "t", 0, (0, 1000), 10)).collect();
    let now = at(HOUR);
    assert!(plan_at(&blocks, now, false).is_empty());
    assert_eq!(jobs(&plan_at(&blocks, now, true)), [(1, vec![1, 2, 3])]);
    blocks.push(block(4, "t", 0, (0, 1000), 10));
    assert_eq!(jobs(&plan_at(&blocks, now, false)), [(1, vec![1, 2, 3, 4])]);
}

#[test]
fn a_closed_window_merges_two_once_it_has_settled() {
    let blocks = [1, 2].map(|n| block(n, "t", 0, (0, 2 * HOUR - 1000), 10));
    let just_closed = plan_at(&blocks, at(2 * HOUR), false);
    assert!(just_closed.is_empty(), "a third may come");
    let settled = plan_at(&blocks, at(2 * HOUR + 60_000), false);
    assert_eq!(jobs(&settled), [(1, vec![1, 2])]);
}

#[test]
fn tenants_and_windows_stay_apart() {
    let blocks = [
        block(1, "a", 0, (0, 1), 10),
        block(2, "b", 0, (0, 1), 10),
        block(3, "a", 0, (3 * HOUR, 3 * HOUR), 10),
        block(4, "b", 0, (0, 1), 10),
    ];
    let plan = plan_at(&blocks, at(4 * HOUR), true);
    // a's two meet in the next window only; b's two in the first.
    assert_eq!(jobs(&plan), [(1, vec![2, 4]), (2, vec![1, 3])]);
}

#[test]
fn a_lone_block_waits_for_its_window_before_it_climbs() {
    let blocks = [
        block(1, "t", 1, (0, 2 * HOUR - 1), 10),
        block(2, "t", 0, (2 * HOUR, 3 * HOUR), 10),
        block(3, "t", 0, (4 * HOUR, 4 * HOUR), 10),
    ];
    let later = |hours| jobs(&plan_at(&blocks, at(hours * HOUR + 60_001), false));
    assert_eq!(later(5), []);
    assert_eq!(later(12), [(2, vec![1, 2, 3])]);
}

#[test]
fn wide_blocks_join_only_wide_ones() {
    let blocks = [
        block(1, "t", 0, (-400 * HOUR, HOUR), 10),
        block(2, "t", 0, (0, HOUR), 10),
        block(3, "t", 0, (-300 * HOUR, HOUR), 10),
        block(4, "t", 0, (0, HOUR), 10),
    ];
    let plan = plan_at(&blocks, at(2 * HOUR), true);
    assert_eq!(jobs(&plan), [(1, vec![1, 3]), (1, vec![2, 4])]);
}

#[test]
fn large_blocks_are_finished_and_outputs_bounded() {
    let blocks = [
        block(1, "t", 0, (0, 1), 500),
        block(2, "t", 0, (0, 1), 499),
        block(3, "t", 0, (0, 1), 400),
        block(4, "t", 0, (0, 1), 400),
        block(5, "t", 0, (0, 1), 400),
    ];
    let plan = plan_at(&blocks, at(HOUR), true);
    assert_eq!(jobs(&plan), [(1, vec![2, 3]), (1, vec![4, 5])]);
}

#[test]
fn retention_takes_whole_blocks_even_damaged_ones() {
    let blocks = [
        block(1, "t", 0, (0, 99), 10),
        block(2, "t", 3, (50, 100), 5000),
        block(3, "t", 0, (0, 98), 10),
    ];
    let options = PlannerOptions {
        retention: Some(900),
        ..options()
    };
    let skip = HashSet::from([Ulid(3)]);
    let plan = plan(&blocks, at(1000), &options, &skip, false);
    assert_eq!(plan.drop, [Ulid(1), Ulid(3)]);
    assert!(plan.jobs.is_empty());
    assert_eq!(keep_from(at(1000), &options), Some(100));
}

#[test]
fn damaged_blocks_are_left_alone() {
    let blocks = [1, 2, 3].map(|n| block(n, "t", 0, (0, 1), 10));
    let skip = HashSet::from([Ulid(2)]);
    let plan = plan(&blocks, at(HOUR), &options(), &skip, true);
    assert_eq!(jobs(&plan), [(1, vec![1, 3])]);
}

#[test]
fn no_windows_no_merges() {
    let blocks = [1, 2].map(|n| block(n, "t", 0, (0, 1), 10));
    let options = PlannerOptions {
        windows: vec![],
        ..options()
    };
    assert!(plan(&blocks, at(HOUR), &options, &HashSet::new(), true).is_empty());
}

/// A thousand small late cuts into one old window: each record is written few times, and few blocks remain.
#[test]
fn late_data_is_gathered_in_growing_portions() {
    let options = PlannerOptions {
        block_bytes_max: 1 << 40,
        ..options()
    };
    let now = at(10_000 * HOUR);
    let mut blocks: Vec<Arc<BlockMeta>> = Vec::new();
    let mut written = 0;
    for n in 0..1000u64 {
        let mut late = (*block(n * 1000, "t", 0, (0, 1), 1)).clone();
        // Never settled: the next one comes in time.
        late.created_ms = now.ms;
        blocks.push(Arc::new(late));
        loop {
            let plan = plan(&blocks, now, &options, &HashSet::new(), false);
            if plan.is_empty() {
                break;
            }
            for (i, job) in plan.jobs.iter().enumerate() {
                written += merge(&mut blocks, job, n * 1000 + 1 + i as u64);
            }
        }
    }
    assert!(written <= 5 * 1000, "{written} writes of 1000 records");
    assert!(blocks.len() < 30, "{} blocks", blocks.len());
}

/// Carries a job out on paper. Returns the items written.
fn merge(blocks: &mut Vec<Arc<BlockMeta>>, job: &Job, id: u64) -> u64 {
    let mut out = (*job.inputs[0]).clone();
    out.id = Ulid(u128::from(id));
    out.level = job.level;
    out.time_min = job.inputs.iter().map(|b| b.time_min).min().expect("inputs");
    out.time_max = job.inputs.iter().map(|b| b.time_max).max().expect("inputs");
    out.created_ms = job.inputs.iter().map(|b| b.created_ms).max().expect("inputs");
    out.items = job.inputs.iter().map(|b| b.items).sum();
    out.files[0].size = job.inputs.iter().map(|b| b.bytes()).sum();
    let gone: BTreeSet<Ulid> = job.inputs.iter().map(|b| b.id).collect();
    let before = blocks.len();
    blocks.retain(|b| !gone.contains(&b.id));
    assert_eq!(before - blocks.len(), gone.len(), "every input is there");
    let items = out.items;
    blocks.push(Arc::new(out));
    items
}

fn any_block() -> impl Strategy<Value = (u8, u8, i64, i64, u64)> {
    // tenant, level, start, length, size
    let length = prop_oneof![4 => 0..HOUR, 1 => 0..400 * HOUR];
    (0u8..3, 0u8..7, -100 * HOUR..500 * HOUR, length, 0u64..700)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn plans_are_sound_and_come_to_rest(
        made in prop::collection::vec(any_block(), 0..80),
        now in 0..600 * HOUR,
        force in any::<bool>(),
        retention in prop::option::of(0..600 * HOUR),
    ) {
        let options = PlannerOptions { retention, ..options() };
        let levels = options.windows.len() + EXTRA_LEVELS;
        let mut blocks: Vec<_> = made
            .iter()
            .enumerate()
            .map(|(i, &(tenant, level, start, length, size))| {
                block(i as u64, &tenant.to_string(), level, (start, start + length), size)
            })
            .collect();
        let items: u64 = blocks.iter().map(|b| b.items).sum();
        let (mut written, mut dropped, mut next) = (0, 0, blocks.len() as u64);
        for round in 0.. {
            prop_assert!(round <= levels, "each round lifts what it touches");
            let plan = plan(&blocks, at(now), &options, &HashSet::new(), force);
            prop_assert_eq!(
                &plan,
                &super::plan(blocks.iter().rev(), at(now), &options, &HashSet::new(), force),
                "the order of the blocks does not matter"
            );
            if plan.is_empty() {
                break;
            }
            let mut used: BTreeSet<Ulid> = plan.drop.iter().copied().collect();
            for job in &plan.jobs {
                prop_assert!(job.inputs.len() >= 2 && job.inputs.len() <= options.fan_in_max);
                prop_assert!(job.inputs.is_sorted_by_key(|b| b.id));
                prop_assert!(job.inputs.iter().all(|b| b.tenant == job.tenant && b.level < job.level));
                prop_assert!(usize::from(job.level) <= levels);
                prop_assert!(job.inputs.iter().map(|b| b.bytes()).sum::<u64>() <= options.block_bytes_max);
                for input in &job.inputs {
                    prop_assert!(used.insert(input.id), "an input in two jobs, or dropped");
                }
            }
            let gone: BTreeSet<Ulid> = plan.drop.iter().copied().collect();
            dropped += blocks.iter().filter(|b| gone.contains(&b.id)).map(|b| b.items).sum::<u64>();
            blocks.retain(|b| !gone.contains(&b.id));
            for job in &plan.jobs {
                written += merge(&mut blocks, job, next);
                next += 1;
            }
        }
        prop_assert!(written <= items * levels as u64, "write amplification");
        prop_assert_eq!(blocks.iter().map(|b| b.items).sum::<u64>() + dropped, items);
    }
}
