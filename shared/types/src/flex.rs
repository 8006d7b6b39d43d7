//! Serde helpers for values as people write them in YAML: `yes`/`no` booleans, one string or a list of
//! strings, an empty key.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

struct BoolVisitor;

impl de::Visitor<'_> for BoolVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a boolean (yes, no, true, false, on, off)")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
        parse_bool(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<bool, E> {
        match value {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<bool, E> {
        u64::try_from(value)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            .and_then(|value| self.visit_u64(value))
    }
}

/// A boolean in any spelling a configuration file may use.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" | "y" => Some(true),
        "no" | "false" | "off" | "0" | "n" => Some(false),
        _ => None,
    }
}

/// For `#[serde(deserialize_with)]`: a boolean in any spelling.
pub fn bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_any(BoolVisitor)
}

/// A boolean in any spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool(deserializer).map(Flag)
    }
}

/// For `#[serde(deserialize_with)]`: an optional boolean in any spelling.
pub fn option_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(Option::<Flag>::deserialize(deserializer)?.map(|flag| flag.0))
}

/// For `#[serde(deserialize_with)]`: an empty key (`labels:`) is the default.
pub fn null_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// One string or a list of them; prints as it is shortest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Values(pub Vec<String>);

impl std::ops::Deref for Values {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl From<&str> for Values {
    fn from(text: &str) -> Self {
        Values(vec![text.to_owned()])
    }
}

impl<const N: usize> From<[&str; N]> for Values {
    fn from(texts: [&str; N]) -> Self {
        Values(texts.iter().map(|text| (*text).to_owned()).collect())
    }
}

impl From<Vec<String>> for Values {
    fn from(texts: Vec<String>) -> Self {
        Values(texts)
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            list => list.serialize(serializer),
        }
    }
}

struct ValuesVisitor;

impl<'de> de::Visitor<'de> for ValuesVisitor {
    type Value = Values;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
        Ok(Values::from(text))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Values(values))
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_as_people_write_them() {
        for (json, value) in [
            ("true", true),
            ("\"yes\"", true),
            ("\"On\"", true),
            ("\"no\"", false),
            ("\"off\"", false),
            ("0", false),
        ] {
            assert_eq!(serde_json::from_str::<Flag>(json).unwrap().0, value, "{json}");
        }
        let error = serde_json::from_str::<Flag>("\"maybe\"").unwrap_err().to_string();
        assert!(error.contains("expected a boolean (yes, no, true, false, on, off)"), "{error}");
    }

    #[test]
    fn one_or_many() {
        assert_eq!(serde_json::from_str::<Values>("\"a\"").unwrap(), Values::from("a"));
        assert_eq!(
            serde_json::from_str::<Values>("[\"a\",\"b\"]").unwrap(),
            Values::from(["a", "b"])
        );
        assert!(serde_json::from_str::<Values>("{}").is_err());
        assert_eq!(serde_json::to_string(&Values::from("a")).unwrap(), "\"a\"");
    }
}
