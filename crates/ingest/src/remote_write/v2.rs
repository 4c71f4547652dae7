//! The walk over `io.prometheus.write.v2.Request`: twice over the top level, because nothing guarantees that the
//! symbols come before the series that name them. The symbols stay where they are; a series' labels are looked up
//! in the table of slices and packed as in 1.0.

use std::fmt::Write as _;

use hashbrown::HashSet;
use trilith_model::{Error, Exemplar, Limits, Result, Sample};

use super::labels::{BadLabels, text};
use super::series::Collector;
use super::{Version, Write};
use crate::rejections::quoted;
use crate::wire::Fields;

pub(super) fn decode(raw: &[u8], limits: &Limits) -> Result<Write> {
    // A symbol takes at least two bytes on the wire and 16 here: bounded without a budget.
    let mut symbols: Vec<&[u8]> = Vec::new();
    let mut fields = Fields::new(raw, "Request");
    while let Some(field) = fields.next()? {
        if field.number == 4 {
            symbols.push(field.bytes("Symbols")?);
        }
    }
    if let Some(first) = symbols.first()
        && !first.is_empty()
    {
        let first = String::from_utf8_lossy(first);
        return Err(Error::invalid(format!(
            "symbols[0] must be the empty string, got {:?}",
            quoted(&first)
        )));
    }
    let mut walk = Walk {
        out: Collector::new(limits, Version::V2, raw.len()),
        symbols,
        refs: Vec::new(),
        exemplar_refs: Vec::new(),
        exemplar_labels: Vec::new(),
        bad_exemplars: Vec::new(),
        families: HashSet::default(),
        last_family: None,
    };
    let mut fields = Fields::new(raw, "Request");
    while let Some(field) = fields.next()? {
        if field.number == 5 {
            walk.series(field.message("Timeseries", "TimeSeries")?)?;
        }
    }
    Ok(walk.out.into_write(raw.len()))
}

/// Metadata of a family as it comes with a series: family, type, help, unit.
type Family<'a> = (&'a [u8], u64, u32, u32);

struct Walk<'a, 'l> {
    out: Collector<'a, 'l>,
    symbols: Vec<&'a [u8]>,
    refs: Vec<u32>,
    exemplar_refs: Vec<u32>,
    exemplar_labels: Vec<(&'a [u8], &'a [u8])>,
    /// Why exemplars of the series at hand cannot be read; nearly always empty.
    bad_exemplars: Vec<String>,
    /// Families that are in the batch: every series of a family repeats its metadata.
    families: HashSet<Family<'a>, foldhash::fast::RandomState>,
    last_family: Option<Family<'a>>,
}

#[derive(Clone, Copy, Default)]
struct Metadata {
    kind: u64,
    help: u32,
    unit: u32,
}

impl<'a> Walk<'a, '_> {
    fn series(&mut self, mut fields: Fields<'a>) -> Result<()> {
        self.refs.clear();
        let mut metadata = Metadata::default();
        let (mut floats, mut histograms) = (false, false);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => field.each_varint("LabelsRefs", |n| self.refs.push(n as u32))?,
                2 => {
                    let (sample, start_ms) = sample(field.bytes("Samples")?)?;
                    self.out.batch.push_started(sample, start_ms);
                    floats = true;
                }
                3 => {
                    self.out.histogram(field.message("Histograms", "Histogram")?)?;
                    histograms = true;
                }
                4 => self.exemplar(field.message("Exemplars", "Exemplar")?)?,
                5 => metadata = read_metadata(field.message("Metadata", "Metadata")?)?,
                _ => {}
            }
        }
        if let Some(bad) = self.bad_series(metadata, floats && histograms) {
            self.bad_exemplars.clear();
            self.out.refuse(bad);
            return Ok(());
        }
        if self.out.finish() {
            self.remember(metadata)?;
            if !self.bad_exemplars.is_empty() {
                self.refuse_exemplars();
            }
        }
        self.bad_exemplars.clear();
        Ok(())
    }

    /// Looks the labels up; says what keeps the series from being stored as far as its labels themselves do not.
    #[inline]
    fn bad_series(&mut self, metadata: Metadata, mixed: bool) -> Option<BadLabels> {
        if !resolve(&self.symbols, &self.refs, &mut self.out.labels) {
            let fault = fault_of(&self.symbols, &self.refs);
            return Some(BadLabels {
                reason: "label_refs_invalid",
                message: format!("parsing labels for series {}: {fault}", shown(&self.refs)),
            });
        }
        let size = self.symbols.len();
        for (what, r) in [("unit_ref", metadata.unit), ("help_ref", metadata.help)] {
            if r as usize >= size {
                let series = shown(&self.refs);
                return Some(BadLabels {
                    reason: "metadata_refs_invalid",
                    message: format!(
                        "parsing metadata for series {series}: metadata {what} {r} outside of symbols table (size {size})"
                    ),
                });
            }
        }
        if mixed || !self.out.has_samples() {
            return Some(self.wrong_kinds(mixed));
        }
        None
    }

    /// Labels that are wrong themselves go before what the series holds.
    #[cold]
    fn wrong_kinds(&mut self, mixed: bool) -> BadLabels {
        if let Err(bad) = self.out.packer.pack(&self.out.labels) {
            return bad;
        }
        let series = text(&self.out.labels);
        BadLabels {
            reason: "series_kinds_invalid",
            message: if mixed {
                format!("TimeSeries must contain either samples or histograms, but not both, for series {series}")
            } else {
                format!("TimeSeries must contain at least one sample or histogram for series {series}")
            },
        }
    }

    fn exemplar(&mut self, mut fields: Fields<'a>) -> Result<()> {
        self.exemplar_refs.clear();
        let (mut value, mut ts_ms) = (0.0, 0);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => field.each_varint("LabelsRefs", |n| self.exemplar_refs.push(n as u32))?,
                2 => value = f64::from_bits(field.fixed64("Value")?),
                3 => ts_ms = field.varint("Timestamp")? as i64,
                _ => {}
            }
        }
        if !resolve(&self.symbols, &self.exemplar_refs, &mut self.exemplar_labels) {
            let fault = fault_of(&self.symbols, &self.exemplar_refs);
            self.out.exemplars_dropped += 1;
            self.out.budget.charge_bytes(size_of::<String>() + fault.len())?;
            self.bad_exemplars.push(fault);
            return Ok(());
        }
        match self.out.packer.exemplar(&self.exemplar_labels) {
            Some(labels) => {
                self.out.budget.charge::<Exemplar>()?;
                self.out.batch.exemplars.push(Exemplar { labels, value, ts_ms });
            }
            None => self.out.exemplars_dropped += 1,
        }
        Ok(())
    }

    /// An exemplar that cannot even be read is a fault of the request, unlike one that cannot be stored.
    #[cold]
    fn refuse_exemplars(&mut self) {
        for fault in self.bad_exemplars.drain(..) {
            let labels = &self.out.labels;
            self.out
                .rejections
                .add(trilith_model::ErrorKind::Invalid, "exemplar_refs_invalid", 1, || {
                    format!("parsing exemplar for series {}: {fault}", text(labels))
                });
        }
    }

    /// Takes the metadata over, once per family.
    #[inline]
    fn remember(&mut self, m: Metadata) -> Result<()> {
        if (m.kind, m.help, m.unit) == (0, 0, 0) {
            return Ok(());
        }
        let name = self.out.labels.iter().find(|(name, _)| *name == b"__name__");
        let Some(&(_, name)) = name else { return Ok(()) };
        let family = (family_of(name, m.kind), m.kind, m.help, m.unit);
        if self.last_family == Some(family) {
            return Ok(());
        }
        self.last_family = Some(family);
        if self.families.contains(&family) {
            return Ok(());
        }
        self.out.budget.charge::<Family<'_>>()?;
        self.families.insert(family);
        let (help, unit) = (self.symbols[m.help as usize], self.symbols[m.unit as usize]);
        self.out.metadata(m.kind, family.0, help, unit)
    }
}

/// The series of classic histograms and summaries have suffixes that their family's name has not.
fn family_of(name: &[u8], kind: u64) -> &[u8] {
    let suffixes: &[&[u8]] = match kind {
        3 => &[b"_bucket", b"_count", b"_sum"],
        4 => &[b"_bucket", b"_gcount", b"_gsum", b"_count", b"_sum"],
        5 => &[b"_count", b"_sum"],
        _ => &[],
    };
    let stripped = suffixes.iter().find_map(|s| name.strip_suffix(*s));
    stripped.filter(|n| !n.is_empty()).unwrap_or(name)
}

/// Fills `labels` with what pairs of `refs` name. False when they are no pairs or name what is not there.
#[inline]
fn resolve<'a>(symbols: &[&'a [u8]], refs: &[u32], labels: &mut Vec<(&'a [u8], &'a [u8])>) -> bool {
    labels.clear();
    let (pairs, rest) = refs.as_chunks::<2>();
    for [name, value] in pairs {
        let (Some(&name), Some(&value)) = (symbols.get(*name as usize), symbols.get(*value as usize)) else {
            return false;
        };
        labels.push((name, value));
    }
    rest.is_empty()
}

#[cold]
fn fault_of(symbols: &[&[u8]], refs: &[u32]) -> String {
    let size = symbols.len();
    let (pairs, rest) = refs.as_chunks::<2>();
    let bad = pairs.iter().flatten().any(|r| *r as usize >= size);
    match pairs.iter().find(|p| p.iter().any(|r| *r as usize >= size)) {
        // Prometheus looks at the length first.
        Some([name, value]) if bad && rest.is_empty() => {
            format!("labelRefs {name} (name) = {value} (value) outside of symbols table (size {size})")
        }
        _ => format!("invalid labelRefs length {}", refs.len()),
    }
}

/// Refs as Go prints a slice, the first of very many.
#[cold]
fn shown(refs: &[u32]) -> String {
    const SHOWN_MAX: usize = 64;
    let mut out = String::from("[");
    for (i, r) in refs.iter().take(SHOWN_MAX).enumerate() {
        let space = if i > 0 { " " } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{space}{r}");
    }
    out.push_str(if refs.len() > SHOWN_MAX { " …]" } else { "]" });
    out
}

fn read_metadata(mut fields: Fields<'_>) -> Result<Metadata> {
    let mut out = Metadata::default();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => out.kind = field.varint("Type")?,
            3 => out.help = field.u32("HelpRef")?,
            4 => out.unit = field.u32("UnitRef")?,
            _ => {}
        }
    }
    Ok(out)
}

/// A sample and its start timestamp, 0 when unknown.
#[inline]
fn sample(bytes: &[u8]) -> Result<(Sample, i64)> {
    let (mut out, mut start_ms) = (Sample { ts_ms: 0, value: 0.0 }, 0);
    let mut fields = Fields::new(bytes, "Sample");
    while let Some(field) = fields.next()? {
        match field.number {
            // By bits: the payload of a NaN is the staleness marker.
            1 => out.value = f64::from_bits(field.fixed64("Value")?),
            2 => out.ts_ms = field.varint("Timestamp")? as i64,
            3 => start_ms = field.varint("StartTimestamp")? as i64,
            _ => {}
        }
    }
    Ok((out, start_ms))
}
