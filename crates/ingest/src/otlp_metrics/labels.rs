//! The labels of a point: its attributes, what its resource and scope add, and the order in which they win.
//!
//! Attributes are renamed and joined with `;` where names meet. Then, weakest first: promoted resource attributes (only
//! where there is no such label), `job` and `instance`, promoted scope metadata, `__type__` and `__unit__`, and at last
//! the name, `le` and `quantile`.
//!
//! Source: Prometheus `storage/remote/otlptranslator/prometheusremotewrite/helper.go`.

use std::borrow::Cow;
use std::ops::Deref;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use trilith_codec::put_str;
use trilith_model::{Limits, MetricType, OtlpMetrics, Result};

use super::names::{is_plain_label, label_name, unit_name};
use super::{Failed, Refused, values};
use crate::rejections::quoted;
use crate::wire::Fields;

/// An attribute as it stands in the message.
pub type Attribute<'a> = (&'a str, Option<Fields<'a>>);

const NAME: &str = "__name__";
const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE: &str = "service.instance.id";
/// What `job` and `instance` are made of.
pub const IDENTIFYING: [&str; 3] = [SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE];

/// A piece of the message, or something made of it that several points share.
#[derive(Clone, Debug)]
enum Text<'a> {
    AsSent(&'a str),
    Made(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::AsSent(n) => n,
            Text::Made(n) => n,
        }
    }
}

impl<'a> From<Cow<'a, str>> for Text<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(t) => Text::AsSent(t),
            Cow::Owned(t) => Text::Made(t.into()),
        }
    }
}

/// What a resource or scope adds to each of its points; an empty value takes a label away.
#[derive(Clone, Debug, Default)]
pub struct Added<'a> {
    promoted: Vec<(Text<'a>, Text<'a>)>,
    /// `job`, `instance`: set unless empty.
    job: Option<Text<'a>>,
    instance: Option<Text<'a>>,
    scope: Vec<(Text<'a>, Text<'a>)>,
}

/// The labels of a point without its name and the one that tells buckets and quantiles apart.
pub struct Base {
    /// Packed, ascending.
    packed: Vec<u8>,
    /// Where `__name__` belongs, and where the extra label does.
    name_at: usize,
    extra_at: usize,
    /// The point's own label of the extra's name; for series without that extra.
    own_extra: String,
}

/// Makes label sets of one request; keeps translated names and buffers.
pub struct LabelMaker<'a> {
    settings: &'a OtlpMetrics,
    limits: &'a Limits,
    names: HashMap<&'a str, Rc<str>, RandomState>,
    parts: Vec<(Text<'a>, Layer, Text<'a>)>,
    base: Base,
    packed: Vec<u8>,
}

/// Where a label comes from, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Attribute,
    /// Takes effect where nothing is.
    Promoted,
    /// Wins, an empty value included.
    Set,
}

impl<'a> LabelMaker<'a> {
    pub fn new(settings: &'a OtlpMetrics, limits: &'a Limits) -> Self {
        LabelMaker {
            settings,
            limits,
            names: HashMap::default(),
            parts: Vec::new(),
            base: Base {
                packed: Vec::new(),
                name_at: 0,
                extra_at: 0,
                own_extra: String::new(),
            },
            packed: Vec::new(),
        }
    }

    fn name(&mut self, name: &'a str) -> std::result::Result<Text<'a>, Refused> {
        if is_plain_label(name) {
            return Ok(Text::AsSent(name));
        }
        if let Some(made) = self.names.get(name) {
            return Ok(Text::Made(made.clone()));
        }
        match label_name(self.settings, name).map_err(|e| Refused::new("label_invalid", e))? {
            Cow::Borrowed(n) => Ok(Text::AsSent(n)),
            Cow::Owned(n) => {
                let made: Rc<str> = n.into();
                self.names.insert(name, made.clone());
                Ok(Text::Made(made))
            }
        }
    }

    /// What a resource adds.
    ///
    /// # Errors
    /// `Refused` for a promoted attribute whose name has no translation: then no point of the resource can be stored.
    pub fn resource(&mut self, attributes: &[Attribute<'a>]) -> std::result::Result<Added<'a>, Failed> {
        let mut added = Added::default();
        let (mut service, mut namespace) = (None, None);
        for &(key, value) in attributes {
            let slot = match key {
                SERVICE_NAME => &mut service,
                SERVICE_NAMESPACE => &mut namespace,
                SERVICE_INSTANCE => {
                    added.instance = Some(text(value)?.into()).filter(|t: &Text<'_>| !t.is_empty());
                    continue;
                }
                _ => continue,
            };
            *slot = Some(text(value)?);
        }
        if let Some(service) = service {
            let job: Text<'a> = match namespace {
                Some(n) => Cow::<str>::Owned(format!("{n}/{service}")).into(),
                None => service.into(),
            };
            added.job = Some(job).filter(|t| !t.is_empty());
        }
        for &(key, value) in attributes {
            if self.settings.promotion.includes(key) {
                added.promoted.push((self.name(key)?, text(value)?.into()));
            }
        }
        keep_last(&mut added.promoted);
        Ok(added)
    }

    /// Adds what a scope adds to what its resource does.
    ///
    /// # Errors
    /// `Refused` for an attribute whose name has no translation: then no point of the scope can be stored.
    pub fn scope(
        &mut self,
        added: &mut Added<'a>,
        name: &'a str,
        version: &'a str,
        schema_url: &'a str,
        attributes: &[Attribute<'a>],
    ) -> std::result::Result<(), Failed> {
        added.scope.clear();
        if !self.settings.promote_scope_metadata || name.is_empty() {
            return Ok(());
        }
        for &(key, value) in attributes {
            let key = format!("otel_scope_{key}");
            let label = label_name(self.settings, &key).map_err(|e| Refused::new("label_invalid", e))?;
            let label = Text::Made(label.into());
            added.scope.push((label, text(value)?.into()));
        }
        for (label, value) in [
            ("otel_scope_name", name),
            ("otel_scope_version", version),
            ("otel_scope_schema_url", schema_url),
        ] {
            added.scope.push((Text::AsSent(label), Text::AsSent(value)));
        }
        keep_last(&mut added.scope);
        Ok(())
    }

    /// The labels of one point. `extra` names the label that [`series`](Self::series) adds, if any; `kind` and `unit` are
    /// those of its metric.
    ///
    /// # Errors
    /// `Refused` for a label whose name has no translation and for more or longer labels than the tenant may have.
    pub fn point(
        &mut self,
        attributes: &[Attribute<'a>],
        added: &Added<'a>,
        extra: Option<&str>,
        kind: MetricType,
        unit: &str,
    ) -> std::result::Result<(), Failed> {
        self.parts.clear();
        self.attributes(attributes, &[NAME])?;
        self.added(added);
        if self.settings.type_and_unit_labels {
            let set = |label, value| (Text::AsSent(label), Layer::Set, value);
            if kind != MetricType::Unknown {
                self.parts.push(set("__type__", Text::AsSent(kind.as_str())));
            }
            // Upstream runs the unit through its translation twice: for the metadata, and that for the label.
            let unit = unit_name(&unit_name(unit, true), self.settings.strategy.escapes());
            if !unit.is_empty() {
                self.parts.push(set("__unit__", Text::Made(unit.into())));
            }
        }
        self.pack(extra)
    }

    /// The labels of `target_info`; false when nothing in them identifies the target, and there is to be no such series.
    ///
    /// # Errors
    /// As [`point`](Self::point).
    pub fn target_info(
        &mut self,
        attributes: &[Attribute<'a>],
        added: &Added<'a>,
    ) -> std::result::Result<bool, Failed> {
        let ignored: &[&str] = if self.settings.keep_identifying_attributes {
            &[]
        } else {
            &IDENTIFYING
        };
        self.parts.clear();
        self.attributes(attributes, ignored)?;
        let identity = Added {
            job: added.job.clone(),
            instance: added.instance.clone(),
            ..Added::default()
        };
        self.added(&identity);
        let identified =
            |(name, _, value): &(Text<'_>, Layer, Text<'_>)| matches!(&**name, "job" | "instance") && !value.is_empty();
        if !self.parts.iter().any(identified) {
            return Ok(false);
        }
        self.pack(None)?;
        Ok(true)
    }

    fn attributes(&mut self, attributes: &[Attribute<'a>], ignored: &[&str]) -> std::result::Result<(), Failed> {
        let escapes = self.settings.strategy.escapes();
        let from = self.parts.len();
        for &(key, value) in attributes {
            if ignored.contains(&key) {
                continue;
            }
            self.parts
                .push((Text::AsSent(key), Layer::Attribute, text(value)?.into()));
        }
        let parts = &mut self.parts[from..];
        // In the order of the names as sent, so that joined values do not depend on the sender's order.
        if !parts.is_sorted_by(|a, b| *a.0 <= *b.0) {
            parts.sort_by(|a, b| a.0.cmp(&b.0));
        }
        for i in from..self.parts.len() {
            let Text::AsSent(key) = self.parts[i].0 else { continue };
            if escapes {
                self.parts[i].0 = self.name(key)?;
            } else if key.is_empty() {
                return Err(Refused::new("label_invalid", "label name is empty".into()).into());
            }
        }
        Ok(())
    }

    fn added(&mut self, added: &Added<'a>) {
        let mut push = |name: &Text<'a>, layer, value: &Text<'a>| {
            self.parts.push((name.clone(), layer, value.clone()));
        };
        for (name, value) in &added.promoted {
            push(name, Layer::Promoted, value);
        }
        for (name, value) in [("job", &added.job), ("instance", &added.instance)] {
            if let Some(value) = value {
                push(&Text::AsSent(name), Layer::Set, value);
            }
        }
        for (name, value) in &added.scope {
            push(name, Layer::Set, value);
        }
    }

    /// Settles names that stand several times, checks the tenant's limits and packs.
    fn pack(&mut self, extra: Option<&str>) -> std::result::Result<(), Failed> {
        let joins = self.settings.strategy.escapes();
        // Stable: within a layer the order stays.
        if !self.parts.is_sorted_by(|a, b| (&*a.0, a.1) < (&*b.0, b.1)) {
            self.parts.sort_by(|a, b| (&*a.0, a.1).cmp(&(&*b.0, b.1)));
        }
        let base = &mut self.base;
        base.packed.clear();
        base.own_extra.clear();
        (base.name_at, base.extra_at) = (usize::MAX, usize::MAX);
        // Name and, as a rule, the extra label.
        let mut count = 1 + usize::from(extra.is_some());
        let mut next = 0;
        while let Some((name, ..)) = self.parts.get(next) {
            let run = self.parts[next..].iter().take_while(|p| *p.0 == **name).count();
            let same = &self.parts[next..next + run];
            next += run;
            let joined;
            let (name, value): (&str, &str) = if run == 1 {
                (name, &same[0].2)
            } else {
                joined = settle(same, joins);
                (name, &joined)
            };
            if name == NAME || value.is_empty() {
                continue;
            }
            check_label(self.limits, name, value)?;
            count += 1;
            if base.name_at == usize::MAX && name > NAME {
                base.name_at = base.packed.len();
            }
            if let Some(extra) = extra {
                if base.extra_at == usize::MAX && name >= extra {
                    base.extra_at = base.packed.len();
                }
                if name == extra {
                    base.own_extra.push_str(value);
                    continue;
                }
            }
            put_str(&mut base.packed, name);
            put_str(&mut base.packed, value);
        }
        base.name_at = base.name_at.min(base.packed.len());
        base.extra_at = base.extra_at.min(base.packed.len());
        let max = self.limits.label_names_max as usize;
        if max > 0 && count > max {
            return Err(Refused::new(
                "max_label_names_per_series",
                format!(
                    "received a series whose number of labels exceeds the limit (actual: {count}, limit: {max}) \
                     (limits.label-names)"
                ),
            )
            .into());
        }
        Ok(())
    }

    /// The packed labels of a series of the last point: its name and, for buckets and quantiles, the label that
    /// [`point`](Self::point) was told of.
    pub fn series(&mut self, name: &str, extra: Option<(&str, &str)>) -> &[u8] {
        let base = &self.base;
        let out = &mut self.packed;
        out.clear();
        out.extend_from_slice(&base.packed[..base.name_at]);
        put_str(out, NAME);
        put_str(out, name);
        match extra {
            Some((extra, value)) => {
                out.extend_from_slice(&base.packed[base.name_at..base.extra_at]);
                put_str(out, extra);
                put_str(out, value);
                out.extend_from_slice(&base.packed[base.extra_at..]);
            }
            None => out.extend_from_slice(&base.packed[base.name_at..]),
        }
        out
    }

    /// As [`series`](Self::series) for one without the extra label: a label of that name which the point brings itself
    /// stays.
    pub fn series_without(&mut self, name: &str, extra: &str) -> &[u8] {
        if self.base.own_extra.is_empty() {
            return self.series(name, None);
        }
        let own = std::mem::take(&mut self.base.own_extra);
        self.series(name, Some((extra, &own)));
        self.base.own_extra = own;
        &self.packed
    }
}

/// The text of an attribute's value; empty without one.
pub fn text<'a>(value: Option<Fields<'a>>) -> Result<Cow<'a, str>> {
    value.map_or(Ok(Cow::Borrowed("")), values::text)
}

/// One entry per name, the last one.
fn keep_last(labels: &mut Vec<(Text<'_>, Text<'_>)>) {
    labels.reverse();
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    labels.dedup_by(|later, first| *later.0 == *first.0);
}

/// The value of a name that stands several times, weakest layer first.
fn settle(same: &[(Text<'_>, Layer, Text<'_>)], joins: bool) -> String {
    let mut out = String::new();
    for (_, layer, value) in same {
        match layer {
            Layer::Attribute if joins && !out.is_empty() => {
                out.push(';');
                out.push_str(value);
            }
            Layer::Promoted if !out.is_empty() => {}
            _ => {
                out.clear();
                out.push_str(value);
            }
        }
    }
    out
}

fn check_label(limits: &Limits, name: &str, value: &str) -> std::result::Result<(), Refused> {
    let over = |len: usize, max: u32| max > 0 && len > max as usize;
    if over(name.len(), limits.label_name_bytes_max) {
        return Err(Refused::new(
            "label_name_too_long",
            format!(
                "received a series whose label name length of {} exceeds the limit of {}, label: '{}' \
                 (limits.label-name-length)",
                name.len(),
                limits.label_name_bytes_max,
                quoted(name)
            ),
        ));
    }
    if over(value.len(), limits.label_value_bytes_max) {
        return Err(Refused::new(
            "label_value_too_long",
            format!(
                "received a series whose label value length of {} exceeds the limit of {}, label: '{}' \
                 (limits.label-value-length)",
                value.len(),
                limits.label_value_bytes_max,
                quoted(name)
            ),
        ));
    }
    Ok(())
}
