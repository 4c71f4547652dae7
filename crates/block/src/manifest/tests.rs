use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use trilith_model::{ErrorKind, Signal};
use trilith_testkit::faulty::{Fault, FaultRates, Op, Strike};
use ulid::Ulid;

use super::log::{delta_path, snapshot_path};
use super::*;
use crate::meta::{BlockMeta, FileMeta};
use crate::toy::World;

const SHARD: &str = "metrics-0";

fn block(id: u128) -> Arc<BlockMeta> {
    Arc::new(BlockMeta {
        id: Ulid(id),
        tenant: "t".into(),
        level: 0,
        time_min: 0,
        time_max: 9,
        items: 1,
        groups: 1,
        created_ms: 5,
        files: vec![FileMeta {
            name: "data".into(),
            size: 10,
            crc32c: 7,
            footer: Some(4..10),
        }],
        facts: BTreeMap::from([("a".into(), "b".into())]),
    })
}

fn change(nonce: u128) -> Change {
    Change {
        nonce,
        writer: "w".into(),
        epoch: 1,
        wal_upto: None,
        add: vec![],
        remove: vec![],
        tombstones: vec![],
        applied: Default::default(),
        time_ms: 0,
    }
}

fn adding(id: u128) -> Change {
    Change {
        add: vec![block(id)],
        wal_upto: Some(id as u64),
        ..change(id)
    }
}

async fn load(world: &World) -> trilith_model::Result<Manifest> {
    Manifest::load(world.store.clone(), Signal::Metrics).await
}

/// Commits `n` blocks, removing every second one later, with snapshots as they come due.
async fn filled(world: &World, n: u128) -> Manifest {
    let mut m = load(world).await.expect("an empty manifest");
    for id in 1..=n {
        let mut step = adding(id);
        if id % 2 == 0 {
            step.remove.push(Ulid(id - 1));
        }
        m.commit(&step).await.expect("alone");
        if m.snapshot_due() {
            let state = m.state().clone();
            m.snapshot_written(state.n);
            write_snapshot(&world.store, state, &*world.clock)
                .await
                .expect("the store is up");
        }
    }
    m
}

async fn replace(world: &World, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let stored = world.honest.get(path).await.expect("reads").expect("there");
    let mut bytes = stored.to_vec();
    change(&mut bytes);
    world.honest.delete(path).await.expect("deletes");
    world.honest.upload(path, Bytes::from(bytes)).await.expect("uploads");
}

#[allow(clippy::ptr_arg, reason = "it stands beside Vec::clear")]
fn flip(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

#[tokio::test]
async fn load_gives_what_was_committed() {
    let world = World::new(1);
    for n in [0, 1, 5] {
        let world = World::new(n as u64);
        let m = filled(&world, n).await;
        assert_eq!(load(&world).await.expect("whole").state(), m.state());
    }
    let m = filled(&world, 600).await;
    let loaded = load(&world).await.expect("whole");
    assert_eq!(loaded.state(), m.state());
    assert_eq!(loaded.state().n, 600);
    assert_eq!(loaded.state().blocks.len(), 300);
    assert_eq!(loaded.state().writer("w").wal_upto, 600);
    assert!(!loaded.snapshot_due());
    let snapshots = world.honest.list("meta/metrics-0/snap").await.expect("lists");
    assert_eq!(snapshots.len(), 2);
}

#[tokio::test]
async fn a_damaged_snapshot_costs_older_ones() {
    let world = World::new(2);
    let m = filled(&world, 600).await;
    replace(&world, &snapshot_path(SHARD, 512), flip).await;
    assert_eq!(load(&world).await.expect("by the older one").state(), m.state());
    replace(&world, &snapshot_path(SHARD, 256), |b| b.truncate(3)).await;
    assert_eq!(load(&world).await.expect("by the log alone").state(), m.state());
    // Now the log is needed from the start; without its start nobody may go on.
    world.honest.delete(&delta_path(SHARD, 1)).await.expect("deletes");
    let e = load(&world).await.err().expect("cannot be read");
    assert_eq!(e.kind, ErrorKind::Corrupt);
    for part in [delta_path(SHARD, 1), snapshot_path(SHARD, 512)] {
        assert!(e.message.contains(&part), "{e}");
    }
}

#[tokio::test]
async fn a_damaged_or_missing_delta_stops_with_its_name() {
    for damage in ["flip", "swap", "missing", "empty", "version"] {
        let world = World::new(3);
        filled(&world, 6).await;
        let path = delta_path(SHARD, 4);
        match damage {
            "flip" => replace(&world, &path, flip).await,
            "empty" => replace(&world, &path, Vec::clear).await,
            "missing" => world.honest.delete(&path).await.expect("deletes"),
            "swap" => {
                let other = delta_path(SHARD, 5);
                let other = world.honest.get(&other).await.expect("reads").expect("there");
                replace(&world, &path, |b| *b = other.to_vec()).await;
            }
            _ => {
                replace(&world, &path, |b| {
                    b[4] = 3;
                    let end = b.len() - 4;
                    let crc = trilith_codec::crc32c(&b[..end]);
                    b[end..].copy_from_slice(&crc.to_le_bytes());
                })
                .await;
            }
        }
        let e = load(&world).await.err().expect(damage);
        let expected = match damage {
            "version" => ErrorKind::Unsupported,
            _ => ErrorKind::Corrupt,
        };
        assert_eq!(e.kind, expected, "{damage}");
        assert!(e.message.contains(&path), "{damage}: {e}");
    }
}

#[tokio::test]
async fn losers_rebase_and_conflicts_are_told() {
    let world = World::new(4);
    let mut a = filled(&world, 1).await;
    let mut b = load(&world).await.expect("whole");
    let other = |c: Change| Change {
        writer: "x".into(),
        ..c
    };
    a.commit(&adding(2)).await.expect("first");
    b.commit(&other(adding(3))).await.expect("second, rebased");
    assert_eq!(b.state().n, 3);
    assert_eq!(b.state().blocks.len(), 3);
    let remove = |nonce, id| Change {
        remove: vec![Ulid(id)],
        ..change(nonce)
    };
    b.commit(&other(remove(10, 1))).await.expect("first");
    let conflict = a.commit(&remove(11, 1)).await.expect_err("gone");
    assert!(matches!(conflict, CommitError::Conflict { missing } if missing == [Ulid(1)]));
    a.commit(&remove(12, 3)).await.expect("up to date now");
    b.catch_up().await.expect("the store is up");
    assert_eq!(a.state(), b.state());
    assert_eq!(load(&world).await.expect("whole").state(), a.state());
}

#[tokio::test]
async fn a_lost_reply_is_recognized_by_the_nonce() {
    let world = World::new(5);
    let mut m = filled(&world, 1).await;
    let lost = Strike {
        op: Some(Op::Create),
        path_contains: None,
        times: 1,
    };
    // Nothing but the nonce tells that this one has won.
    let step = Change {
        remove: vec![Ulid(1)],
        ..change(77)
    };
    world.faulty.inject(Fault::LostReply, lost);
    assert!(matches!(m.commit(&step).await, Err(CommitError::Store(_))));
    m.commit(&step).await.expect("it has won");
    assert_eq!((m.state().n, m.state().blocks.len()), (2, 0));
}

#[tokio::test]
async fn an_older_epoch_is_fenced_and_its_deltas_are_void() {
    let world = World::new(6);
    let mut zombie = filled(&world, 1).await;
    let mut heir = load(&world).await.expect("whole");
    let fence = Change { epoch: 2, ..change(50) };
    heir.commit(&fence).await.expect("alone");
    let e = zombie.commit(&adding(2)).await.expect_err("fenced");
    assert!(matches!(e, CommitError::Fenced { epoch: 2, .. }));
    assert_eq!(heir.state().writer("w").wal_upto, 1);
    // A delta that ignores the fence changes nothing.
    let mut state = heir.state().clone();
    let late = Delta::new(&adding(2), SHARD, state.n + 1, vec![]);
    state.apply(&late).expect("void, not wrong");
    assert_eq!(state.n, heir.state().n + 1);
    assert_eq!(state.blocks, heir.state().blocks);
}

#[test]
fn impossible_deltas_are_refused_and_change_nothing() {
    let mut state = State::new(SHARD);
    let delta = |n, c: &Change| Delta::new(c, SHARD, n, vec![]);
    state.apply(&delta(1, &adding(1))).expect("the first");
    let before = state.clone();
    let mut twice = adding(2);
    twice.add.push(block(2));
    let gone = Change {
        remove: vec![Ulid(9)],
        ..change(3)
    };
    let mut bad_name = adding(4);
    Arc::make_mut(&mut bad_name.add[0]).files[0].name = "../x".into();
    let mut bad_tenant = adding(5);
    Arc::make_mut(&mut bad_tenant.add[0]).tenant = "..".into();
    for (n, wrong) in [
        (2, adding(1)),
        (3, adding(2)),
        (1, adding(2)),
        (2, twice),
        (2, gone),
        (2, bad_name),
        (2, bad_tenant),
    ] {
        let e = state.apply(&delta(n, &wrong)).expect_err("impossible");
        assert_eq!(e.kind, ErrorKind::Corrupt);
        assert_eq!(state, before);
    }
}

#[tokio::test]
async fn superseded_objects_go_after_a_day() {
    let world = World::new(7);
    filled(&world, 256 * 4).await;
    let count = async |what: &str| {
        let folder = format!("meta/metrics-0/{what}");
        world.honest.list(&folder).await.expect("lists").len()
    };
    assert_eq!((count("log").await, count("snap").await), (1024, 4), "too young");
    world.clock.advance(Duration::from_secs(25 * 3600));
    let m = filled_on(&world, 256).await;
    // Snapshots 768, 1024 and 1280 stay, and the deltas after the first of them.
    assert_eq!((count("log").await, count("snap").await), (512, 3));
    assert_eq!(load(&world).await.expect("whole").state(), m.state());
    replace(&world, &snapshot_path(SHARD, 1280), flip).await;
    assert_eq!(load(&world).await.expect("by an older one").state(), m.state());
}

/// Goes on after `filled`.
async fn filled_on(world: &World, n: u128) -> Manifest {
    let mut m = load(world).await.expect("whole");
    for id in 10_000..10_000 + n {
        m.commit(&adding(id)).await.expect("alone");
    }
    let state = m.state().clone();
    write_snapshot(&world.store, state, &*world.clock)
        .await
        .expect("the store is up");
    m
}

#[tokio::test]
async fn a_writer_that_slept_finds_its_way_back() {
    let world = World::new(8);
    let mut sleeper = filled(&world, 1).await;
    filled_on(&world, 300).await;
    for n in 2..=200 {
        world.honest.delete(&delta_path(SHARD, n)).await.expect("deletes");
    }
    sleeper.refresh(Signal::Metrics).await.expect("by the snapshot");
    assert_eq!(sleeper.state(), load(&world).await.expect("whole").state());
}

#[test]
fn snapshots_round_trip() {
    let mut state = State::new(SHARD);
    let delta = |n, c: &Change| Delta::new(c, SHARD, n, vec![]);
    state.apply(&delta(1, &adding(1))).expect("the first");
    state.apply(&delta(2, &adding(2))).expect("the second");
    let gone = Change {
        remove: vec![Ulid(1)],
        time_ms: 5,
        ..change(3)
    };
    state.apply(&delta(3, &gone)).expect("the third");
    let bytes = state.encode().expect("encodes");
    assert_eq!(State::decode(&bytes, SHARD, 3).expect("decodes"), state);
    assert!(State::decode(&bytes, SHARD, 4).is_err(), "another number");
    assert!(State::decode(&bytes, "logs-0", 3).is_err(), "another shard");
    assert!(Delta::decode(&bytes, SHARD, 3).is_err(), "another kind");
    assert_eq!(state.removed[&Ulid(1)].files, ["data"]);
}

/// Two writers under faults, each retrying its own changes: all of them are there, once.
async fn race(seed: u64) {
    let world = World::new(9);
    let mut writers = [load(&world).await.expect("empty"), load(&world).await.expect("empty")];
    world.faulty.set_rates(
        seed,
        FaultRates {
            error_503: 0.2,
            lost_reply: 0.2,
            ..FaultRates::default()
        },
    );
    for id in 1..=20u128 {
        let at = (id % 2) as usize;
        let step = Change {
            writer: format!("w{at}"),
            ..adding(id)
        };
        while writers[at].commit(&step).await.is_err() {}
    }
    world.faulty.heal();
    for writer in &mut writers {
        writer.catch_up().await.expect("the store is up");
    }
    let loaded = load(&world).await.expect("whole");
    assert_eq!(loaded.state().blocks.len(), 20);
    assert_eq!(loaded.state().n, 20, "one delta each");
    assert_eq!(writers[0].state(), loaded.state());
    assert_eq!(writers[1].state(), loaded.state());
}

fn masking(nonce: u128, blocks: &[u128]) -> Change {
    Change {
        tombstones: vec![Arc::new(super::Tombstone {
            id: Ulid(nonce << 64),
            tenant: "t".into(),
            time_min: 0,
            time_max: 9,
            created_ms: 3,
            what: "x".into(),
            blocks: blocks.iter().map(|id| Ulid(*id)).collect(),
        })],
        ..change(nonce)
    }
}

#[tokio::test]
async fn tombstones_live_as_long_as_their_blocks() {
    let world = World::new(9);
    let mut m = load(&world).await.expect("an empty manifest");
    for id in 1..=4 {
        m.commit(&adding(id)).await.expect("alone");
    }
    m.commit(&masking(10, &[1, 2, 3])).await.expect("they are there");
    assert_eq!(load(&world).await.expect("whole").state(), m.state());
    assert_eq!(m.state().masks().len(), 3);
    let e = m.commit(&masking(11, &[3, 7])).await.expect_err("7 is not there");
    assert!(matches!(e, CommitError::Conflict { missing } if missing == [Ulid(7)]));

    // A merge that began before the delete knows no tombstone: it would bring everything back.
    let mut merge = Change {
        remove: vec![Ulid(1), Ulid(4)],
        wal_upto: None,
        ..adding(20)
    };
    let e = m.commit(&merge).await.expect_err("1 is masked");
    assert!(matches!(e, CommitError::Conflict { missing } if missing == [Ulid(1)]));
    merge.applied.insert(Ulid(10 << 64));
    m.commit(&merge).await.expect("the tombstone is applied");
    assert_eq!(m.state().masks().len(), 2);
    // What expires takes nothing along.
    let gone = Change {
        remove: vec![Ulid(2), Ulid(3)],
        ..change(21)
    };
    m.commit(&gone).await.expect("they are there");
    assert!(m.state().tombstones.is_empty());
    assert_eq!(load(&world).await.expect("whole").state(), m.state());
}

#[test]
fn objects_with_tombstones_have_their_own_version() {
    let version = |bytes: &Bytes| u16::from_le_bytes([bytes[4], bytes[5]]);
    let mut state = State::new(SHARD);
    let first = Delta::new(&adding(1), SHARD, 1, vec![]);
    state.apply(&first).expect("the first");
    assert_eq!(version(&first.encode().expect("encodes")), 1);
    assert_eq!(version(&state.encode().expect("encodes")), 1);
    let second = Delta::new(&masking(2, &[1]), SHARD, 2, vec![]);
    let bytes = second.encode().expect("encodes");
    assert_eq!(version(&bytes), 2);
    assert_eq!(Delta::decode(&bytes, SHARD, 2).expect("decodes"), second);
    state.apply(&second).expect("the second");
    let bytes = state.encode().expect("encodes");
    assert_eq!(version(&bytes), 2);
    assert_eq!(State::decode(&bytes, SHARD, 2).expect("decodes"), state);

    // Of another tenant, of no block, with a range the wrong way round: no writer commits these.
    let mut broken = Vec::new();
    for change in 0..4 {
        let mut delta = Delta::new(&masking(3, &[1]), SHARD, 3, vec![]);
        let t = Arc::make_mut(&mut delta.tombstones[0]);
        match change {
            0 => t.tenant = "other".into(),
            1 => t.blocks.clear(),
            2 => t.time_min = 10,
            _ => t.what = "x".repeat(1 << 20),
        }
        broken.push(delta);
    }
    for delta in broken {
        assert!(state.clone().apply(&delta).is_err(), "{delta:?}");
    }
}

/// The encoding must stay in proportion: a start with many blocks is a matter of a second.
#[test]
fn ten_thousand_blocks_round_trip() {
    let mut state = State::new(SHARD);
    let mut step = change(1);
    step.add = (1..=10_000).map(block).collect();
    state.apply(&Delta::new(&step, SHARD, 1, vec![])).expect("the first");
    let bytes = state.encode().expect("encodes");
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
    assert_eq!(State::decode(&bytes, SHARD, 1).expect("decodes"), state);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn racing_writers_lose_nothing(seed in any::<u64>()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(race(seed));
    }

    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..100), body in any::<Option<bool>>()) {
        let mut bytes = bytes;
        if let Some(fix_crc) = body {
            // Past magic and checksum, to the parts behind them.
            let mut framed = b"TRLM\x01\0\x01\0".to_vec();
            framed.append(&mut bytes);
            if fix_crc {
                let crc = trilith_codec::crc32c(&framed);
                framed.extend_from_slice(&crc.to_le_bytes());
            }
            bytes = framed;
        }
        prop_assert!(Delta::decode(&bytes, SHARD, 1).is_err());
        prop_assert!(State::decode(&bytes, SHARD, 1).is_err());
    }
}
