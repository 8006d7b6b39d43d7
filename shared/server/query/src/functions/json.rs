//! Values out of JSON text, such as `event_data`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, StringBuilder},
        datatypes::DataType,
    },
    common::exec_err,
    error::Result,
    logical_expr::ScalarUDF,
};
use serde_json::Value;

use super::{as_text, column, plain, texts_then_numbers, value};

pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let text = |types: &[DataType]| texts_then_numbers(types, 2).map(|()| DataType::Utf8);
    vec![
        plain("json_extract_scalar", &[2], text, |columns| extract(columns, scalar)),
        plain("json_extract", &[2], text, |columns| {
            extract(columns, |value| Some(value.to_string()))
        }),
    ]
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn extract(columns: &[ArrayRef], show: fn(&Value) -> Option<String>) -> Result<ArrayRef> {
    let (texts, paths) = (as_text(column(columns, 0)?)?, as_text(column(columns, 1)?)?);
    let mut found = StringBuilder::new();
    for row in 0..texts.len() {
        let (Some(text), Some(path)) = (value(&texts, row), value(&paths, row)) else {
            found.append_null();
            continue;
        };
        let Some(steps) = steps(path) else { return exec_err!("Invalid JSON path: '{path}'") };
        let whole = serde_json::from_str::<Value>(text).ok();
        let place = whole
            .as_ref()
            .and_then(|whole| steps.iter().try_fold(whole, |value, step| step.of(value)));
        found.append_option(place.and_then(show));
    }
    Ok(Arc::new(found.finish()))
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Key(key) => value.get(key),
            Self::Item(at) => value.get(at),
        }
    }
}

/// `$.a.b[1]["c.d"]`
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[\"") {
            let (key, after) = after.split_once("\"]")?;
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (at, after) = after.split_once(']')?;
            steps.push(Step::Item(at.parse().ok()?));
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (key, after) = after.split_at(end);
            if key.is_empty() {
                return None;
            }
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let key = |key: &str| Step::Key(key.into());
        assert_eq!(steps("$").unwrap(), []);
        assert_eq!(
            steps(r#"$.a.b[1]["c.d"].e"#).unwrap(),
            [key("a"), key("b"), Step::Item(1), key("c.d"), key("e")]
        );
        for bad in ["", "a", "$.", "$a", "$[*]", "$[", "$[\"a", "$..a"] {
            assert_eq!(steps(bad), None, "{bad}");
        }
    }
}
