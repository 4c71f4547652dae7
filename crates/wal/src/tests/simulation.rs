//! Random appends, failures, releases, crashes and restarts on one disk. Every run is its seed.
//!
//! `TRILITH_SEED=n` runs that one seed.

use std::collections::BTreeMap;

use super::*;
use crate::store::Faults;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Acked,
    Refused,
}

struct World {
    seed: u64,
    rng: Rng,
    store: MemoryStore,
    /// By LSN; those of one run and those on the disk are never handed out again.
    records: BTreeMap<u64, (Signal, Vec<u8>, Fate)>,
    waiting: Vec<(u64, Waiting)>,
    committed: [u64; 3],
    /// Refused while the disk refused everything; may come back until a later record is acknowledged.
    unsure: Vec<u64>,
}

impl World {
    fn below(&self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn step(&mut self, log: &mut Bench) {
        match self.below(100) {
            0..55 => self.append(log),
            55..85 => {
                log.committer.step();
                self.settle();
            }
            85..90 => log.clock.advance(Duration::from_millis(self.below(2000))),
            90..94 => self.commit(log),
            94..95 => log.shared.rotate(),
            _ => {
                let faults = match self.below(6) {
                    0 => Faults {
                        failing_syncs: 1 + self.below(3) as u32,
                        ..Faults::default()
                    },
                    1 => Faults {
                        failing_syncs: 1,
                        failing_cuts: 1 + self.below(2) as u32,
                        ..Faults::default()
                    },
                    2 => Faults {
                        space_bytes: Some(self.below(20_000)),
                        ..Faults::default()
                    },
                    3 => Faults {
                        read_only: true,
                        ..Faults::default()
                    },
                    _ => Faults::default(),
                };
                self.store.set_faults(faults);
            }
        }
    }

    fn append(&mut self, log: &Bench) {
        let signal = Signal::ALL[self.below(3) as usize];
        let size = if self.below(20) == 0 { 5000 } else { self.below(200) };
        let payload: Vec<u8> = (0..size).map(|_| self.rng.next_u64() as u8).collect();
        if let Ok((lsn, waiting)) = log.append(signal, &payload) {
            let before = self.records.insert(lsn, (signal, payload, Fate::Unknown));
            assert!(before.is_none(), "seed {}: LSN {lsn} was handed out twice", self.seed);
            assert_eq!(
                self.records.last_key_value().map(|(&l, _)| l),
                Some(lsn),
                "seed {}: LSNs rise",
                self.seed
            );
            self.waiting.push((lsn, waiting));
        }
    }

    fn settle(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for (lsn, outcome) in waiting {
            let fate = match decided(&outcome) {
                None => {
                    self.waiting.push((lsn, outcome));
                    continue;
                }
                Some(Ok(())) => {
                    self.unsure.clear();
                    Fate::Acked
                }
                Some(Err(_)) => {
                    self.unsure.push(lsn);
                    Fate::Refused
                }
            };
            self.records.get_mut(&lsn).expect("appended").2 = fate;
        }
    }

    /// Blocks take over everything of a signal that was acknowledged so far.
    fn commit(&mut self, log: &Bench) {
        let signal = Signal::ALL[self.below(3) as usize];
        let open = self.waiting.first().map_or(u64::MAX, |(lsn, _)| *lsn);
        let upto = self.records.range(..open).next_back().map_or(0, |(&lsn, _)| lsn);
        if upto > 0 {
            self.committed[signal as usize - 1] = self.committed[signal as usize - 1].max(upto);
            log.shared.release(signal, upto);
        }
    }

    fn restart(&mut self) -> Bench {
        // Refused records that the disk did not let go, seen in the kernel's memory after a mere restart and gone after
        // the next power loss, are the one thing that nobody can tell from good ones.
        if self.below(4) > 0 || !self.unsure.is_empty() {
            self.store.crash();
        }
        self.waiting.clear();
        self.store.set_faults(Faults::default());
        let floor = self.committed.iter().copied().max().unwrap_or(0);
        let mut log = Bench::try_open(&self.store, 2000, Lsn(floor)).expect("opens");
        for signal in Signal::ALL {
            log.replay.after(signal, Lsn(self.committed[signal as usize - 1]));
        }
        self.check(&log);
        for signal in Signal::ALL {
            log.shared.release(signal, self.committed[signal as usize - 1]);
        }
        log
    }

    fn check(&mut self, log: &Bench) {
        let seed = self.seed;
        let replayed = replay_all(&log.replay);
        assert!(
            replayed.windows(2).all(|w| w[0].0 < w[1].0),
            "seed {seed}: once and in order"
        );
        let seen: BTreeMap<u64, _> = replayed.into_iter().map(|(lsn, s, p)| (lsn, (s, p))).collect();
        for (lsn, (signal, payload)) in &seen {
            let Some((s, p, fate)) = self.records.get(lsn) else {
                panic!("seed {seed}: record {lsn} was never appended")
            };
            assert!(s == signal && p == payload, "seed {seed}: record {lsn} changed");
            let back = *fate == Fate::Refused && !self.unsure.contains(lsn);
            assert!(!back, "seed {seed}: refused record {lsn} came back");
        }
        for (lsn, (signal, _, fate)) in &mut self.records {
            let committed = *lsn <= self.committed[*signal as usize - 1];
            let replayed = seen.contains_key(lsn);
            assert!(
                !(committed && replayed),
                "seed {seed}: record {lsn} is in a block already"
            );
            if *fate == Fate::Acked && !committed {
                assert!(replayed, "seed {seed}: acknowledged record {lsn} is lost");
            }
            // What was replayed is in a head from now on, and must stay.
            match (replayed, *fate) {
                (true, _) => *fate = Fate::Acked,
                (false, Fate::Unknown) => *fate = Fate::Refused,
                _ => {}
            }
        }
        self.unsure.clear();
        // Records that left no trace on the disk leave their numbers to others.
        let gone = self.records.split_off(&(log.shared.last_lsn() + 1));
        for (lsn, (.., fate)) in gone {
            assert!(
                fate != Fate::Acked,
                "seed {seed}: the number of acknowledged record {lsn} would be used again"
            );
        }
        let report = log.replay.report();
        assert!(
            report.unreadable_segments.is_empty() && report.foreign_files.is_empty(),
            "seed {seed}: {report:?}"
        );
        assert!(report.missing.is_empty(), "seed {seed}: {report:?}");
    }
}

fn run(seed: u64) {
    let mut world = World {
        seed,
        rng: Rng::seeded(seed),
        store: MemoryStore::new(seed),
        records: BTreeMap::new(),
        waiting: Vec::new(),
        committed: [0; 3],
        unsure: Vec::new(),
    };
    let mut log = world.restart();
    for _ in 0..8 {
        for _ in 0..world.below(150) {
            world.step(&mut log);
        }
        drop(log);
        log = world.restart();
    }
}

#[test]
fn acknowledged_records_survive_anything_once_and_in_order() {
    if let Some(seed) = std::env::var("TRILITH_SEED").ok().and_then(|s| s.parse().ok()) {
        return run(seed);
    }
    for seed in 0..200 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = outcome {
            eprintln!("replay with: TRILITH_SEED={seed} cargo test -p trilith-wal simulation");
            std::panic::resume_unwind(panic);
        }
    }
}
