//! Refusals of single items, folded so that a million bad lines make a short answer.

use trilith_model::{ErrorKind, Rejection};

/// Distinct messages kept per reason; upstream lists ten entries in its longest answers.
const MESSAGES_PER_REASON_MAX: usize = 10;
/// Texts longer than this are cut in messages: a label value may be as large as a request.
const QUOTED_BYTES_MAX: usize = 1024;

/// Collects rejections: equal messages are one with a count, and beyond the cap the last message of a reason
/// stands for the rest.
#[derive(Debug, Default)]
pub(crate) struct Rejections(Vec<Rejection>);

impl Rejections {
    pub fn add(&mut self, kind: ErrorKind, reason: &'static str, count: u64, message: impl FnOnce() -> String) {
        let same = self.0.iter().filter(|r| r.reason == reason);
        let (distinct, seen) = same.fold((0, 0), |(d, n), r| (d + 1, n + r.count));
        // Past the cap no message is built: formatting would otherwise cost more than decoding.
        if distinct >= MESSAGES_PER_REASON_MAX || seen > 1000 {
            let last = self.0.iter_mut().rev().find(|r| r.reason == reason);
            last.expect("at least one of this reason was counted").count += count;
            return;
        }
        let message = message();
        if let Some(r) = self.0.iter_mut().find(|r| r.reason == reason && r.message == message) {
            r.count += count;
        } else {
            self.0.push(Rejection {
                kind,
                reason,
                message,
                count,
            });
        }
    }

    pub fn into_vec(self) -> Vec<Rejection> {
        self.0
    }
}

/// `text` for a message, cut at a character boundary when it is very long.
pub(crate) fn quoted(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= QUOTED_BYTES_MAX {
        return text.into();
    }
    let cut = text.floor_char_boundary(QUOTED_BYTES_MAX);
    format!("{}… ({} bytes)", &text[..cut], text.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_refusals_stay_small() {
        let mut r = Rejections::default();
        for i in 0..1_000_000 {
            r.add(ErrorKind::Invalid, "a", 1, || format!("message {i}"));
        }
        r.add(ErrorKind::Invalid, "b", 3, || "other".into());
        let all = r.into_vec();
        assert_eq!(all.len(), 11);
        assert_eq!(all.iter().map(|r| r.count).sum::<u64>(), 1_000_003);
        assert_eq!(all[0].message, "message 0");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(quoted("short"), "short");
        let long = quoted(&"é".repeat(2000)).into_owned();
        assert!(long.len() < 1100 && long.ends_with("(4000 bytes)"));
    }
}
