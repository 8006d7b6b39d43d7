//! JSON values into columns.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::{
    array::{
        ArrayRef, BooleanBuilder, Date32Builder, Int64Builder, ListArray, ListBuilder,
        NullBufferBuilder, StringBuilder, StructArray, TimestampMillisecondBuilder,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields, TimeUnit},
};
use serde_json::Value;
use shared_events::SqlType;

/// The Arrow type that holds a column's values.
pub(crate) fn data_type(sql_type: &SqlType) -> DataType {
    match sql_type {
        SqlType::Varchar => DataType::Utf8,
        SqlType::BigInt => DataType::Int64,
        SqlType::Boolean => DataType::Boolean,
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
        SqlType::VarcharArray => DataType::new_list(DataType::Utf8, true),
        SqlType::Rows(fields) => DataType::new_list(DataType::Struct(row_fields(fields)), true),
    }
}

fn row_fields(fields: &[(String, SqlType)]) -> Fields {
    fields
        .iter()
        .map(|(name, kind)| Field::new(name.to_lowercase(), data_type(kind), true))
        .collect()
}

/// The time of an event, when it is one.
pub(crate) fn time(value: Option<&Value>) -> Option<DateTime<Utc>> {
    value.and_then(Value::as_str).and_then(|text| text.parse().ok())
}

/// Collects one column.
pub(crate) enum Builder {
    Text(StringBuilder),
    Number(Int64Builder),
    Truth(BooleanBuilder),
    Date(Date32Builder),
    Time(TimestampMillisecondBuilder),
    Texts(ListBuilder<StringBuilder>),
    Rows {
        names: Vec<String>,
        fields: Fields,
        columns: Vec<Builder>,
        offsets: Vec<i32>,
        present: NullBufferBuilder,
    },
}

impl Builder {
    pub(crate) fn new(sql_type: &SqlType) -> Self {
        match sql_type {
            SqlType::Varchar => Self::Text(StringBuilder::new()),
            SqlType::BigInt => Self::Number(Int64Builder::new()),
            SqlType::Boolean => Self::Truth(BooleanBuilder::new()),
            SqlType::Date => Self::Date(Date32Builder::new()),
            SqlType::Timestamp => Self::Time(TimestampMillisecondBuilder::new()),
            SqlType::VarcharArray => Self::Texts(ListBuilder::new(StringBuilder::new())),
            SqlType::Rows(fields) => Self::Rows {
                names: fields.iter().map(|(name, _)| name.clone()).collect(),
                fields: row_fields(fields),
                columns: fields.iter().map(|(_, kind)| Self::new(kind)).collect(),
                offsets: vec![0],
                present: NullBufferBuilder::new(0),
            },
        }
    }

    /// One more value; what is absent or of another kind is NULL.
    pub(crate) fn push(&mut self, value: Option<&Value>) {
        let value = value.filter(|value| !value.is_null());
        match self {
            Self::Text(texts) => match value {
                None => texts.append_null(),
                Some(Value::String(text)) => texts.append_value(text),
                Some(other) => texts.append_value(other.to_string()),
            },
            Self::Number(numbers) => numbers.append_option(value.and_then(number)),
            Self::Truth(truths) => truths.append_option(value.and_then(Value::as_bool)),
            Self::Date(dates) => {
                let days = time(value).map(|time| time.timestamp().div_euclid(86_400));
                dates.append_option(days.and_then(|days| i32::try_from(days).ok()));
            }
            Self::Time(times) => {
                times.append_option(time(value).map(|time| time.timestamp_millis()))
            }
            Self::Texts(lists) => match value {
                None => lists.append_null(),
                Some(Value::Array(items)) => {
                    for item in items {
                        match item {
                            Value::Null => lists.values().append_null(),
                            Value::String(text) => lists.values().append_value(text),
                            other => lists.values().append_value(other.to_string()),
                        }
                    }
                    lists.append(true);
                }
                Some(_) => lists.append_null(),
            },
            Self::Rows { names, columns, offsets, present, .. } => {
                let items = value.and_then(Value::as_array);
                present.append(items.is_some());
                let items = items.map(Vec::as_slice).unwrap_or_default();
                for item in items {
                    for (name, column) in names.iter().zip(columns.iter_mut()) {
                        column.push(item.get(name));
                    }
                }
                let before = offsets.last().copied().unwrap_or_default();
                offsets.push(before.saturating_add(i32::try_from(items.len()).unwrap_or(i32::MAX)));
            }
        }
    }

    /// The column so far; the builder is empty again.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(texts) => Arc::new(texts.finish()),
            Self::Number(numbers) => Arc::new(numbers.finish()),
            Self::Truth(truths) => Arc::new(truths.finish()),
            Self::Date(dates) => Arc::new(dates.finish()),
            Self::Time(times) => Arc::new(times.finish()),
            Self::Texts(lists) => Arc::new(lists.finish()),
            Self::Rows { fields, columns, offsets, present, .. } => {
                let columns = columns.iter_mut().map(Self::finish).collect();
                let rows = Arc::new(StructArray::new(fields.clone(), columns, None));
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                let item = Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true));
                Arc::new(ListArray::new(item, offsets, rows, present.finish()))
            }
        }
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
