use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trilith_testkit::faulty::{CrashPoint, Fault, Op, Strike};

use super::*;
use crate::inspect;
use crate::toy::read_block;

fn fail(op: Op, path: &str, times: u32) -> Strike {
    Strike {
        op: Some(op),
        path_contains: Some(path.to_owned()),
        times,
    }
}

async fn filled(world: &World, writer: &str, lsns: std::ops::RangeInclusive<u64>) -> Shard<Toy> {
    let shard = world.open(writer).await.expect("opens");
    for lsn in lsns {
        append(&shard, "t", (lsn, lsn)).expect("there is room");
    }
    shard
}

#[tokio::test]
async fn a_record_moves_from_head_to_block_and_survives() {
    let world = World::new(1);
    let shard = world.open("w").await.expect("opens");
    shard.flush().await.expect("nothing to do");
    assert_eq!(world.honest.list("blocks").await.expect("lists"), []);
    append(&shard, "a", (1, 10)).expect("there is room");
    append(&shard, "b", (2, 20)).expect("there is room");
    let expected = [(1, 10), (2, 20)];
    assert_eq!(world.seen(&shard.view()).await, expected);
    let before = shard.view();
    shard.flush().await.expect("the store is up");
    let after = shard.view();
    assert_eq!((before.blocks.len(), before.heads.len()), (0, 1));
    assert_eq!((after.blocks.len(), after.heads.len()), (2, 1));
    assert_eq!(after.heads[0].items(), 0);
    // Both pictures are whole.
    assert_eq!(world.seen(&before).await, expected);
    assert_eq!(world.seen(&after).await, expected);
    assert_eq!((shard.wal_upto(), *shard.committed().borrow()), (2, 2));
    let deltas = world.honest.list("meta/metrics-0/log").await.expect("lists").len();
    shard.flush().await.expect("nothing to do");
    let unchanged = world.honest.list("meta/metrics-0/log").await.expect("lists").len();
    assert_eq!((deltas, unchanged), (2, 2), "the fence and one cut");

    let a = TenantId::new("a").expect("valid");
    let of = |range| after.blocks_of(&a, range).count();
    assert_eq!(of(TimeRange::ALL), 1);
    assert_eq!((of(TimeRange::new(0, 9)), of(TimeRange::new(10, 10))), (0, 1));
    assert_eq!(of(TimeRange::new(11, 99)), 0);

    let reopened = world.open("w").await.expect("opens");
    assert_eq!(reopened.wal_upto(), 2);
    assert_eq!(world.seen(&reopened.view()).await, expected);
}

#[tokio::test]
async fn a_lost_manifest_is_not_an_empty_store() {
    let world = World::new(1);
    let shard = filled(&world, "w", 1..=3).await;
    shard.flush().await.expect("the store is up");
    for object in world.honest.list("meta").await.expect("lists") {
        world.honest.delete(&object.path).await.expect("deletes");
    }
    let e = world.open("w").await.err().expect("blocks without a manifest");
    assert_eq!(e.kind, ErrorKind::Corrupt);
    assert!(e.message.contains("no manifest of metrics"), "{e}");
}

#[tokio::test]
async fn a_cut_waits_for_records_on_their_way_and_does_not_stall_others() {
    let world = World::new(2);
    let shard = filled(&world, "w", 1..=1).await;
    let (late, ()) = shard.begin(|| Ok((2, ()))).expect("there is room");
    let flush = tokio::spawn({
        let shard = shard.clone();
        async move { shard.flush().await }
    });
    while shard.head_stats().frozen_heads == 0 {
        tokio::task::yield_now().await;
    }
    append(&shard, "t", (3, 3)).expect("the new head takes it");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!flush.is_finished(), "a ticket is out");
    assert_eq!(shard.view().heads.len(), 2);
    late.head().apply("t", (2, 2));
    drop(late);
    flush.await.expect("no panic").expect("the store is up");
    assert_eq!(shard.wal_upto(), 2, "record 3 is in the new head");
    assert_eq!(world.seen(&shard.view()).await, [(1, 1), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn a_failed_append_leaves_nothing() {
    let world = World::new(3);
    let shard = world.open("w").await.expect("opens");
    let refused = shard.begin::<()>(|| Err(Error::unavailable("the disk is full")));
    assert!(refused.is_err());
    shard.flush().await.expect("nothing to do");
    // An LSN was handed out, the write failed: the ticket comes back without a record.
    drop(shard.begin(|| Ok((1, ()))).expect("there is room"));
    shard.flush().await.expect("nothing to commit");
    assert_eq!(shard.wal_upto(), 1, "the log may let go of it");
    let deltas = world.honest.list("meta/metrics-0/log").await.expect("lists");
    assert_eq!(deltas.len(), 1, "the fence alone");
}

#[tokio::test]
async fn a_lost_reply_commits_once() {
    for op_path in [(Op::Create, "log"), (Op::Put, "blocks")] {
        let world = World::new(4);
        let shard = filled(&world, "w", 1..=3).await;
        world.faulty.inject(Fault::LostReply, fail(op_path.0, op_path.1, 1));
        shard.flush().await.expect_err("the reply is lost");
        let expected = [(1, 1), (2, 2), (3, 3)];
        assert_eq!(world.seen(&shard.view()).await, expected);
        shard.flush().await.expect("the store is up");
        assert_eq!(world.seen(&shard.view()).await, expected);
        assert_eq!(shard.view().heads.len(), 1);
        assert_eq!(shard.view().blocks.len(), 1);
    }
}

/// A merge that finds the cut's delta in the log shows its blocks and takes its head away in the same step.
#[tokio::test]
async fn a_merge_finds_a_commit_whose_reply_was_lost() {
    let world = World::new(5);
    let shard = filled(&world, "w", 1..=1).await;
    shard.flush().await.expect("the store is up");
    append(&shard, "t", (2, 2)).expect("there is room");
    shard.flush().await.expect("the store is up");
    append(&shard, "t", (3, 3)).expect("there is room");
    world.faulty.inject(Fault::LostReply, fail(Op::Create, "log", 1));
    shard.flush().await.expect_err("the reply is lost");
    assert_eq!(shard.view().heads.len(), 2);
    assert_eq!(shard.compact_now().await.expect("the store is up"), 2);
    assert_eq!(shard.view().heads.len(), 1);
    assert_eq!(shard.wal_upto(), 3);
    assert_eq!(world.seen(&shard.view()).await, [(1, 1), (2, 2), (3, 3)]);
    shard.flush().await.expect("done already");
    assert_eq!(world.seen(&shard.view()).await, [(1, 1), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn back_pressure_when_blocks_cannot_be_written() {
    let mut world = World::new(6);
    world.options.head_total_bytes_max = 16 * 4;
    let shard = filled(&world, "w", 1..=2).await;
    world.faulty.inject(Fault::Error503, fail(Op::Put, "blocks", u32::MAX));
    shard.flush().await.expect_err("the store is down");
    let mut lsn = 2;
    let refusal = loop {
        match append(&shard, "t", (lsn + 1, lsn + 1)) {
            Ok(()) => lsn += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(refusal.kind, ErrorKind::Unavailable);
    assert!(refusal.message.contains("head.metrics-size"), "{refusal}");
    assert_eq!(lsn, 5, "one record above the ceiling, which begin cannot foresee");
    assert_eq!(shard.stats().refused, 1);
    world.faulty.heal();
    shard.flush().await.expect("the store is up");
    append(&shard, "t", (lsn + 1, 0)).expect("there is room again");
}

#[tokio::test]
async fn an_engine_that_cannot_cut_loses_nothing() {
    let world = World::new(7);
    let shard = filled(&world, "w", 1..=2).await;
    shard.engine().broken.store(true, Ordering::Relaxed);
    let e = shard.flush().await.expect_err("broken");
    assert_eq!(e.message, "cut of metrics: the toy is broken");
    assert_eq!(world.seen(&shard.view()).await, [(1, 1), (2, 2)]);
    shard.engine().broken.store(false, Ordering::Relaxed);
    shard.flush().await.expect("repaired");
    assert_eq!(world.seen(&shard.view()).await, [(1, 1), (2, 2)]);
    assert_eq!((shard.stats().cuts, shard.stats().cut_failures), (1, 1));
}

#[tokio::test]
async fn replay_skips_what_is_in_blocks_and_stays_small() {
    let mut world = World::new(8);
    let shard = filled(&world, "w", 1..=5).await;
    shard.flush().await.expect("the store is up");
    for lsn in 6..=40 {
        append(&shard, "t", (lsn, lsn)).expect("there is room");
    }
    drop(shard);
    world.options.head_bytes_max = 16 * 10;
    let shard = world.open("w").await.expect("opens");
    let mut replayed = 0;
    for lsn in 1..=40 {
        if let Some(ticket) = shard.replay(lsn) {
            ticket.head().apply("t", (lsn, lsn));
            replayed += 1;
        }
        shard.maybe_flush_during_replay().await.expect("the store is up");
        assert!(shard.head_stats().active_bytes <= 16 * 11);
    }
    assert_eq!(replayed, 35);
    let expected: Vec<Record> = (1..=40).map(|n| (n, n)).collect();
    assert_eq!(world.seen(&shard.view()).await, expected);
}

#[tokio::test]
async fn a_second_life_fences_the_first() {
    let world = World::new(9);
    let zombie = filled(&world, "w", 1..=2).await;
    let heir = world.open("w").await.expect("opens");
    assert_eq!(heir.wal_upto(), 0);
    for lsn in 1..=2 {
        let ticket = heir.replay(lsn).expect("not in a block");
        ticket.head().apply("t", (lsn, lsn));
    }
    let e = zombie.flush().await.expect_err("fenced");
    assert_eq!(e.kind, ErrorKind::Fenced);
    let e = append(&zombie, "t", (3, 3)).expect_err("fenced");
    assert_eq!(e.kind, ErrorKind::Fenced);
    heir.flush().await.expect("the store is up");
    assert_eq!(world.seen(&heir.view()).await, [(1, 1), (2, 2)]);
    let state = inspect::load(&world.honest, Signal::Metrics).await.expect("readable");
    assert_eq!((state.blocks.len(), state.writer("w").epoch), (1, 2));
}

#[tokio::test]
async fn two_writers_share_a_manifest() {
    let world = World::new(10);
    let (a, b) = (filled(&world, "a", 1..=1).await, filled(&world, "b", 1001..=1001).await);
    for n in 2..6 {
        append(&a, "t", (n, n)).expect("there is room");
        append(&b, "t", (1000 + n, n)).expect("there is room");
        let (x, y) = tokio::join!(a.flush(), b.flush());
        x.and(y).expect("both rebase");
        // Both want to merge the same blocks: one of them finds them gone.
        let (x, y) = tokio::join!(a.compact_now(), b.compact_now());
        x.and(y).expect("a conflict is no error");
    }
    a.refresh().await.expect("the store is up");
    b.refresh().await.expect("the store is up");
    let mut expected: Vec<Record> = (2..6).flat_map(|n| [(n, n), (1000 + n, n)]).collect();
    expected.extend([(1, 1), (1001, 1001)]);
    expected.sort_unstable();
    for shard in [&a, &b] {
        let view = shard.view();
        assert_eq!(world.seen(&view).await, expected);
    }
    assert_eq!((a.wal_upto(), b.wal_upto()), (5, 1005));
}

#[tokio::test]
async fn a_damaged_input_is_set_aside_and_never_spread() {
    let world = World::new(11);
    let shard = world.open("w").await.expect("opens");
    for n in 1..=3 {
        append(&shard, "t", (n, n)).expect("there is room");
        shard.flush().await.expect("the store is up");
    }
    let victim = shard.blocks()[1].clone();
    let path = victim.path("data");
    let mut bytes = world.honest.get(&path).await.expect("reads").expect("there").to_vec();
    bytes[9] ^= 0x10;
    world.honest.delete(&path).await.expect("deletes");
    world.honest.upload(&path, bytes.into()).await.expect("uploads");
    assert_eq!(
        inspect::verify_objects(&victim).await.expect_err("damaged").kind,
        ErrorKind::Corrupt
    );
    assert_eq!(shard.compact_now().await.expect("damage is no error"), 1);
    assert_eq!(shard.stats().quarantined_blocks, 1);
    let blocks = shard.blocks();
    assert_eq!(blocks.len(), 2, "the two others are one");
    assert!(blocks.iter().any(|b| b.meta.id == victim.meta.id));
    assert_eq!(shard.compact_now().await.expect("rest"), 0);
}

#[tokio::test]
async fn retention_drops_whole_blocks_and_merges_drop_old_records() {
    let mut world = World::new(12);
    world.options.retention = Duration::from_secs(1000);
    // One window for all times, wherever the clock stands.
    world.options.compaction_windows = vec![Duration::from_secs(100_000 * 86_400)];
    let shard = world.open("w").await.expect("opens");
    let now = world.clock.now_ms() as u64;
    let blocks = [
        vec![(1, now - 2_000_000)],
        vec![(2, now - 999_000), (3, now - 500_000)],
        vec![(4, now - 400_000)],
    ];
    for block in blocks {
        for record in block {
            append(&shard, "t", record).expect("there is room");
        }
        shard.flush().await.expect("the store is up");
    }
    let lsns = async || -> Vec<u64> {
        let seen = world.seen(&shard.view()).await;
        seen.iter().map(|r| r.0).collect()
    };
    assert_eq!(shard.expire().await.expect("the store is up"), 1);
    assert_eq!(shard.expire().await.expect("nothing to do"), 0);
    assert_eq!(lsns().await, [2, 3, 4]);
    // Now record 2 is too old; it shares its block with one that is not.
    world.clock.advance(Duration::from_millis(1_500));
    assert_eq!(shard.compact_now().await.expect("the store is up"), 1);
    assert_eq!(lsns().await, [3, 4]);
}

#[tokio::test]
async fn garbage_goes_after_its_grace_and_orphans_after_their_age() {
    let world = World::new(13);
    let shard = world.open("w").await.expect("opens");
    for n in 1..=2 {
        append(&shard, "t", (n, n)).expect("there is room");
        shard.flush().await.expect("the store is up");
    }
    let old = shard.view();
    assert_eq!(shard.compact_now().await.expect("the store is up"), 1);
    assert_eq!(shard.collect_garbage().await.expect("the store is up"), 0);
    assert_eq!(world.seen(&old).await, [(1, 1), (2, 2)], "a running query");
    // A step of the wall clock is no passing of time.
    let wall = world.clock.now_ns();
    world.clock.set_wall(wall + 365 * 86_400 * 1_000_000_000);
    assert_eq!(shard.collect_garbage().await.expect("the store is up"), 0);
    world.clock.set_wall(wall);
    world.clock.advance(world.options.delete_grace);
    assert_eq!(shard.collect_garbage().await.expect("the store is up"), 2);
    assert_eq!(shard.collect_garbage().await.expect("nothing left"), 0);
    assert_eq!(world.honest.list("blocks").await.expect("lists").len(), 1);
    // The next delta reports it, so that nobody tries again.
    append(&shard, "t", (3, 3)).expect("there is room");
    shard.flush().await.expect("the store is up");
    let state = inspect::load(&world.honest, Signal::Metrics).await.expect("readable");
    assert!(state.removed.is_empty());

    // A crash between upload and commit leaves an orphan.
    append(&shard, "t", (4, 4)).expect("there is room");
    world.faulty.inject(Fault::Error503, fail(Op::Create, "log", 1));
    shard.flush().await.expect_err("not committed");
    world.clock.advance(world.options.orphan_age * 2);
    assert_eq!(shard.collect_orphans().await.expect("lists"), 0, "still in flight here");
    drop(shard);
    let shard = world.open("w").await.expect("opens");
    world.clock.set_wall(wall);
    assert_eq!(shard.collect_orphans().await.expect("lists"), 0, "too young");
    world.clock.advance(world.options.orphan_age * 2);
    assert_eq!(shard.collect_orphans().await.expect("lists"), 1);
    assert_eq!(world.seen(&shard.view()).await, [(1, 1), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn uploads_that_could_be_taken_for_orphans_are_made_again() {
    let world = World::new(14);
    let shard = filled(&world, "w", 1..=1).await;
    world.faulty.inject(Fault::Error503, fail(Op::Create, "log", 1));
    shard.flush().await.expect_err("not committed");
    let first = world.honest.list("blocks").await.expect("lists");
    world.clock.advance(world.options.orphan_age);
    shard.flush().await.expect("the store is up");
    let block = shard.blocks()[0].clone();
    assert_ne!(first[0].path, block.path("data"), "a new id");
    assert_eq!(read_block(&block).await.expect("readable"), [(1, 1)]);
}

/// The reply of the commit is lost, and by the next attempt the uploads are so old that the head is encoded anew: the new
/// blocks must not join the old ones.
#[tokio::test]
async fn a_head_encoded_anew_finds_its_first_commit() {
    let world = World::new(18);
    let shard = filled(&world, "w", 1..=2).await;
    world.faulty.inject(Fault::LostReply, fail(Op::Create, "log", 1));
    shard.flush().await.expect_err("the reply is lost");
    world.clock.advance(world.options.orphan_age);
    shard.flush().await.expect("the store is up");
    assert_eq!(world.seen(&shard.view()).await, [(1, 1), (2, 2)]);
}

/// Death of the process at every single request of a cut and a merge, before and after it takes effect.
#[tokio::test]
async fn a_crash_at_any_request_loses_and_doubles_nothing() {
    async fn scenario(world: &World) -> Result<()> {
        let shard = world.open("w").await?;
        for lsn in shard.wal_upto() + 1..=6 {
            let ticket = shard.replay(lsn).expect("above wal_upto");
            ticket.head().apply("t", (lsn, lsn));
            drop(ticket);
            if lsn % 2 == 0 {
                shard.flush().await?;
            }
        }
        shard.compact_now().await?;
        world.clock.advance(world.options.delete_grace);
        shard.collect_garbage().await?;
        Ok(())
    }
    let expected: Vec<Record> = (1..=6).map(|n| (n, n)).collect();
    let whole = World::new(15);
    scenario(&whole).await.expect("no faults");
    let length = whole.faulty.operations();
    assert!(length > 10);
    for at in 0..length {
        for applied in [false, true] {
            let world = World::new(15);
            world.faulty.crash(Some(CrashPoint { at, applied }));
            // A merge tries its commit again and again; the process dies meanwhile.
            let life = tokio::time::timeout(Duration::from_millis(30), scenario(&world)).await;
            assert!(!matches!(life, Ok(Ok(()))), "request {at} fails");
            world.faulty.crash(None);
            scenario(&world).await.expect("the second life has no faults");
            let shard = world.open("w").await.expect("opens");
            let seen = world.seen(&shard.view()).await;
            assert_eq!(seen, expected, "request {at}, applied: {applied}");
        }
    }
}

#[tokio::test]
async fn the_loop_cuts_by_size_and_by_age_and_outlasts_the_store() {
    let mut world = World::new(16);
    world.options.head_bytes_max = 16 * 3;
    world.options.head_age_max = Duration::from_millis(100);
    let shard = world.open("w").await.expect("opens");
    let cancel = CancellationToken::new();
    let running = shard.spawn(cancel.clone());
    let mut committed = shard.committed();
    for lsn in 1..=5 {
        append(&shard, "t", (lsn, lsn)).expect("there is room");
    }
    committed.changed().await.expect("cut by size");
    assert_eq!(*committed.borrow_and_update(), 5);

    world.faulty.inject(Fault::Error503, fail(Op::Create, "log", 2));
    append(&shard, "t", (6, 6)).expect("there is room");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(shard.wal_upto(), 5, "young by the shard's clock, and small");
    world.clock.advance(Duration::from_millis(100));
    committed.changed().await.expect("cut by age, after two refusals");
    assert_eq!(*committed.borrow_and_update(), 6);
    assert!(shard.stats().cut_failures > 0);
    cancel.cancel();
    running.await.expect("ends");
    let seen = world.seen(&shard.view()).await;
    assert_eq!(seen.len(), 6);
}

#[tokio::test]
async fn blocks_are_described_for_people() {
    let world = World::new(17);
    let shard = filled(&world, "w", 1..=2).await;
    shard.flush().await.expect("the store is up");
    let state = inspect::load(&world.honest, Signal::Metrics).await.expect("readable");
    let id = *state.blocks.keys().next().expect("one block");
    let block = inspect::find(&state, Signal::Metrics, &world.honest, id).expect("there");
    let text = inspect::describe(&block).await.expect("readable");
    for part in [&id.to_string(), "tenant   t", "items    2", "section  1.0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    inspect::verify(&Toy::default(), &block).await.expect("whole");
    let missing = inspect::find(&state, Signal::Metrics, &world.honest, Ulid::nil());
    assert_eq!(missing.err().expect("absent").kind, ErrorKind::NotFound);
}
