//! Coarser schemas.

use crate::cells::coarser_index;
use crate::validate::{is_exponential, is_known};
use crate::{Buckets, BucketsBuilder, FloatHistogram, HistogramError, SCHEMA_MAX};

impl FloatHistogram {
    /// Merges buckets into those of a coarser or equal schema.
    ///
    /// # Errors
    /// When the histogram has custom buckets or the schema is finer or not an exponential one.
    pub fn reduce_resolution(&mut self, schema: i32) -> Result<(), HistogramError> {
        if schema == self.schema {
            return Ok(());
        }
        if self.uses_custom_buckets() || !is_exponential(schema) || schema > self.schema {
            return Err(HistogramError::NotCoarser {
                from: self.schema,
                to: schema,
            });
        }
        let levels = self.schema.abs_diff(schema);
        self.positive = self.positive.coarser(levels);
        self.negative = self.negative.coarser(levels);
        self.schema = schema;
        Ok(())
    }

    /// A copy in a coarser or equal schema.
    ///
    /// # Errors
    /// As [`reduce_resolution`](Self::reduce_resolution).
    pub fn at_schema(&self, schema: i32) -> Result<Self, HistogramError> {
        let mut copy = self.clone();
        copy.reduce_resolution(schema)?;
        Ok(copy)
    }

    /// What ingestion does to schemas that clients may use but nothing here works with: 9…52 become 8.
    ///
    /// # Errors
    /// `UnknownSchema` for what is no schema at all. The reserved schemas −9…−5 pass; [`validate`](Self::validate)
    /// refuses them.
    pub fn adopt_schema(&mut self) -> Result<(), HistogramError> {
        if !is_known(self.schema) {
            return Err(HistogramError::UnknownSchema(self.schema));
        }
        if self.schema > SCHEMA_MAX {
            self.reduce_resolution(SCHEMA_MAX)?;
        }
        Ok(())
    }
}

impl Buckets {
    /// These buckets merged into those of a schema coarser by `levels`.
    pub(crate) fn coarser(&self, levels: u32) -> Buckets {
        let mut builder = BucketsBuilder::with_capacity(self.counts.len() >> levels.min(63));
        for (index, count) in self.iter() {
            builder.push(coarser_index(index, levels), count);
        }
        builder.finish()
    }
}
