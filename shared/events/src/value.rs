//! What the [`message!`](crate::macros) declarations are built on: one trait for whole messages,
//! whose fields are written into a JSON object, and one for the values of single fields.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap};
use serde_json::Value as Json;

use crate::columns::{Column, SqlType};
use crate::{LabelValues, Struct, Timestamp};

/// A JSON object being read.
pub(crate) type Object = serde_json::Map<String, Json>;

/// A field that does not hold what its type asks for.
#[derive(Debug, thiserror::Error)]
#[error("key {key:?}")]
pub(crate) struct FieldError {
    key: &'static str,
    #[source]
    source: serde_json::Error,
}

/// A message: its fields in declaration order.
pub(crate) trait Message: Sized {
    /// Adds the fields to a JSON object.
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
    /// Takes the fields out of a JSON object; absent ones stay as they are.
    fn read(&mut self, object: &mut Object) -> Result<(), FieldError>;
    /// The columns of the fields, below the given JSON path.
    fn columns(path: &mut Vec<&'static str>, out: &mut Vec<Column>);
    /// Cuts every text to at most `max` bytes.
    fn shorten(&mut self, max: usize);
    /// The part of this type, where the message has one.
    fn part<T: 'static>(&self) -> Option<&T>;
}

/// The value of one field.
pub(crate) trait Value: Serialize + DeserializeOwned {
    /// Whether a key that may be left out is left out.
    fn is_empty(&self) -> bool;
    /// The columns of a field at this JSON path.
    fn columns(path: &mut Vec<&'static str>, out: &mut Vec<Column>);
    /// Cuts texts to at most `max` bytes.
    fn shorten(&mut self, _max: usize) {}
}

pub(crate) fn write<M: SerializeMap, T: Value>(
    map: &mut M,
    key: &'static str,
    value: &T,
    optional: bool,
) -> Result<(), M::Error> {
    if optional && value.is_empty() {
        return Ok(());
    }
    map.serialize_entry(key, value)
}

pub(crate) fn read<T: Value>(
    object: &mut Object,
    key: &'static str,
    value: &mut T,
) -> Result<(), FieldError> {
    match object.remove(key) {
        None | Some(Json::Null) => {}
        Some(json) => {
            *value = serde_json::from_value(json).map_err(|source| FieldError { key, source })?;
        }
    }
    Ok(())
}

pub(crate) fn write_bytes<M: SerializeMap>(
    map: &mut M,
    key: &'static str,
    bytes: &[u8],
) -> Result<(), M::Error> {
    if bytes.is_empty() {
        return Ok(());
    }
    map.serialize_entry(key, &BASE64_STANDARD.encode(bytes))
}

pub(crate) fn read_bytes(
    object: &mut Object,
    key: &'static str,
    bytes: &mut Bytes,
) -> Result<(), FieldError> {
    let mut text = String::new();
    read(object, key, &mut text)?;
    let read = BASE64_STANDARD
        .decode(&text)
        .map_err(|error| FieldError { key, source: serde::de::Error::custom(error) })?;
    *bytes = read.into();
    Ok(())
}

/// Runs `add` with `key` at the end of `path`.
pub(crate) fn below(
    path: &mut Vec<&'static str>,
    key: &'static str,
    out: &mut Vec<Column>,
    add: impl FnOnce(&mut Vec<&'static str>, &mut Vec<Column>),
) {
    path.push(key);
    add(path, out);
    path.pop();
}

macro_rules! scalar {
    ($($type:ty => $sql:ident),*) => { $(
        impl Value for $type {
            fn is_empty(&self) -> bool {
                *self == <$type>::default()
            }
            fn columns(path: &mut Vec<&'static str>, out: &mut Vec<Column>) {
                out.push(Column::at(path, SqlType::$sql));
            }
        }
    )* };
}
scalar!(bool => Boolean, i32 => BigInt, u32 => BigInt, i64 => BigInt, u64 => BigInt);

macro_rules! optional {
    ($($type:ty),*) => { $(
        impl Value for Option<$type> {
            fn is_empty(&self) -> bool {
                self.is_none()
            }
            fn columns(path: &mut Vec<&'static str>, out: &mut Vec<Column>) {
                out.push(Column::at(path, SqlType::BigInt));
            }
        }
    )* };
}
optional!(u32, u64);

impl Value for String {
    fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }
    fn columns(path: &mut Vec<&'static str>, out: &mut Vec<Column>) {
        out.push(Column::at(path, SqlType::Varchar));
    }
    fn shorten(&mut self, max: usize) {
        if self.len() > max {
            self.truncate(self.floor_char_boundary(max));
        }
    }
}

impl Value for Vec<String> {
    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
    fn columns(path: &mut Vec<&'static str>, out: &mut Vec<Column>) {
        out.push(Column::at(path, SqlType::VarcharArray));
    }
    fn shorten(&mut self, max: usize) {
        let mut room = max;
        self.retain_mut(|text| {
            text.shorten(room);
            // An element costs its tag and length besides its text.
            let cost = text.len().saturating_add(4);
            let keep = room >= cost;
            room = room.saturating_sub(cost);
            keep
        });
    }
}

impl Value for BTreeMap<String, String> {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn columns(path: &mut Vec<&'static str>, out: &mut Vec<Column>) {
        out.push(Column::unreachable(path, "_key"));
        out.push(Column::unreachable(path, "_value"));
    }
    fn shorten(&mut self, max: usize) {
        if self.iter().map(|(key, value)| key.len() + value.len() + 8).sum::<usize>() > max {
            self.clear();
        }
    }
}

impl Value for LabelValues {
    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
    fn columns(_path: &mut Vec<&'static str>, _out: &mut Vec<Column>) {}
    fn shorten(&mut self, max: usize) {
        if prost::Message::encoded_len(self) > max {
            self.values.clear();
        }
    }
}

impl Value for Option<Struct> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }
    fn columns(_path: &mut Vec<&'static str>, _out: &mut Vec<Column>) {}
    fn shorten(&mut self, max: usize) {
        if self.as_ref().is_some_and(|object| prost::Message::encoded_len(object) > max) {
            *self = None;
        }
    }
}

impl Value for Timestamp {
    // An unset time is printed, whatever the key's rule.
    fn is_empty(&self) -> bool {
        false
    }
    fn columns(path: &mut Vec<&'static str>, out: &mut Vec<Column>) {
        out.push(Column::at(path, SqlType::Varchar));
    }
}
