//! Which output group a series belongs to, computed once per series.

use std::hash::{BuildHasher as _, Hasher as _};

use hashbrown::HashTable;
use trilith_model::Labels;

use crate::series::Grouping;

const METRIC_NAME: &str = "__name__";

/// Numbers the groups of an aggregation in the order in which they appear.
#[derive(Debug)]
pub struct Grouper {
    grouping: Option<Grouping>,
    /// (hash of the labels that make the group, number).
    index: HashTable<(u64, u32)>,
    groups: Vec<Labels>,
    hasher: foldhash::fast::RandomState,
}

impl Grouper {
    /// `None`: all series in one group without labels.
    pub fn new(grouping: Option<Grouping>) -> Self {
        Grouper {
            grouping,
            index: HashTable::new(),
            groups: Vec::new(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }

    /// Makes no label set for a group that is known.
    pub fn group_of(&mut self, labels: &Labels) -> u32 {
        let Some(g) = &self.grouping else {
            if self.groups.is_empty() {
                self.groups.push(Labels::empty());
            }
            return 0;
        };
        let listed = |n: &[u8]| g.labels.iter().any(|l| l.as_bytes() == n);
        let keeps = |n: &[u8]| {
            if g.by {
                listed(n)
            } else {
                n != METRIC_NAME.as_bytes() && !listed(n)
            }
        };
        let mut hasher = self.hasher.build_hasher();
        for (name, value) in labels.iter_bytes().filter(|(n, _)| keeps(n)) {
            hasher.write(name);
            hasher.write_u8(0xff);
            hasher.write(value);
            hasher.write_u8(0xff);
        }
        let hash = hasher.finish();
        let known = self.index.find(hash, |&(h, id)| {
            let group = self.groups[id as usize].iter_bytes();
            h == hash && group.eq(labels.iter_bytes().filter(|(n, _)| keeps(n)))
        });
        if let Some(&(_, id)) = known {
            return id;
        }
        let id = self.groups.len() as u32;
        self.groups.push(labels.keep(|n| keeps(n.as_bytes())));
        self.index.insert_unique(hash, (hash, id), |&(h, _)| h);
        id
    }

    /// Labels by group number.
    pub fn groups(&self) -> &[Labels] {
        &self.groups
    }

    pub fn into_groups(self) -> Vec<Labels> {
        self.groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_without_and_neither() {
        let l = Labels::from_pairs([("__name__", "m"), ("a", "1"), ("b", "2")]);
        let group = |g: Option<Grouping>| {
            let mut grouper = Grouper::new(g);
            assert_eq!(grouper.group_of(&l), 0);
            grouper.into_groups().remove(0).to_string()
        };
        let grouping = |by, labels: &[&str]| {
            Some(Grouping {
                by,
                labels: labels.iter().map(|l| (*l).to_owned()).collect(),
            })
        };
        assert_eq!(group(None), "{}");
        assert_eq!(group(grouping(true, &["a", "c"])), r#"{a="1"}"#);
        assert_eq!(group(grouping(true, &[])), "{}");
        assert_eq!(group(grouping(true, &["__name__"])), r#"{__name__="m"}"#);
        assert_eq!(group(grouping(false, &["a"])), r#"{b="2"}"#);
        assert_eq!(group(grouping(false, &[])), r#"{a="1", b="2"}"#);
    }
}
