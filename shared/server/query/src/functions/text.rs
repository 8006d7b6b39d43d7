//! Text and lists.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array, ListBuilder, StringArray, StringBuilder},
        datatypes::DataType,
    },
    common::{exec_err, plan_err},
    error::Result,
    logical_expr::ScalarUDF,
};
use regex::{Regex, RegexBuilder};

use super::{as_numbers, as_text, column, plain, texts_then_numbers, value, whole};

pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![
        plain("cardinality", &[1], list_type, cardinality),
        plain(
            "substr",
            &[2, 3],
            |types| texts_then_numbers(types, 1).map(|()| DataType::Utf8),
            substr,
        ),
        plain("split", &[2], |types| texts_then_numbers(types, 2).map(|()| texts_type()), split),
        plain(
            "split_part",
            &[3],
            |types| texts_then_numbers(types, 2).map(|()| DataType::Utf8),
            split_part,
        ),
        plain(
            "regexp_extract",
            &[2, 3],
            |types| texts_then_numbers(types, 2).map(|()| DataType::Utf8),
            regexp_extract,
        ),
    ]
}

fn texts_type() -> DataType {
    DataType::new_list(DataType::Utf8, true)
}

fn list_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [DataType::List(_) | DataType::Map(..) | DataType::Null] => Ok(DataType::Int64),
        _ => {
            plan_err!("Unexpected parameters for function cardinality. Expected: an array or a map")
        }
    }
}

/// The entries of the list itself, not of lists in it.
fn cardinality(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let column = column(columns, 0)?;
    let count = |row: usize| match column.data_type() {
        _ if column.is_null(row) => None,
        DataType::Map(..) => Some(i64::from(column.as_map().value_length(row))),
        DataType::List(_) => Some(i64::from(column.as_list::<i32>().value_length(row))),
        _ => None,
    };
    Ok(Arc::new((0..column.len()).map(count).collect::<Int64Array>()))
}

/// From 1; a negative start counts from the end; outside there is nothing.
fn substr(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, starts) = (as_text(column(columns, 0)?)?, as_numbers(column(columns, 1)?)?);
    let lengths = columns.get(2).map(as_numbers).transpose()?;
    let part = |row| {
        let (text, start) = (value(&texts, row)?, whole(&starts, row)?);
        let length = match &lengths {
            Some(lengths) => usize::try_from(whole(lengths, row)?).unwrap_or(0),
            None => usize::MAX,
        };
        let skip = match start {
            0 => return Some(String::new()),
            1.. => usize::try_from(start - 1).unwrap_or(usize::MAX),
            _ => {
                let back = usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX);
                match text.chars().count().checked_sub(back) {
                    Some(skip) => skip,
                    None => return Some(String::new()),
                }
            }
        };
        Some(text.chars().skip(skip).take(length).collect())
    };
    Ok(Arc::new((0..texts.len()).map(part).collect::<StringArray>()))
}

fn split(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, delimiters) = (as_text(column(columns, 0)?)?, as_text(column(columns, 1)?)?);
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..texts.len() {
        match (value(&texts, row), value(&delimiters, row)) {
            (Some(_), Some("")) => return exec_err!("The delimiter may not be the empty string"),
            (Some(text), Some(delimiter)) => lists.append_value(text.split(delimiter).map(Some)),
            _ => lists.append_null(),
        }
    }
    Ok(Arc::new(lists.finish()))
}

fn split_part(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, delimiters) = (as_text(column(columns, 0)?)?, as_text(column(columns, 1)?)?);
    let numbers = as_numbers(column(columns, 2)?)?;
    let mut parts = StringBuilder::new();
    for row in 0..texts.len() {
        match (value(&texts, row), value(&delimiters, row), whole(&numbers, row)) {
            (Some(text), Some(delimiter), Some(number)) => match usize::try_from(number) {
                Ok(number @ 1..) => parts.append_option(text.split(delimiter).nth(number - 1)),
                _ => return exec_err!("Index must be greater than zero"),
            },
            _ => parts.append_null(),
        }
    }
    Ok(Arc::new(parts.finish()))
}

fn regexp_extract(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (as_text(column(columns, 0)?)?, as_text(column(columns, 1)?)?);
    let groups = columns.get(2).map(as_numbers).transpose()?;
    let mut found = StringBuilder::new();
    // Almost always the pattern is one for all rows.
    let mut last: Option<(String, Regex)> = None;
    for row in 0..texts.len() {
        let group = match &groups {
            Some(groups) => whole(groups, row),
            None => Some(0),
        };
        let (Some(text), Some(pattern), Some(group)) =
            (value(&texts, row), value(&patterns, row), group)
        else {
            found.append_null();
            continue;
        };
        let regex = match &last {
            Some((known, regex)) if known == pattern => regex.clone(),
            _ => match RegexBuilder::new(pattern).size_limit(1 << 20).build() {
                Ok(regex) => regex,
                Err(error) => return exec_err!("Invalid pattern: {error}"),
            },
        };
        let groups = regex.captures_len() - 1;
        match usize::try_from(group) {
            Ok(group) if group <= groups => {
                found.append_option(
                    regex.captures(text).and_then(|all| all.get(group)).map(|found| found.as_str()),
                );
            }
            _ => return exec_err!("Pattern has {groups} groups. Cannot access group {group}"),
        }
        last = Some((pattern.to_owned(), regex));
    }
    Ok(Arc::new(found.finish()))
}
