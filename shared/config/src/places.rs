//! Where in a YAML text a key stands, and which key stands at a place.
//!
//! Only faults ask, so the text is simply read a second time, into a tree of places.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// Line and column, from 1.
pub(crate) type Place = (u64, u64);

/// Places of keys and values by dotted path: `auth_service.tokens[0]`.
#[derive(Debug, Default)]
pub(crate) struct Places {
    values: BTreeMap<String, Place>,
    keys: BTreeMap<String, Place>,
}

enum Tree {
    Leaf,
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            entries.push((key, map.next_value()?));
        }
        Ok(Tree::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    (spanned.referenced.line(), spanned.referenced.column())
}

impl Places {
    /// Reads a text; one that is no YAML has no places.
    pub(crate) fn of(text: &str) -> Places {
        let mut places = Places::default();
        if let Ok(tree) = serde_saphyr::from_str::<Spanned<Tree>>(text) {
            places.walk("", &tree);
        }
        places
    }

    fn walk(&mut self, path: &str, tree: &Spanned<Tree>) {
        self.values.insert(path.to_owned(), place(tree));
        match &tree.value {
            Tree::Leaf => {}
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.walk(&format!("{path}[{index}]"), item);
                }
            }
            Tree::Map(entries) => {
                for (key, value) in entries {
                    let shown: String = key.value.chars().take(80).collect();
                    let path = if path.is_empty() { shown } else { format!("{path}.{shown}") };
                    self.keys.insert(path.clone(), place(key));
                    self.walk(&path, value);
                }
            }
        }
    }

    /// The place of a path's value, or of the nearest path around it that is there.
    pub(crate) fn find(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.values.get(path) {
                return Some(*place);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    /// Whether there is such a path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.values.contains_key(path)
    }

    /// The path of the key or value at a place. A map stands where its first key does; `container` asks for
    /// the map.
    pub(crate) fn path_at(&self, place: Place, container: bool) -> Option<&str> {
        let at = |map: &BTreeMap<String, Place>| {
            map.iter()
                .filter(|(_, found)| **found == place)
                .map(|(path, _)| path.clone())
                .max_by_key(String::len)
        };
        let path =
            if container { at(&self.values) } else { at(&self.keys).or_else(|| at(&self.values)) }?;
        self.values
            .get_key_value(&path)
            .map(|(path, _)| path.as_str())
            .filter(|path| !path.is_empty())
    }
}

/// Whether a text holds nothing but blanks, comments and document marks.
pub(crate) fn is_blank(text: &str) -> bool {
    let nothing =
        |line: &str| line.is_empty() || line.starts_with('#') || line == "---" || line == "...";
    text.lines().all(|line| nothing(line.trim()))
}

/// Something with a `kind`; the rest is not looked at.
#[derive(Debug)]
pub(crate) struct Kind(pub(crate) Option<String>);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindVisitor;
        impl<'de> Visitor<'de> for KindVisitor {
            type Value = Kind;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a resource: kind, version, metadata and spec")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                let mut kind = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "kind" {
                        kind = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Kind(kind))
            }
        }
        deserializer.deserialize_any(KindVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_and_flow() {
        let text = "a:\n  b: 1\n  c: [x, {d: y}]\n# note\ne:\n- f: z\n";
        let places = Places::of(text);
        for (path, place) in
            [("a.b", (2, 6)), ("a.c[0]", (3, 7)), ("a.c[1].d", (3, 14)), ("e[0].f", (6, 6))]
        {
            assert_eq!(places.find(path), Some(place), "{path}");
            assert_eq!(places.path_at(place, false), Some(path));
        }
        assert_eq!(places.path_at((2, 3), false), Some("a.b"));
        assert_eq!(places.path_at((1, 1), false), Some("a"));
        assert_eq!(places.path_at((2, 3), true), Some("a"));
        assert_eq!(places.find("a.missing.x"), places.find("a"));
        assert_eq!(places.path_at((9, 9), false), None);
    }

    #[test]
    fn no_yaml_no_places() {
        assert_eq!(Places::of("a: [").find("a"), None);
    }
}
