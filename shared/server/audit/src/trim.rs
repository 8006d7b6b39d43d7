//! Keeps a line within its limit: long texts of an over-long event are cut, and say so.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::Value;

/// What stands where text was cut.
const CUT: &str = "…[cut]";
/// The keys that an event keeps whatever happens.
const KEPT: [&str; 10] =
    ["ei", "event", "uid", "code", "time", "cluster_name", "user", "login", "sid", "server_id"];

/// A JSON object in the order it was written.
struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The line itself when it fits; otherwise the same event with its long texts and lists cut.
pub(crate) fn trimmed(line: String, limit: usize) -> Result<String, serde_json::Error> {
    if line.len() <= limit {
        return Ok(line);
    }
    let mut event: Ordered = serde_json::from_str(&line)?;
    let mut longest = limit / 4;
    while longest >= 64 {
        event.0.iter_mut().for_each(|(_, value)| cut(value, longest));
        let text = serde_json::to_string(&event)?;
        if text.len() <= limit {
            return Ok(text);
        }
        longest /= 2;
    }
    event.0.retain(|(key, _)| KEPT.contains(&key.as_str()));
    event.0.push((
        "message".into(),
        Value::from(format!("the event had {} bytes and was cut", line.len())),
    ));
    serde_json::to_string(&event)
}

fn cut(value: &mut Value, longest: usize) {
    match value {
        Value::String(text) if text.len() > longest => {
            text.truncate(text.floor_char_boundary(longest));
            text.push_str(CUT);
        }
        Value::Array(items) => {
            items.truncate(longest / 8);
            items.iter_mut().for_each(|item| cut(item, longest / 8));
        }
        Value::Object(entries) => entries.values_mut().for_each(|item| cut(item, longest)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_fits_is_not_touched() {
        assert_eq!(trimmed("{ \"b\":1,\"a\":2}".into(), 100).unwrap(), "{ \"b\":1,\"a\":2}");
    }

    #[test]
    fn the_long_text_is_cut_and_the_rest_stays_in_order() {
        let line = format!(
            r#"{{"event":"exec","uid":"u","command":"{}","exitCode":"0"}}"#,
            "ü\\\"".repeat(3000)
        );
        let text = trimmed(line, 1000).unwrap();
        assert!(text.len() <= 1000);
        assert!(
            text.starts_with(r#"{"event":"exec","uid":"u","command":"ü"#)
                && text.ends_with(r#"…[cut]","exitCode":"0"}"#),
            "{text}"
        );
    }

    #[test]
    fn even_a_thousand_keys_fit() {
        let keys = (0..1000).map(|n| format!(r#","key{n}":{n}"#)).collect::<String>();
        let text = trimmed(format!(r#"{{"event":"exec","uid":"u"{keys}}}"#), 500).unwrap();
        assert!(
            text.len() <= 500
                && text.starts_with(r#"{"event":"exec","uid":"u","message":"the event had"#),
            "{text}"
        );
    }
}
