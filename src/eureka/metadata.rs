use std::fmt;

use super::Text;

/// The class Java names where the metadata is empty.
pub(super) const EMPTY_MAP: &str = "java.util.Collections$EmptyMap";

/// What an instance says of itself beyond the fields: texts by name, few of them, in the order in which they came.
///
/// Two are equal that say the same in any order: a Java server's is that of a hash map.
#[derive(Clone, Default)]
pub struct Metadata(Box<[(Text, Text)]>);

impl Metadata {
    /// What stands under this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Names and texts, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (&**name, &**text))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and texts.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(name, text)| name.len() + text.len()).sum()
    }

    /// Of entries whose names differ.
    pub(super) fn of(entries: Vec<(Text, Text)>) -> Self {
        Self(entries.into())
    }

    /// With these set beside the others, over those of the same names.
    #[must_use]
    pub fn with<K, V>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<Text>,
        V: Into<Text>,
    {
        let mut all = self.0.to_vec();
        for (name, text) in entries {
            put(&mut all, name.into(), text.into());
        }
        Self::of(all)
    }
}

/// Sets a text, in the place of the one that has its name already.
pub(super) fn put(entries: &mut Vec<(Text, Text)>, name: Text, text: Text) {
    match entries.iter_mut().find(|(key, _)| *key == name) {
        Some(entry) => entry.1 = text,
        None => entries.push((name, text)),
    }
}

impl<K: Into<Text>, V: Into<Text>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self::default().with(entries)
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        // Names are unique, so that one direction is enough.
        self.len() == other.len() && self.iter().all(|(name, text)| other.get(name) == Some(text))
    }
}

impl Eq for Metadata {}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
