//! Faults and the requests they strike.

use std::time::Duration;

use http::Method;

/// What goes wrong over real HTTP. Every fault strikes `times` matching requests and is used up then;
/// [`ALWAYS`] never is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503 `SlowDown`; the request is not applied.
    Error503 { times: u32 },
    /// The answer waits; the request is applied at once.
    Delay { delay: Duration, times: u32 },
    /// The request is applied, then the connection is closed without a byte of an answer.
    DropReplyAfterApply { times: u32 },
    /// The answer announces its full length and ends half way.
    TruncateBody { times: u32 },
    /// 409 `ConditionalRequestConflict`, which S3 answers while a rival create is under way; not applied.
    Conflict409 { times: u32 },
    /// 403 `AccessDenied`; not applied.
    AccessDenied { times: u32 },
    /// A conditional create overwrites, as on servers that do not know `If-None-Match`.
    IgnoreConditions { times: u32 },
}

/// For `times`: until the faults are cleared.
pub const ALWAYS: u32 = u32::MAX;

/// Which requests a fault strikes; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub method: Option<Method>,
    /// Part of `/bucket/key?query`, percent-encoded as sent.
    pub path_contains: Option<String>,
}

impl Filter {
    pub fn method(method: Method) -> Self {
        Filter {
            method: Some(method),
            path_contains: None,
        }
    }

    pub fn path(part: impl Into<String>) -> Self {
        Filter {
            method: None,
            path_contains: Some(part.into()),
        }
    }

    #[must_use]
    pub fn and_path(mut self, part: impl Into<String>) -> Self {
        self.path_contains = Some(part.into());
        self
    }

    pub(crate) fn matches(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|m| m == method)
            && self.path_contains.as_ref().is_none_or(|p| path.contains(p.as_str()))
    }
}

impl Fault {
    fn times(&mut self) -> &mut u32 {
        match self {
            Fault::Error503 { times }
            | Fault::Delay { times, .. }
            | Fault::DropReplyAfterApply { times }
            | Fault::TruncateBody { times }
            | Fault::Conflict409 { times }
            | Fault::AccessDenied { times }
            | Fault::IgnoreConditions { times } => times,
        }
    }
}

/// The faults that wait for requests, oldest first; a request takes the first that matches.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<(Fault, Filter)>);

impl Faults {
    pub fn add(&mut self, fault: Fault, filter: Filter) {
        self.0.push((fault, filter));
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn take(&mut self, method: &Method, path: &str) -> Option<Fault> {
        let at = self
            .0
            .iter_mut()
            .position(|(fault, filter)| *fault.times() > 0 && filter.matches(method, path))?;
        let fault = self.0[at].0.clone();
        let times = self.0[at].0.times();
        if *times != ALWAYS {
            *times -= 1;
            if *times == 0 {
                self.0.remove(at);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_as_often_as_it_says_and_where_it_says() {
        let mut faults = Faults::default();
        faults.add(
            Fault::Error503 { times: 2 },
            Filter::method(Method::PUT).and_path("wal/"),
        );
        assert_eq!(faults.take(&Method::GET, "/b/wal/1"), None);
        assert_eq!(faults.take(&Method::PUT, "/b/meta/1"), None);
        assert!(faults.take(&Method::PUT, "/b/wal/1").is_some());
        assert!(faults.take(&Method::PUT, "/b/wal/1").is_some());
        assert_eq!(faults.take(&Method::PUT, "/b/wal/1"), None);
        faults.add(Fault::Error503 { times: ALWAYS }, Filter::default());
        for _ in 0..10 {
            assert!(faults.take(&Method::PUT, "/b/wal/1").is_some());
        }
        faults.clear();
        assert_eq!(faults.take(&Method::PUT, "/b/wal/1"), None);
    }
}
