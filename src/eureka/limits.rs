use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a document from outside may hold.
///
/// | field | default | |
/// |---|---|---|
/// | `text_bytes` | 8 KiB | bytes of one text: a name, an address, a text of the metadata |
/// | `metadata_bytes` | 64 KiB | bytes of all names and texts of one instance's metadata |
/// | `metadata_entries` | 256 | texts in one instance's metadata |
/// | `instances` | 100 000 | instances or replicated actions in one document; and as many applications |
/// | `nesting` | 32 | objects, arrays and elements within each other, those that are skipped included; above 100 changes nothing |
///
/// Bytes of the whole document are the caller's to bound.
///
/// # Lists
///
/// What one registers must not cost the others. A document that is too deep or has too many instances is refused; but an instance in a list whose texts or metadata are
/// beyond the limits is taken for no more than a name: its id, application, status and action. So it counts in the [hash](super::StatusCounts), and a delta tells when it
/// leaves, while nobody can call it: it has no host. A text of these that is too long itself is a shorter one, of its beginning and a checksum. In a batch between
/// servers, such an item is an error in its place. A registration is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one text.
    pub text_bytes: usize,
    /// Bytes of one instance's metadata.
    pub metadata_bytes: usize,
    /// Texts in one instance's metadata.
    pub metadata_entries: usize,
    /// Instances in one document, and applications.
    pub instances: usize,
    /// Objects within objects.
    pub nesting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { text_bytes: 8 * 1024, metadata_bytes: 64 * 1024, metadata_entries: 256, instances: 100_000, nesting: 32 }
    }
}

/// Why a document was not taken: the path to the field, and what is wrong with it.
///
/// ```
/// use hopvine::eureka::{Limits, json};
/// let error = json::read_instance(br#"{"instance": {"port": {"$": "http"}}}"#, &Limits::default()).unwrap_err();
/// assert_eq!(error.field(), "instance.port.$");
/// assert!(error.to_string().starts_with(r#"instance.port.$: "http" is not a whole number"#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    field: String,
    reason: String,
}

impl ReadError {
    pub(super) fn new(field: String, reason: impl fmt::Display) -> Self {
        Self { field: shortened(field), reason: shortened(reason.to_string()) }
    }

    /// The path to the field, as `applications.application[2].instance[0].port`; empty if the document is none at all.
    pub fn field(&self) -> &str {
        &self.field
    }
}

/// What is shown of a text from outside: an error must not be as long as a document.
fn shortened(mut text: String) -> String {
    const MOST: usize = 512;
    if text.len() > MOST {
        let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("...");
    }
    text
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ReadError {}
