//! The YAML file: nested mappings become dotted keys; every scalar keeps its line for error messages.
//!
//! Values are taken as written (`off` is the text `off`, not a boolean), because the settings table decides
//! what a value means. Anchors and aliases are refused: a settings file of this size does not need them.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser};

use super::settings::{self, SETTINGS};

/// A value and the line it stands on, 1-based.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    pub value: String,
    pub line: usize,
}

/// A parsed file: `settings` by key, `overrides` by tenant and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSettings {
    pub settings: BTreeMap<&'static str, Located>,
    pub overrides: BTreeMap<String, BTreeMap<&'static str, Located>>,
}

/// # Errors
/// One line per mistake, each with its line number in the file.
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<FileSettings, Vec<String>> {
    let flat = flatten(text).map_err(|e| vec![e])?;
    let mut out = FileSettings::default();
    let mut errors = Vec::new();
    for (path, located) in flat {
        let value = match expand(&located.value, env) {
            Ok(v) => v,
            Err(e) => {
                errors.push(format!("line {}: {e}", located.line));
                continue;
            }
        };
        let located = Located {
            value,
            line: located.line,
        };
        if path.first().is_some_and(|p| p == "overrides") {
            if path.len() < 3 {
                errors.push(format!("line {}: overrides wants tenant: {{key: value}}", located.line));
                continue;
            }
            let key = path[2..].join(".");
            let full = if key.starts_with("limits.") || key.starts_with("otlp.") {
                key.clone()
            } else {
                format!("limits.{key}")
            };
            match settings::find(&full).filter(|s| s.per_tenant) {
                Some(s) => {
                    out.overrides.entry(path[1].clone()).or_default().insert(s.key, located);
                }
                None => errors.push(unknown(
                    &key,
                    located.line,
                    &mut SETTINGS
                        .iter()
                        .filter(|s| s.per_tenant)
                        .map(|s| match key.starts_with("limits.") {
                            true => s.key,
                            false => s.key.trim_start_matches("limits."),
                        }),
                )),
            }
            continue;
        }
        let key = path.join(".");
        match settings::find(&key) {
            // The dotted and the nested form of one key may stand side by side.
            Some(s) => match out.settings.get(s.key) {
                Some(first) => errors.push(format!(
                    "line {}: key {key:?} is set on line {} already",
                    located.line, first.line
                )),
                None => {
                    out.settings.insert(s.key, located);
                }
            },
            None => errors.push(unknown(&key, located.line, &mut SETTINGS.iter().map(|s| s.key))),
        }
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

fn unknown(key: &str, line: usize, known: &mut dyn Iterator<Item = &'static str>) -> String {
    match settings::nearest(key, known) {
        Some(near) => format!("line {line}: unknown key {key:?}, did you mean {near:?}?"),
        None => format!("line {line}: unknown key {key:?}"),
    }
}

/// Replaces `${NAME}` and `${NAME:-default}`; `$$` is a dollar sign.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(r) = rest.strip_prefix('$') {
            out.push('$');
            rest = r;
        } else if let Some(r) = rest.strip_prefix('{') {
            let end = r.find('}').ok_or("${ without }")?;
            let (name, default) = match r[..end].split_once(":-") {
                Some((n, d)) => (n, Some(d)),
                None => (&r[..end], None),
            };
            match (env(name), default) {
                (Some(v), _) => out.push_str(&v),
                (None, Some(d)) => out.push_str(d),
                (None, None) => return Err(format!("environment variable {name} is not set")),
            }
            rest = &r[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

enum Level {
    /// A mapping; `Some` between a key and its value.
    Map(Option<String>),
}

/// Scalars by path, in file order.
fn flatten(text: &str) -> Result<Vec<(Vec<String>, Located)>, String> {
    let mut out: Vec<(Vec<String>, Located)> = Vec::new();
    let mut stack: Vec<Level> = Vec::new();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|e| format!("not valid YAML: {e}"))?;
        let line = span.start.line();
        match event {
            Event::MappingStart(..) => {
                if matches!(stack.last(), Some(Level::Map(None))) {
                    return Err(format!("line {line}: a key must be plain text"));
                }
                stack.push(Level::Map(None));
            }
            Event::MappingEnd => {
                stack.pop();
                if let Some(Level::Map(key)) = stack.last_mut() {
                    *key = None;
                }
            }
            Event::Scalar(value, ..) => match stack.last_mut() {
                Some(Level::Map(key @ None)) => *key = Some(value.into_owned()),
                Some(Level::Map(Some(_))) => {
                    let path: Vec<String> = stack.iter().filter_map(|Level::Map(k)| k.clone()).collect();
                    if out.iter().any(|(p, _)| *p == path) {
                        return Err(format!("line {line}: key {:?} appears twice", path.join(".")));
                    }
                    let empty = value.is_empty();
                    // `key:` with nothing behind it says nothing; the default stays.
                    if !empty && &*value != "~" && &*value != "null" {
                        out.push((
                            path,
                            Located {
                                value: value.into_owned(),
                                line,
                            },
                        ));
                    }
                    if let Some(Level::Map(key)) = stack.last_mut() {
                        *key = None;
                    }
                }
                None if value.is_empty() || &*value == "~" => {}
                None => return Err(format!("line {line}: expected `key: value`")),
            },
            Event::SequenceStart(..) => {
                return Err(format!("line {line}: no setting takes a list"));
            }
            Event::Alias(..) => return Err(format!("line {line}: aliases are not supported")),
            _ => {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_with_home(text: &str) -> Result<FileSettings, Vec<String>> {
        parse(text, &|name| (name == "HOME_DIR").then(|| "/srv".to_owned()))
    }

    #[test]
    fn nested_and_dotted_keys_are_the_same() {
        let nested = parse_with_home("listen:\n  metrics: 1\nlimits:\n  max-sample-age: 0\n").expect("valid");
        let dotted = parse_with_home("listen.metrics: 1\n\nlimits.max-sample-age: 0\n").expect("valid");
        assert_eq!(
            nested.settings["listen.metrics"].value,
            dotted.settings["listen.metrics"].value
        );
        assert_eq!(nested.settings["listen.metrics"].line, 2);
        assert_eq!(nested.settings["limits.max-sample-age"].line, 4);
    }

    #[test]
    fn unknown_keys_name_line_and_neighbour() {
        let e = parse_with_home("listen:\n  metrics: 1\n  otlp-htp: 2\n").unwrap_err();
        assert_eq!(
            e,
            [r#"line 3: unknown key "listen.otlp-htp", did you mean "listen.otlp-http"?"#]
        );
        let e = parse_with_home("zebra: 1").unwrap_err();
        assert_eq!(e, [r#"line 1: unknown key "zebra""#]);
    }

    #[test]
    fn environment() {
        let f = parse_with_home("data-dir: ${HOME_DIR}/x$$\nlog.level: ${NOPE:-debug}").expect("valid");
        assert_eq!(f.settings["data-dir"].value, "/srv/x$");
        assert_eq!(f.settings["log.level"].value, "debug");
        assert_eq!(
            parse_with_home("data-dir: ${NOPE}").unwrap_err(),
            ["line 1: environment variable NOPE is not set"]
        );
    }

    #[test]
    fn overrides_per_tenant() {
        let f = parse_with_home("overrides:\n  team-a:\n    active-series: 10\n    limits.line-size: 1KiB\n")
            .expect("valid");
        assert_eq!(f.overrides["team-a"]["limits.active-series"].value, "10");
        assert_eq!(f.overrides["team-a"]["limits.line-size"].value, "1KiB");
        assert!(parse_with_home("overrides:\n  t:\n    data-dir: x\n").is_err());
        let e = parse_with_home("overrides:\n  t:\n    query-seriez: 1\n").unwrap_err();
        assert_eq!(
            e,
            [r#"line 3: unknown key "query-seriez", did you mean "query-series"?"#]
        );
        let e = parse_with_home("listen.metrics: 1\nlisten:\n  metrics: 2\n").unwrap_err();
        assert_eq!(e, [r#"line 3: key "listen.metrics" is set on line 1 already"#]);
    }

    #[test]
    fn mistakes_are_refused() {
        for bad in [
            "- a\n",
            "listen: [1]\n",
            "a: &x 1\nb: *x\n",
            "data-dir: a\ndata-dir: b\n",
            "text",
            "{: :",
            "listen:\n  metrics: 1\n metrics: 2\n",
        ] {
            assert!(parse_with_home(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_with_home("").expect("empty is fine"), FileSettings::default());
    }
}
