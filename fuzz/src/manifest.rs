//! The block layer's files: containers, deltas, snapshots.

use std::sync::Arc;

use bytes::Bytes;
use trilith_block::manifest::{Delta, State};
use trilith_block::{BlockMeta, Compression, Container, ContainerWriter, FileBody, Tombstone};
use trilith_codec::crc32c;
use ulid::Ulid;

const SHARD: &str = "logs-0";

/// A container as it may be on disk: every section is checked and decompressed.
pub fn container(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(container) = Container::from_bytes(bytes.clone()) else {
        return;
    };
    for section in container.sections() {
        let range = section.range.start as usize..section.range.end as usize;
        assert!(
            range.start <= range.end && range.end <= bytes.len(),
            "sections are inside of the file"
        );
        let _ = section.decode(bytes.slice(range));
    }
}

pub fn container_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for sections in [0u16, 1, 5] {
        let mut writer = ContainerWriter::in_memory();
        for kind in 1..=sections {
            let compression = if kind % 2 == 0 {
                Compression::None
            } else {
                Compression::Zstd(1)
            };
            writer
                .section(kind, 0, &[kind as u8; 200], compression)
                .expect("memory takes it");
        }
        if let FileBody::Memory(bytes) = writer.finish("seed").expect("memory takes it").body {
            seeds.push(bytes.to_vec());
        }
    }
    seeds
}

/// Stored bytes of a manifest object.
pub fn manifest_object(bytes: &[u8]) {
    let _ = Delta::decode(bytes, SHARD, 1);
    let _ = State::decode(bytes, SHARD, 1);
    let _ = Delta::decode(bytes, SHARD, 2);
    let _ = State::decode(bytes, SHARD, 2);
}

pub fn manifest_object_seeds() -> Vec<Vec<u8>> {
    let mut state = state_after(&delta());
    let plain = state.encode().expect("valid").to_vec();
    let _ = state.apply(&masking());
    vec![
        delta().encode().expect("valid").to_vec(),
        plain,
        masking().encode().expect("valid").to_vec(),
        state.encode().expect("valid").to_vec(),
    ]
}

/// The content of a manifest object under a right checksum; what is accepted is applied.
pub fn manifest_content(json: &[u8]) {
    for seed in manifest_object_seeds() {
        // Magic, version and kind of a real one.
        let mut object = seed[..8].to_vec();
        object.extend_from_slice(&(json.len() as u64).to_le_bytes());
        object.extend_from_slice(&zstd::bulk::compress(json, 1).expect("memory takes it"));
        object.extend_from_slice(&crc32c(&object).to_le_bytes());
        manifest_object(&object);
        if let Ok(delta) = Delta::decode(&object, SHARD, 1) {
            let _ = State::new(SHARD).apply(&delta);
        }
        if let Ok(masking) = Delta::decode(&object, SHARD, 2) {
            let mut state = state_after(&delta());
            if state.apply(&masking).is_ok() {
                assert!(
                    state.masks().keys().all(|id| state.blocks.contains_key(id)),
                    "masks are of blocks"
                );
            }
        }
    }
}

/// The JSON texts inside of the objects.
pub fn manifest_content_seeds() -> Vec<Vec<u8>> {
    let unpack = |object: Vec<u8>| {
        let packed = &object[16..object.len() - 4];
        zstd::bulk::decompress(packed, 1 << 20).expect("a real object")
    };
    manifest_object_seeds().into_iter().map(unpack).collect()
}

fn delta() -> Delta {
    let block = BlockMeta {
        id: Ulid::from_parts(1, 2),
        tenant: "team-a".into(),
        level: 0,
        time_min: 1,
        time_max: 2,
        items: 3,
        groups: 1,
        created_ms: 4,
        files: Vec::new(),
        facts: [("kind".to_owned(), "x".to_owned())].into(),
    };
    Delta {
        shard: SHARD.into(),
        n: 1,
        nonce: 5,
        writer: "w".into(),
        epoch: 1,
        wal_upto: Some(9),
        time_ms: 4,
        add: vec![Arc::new(block)],
        remove: Vec::new(),
        purged: Vec::new(),
        tombstones: Vec::new(),
    }
}

/// A delta that masks the block of [`delta`].
fn masking() -> Delta {
    let tombstone = Tombstone {
        id: Ulid::from_parts(2, 2),
        tenant: "team-a".into(),
        time_min: 1,
        time_max: 1,
        created_ms: 5,
        what: r#"[[["a","=","b"]]]"#.into(),
        blocks: [Ulid::from_parts(1, 2)].into(),
    };
    Delta {
        n: 2,
        add: Vec::new(),
        tombstones: vec![Arc::new(tombstone)],
        ..delta()
    }
}

fn state_after(delta: &Delta) -> State {
    let mut state = State::new(SHARD);
    // Whether it is accepted depends on rules that are not at stake here; an empty state is a seed too.
    let _ = state.apply(delta);
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_accepted() {
        for seed in container_seeds() {
            Container::from_bytes(seed.into()).expect("valid");
        }
        let objects = manifest_object_seeds();
        let delta = Delta::decode(&objects[0], SHARD, 1).expect("valid");
        assert_eq!(delta.add.len(), 1);
        let state = State::decode(&objects[3], SHARD, 2).expect("valid");
        assert_eq!(state.tombstones.len(), 1);
        for json in manifest_content_seeds() {
            assert!(json.starts_with(b"{"));
            manifest_content(&json);
        }
    }
}
