//! Values as text, the way users of the established service see them.

use chrono::{DateTime, NaiveDate, TimeDelta};
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        compute::cast,
        datatypes::{
            DataType, DurationMillisecondType, Float64Type, IntervalMonthDayNanoType, IntervalUnit,
            TimeUnit, TimestampMillisecondType,
        },
        util::display::{ArrayFormatter, FormatOptions},
    },
    error::Result,
};

/// The column in the form that [`cell`] shows.
pub(crate) fn shown(column: &ArrayRef) -> Result<ArrayRef> {
    let kind = match column.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Millisecond),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Date64 => DataType::Date32,
        _ => return Ok(column.clone()),
    };
    Ok(cast(column, &kind)?)
}

/// One value of a column made ready by [`shown`]; `None` is NULL.
pub(crate) fn cell(column: &ArrayRef, row: usize) -> Result<Option<String>> {
    if column.is_null(row) || column.data_type().is_null() {
        return Ok(None);
    }
    Ok(Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Float64 => double(column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            let time = timestamp(column.as_primitive::<TimestampMillisecondType>().value(row));
            match zone.as_deref() {
                None => time,
                Some("+00:00" | "UTC" | "Z") => time + " UTC",
                Some(zone) => format!("{time} {zone}"),
            }
        }
        DataType::Date32 => {
            let days = i64::from(
                column.as_primitive::<datafusion::arrow::datatypes::Date32Type>().value(row),
            );
            let date = NaiveDate::default().checked_add_signed(TimeDelta::days(days));
            date.map(|date| date.to_string()).unwrap_or_default()
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            span(column.as_primitive::<DurationMillisecondType>().value(row))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let interval = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            let millis = i64::from(interval.days) * 86_400_000 + interval.nanoseconds / 1_000_000;
            match (interval.months, millis) {
                (0, millis) => span(millis),
                (months, 0) => format!("{}-{}", months / 12, months % 12),
                (months, millis) => format!("{}-{} {}", months / 12, months % 12, span(millis)),
            }
        }
        DataType::List(_) => list(&column.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => list(&column.as_fixed_size_list().value(row))?,
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let pairs = fields.iter().zip(columns).map(|(field, values)| {
                let value = cell(&shown(values)?, row)?;
                Ok(format!("{}={}", field.name(), value.as_deref().unwrap_or("null")))
            });
            format!("{{{}}}", pairs.collect::<Result<Vec<_>>>()?.join(", "))
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (shown(entries.column(0))?, shown(entries.column(1))?);
            let pairs = (0..entries.len()).map(|at| {
                let (key, value) = (cell(&keys, at)?, cell(&values, at)?);
                Ok(format!(
                    "{}={}",
                    key.as_deref().unwrap_or("null"),
                    value.as_deref().unwrap_or("null")
                ))
            });
            format!("{{{}}}", pairs.collect::<Result<Vec<_>>>()?.join(", "))
        }
        _ => ArrayFormatter::try_new(column, &FormatOptions::default())?
            .value(row)
            .try_to_string()?,
    }))
}

fn list(items: &ArrayRef) -> Result<String> {
    let items = shown(items)?;
    let texts = (0..items.len()).map(|at| Ok(cell(&items, at)?.unwrap_or_else(|| "null".into())));
    Ok(format!("[{}]", texts.collect::<Result<Vec<_>>>()?.join(", ")))
}

fn timestamp(millis: i64) -> String {
    let time = DateTime::from_timestamp_millis(millis);
    time.map(|time| time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()).unwrap_or_default()
}

/// Days, then the time of day.
fn span(millis: i64) -> String {
    let (sign, millis) = (if millis < 0 { "-" } else { "" }, millis.unsigned_abs());
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    let (hours, minutes, seconds) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{sign}{days} {hours:02}:{minutes:02}:{seconds:02}.{:03}", rest % 1000)
}

/// As Java prints doubles: always a point, an exponent outside 10⁻³ to 10⁷.
fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => text,
    }
}

/// What a type is called.
pub(crate) fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "varchar".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            "integer".into()
        }
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint".into(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision},{scale})")
        }
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Timestamp(_, None) => "timestamp(3)".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp(3) with time zone".into(),
        DataType::Duration(_) | DataType::Interval(_) => "interval day to second".into(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("array({})", type_name(item.data_type()))
        }
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), type_name(field.data_type())));
            format!("row({})", fields.collect::<Vec<_>>().join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => {
                let parts =
                    pair.iter().map(|field| type_name(field.data_type())).collect::<Vec<_>>();
                format!("map({})", parts.join(", "))
            }
            _ => "map".into(),
        },
        DataType::Dictionary(_, value) => type_name(value),
        DataType::Null => "unknown".into(),
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans() {
        for (value, text) in [
            (13.0, "13.0"),
            (1e7, "1.0E7"),
            (1e-5, "1.0E-5"),
            (-2.5, "-2.5"),
            (1.25e10, "1.25E10"),
            (0.001, "0.001"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(double(value), text);
        }
        assert_eq!(span(129_600_000), "1 12:00:00.000");
        assert_eq!(span(-86_400_000), "-1 00:00:00.000");
        assert_eq!(timestamp(1_710_936_723_374), "2024-03-20 12:12:03.374");
    }
}
