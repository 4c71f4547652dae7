//! The isolation unit. It is the first part of every durable key, so only ids that are safe as one path
//! component of every backend are tenants.

use std::sync::Arc;

use crate::error::Error;

/// A validated tenant id: 1 to 150 of ASCII letters, digits and `!-_.*'()`, neither `.` nor `..`.
/// The rule is the one of Mimir and Loki, so ids carry over unchanged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// The tenant of everything when multi-tenancy is off.
pub const ANONYMOUS: &str = "anonymous";

const TENANT_ID_BYTES_MAX: usize = 150;

impl TenantId {
    pub fn new(id: &str) -> Result<Self, Error> {
        if id.is_empty() {
            return Err(Error::invalid("tenant ID is empty"));
        }
        if id.len() > TENANT_ID_BYTES_MAX {
            return Err(Error::invalid(format!(
                "tenant ID is too long: max {TENANT_ID_BYTES_MAX} characters"
            )));
        }
        if id == "." || id == ".." {
            return Err(Error::invalid("tenant ID is '.' or '..'"));
        }
        if let Some(c) = id
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || "!-_.*'()".contains(*c)))
        {
            return Err(Error::invalid(format!(
                "tenant ID '{id}' contains unsupported character '{c}'"
            )));
        }
        Ok(TenantId(id.into()))
    }

    pub fn anonymous() -> Self {
        TenantId(ANONYMOUS.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TenantId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for TenantId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TenantId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_mimir_accepts() {
        for id in ["a", "team-a_1", "(x)!*'.y", &"x".repeat(150)] {
            assert_eq!(
                TenantId::new(id).map(|t| t.as_str().to_owned()).ok().as_deref(),
                Some(id)
            );
        }
    }

    #[test]
    fn refuses_what_could_leave_its_folder() {
        for id in ["", ".", "..", "a/b", "a\\b", "a b", "ä", "a|b", &"x".repeat(151)] {
            assert!(TenantId::new(id).is_err(), "{id:?} must be refused");
        }
    }
}
