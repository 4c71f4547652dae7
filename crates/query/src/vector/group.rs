//! Which output group a series belongs to, computed once per series.

use hashbrown::HashMap;
use trilith_model::Labels;

use crate::series::Grouping;

const METRIC_NAME: &str = "__name__";

/// Numbers the groups of an aggregation in the order in which they appear.
#[derive(Debug)]
pub struct Grouper {
    grouping: Option<Grouping>,
    index: HashMap<Labels, u32>,
    groups: Vec<Labels>,
}

impl Grouper {
    /// `None`: all series in one group without labels.
    pub fn new(grouping: Option<Grouping>) -> Self {
        Grouper {
            grouping,
            index: HashMap::new(),
            groups: Vec::new(),
        }
    }

    pub fn group_of(&mut self, labels: &Labels) -> u32 {
        let key = match &self.grouping {
            None => Labels::empty(),
            Some(g) if g.by => labels.keep(|n| g.labels.iter().any(|l| l == n)),
            Some(g) => labels.without(|n| n == METRIC_NAME || g.labels.iter().any(|l| l == n)),
        };
        if let Some(id) = self.index.get(&key) {
            return *id;
        }
        let id = self.groups.len() as u32;
        self.groups.push(key.clone());
        self.index.insert(key, id);
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
