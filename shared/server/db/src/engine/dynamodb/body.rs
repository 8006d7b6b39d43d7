//! The body of a request as an event holds it.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use shared_events::{MAX_STATEMENT, Struct};

use crate::audit::cut_text;

/// What stands for a body that is too long.
const CUT: &str = "_cut";
/// What stands for a body that is no JSON object.
const TEXT: &str = "_text";
/// What a value costs beside its text.
const EACH: usize = 12;

/// The body, if there is one: the object that it is, or the beginning of its text under a name that says why.
pub(super) fn shown(body: &[u8]) -> Option<Struct> {
    if body.is_empty() {
        return None;
    }
    let whole = (body.len() <= MAX_STATEMENT).then(|| serde_json::from_slice(body).ok()).flatten();
    Some(match whole {
        Some(Value::Object(object)) if weight(&object) <= MAX_STATEMENT => object.into(),
        Some(Value::Object(_)) => text(CUT, body),
        _ if body.len() > MAX_STATEMENT => text(CUT, body),
        _ => text(TEXT, body),
    })
}

/// The text, or its beginning with length and SHA-256 of the whole.
fn text(name: &str, body: &[u8]) -> Struct {
    // Bytes that are no text take three each.
    let most = MAX_STATEMENT / 2;
    let beginning = String::from_utf8_lossy(body.get(..most).unwrap_or(body));
    let text = if beginning.len() <= most && body.len() <= most {
        beginning.into_owned()
    } else {
        cut_text(&beginning, most, body.len() as u64, &Sha256::digest(body).into())
    };
    Map::from_iter([(name.to_owned(), Value::String(text))]).into()
}

/// About what an object takes in an event.
fn weight(object: &Map<String, Value>) -> usize {
    object.iter().map(|(name, value)| EACH + name.len() + value_weight(value)).sum()
}

fn value_weight(value: &Value) -> usize {
    EACH + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(value_weight).sum(),
        Value::Object(object) => weight(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &[u8]) -> Value {
        serde_json::to_value(shown(body)).unwrap()
    }

    #[test]
    fn objects_are_kept_and_everything_else_is_named() {
        assert_eq!(json(b""), Value::Null);
        assert_eq!(json(br#"{"a":[1,"b"]}"#), serde_json::json!({"a": [1, "b"]}));
        assert_eq!(json(b"[1]"), serde_json::json!({"_text": "[1]"}));
        assert_eq!(json(b"\xffx"), serde_json::json!({"_text": "\u{fffd}x"}));
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
        let numbers = format!("{{\"a\":[{}1]}}", "1,".repeat(10_000));
        for body in [long, numbers] {
            let shown = json(body.as_bytes());
            let text = shown["_cut"].as_str().unwrap();
            let sum = hex::encode(Sha256::digest(body.as_bytes()));
            assert!(
                text.len() <= MAX_STATEMENT / 2 && text.starts_with("{\"a\":"),
                "{}",
                text.len()
            );
            assert!(
                text.ends_with(&format!("… [cut: {} bytes, sha256 {sum}]", body.len())),
                "{text}"
            );
        }
        let deep = "[".repeat(20_000);
        assert!(json(deep.as_bytes())["_text"].as_str().unwrap().contains("[cut: 20000 bytes"));
    }
}
