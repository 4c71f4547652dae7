use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use trilith_model::ErrorKind;
use trilith_object::Store;
use ulid::Ulid;

use super::*;
use crate::engine::{BlockFile, BlockHandle, FileBody};
use crate::meta::{BlockMeta, FileMeta};

fn memory(file: &BlockFile) -> Bytes {
    match &file.body {
        FileBody::Memory(bytes) => bytes.clone(),
        FileBody::Spooled(path) => std::fs::read(path).expect("it was just written").into(),
    }
}

fn sample() -> BlockFile {
    let mut w = ContainerWriter::in_memory();
    w.section(7, 0, &b"cold ".repeat(1000), Compression::Zstd(1))
        .expect("a new section");
    w.section(1, 2, b"plain", Compression::None).expect("a new section");
    w.section_start(3, 0).expect("a new section");
    assert_eq!(w.append(b"page one").expect("open"), 0);
    assert_eq!(w.append(b"page two").expect("open"), 8);
    w.section_end().expect("open");
    w.start_hot();
    w.section(9, 0, b"hot", Compression::None).expect("a new section");
    w.finish("data").expect("nothing is open")
}

async fn stored(file: &BlockFile, footer: bool) -> BlockHandle {
    let store = Store::memory();
    let bytes = memory(file);
    let meta = BlockMeta {
        id: Ulid::nil(),
        tenant: "t".into(),
        level: 0,
        time_min: 0,
        time_max: 0,
        items: 0,
        groups: 0,
        created_ms: 0,
        files: vec![FileMeta {
            name: file.name.clone(),
            size: bytes.len() as u64,
            crc32c: crc32c(&bytes),
            footer: file.footer.clone().filter(|_| footer),
        }],
        facts: BTreeMap::new(),
    };
    store.upload("b/data", bytes).await.expect("memory takes it");
    BlockHandle {
        meta: Arc::new(meta),
        store,
        folder: "b".into(),
        tombstones: Arc::default(),
    }
}

#[tokio::test]
async fn sections_come_back() {
    let file = sample();
    for footer_recorded in [true, false] {
        let block = stored(&file, footer_recorded).await;
        let c = Container::open(&block, "data").await.expect("it is a container");
        let kinds: Vec<_> = c.sections().iter().map(|s| (s.kind, s.ordinal)).collect();
        assert_eq!(kinds, [(1, 2), (3, 0), (7, 0), (9, 0)]);
        assert_eq!(c.read(1, 2).await.expect("there"), "plain");
        assert_eq!(c.read(7, 0).await.expect("there"), b"cold ".repeat(1000));
        assert!(c.section(7, 0).expect("there").compressed);
        let pages = c.read_ranges(3, 0, &[8..16, 0..4, 16..16]).await.expect("inside");
        assert_eq!(pages, ["page two", "page", ""]);
        let many = c.read_many(&[(9, 0), (1, 2)]).await.expect("there");
        assert_eq!(many, ["hot", "plain"]);
        c.verify().await.expect("whole");
        let outside = c.read_range(3, 0, 9..17).await.expect_err("16 bytes");
        assert_eq!(outside.kind, ErrorKind::Corrupt);
        let missing = c.read(3, 1).await.expect_err("never written");
        assert_eq!(missing.message, "b/data: section 3.1 is missing");
        let packed = c.read_range(7, 0, 0..1).await.expect_err("compressed");
        assert_eq!(packed.kind, ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn hot_sections_come_with_the_footer() {
    let mut file = sample();
    // Another name, so that the footer is not in the process-wide cache yet.
    file.name = "hot".into();
    let block = stored(&file, true).await;
    let bytes = memory(&file);
    block.store.upload("b/hot", bytes).await.expect("memory takes it");
    let c = Container::open(&block, "hot").await.expect("it is a container");
    block.store.delete("b/hot").await.expect("memory deletes");
    assert_eq!(c.read(9, 0).await.expect("in memory"), "hot");
    let cold = c.read(3, 0).await.expect_err("deleted");
    assert_eq!(cold.kind, ErrorKind::NotFound);
    // Opened again from the cache, without the object.
    let again = Container::open(&block, "hot").await.expect("cached");
    assert_eq!(again.read(9, 0).await.expect("in memory"), "hot");
}

#[tokio::test]
async fn a_spooled_file_is_the_same_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("x");
    let mut w = ContainerWriter::create(&path).expect("a new file");
    assert!(w.is_empty());
    w.section(1, 0, b"abc", Compression::None).expect("a new section");
    let spooled = w.finish("x").expect("nothing is open");
    let mut w = ContainerWriter::in_memory();
    w.section(1, 0, b"abc", Compression::None).expect("a new section");
    assert_eq!(w.len(), 11);
    let in_memory = w.finish("x").expect("nothing is open");
    assert_eq!(memory(&spooled), memory(&in_memory));
    assert_eq!(spooled.footer, in_memory.footer);
    assert!(ContainerWriter::create(&path).is_err(), "nothing is overwritten");
}

#[test]
fn misuse_is_refused() {
    let mut w = ContainerWriter::in_memory();
    w.section(1, 0, b"a", Compression::None).expect("a new section");
    assert!(w.section(1, 0, b"a", Compression::None).is_err(), "twice");
    assert!(w.append(b"x").is_err() && w.section_end().is_err(), "none open");
    w.section_start(2, 0).expect("a new section");
    assert!(w.section(3, 0, b"a", Compression::None).is_err(), "one open");
    assert!(w.finish("x").is_err(), "one open");
}

#[test]
fn an_empty_container_is_fine() {
    let file = ContainerWriter::in_memory().finish("x").expect("nothing is open");
    assert!(
        Container::from_bytes(memory(&file))
            .expect("valid")
            .sections()
            .is_empty()
    );
}

#[tokio::test]
async fn every_flipped_bit_is_found() {
    let good = memory(&sample());
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1 << (at % 8);
        let Ok(c) = Container::from_bytes(bad.into()) else {
            continue;
        };
        // Bytes 0..8 are for people and tools; nothing depends on them.
        assert!(at < 8 || c.verify().await.is_err(), "byte {at} of {}", good.len());
    }
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let mut bytes = memory(&sample()).to_vec();
    let at = bytes.len() - 12;
    bytes[at] = 2;
    let e = Container::from_bytes(bytes.into()).err().expect("unknown version");
    assert_eq!(e.kind, ErrorKind::Unsupported);
    assert_eq!(e.message, "container version 2; this build reads 1");
}

/// Puts a valid trailer around any footer, so that the parser behind the checksum is reached.
fn with_footer(body: &[u8], footer: &[u8]) -> Bytes {
    let mut out = b"TRLC\x01\0\0\0".to_vec();
    out.extend_from_slice(body);
    out.extend_from_slice(footer);
    let mut trailer = (footer.len() as u32).to_le_bytes().to_vec();
    trailer.extend_from_slice(&(out.len() as u64 + 24).to_le_bytes());
    trailer.extend_from_slice(&[1, 0, 0, 0]);
    let crc = trilith_codec::crc32c_append(crc32c(footer), &trailer);
    out.extend_from_slice(&trailer);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(b"TRLF");
    out.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Container::from_bytes(bytes.into());
    }

    #[test]
    fn any_footer_is_safe(
        body in prop::collection::vec(any::<u8>(), 0..50),
        // Small numbers are what valid footers are made of.
        footer in prop::collection::vec(prop_oneof![0u8..20, any::<u8>()], 0..60),
    ) {
        if let Ok(c) = Container::from_bytes(with_footer(&body, &footer)) {
            for s in c.sections() {
                prop_assert!(s.range.start >= 8 && s.range.end <= c.size());
            }
            // Also where checksums happen to fit.
            let _ = futures::executor::block_on(c.verify());
        }
    }

    #[test]
    fn round_trip(sections in prop::collection::btree_map((any::<u16>(), any::<u32>()),
        (prop::collection::vec(any::<u8>(), 0..100), any::<bool>()), 0..10)) {
        let mut w = ContainerWriter::in_memory();
        for ((kind, ordinal), (bytes, packed)) in &sections {
            let compression = if *packed { Compression::Zstd(1) } else { Compression::None };
            w.section(*kind, *ordinal, bytes, compression).expect("a new section");
        }
        let file = w.finish("x").expect("nothing is open");
        let c = Container::from_bytes(memory(&file)).expect("valid");
        prop_assert_eq!(c.sections().len(), sections.len());
        for ((kind, ordinal), (bytes, _)) in &sections {
            let read = futures::executor::block_on(c.read(*kind, *ordinal)).expect("there");
            prop_assert_eq!(&read, bytes);
        }
    }
}
