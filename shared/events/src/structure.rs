//! `google.protobuf.Struct`: free-form attributes. In JSON, a plain object.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A JSON object.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// Its members.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, StructValue>,
}

/// A JSON value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StructValue {
    /// What it is; nothing counts as null.
    #[prost(oneof = "ValueKind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<ValueKind>,
}

/// The kinds of JSON values.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ValueKind {
    /// null
    #[prost(int32, tag = "1")]
    Null(i32),
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A string.
    #[prost(string, tag = "3")]
    Text(String),
    /// true or false.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// An object.
    #[prost(message, tag = "5")]
    Object(Struct),
    /// An array.
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// A JSON array.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListValue {
    /// Its elements.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<StructValue>,
}

impl From<serde_json::Map<String, Value>> for Struct {
    fn from(map: serde_json::Map<String, Value>) -> Self {
        Self { fields: map.into_iter().map(|(name, value)| (name, value.into())).collect() }
    }
}

impl From<Value> for StructValue {
    fn from(value: Value) -> Self {
        let kind = match value {
            Value::Null => ValueKind::Null(0),
            Value::Bool(value) => ValueKind::Bool(value),
            Value::Number(number) => ValueKind::Number(number.as_f64().unwrap_or(0.0)),
            Value::String(text) => ValueKind::Text(text),
            Value::Array(values) => {
                ValueKind::List(ListValue { values: values.into_iter().map(Self::from).collect() })
            }
            Value::Object(map) => ValueKind::Object(map.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl Serialize for Struct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.fields)
    }
}

impl Serialize for StructValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            None | Some(ValueKind::Null(_)) => serializer.serialize_unit(),
            Some(ValueKind::Number(number)) => match whole(*number) {
                Some(whole) => serializer.serialize_i64(whole),
                None => serializer.serialize_f64(*number),
            },
            Some(ValueKind::Text(text)) => serializer.serialize_str(text),
            Some(ValueKind::Bool(value)) => serializer.serialize_bool(*value),
            Some(ValueKind::Object(object)) => object.serialize(serializer),
            Some(ValueKind::List(list)) => serializer.collect_seq(&list.values),
        }
    }
}

/// Whole numbers print without a fraction, as far as a double holds them exactly.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within 2^53")]
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

impl<'de> Deserialize<'de> for Struct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(serde_json::Map::<String, Value>::deserialize(deserializer)?.into())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn json_survives_the_wire() {
        let json = r#"{"a":[1,2.5,"x",null,true],"b":{"c":{}}}"#;
        let attributes: Struct = serde_json::from_str(json).unwrap();
        let again = Struct::decode(&attributes.encode_to_vec()[..]).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
    }
}
