//! How names outside the legacy charset are told to a reader, as the `escaping` of its `Accept` asks.

/// What becomes of a name's characters that are not letters, digits, underscores and, in metric names, colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escaping {
    /// They stay; in the text format such names are quoted.
    AllowUtf8,
    Underscores,
    /// `.` becomes `_dot_`, other characters and `_` itself become `__`.
    Dots,
    /// `U__` in front, `_` doubled, other characters as `_<hex>_`. Names that fit stay as they are.
    Values,
}

impl Escaping {
    /// The scheme of a media type's parameter; `None` when it is not known.
    pub fn of(text: &str) -> Option<Self> {
        [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values]
            .into_iter()
            .find(|e| e.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Escaping::AllowUtf8 => "allow-utf-8",
            Escaping::Underscores => "underscores",
            Escaping::Dots => "dots",
            Escaping::Values => "values",
        }
    }

    /// `name` as it is told; `colon`: it is the name of a metric.
    pub fn name(self, name: &str, colon: bool) -> String {
        let chars = name.chars().enumerate().map(|(i, c)| (c, fits(i, c, colon)));
        match self {
            Escaping::AllowUtf8 => name.to_owned(),
            Escaping::Underscores => chars.map(|(c, fits)| if fits { c } else { '_' }).collect(),
            Escaping::Dots => {
                let mut out = String::with_capacity(name.len() * 2);
                for (c, fits) in chars {
                    match c {
                        '_' => out.push_str("__"),
                        '.' => out.push_str("_dot_"),
                        c if fits => out.push(c),
                        _ => out.push_str("__"),
                    }
                }
                out
            }
            Escaping::Values if is_legacy(name, colon) => name.to_owned(),
            Escaping::Values => {
                let mut out = String::from("U__");
                for (c, fits) in chars {
                    match c {
                        '_' => out.push_str("__"),
                        c if fits => out.push(c),
                        c => out.push_str(&format!("_{:x}_", u32::from(c))),
                    }
                }
                out
            }
        }
    }
}

/// Whether a name has only characters of the legacy charset.
pub fn is_legacy(name: &str, colon: bool) -> bool {
    !name.is_empty() && name.chars().enumerate().all(|(i, c)| fits(i, c, colon))
}

fn fits(i: usize, c: char, colon: bool) -> bool {
    c.is_ascii_alphabetic() || c == '_' || (c == ':' && colon) || (c.is_ascii_digit() && i > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        for (name, underscores, dots, values) in [
            ("a_b:c1", "a_b:c1", "a__b:c1", "a_b:c1"),
            ("a.b_c", "a_b_c", "a_dot_b__c", "U__a_2e_b__c"),
            ("1é", "__", "____", "U___31__e9_"),
        ] {
            assert_eq!(Escaping::Underscores.name(name, true), underscores);
            assert_eq!(Escaping::Dots.name(name, true), dots);
            assert_eq!(Escaping::Values.name(name, true), values);
            assert_eq!(Escaping::AllowUtf8.name(name, true), name);
        }
        assert_eq!(Escaping::Underscores.name("a:b", false), "a_b");
        assert_eq!(Escaping::of("dots"), Some(Escaping::Dots));
        assert_eq!(Escaping::of("nonsense"), None);
    }
}
