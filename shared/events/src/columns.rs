//! The SQL view of each event type: `event_date`, `event_time`, then its JSON keys by name.
//!
//! A column is the JSON path joined by `_`, with dots as `_` too. A key that is missing is NULL.
//! Integers are 64 bits wide, where the established views have 32 and fail on larger ones.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use crate::event::KINDS;

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlType {
    /// Text; times too, in ISO 8601.
    Varchar,
    /// A whole number.
    BigInt,
    /// True or false.
    Boolean,
    /// A UTC date.
    Date,
    /// A UTC time with milliseconds, without a zone.
    Timestamp,
    /// A list of texts.
    VarcharArray,
    /// A list of rows with these fields, by name.
    Rows(Vec<(String, SqlType)>),
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Varchar => f.write_str("varchar"),
            Self::BigInt => f.write_str("bigint"),
            Self::Boolean => f.write_str("boolean"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp(3)"),
            Self::VarcharArray => f.write_str("array(varchar)"),
            Self::Rows(fields) => {
                f.write_str("array(row(")?;
                for (index, (name, kind)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{name} {kind}")?;
                }
                f.write_str("))")
            }
        }
    }
}

/// One column of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, in the case of the JSON key; look-ups ignore case.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Where the value stands in the event's JSON, outermost key first. Empty for the documented
    /// columns of label maps, which are always NULL.
    pub path: Vec<&'static str>,
}

impl Column {
    pub(crate) fn at(path: &[&'static str], sql_type: SqlType) -> Self {
        Self { name: name(path), sql_type, path: path.to_vec() }
    }

    pub(crate) fn unreachable(path: &[&'static str], suffix: &str) -> Self {
        Self { name: name(path) + suffix, sql_type: SqlType::Varchar, path: Vec::new() }
    }

    pub(crate) fn rows(path: &[&'static str], fields: Vec<Self>) -> Self {
        let mut fields: Vec<_> =
            fields.into_iter().map(|field| (field.name, field.sql_type)).collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Self::at(path, SqlType::Rows(fields))
    }
}

fn name(path: &[&str]) -> String {
    path.join("_").replace('.', "_")
}

/// A view over the events of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The event type with dots and dashes as underscores.
    pub name: String,
    /// The event type.
    pub event_type: &'static str,
}

static COLUMNS: LazyLock<BTreeMap<&'static str, Vec<Column>>> = LazyLock::new(|| {
    KINDS
        .iter()
        .map(|(event_type, add)| {
            let mut columns = Vec::new();
            add(&mut Vec::new(), &mut columns);
            columns.sort_by(|a, b| a.name.cmp(&b.name));
            columns.dedup_by(|a, b| a.name == b.name);
            let time = vec!["time"];
            let mut all = vec![
                Column { name: "event_date".into(), sql_type: SqlType::Date, path: time.clone() },
                Column { name: "event_time".into(), sql_type: SqlType::Timestamp, path: time },
            ];
            all.append(&mut columns);
            (*event_type, all)
        })
        .collect()
});

static VIEWS: LazyLock<Vec<View>> = LazyLock::new(|| {
    COLUMNS
        .keys()
        .filter(|event_type| {
            ![crate::SessionPrint::KIND, crate::DatabaseSessionCommandResult::KIND]
                .contains(*event_type)
        })
        .map(|event_type| View { name: event_type.replace(['.', '-'], "_"), event_type })
        .collect()
});

/// The columns of an event type's view, in the order `SELECT *` shows them.
#[must_use]
pub fn columns(event_type: &str) -> Option<&'static [Column]> {
    COLUMNS.get(event_type).map(Vec::as_slice)
}

/// Every view there is, by name.
#[must_use]
pub fn views() -> &'static [View] {
    &VIEWS
}
