//! Metric metadata: family → type, help, unit. One codec for blocks and for the WAL.
//!
//! `| count uvarint | count × (family bytes, type u8, help bytes, unit bytes) |`, bytes with a uvarint length.

use std::collections::BTreeMap;

use trilith_codec::{Reader, put_str, put_uvarint};
use trilith_model::{Error, MetricMetadata, MetricType, Result};

use super::bad;

/// Families a head or block keeps: metadata is a help text, it must not become a way to fill the memory.
const FAMILIES_MAX: usize = 100_000;
/// Different entries of one family, when sources disagree.
const ENTRIES_PER_FAMILY_MAX: usize = 10;

const TYPES: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

fn code(kind: MetricType) -> u8 {
    // Part of the format: the remote write numbers.
    match kind {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

pub(crate) fn encode<'a>(out: &mut Vec<u8>, entries: impl ExactSizeIterator<Item = &'a MetricMetadata>) {
    put_uvarint(out, entries.len() as u64);
    for m in entries {
        put_str(out, &m.family);
        out.push(code(m.kind));
        put_str(out, &m.help);
        put_str(out, &m.unit);
    }
}

/// # Errors
/// `Corrupt`.
pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Vec<MetricMetadata>> {
    let bad = bad("metadata");
    let n = r.count(4).map_err(&bad)?;
    let mut out = Vec::new();
    for _ in 0..n {
        let family = r.str().map_err(&bad)?.to_owned();
        let kind = r.u8().map_err(&bad)?;
        let kind = *TYPES
            .get(usize::from(kind))
            .ok_or_else(|| Error::corrupt(format!("metric type {kind}")))?;
        let help = r.str().map_err(&bad)?.to_owned();
        let unit = r.str().map_err(&bad)?.to_owned();
        out.push(MetricMetadata {
            family,
            kind,
            help,
            unit,
        });
    }
    Ok(out)
}

/// The distinct entries seen, by family; the newest of a family last.
#[derive(Debug, Default)]
pub(crate) struct MetadataSet {
    families: BTreeMap<String, Vec<MetricMetadata>>,
}

impl MetadataSet {
    pub(crate) fn contains(&self, m: &MetricMetadata) -> bool {
        self.families.get(&m.family).is_some_and(|e| e.contains(m))
    }

    /// Adds an entry; returns its approximate bytes, 0 when it was known or there is no room.
    pub(crate) fn insert(&mut self, m: &MetricMetadata) -> usize {
        if self.contains(m) || (self.families.len() >= FAMILIES_MAX && !self.families.contains_key(&m.family)) {
            return 0;
        }
        let entries = self.families.entry(m.family.clone()).or_default();
        if entries.len() >= ENTRIES_PER_FAMILY_MAX {
            // The newest say most about the present.
            entries.remove(0);
        }
        entries.push(m.clone());
        m.family.len() * 2 + m.help.len() + m.unit.len() + 120
    }

    /// By family; of one family when given.
    pub(crate) fn entries(&self, family: Option<&str>) -> Vec<MetricMetadata> {
        match family {
            Some(f) => self.families.get(f).cloned().unwrap_or_default(),
            None => self.families.values().flatten().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(family: &str, kind: MetricType, help: &str) -> MetricMetadata {
        MetricMetadata {
            family: family.into(),
            kind,
            help: help.into(),
            unit: "s".into(),
        }
    }

    #[test]
    fn round_trip_of_every_type() {
        let all: Vec<MetricMetadata> = TYPES.iter().map(|&t| entry(t.as_str(), t, "ü")).collect();
        let mut bytes = Vec::new();
        encode(&mut bytes, all.iter());
        assert_eq!(decode(&mut Reader::new(&bytes)).unwrap(), all);
        for cut in 0..bytes.len() {
            assert!(decode(&mut Reader::new(&bytes[..cut])).is_err());
        }
    }

    #[test]
    fn a_family_keeps_its_newest_entries() {
        let mut set = MetadataSet::default();
        for i in 0..20 {
            assert!(set.insert(&entry("f", MetricType::Gauge, &i.to_string())) > 0);
        }
        assert_eq!(set.insert(&entry("f", MetricType::Gauge, "19")), 0);
        let entries = set.entries(Some("f"));
        assert_eq!(entries.len(), ENTRIES_PER_FAMILY_MAX);
        assert_eq!(entries[9].help, "19");
        assert!(set.entries(Some("g")).is_empty());
    }
}
