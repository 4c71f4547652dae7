//! The index of a head.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use croaring::Bitmap;
use trilith_model::{LabelsRef, Result};

use crate::postings::{PostingList, PostingsRef};
use crate::select::LabelIndex;

/// Grows by whole label sets. Values are kept sorted, so that a regex with a literal prefix scans only its part.
#[derive(Debug, Default)]
pub struct MemIndex {
    names: BTreeMap<Box<str>, BTreeMap<Box<str>, PostingList>>,
    series: u32,
    bytes: usize,
}

impl MemIndex {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the label set of a series. The caller hands out ordinals, normally 0, 1, 2, … in this order.
    pub fn add(&mut self, ordinal: u32, labels: LabelsRef<'_>) {
        for l in labels.iter() {
            let values = match self.names.get_mut(l.name) {
                Some(v) => v,
                None => {
                    self.bytes += l.name.len() + 64;
                    self.names.entry(l.name.into()).or_default()
                }
            };
            let list = match values.get_mut(l.value) {
                Some(p) => p,
                None => {
                    // String, its pointer, the list and its share of a tree node.
                    self.bytes += l.value.len() + 80;
                    values.entry(l.value.into()).or_default()
                }
            };
            list.add(ordinal);
            self.bytes += 4;
        }
        self.series = self.series.max(ordinal.saturating_add(1));
    }

    /// Approximate heap bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl LabelIndex for MemIndex {
    fn series_count(&self) -> u32 {
        self.series
    }

    fn all(&self) -> Bitmap {
        Bitmap::from_range(0..self.series)
    }

    fn for_each_name(&self, f: &mut dyn FnMut(&str, usize) -> Result<ControlFlow<()>>) -> Result<()> {
        for (name, values) in &self.names {
            if f(name, values.len())?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn postings(&self, name: &str, value: &str) -> Option<PostingsRef<'_>> {
        self.names.get(name)?.get(value).map(PostingsRef::Mem)
    }

    fn for_each_value(
        &self,
        name: &str,
        prefix: &str,
        f: &mut dyn FnMut(&str, PostingsRef<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let Some(values) = self.names.get(name) else {
            return Ok(());
        };
        for (value, list) in values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)) {
            if !value.starts_with(prefix) || f(value, PostingsRef::Mem(list))?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
