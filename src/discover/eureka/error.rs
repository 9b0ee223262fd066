use std::fmt;

use crate::PolicyError;

/// What is wrong with the settings of a client. Names the field; never repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEureka {
    field: &'static str,
    reason: String,
}

impl InvalidEureka {
    pub(super) fn new(field: &'static str, reason: impl fmt::Display) -> Self {
        Self { field, reason: reason.to_string() }
    }

    /// The field's name.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl From<PolicyError> for InvalidEureka {
    fn from(error: PolicyError) -> Self {
        Self::new(error.field(), error)
    }
}

impl fmt::Display for InvalidEureka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.starts_with(self.field) {
            return f.write_str(&self.reason);
        }
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for InvalidEureka {}
