//! What the stages make of an entry's labels.
//!
//! An entry carries stream labels and structured metadata; stages see both as one set, in which a metadata name
//! that is also a stream label appears as `<name>_extracted`. Entries of one stream with equal metadata share one
//! outcome, so it is computed once and remembered.

use std::sync::Arc;

use hashbrown::HashMap;
use trilith_model::Labels;

use crate::ast::{LabelFilter, LabelItem, Stage};

/// Outcomes remembered per query; beyond that they are computed again. Metadata such as trace ids is different in
/// every entry and must not grow the memory.
const CACHE_MAX: usize = 10_000;

/// Labels of an entry after the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryLabels {
    pub stream: Labels,
    pub metadata: Labels,
}

impl EntryLabels {
    /// Before any stage.
    pub(crate) fn new(stream: &Labels, metadata: &Labels) -> Self {
        let clash = metadata.iter().any(|m| stream.get(m.name).is_some());
        let metadata = if clash {
            Labels::from_pairs(metadata.iter().map(|m| match stream.get(m.name) {
                Some(_) => (format!("{}_extracted", m.name), m.value.to_owned()),
                None => (m.name.to_owned(), m.value.to_owned()),
            }))
        } else {
            metadata.clone()
        };
        EntryLabels {
            stream: stream.clone(),
            metadata,
        }
    }

    /// A label; the empty string when missing.
    fn get(&self, name: &str) -> &str {
        self.metadata.get(name).or_else(|| self.stream.get(name)).unwrap_or("")
    }

    fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.stream = self.stream.keep(&mut keep);
        self.metadata = self.metadata.keep(&mut keep);
    }
}

/// The stages of one query with their memory of outcomes.
#[derive(Debug)]
pub(crate) struct Pipeline {
    stages: Arc<[Stage]>,
    /// By stream and metadata; `None` when a filter drops the entry.
    outcomes: HashMap<(Labels, Labels), Option<Arc<EntryLabels>>>,
}

impl Pipeline {
    pub(crate) fn new(stages: &[Stage]) -> Self {
        Pipeline {
            stages: stages.into(),
            outcomes: HashMap::new(),
        }
    }

    /// Nothing to do: every entry stays as it is.
    pub(crate) fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Whether a stage may drop entries.
    pub(crate) fn filters(&self) -> bool {
        self.stages.iter().any(|s| matches!(s, Stage::Filter(_)))
    }

    /// The labels after all stages, or `None` when the entry is dropped.
    pub(crate) fn process(&mut self, stream: &Labels, metadata: &Labels) -> Option<Arc<EntryLabels>> {
        let key = (stream.clone(), metadata.clone());
        if let Some(outcome) = self.outcomes.get(&key) {
            return outcome.clone();
        }
        let outcome = self.run(stream, metadata).map(Arc::new);
        if self.outcomes.len() < CACHE_MAX {
            self.outcomes.insert(key, outcome.clone());
        }
        outcome
    }

    fn run(&self, stream: &Labels, metadata: &Labels) -> Option<EntryLabels> {
        let mut labels = EntryLabels::new(stream, metadata);
        for stage in self.stages.iter() {
            match stage {
                Stage::Filter(f) => {
                    if !holds(f, &labels) {
                        return None;
                    }
                }
                Stage::Drop(items) => {
                    let dropped: Vec<&str> = items.iter().filter_map(|i| applies(i, &labels)).collect();
                    labels.retain(|n| !dropped.contains(&n));
                }
                Stage::Keep(items) => {
                    let kept: Vec<&str> = items.iter().filter_map(|i| applies(i, &labels)).collect();
                    labels.retain(|n| kept.contains(&n));
                }
            }
        }
        Some(labels)
    }
}

/// The label an item names, unless its matcher does not hold.
fn applies<'a>(item: &'a LabelItem, labels: &EntryLabels) -> Option<&'a str> {
    match item {
        LabelItem::Name(n) => Some(n),
        LabelItem::Matcher(m) => m.matches(labels.get(&m.name)).then_some(&*m.name),
    }
}

fn holds(filter: &LabelFilter, labels: &EntryLabels) -> bool {
    match filter {
        LabelFilter::Matcher(m) => m.matches(labels.get(&m.name)),
        LabelFilter::And(a, b) => holds(a, labels) && holds(b, labels),
        LabelFilter::Or(a, b) => holds(a, labels) || holds(b, labels),
    }
}
