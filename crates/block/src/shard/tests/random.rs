//! Random histories, and appends, queries and cuts at the same time.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use trilith_testkit::faulty::{CrashPoint, FaultRates};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        tenant: bool,
        value: u16,
    },
    Flush,
    /// Dropped after so many microseconds.
    FlushCancelled(u8),
    Compact,
    CollectGarbage,
    CollectOrphans,
    Advance(u8),
    Faults(u64),
    Heal,
    /// The process dies at a request to come, then starts again and replays its log.
    Crash {
        after: u8,
        applied: bool,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), any::<u16>()).prop_map(|(tenant, value)| Step::Append { tenant, value }),
        4 => Just(Step::Flush),
        2 => any::<u8>().prop_map(Step::FlushCancelled),
        2 => Just(Step::Compact),
        1 => Just(Step::CollectGarbage),
        1 => Just(Step::CollectOrphans),
        2 => any::<u8>().prop_map(Step::Advance),
        2 => any::<u64>().prop_map(Step::Faults),
        2 => Just(Step::Heal),
        2 => (0u8..12, any::<bool>()).prop_map(|(after, applied)| Step::Crash { after, applied }),
        1 => Just(Step::Restart),
    ]
}

/// The log of a process: what is in it is acknowledged and survives.
#[derive(Default)]
struct Log(Vec<(String, Record)>);

async fn start(world: &World, log: &Log) -> Shard<Toy> {
    // Starting needs the store; with faults it takes several tries.
    let shard = loop {
        if let Ok(shard) = world.open("w").await {
            break shard;
        }
    };
    for (tenant, record) in &log.0 {
        if let Some(ticket) = shard.replay(record.0) {
            ticket.head().apply(tenant, *record);
        }
    }
    shard
}

async fn history(steps: Vec<Step>) {
    let mut world = World::new(99);
    world.options.orphan_age = Duration::from_secs(600);
    world.options.delete_grace = Duration::from_secs(300);
    let mut log = Log::default();
    let mut shard = start(&world, &log).await;
    // Errors of steps are the point: whatever happens, what is acknowledged is seen once.
    for step in steps {
        match step.clone() {
            Step::Append { tenant, value } => {
                let record = (log.0.len() as u64 + 1, u64::from(value) * 100_000);
                let tenant = if tenant { "a" } else { "b" };
                append(&shard, tenant, record).expect("there is room");
                log.0.push((tenant.to_owned(), record));
            }
            Step::Flush => drop(shard.flush().await),
            Step::FlushCancelled(us) => {
                let limit = Duration::from_micros(u64::from(us) * 4);
                drop(tokio::time::timeout(limit, shard.flush()).await);
            }
            Step::Compact => {
                let limit = Duration::from_millis(20);
                drop(tokio::time::timeout(limit, shard.compact_now()).await);
            }
            Step::CollectGarbage => drop(shard.collect_garbage().await),
            Step::CollectOrphans => drop(shard.collect_orphans().await),
            Step::Advance(s) => world.clock.advance(Duration::from_secs(u64::from(s) * 4)),
            Step::Faults(seed) => world.faulty.set_rates(
                seed,
                FaultRates {
                    error_503: 0.15,
                    lost_reply: 0.15,
                    stale_list: 0.2,
                    ..FaultRates::default()
                },
            ),
            Step::Heal => world.faulty.heal(),
            Step::Crash { after, applied } => {
                let at = world.faulty.operations() + u64::from(after);
                world.faulty.crash(Some(CrashPoint { at, applied }));
                drop(shard.flush().await);
                let limit = Duration::from_millis(20);
                drop(tokio::time::timeout(limit, shard.compact_now()).await);
                drop(shard.collect_garbage().await);
                drop(shard);
                world.faulty.crash(None);
                shard = start(&world, &log).await;
            }
            Step::Restart => {
                drop(shard);
                shard = start(&world, &log).await;
            }
        }
        let mut expected: Vec<Record> = log.0.iter().map(|(_, record)| *record).collect();
        expected.sort_unstable();
        assert_eq!(world.seen(&shard.view()).await, expected, "after {step:?}");
    }
    // At rest: everything in blocks, nothing else left behind once all ages have passed.
    world.faulty.heal();
    shard.flush().await.expect("the store is up");
    shard.compact_now().await.expect("the store is up");
    world.clock.advance(Duration::from_secs(86_400));
    shard.collect_garbage().await.expect("the store is up");
    shard.collect_orphans().await.expect("the store is up");
    let objects = world.honest.list("blocks").await.expect("lists").len();
    assert_eq!(objects, shard.blocks().len(), "one object per live block");
    assert_eq!(world.seen(&shard.view()).await.len(), log.0.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_acknowledged_record_is_seen_once(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(history(steps));
    }
}

/// Writers, a cutter, a merger and readers at once: every picture holds each acknowledged record exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_picture_is_whole_while_everything_moves() {
    let world = Arc::new(World::new(18));
    world.faulty.set_rates(
        5,
        FaultRates {
            error_503: 0.05,
            lost_reply: 0.05,
            ..FaultRates::default()
        },
    );
    let shard = loop {
        if let Ok(shard) = world.open("w").await {
            break shard;
        }
    };
    let next = Arc::new(Mutex::new(0u64));
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let (shard, next, acked) = (shard.clone(), next.clone(), acked.clone());
            tokio::spawn(async move {
                for _ in 0..300 {
                    let log = || {
                        let mut next = next.lock();
                        *next += 1;
                        Ok((*next, *next))
                    };
                    let (ticket, lsn) = shard.begin(log).expect("there is room");
                    // The wait for durability.
                    tokio::task::yield_now().await;
                    ticket.head().apply("t", (lsn, lsn));
                    drop(ticket);
                    acked.lock().insert(lsn);
                    if lsn % 16 == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            })
        })
        .collect();
    let movers = {
        let (shard, done) = (shard.clone(), done.clone());
        tokio::spawn(async move {
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                drop(shard.flush().await);
                turn += 1;
                if turn % 4 == 0 {
                    drop(shard.compact_now().await);
                }
            }
        })
    };
    let reader = {
        let (shard, done, acked, world) = (shard.clone(), done.clone(), acked.clone(), world.clone());
        tokio::spawn(async move {
            let mut pictures = 0;
            while !done.load(Ordering::Relaxed) {
                let before = acked.lock().clone();
                let seen = world.seen(&shard.view()).await;
                let lsns: BTreeSet<u64> = seen.iter().map(|r| r.0).collect();
                assert_eq!(lsns.len(), seen.len(), "nothing twice");
                assert!(before.is_subset(&lsns), "nothing missing");
                pictures += 1;
                // A task that never waits keeps others of its worker from running.
                tokio::task::yield_now().await;
            }
            pictures
        })
    };
    for writer in writers {
        writer.await.expect("no panic");
    }
    done.store(true, Ordering::Relaxed);
    movers.await.expect("no panic");
    assert!(reader.await.expect("no panic") > 0);
    world.faulty.heal();
    shard.flush().await.expect("the store is up");
    assert_eq!(shard.wal_upto(), 900);
    assert_eq!(world.seen(&shard.view()).await.len(), 900);
}
