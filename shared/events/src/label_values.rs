//! Traits on the wire: a map from a name to a list of strings. In JSON, an object of arrays.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list of strings, as one value of [`LabelValues`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StringValues {
    /// The strings.
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

/// Lists of strings by name: user traits, request headers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LabelValues {
    /// The lists.
    #[prost(btree_map = "string, message", tag = "1")]
    pub values: BTreeMap<String, StringValues>,
}

impl From<&BTreeMap<String, Vec<String>>> for LabelValues {
    fn from(map: &BTreeMap<String, Vec<String>>) -> Self {
        map.clone().into()
    }
}

impl From<BTreeMap<String, Vec<String>>> for LabelValues {
    fn from(map: BTreeMap<String, Vec<String>>) -> Self {
        let values =
            map.into_iter().map(|(name, values)| (name, StringValues { values })).collect();
        Self { values }
    }
}

impl Serialize for LabelValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.values.iter().map(|(name, list)| (name, &list.values)))
    }
}

impl<'de> Deserialize<'de> for LabelValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<String, Vec<String>>::deserialize(deserializer)?.into())
    }
}
