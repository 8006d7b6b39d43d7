//! Rounding: half away from zero.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Array},
        compute::cast,
        datatypes::{DataType, Float64Type},
    },
    common::plan_err,
    error::Result,
    logical_expr::ScalarUDF,
};

use super::{as_numbers, column, plain, whole};

pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![
        plain("round", &[1, 2], same_type, round),
        plain("abs", &[1], same_type, |columns| each(columns, i64::checked_abs, f64::abs)),
        plain("ceil", &[1], same_type, |columns| each(columns, Some, f64::ceil)),
        plain("ceiling", &[1], same_type, |columns| each(columns, Some, f64::ceil)),
        plain("floor", &[1], same_type, |columns| each(columns, Some, f64::floor)),
    ]
}

/// Whole numbers stay whole; all others become doubles.
fn same_type(types: &[DataType]) -> Result<DataType> {
    match types.first() {
        Some(kind) if kind.is_integer() => Ok(DataType::Int64),
        Some(kind) if kind.is_numeric() || kind.is_null() => Ok(DataType::Float64),
        other => plan_err!("Unexpected type {other:?} of a number"),
    }
}

fn each(
    columns: &[ArrayRef],
    of_whole: fn(i64) -> Option<i64>,
    of_double: fn(f64) -> f64,
) -> Result<ArrayRef> {
    let column = column(columns, 0)?;
    if column.data_type().is_integer() {
        let numbers = as_numbers(column)?;
        let results = numbers.iter().map(|number| number.and_then(of_whole));
        return Ok(Arc::new(results.collect::<datafusion::arrow::array::Int64Array>()));
    }
    let numbers = cast(column, &DataType::Float64)?;
    let results = numbers.as_primitive::<Float64Type>().iter().map(|number| number.map(of_double));
    Ok(Arc::new(results.collect::<Float64Array>()))
}

fn round(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let Some(digits) = columns.get(1) else { return each(columns, Some, f64::round) };
    let values = column(columns, 0)?;
    if values.data_type().is_integer() {
        return Ok(Arc::new(as_numbers(values)?));
    }
    let (values, digits) = (cast(values, &DataType::Float64)?, as_numbers(digits)?);
    let values = values.as_primitive::<Float64Type>();
    let rounded = |row: usize| {
        let digits = i32::try_from(whole(&digits, row)?).unwrap_or(0).clamp(-300, 300);
        let scale = 10f64.powi(digits);
        let value = values.is_valid(row).then(|| values.value(row))?;
        let scaled = (value * scale).round() / scale;
        Some(if scaled.is_finite() { scaled } else { value })
    };
    Ok(Arc::new((0..values.len()).map(rounded).collect::<Float64Array>()))
}
