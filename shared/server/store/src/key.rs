//! Keys of the backend: a path of segments, so that a folder is never confused with a name that
//! merely begins alike (`/roles/a` is not in folder `/rol`).

use std::fmt;

/// The longest segment, in bytes.
const MAX_SEGMENT: usize = 512;
/// The longest key, in bytes.
const MAX_KEY: usize = 2048;

/// Why a segment cannot be part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A segment was empty.
    #[error("a key segment is empty")]
    Empty,
    /// A segment or the whole key was too long.
    #[error("a key segment has {bytes} bytes, more than {max}")]
    TooLong {
        /// How long it was.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// A segment held `/` or a control character.
    #[error("a key segment holds {0:?}")]
    Character(char),
}

/// The path of one item, or of a folder of items.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The folder of everything.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// A key from its segments.
    pub fn new<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        segments.into_iter().try_fold(Self::root(), |key, segment| key.child(segment.as_ref()))
    }

    /// The key one level below.
    pub fn child(&self, segment: &str) -> Result<Self, KeyError> {
        if segment.is_empty() {
            return Err(KeyError::Empty);
        }
        if segment.len() > MAX_SEGMENT {
            return Err(KeyError::TooLong { bytes: segment.len(), max: MAX_SEGMENT });
        }
        if let Some(bad) = segment.chars().find(|c| *c == '/' || c.is_control()) {
            return Err(KeyError::Character(bad));
        }
        let key = format!("{}/{segment}", self.0);
        if key.len() > MAX_KEY {
            return Err(KeyError::TooLong { bytes: key.len(), max: MAX_KEY });
        }
        Ok(Self(key))
    }

    /// The last segment; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The segments in order.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }

    /// The stored text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` lies below this folder, at any depth.
    pub fn contains(&self, key: &Key) -> bool {
        key.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Everything below this folder sorts from the first bound (inclusive) to the second
    /// (exclusive): `/` is followed by `0`.
    pub(crate) fn bounds(&self) -> (String, String) {
        (format!("{}/", self.0), format!("{}0", self.0))
    }

    /// A key as it was stored.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_only_what_is_below_it() {
        let folder = Key::new(["roles"]).unwrap();
        assert!(folder.contains(&Key::new(["roles", "access"]).unwrap()));
        assert!(!folder.contains(&Key::new(["roles2", "access"]).unwrap()));
        assert!(!folder.contains(&folder));
        assert!(Key::root().contains(&folder));
        let (low, high) = folder.bounds();
        assert!(low.as_str() <= "/roles/a" && "/roles/\u{10ffff}" < high.as_str());
        assert!("/roles2" > high.as_str() && "/roles-x/y" < low.as_str());
    }

    #[test]
    fn segments_that_would_lie_are_refused() {
        assert_eq!(Key::new([""]), Err(KeyError::Empty));
        assert_eq!(Key::new(["a/b"]), Err(KeyError::Character('/')));
        assert_eq!(Key::new(["a\nb"]), Err(KeyError::Character('\n')));
        assert!(matches!(Key::new(["x".repeat(513)]), Err(KeyError::TooLong { .. })));
        assert_eq!(Key::new(["a", "b"]).unwrap().segments().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(Key::new(["a", "b"]).unwrap().name(), "b");
    }
}
