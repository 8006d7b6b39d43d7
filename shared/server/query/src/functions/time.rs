//! Times: ISO texts, differences, formats.

use std::sync::Arc;

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, TimeDelta};
use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, DurationMillisecondArray, Float64Array, Int64Array,
            StringBuilder, TimestampMillisecondArray,
        },
        compute::cast,
        datatypes::{
            DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMillisecondType,
        },
    },
    common::{exec_err, plan_err},
    error::Result,
    logical_expr::ScalarUDF,
};

use super::{as_numbers, as_text, column, is_text, plain, texts_then_numbers, value, whole};

/// `from_iso8601_timestamp` that gives NULL where it would fail.
pub(crate) const TRY_TIMESTAMP: &str = "try_from_iso8601_timestamp";

const DAY: i64 = 86_400_000;

pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let zoned = |types: &[DataType]| texts_then_numbers(types, 1).map(|()| zoned_type());
    let difference = |types: &[DataType]| unit_and_times(types, 1).map(|()| DataType::Int64);
    let text =
        |types: &[DataType]| times(types.get(..1).unwrap_or_default()).map(|()| DataType::Utf8);
    vec![
        plain("from_iso8601_timestamp", &[1], zoned, |columns| from_iso(columns, false)),
        plain(TRY_TIMESTAMP, &[1], zoned, |columns| from_iso(columns, true)),
        plain("date_diff", &[3], difference, date_diff),
        plain(
            "date_add",
            &[3],
            |types| {
                unit_and_times(types, 2).map(|()| types.get(2).cloned().unwrap_or(DataType::Null))
            },
            date_add,
        ),
        plain("date_format", &[2], text, date_format),
        plain("date_parse", &[2], |types| texts_then_numbers(types, 2).map(|()| TIME), date_parse),
        plain("to_unixtime", &[1], |types| times(types).map(|()| DataType::Float64), to_unixtime),
        plain("day_of_week", &[1], |types| times(types).map(|()| DataType::Int64), day_of_week),
        interval_span(),
    ]
}

/// An interval as a duration; days have 24 hours, months have no length.
pub(crate) fn interval_span() -> Arc<ScalarUDF> {
    plain(
        "interval_span",
        &[1],
        |_| Ok(DataType::Duration(TimeUnit::Millisecond)),
        |columns| {
            let intervals =
                cast(column(columns, 0)?, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
            let mut spans = Vec::with_capacity(intervals.len());
            for interval in intervals {
                spans.push(match interval {
                    None => None,
                    Some(interval) if interval.months != 0 => {
                        return exec_err!("a time difference has no months");
                    }
                    Some(interval) => {
                        Some(i64::from(interval.days) * DAY + interval.nanoseconds / 1_000_000)
                    }
                });
            }
            Ok(Arc::new(DurationMillisecondArray::from(spans)))
        },
    )
}

const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn zoned_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// Demands dates and timestamps.
fn times(types: &[DataType]) -> Result<()> {
    let fits = |kind: &DataType| {
        matches!(kind, DataType::Date32 | DataType::Timestamp(..) | DataType::Null)
    };
    match types.iter().find(|kind| !fits(kind)) {
        None => Ok(()),
        Some(kind) => plan_err!("Unexpected type {kind}. Expected: a date or a timestamp"),
    }
}

fn unit_and_times(types: &[DataType], first: usize) -> Result<()> {
    match types.first() {
        Some(unit) if is_text(unit) => times(types.get(first..).unwrap_or_default()),
        _ => plan_err!("Unexpected first argument. Expected: a unit such as 'day'"),
    }
}

fn millis(column: &ArrayRef) -> Result<TimestampMillisecondArray> {
    let wall = cast(column, &TIME)?;
    Ok(wall.as_primitive::<TimestampMillisecondType>().clone())
}

fn moment(times: &TimestampMillisecondArray, row: usize) -> Option<NaiveDateTime> {
    let millis = times.is_valid(row).then(|| times.value(row))?;
    DateTime::from_timestamp_millis(millis).map(|time| time.naive_utc())
}

fn from_iso(columns: &[ArrayRef], lenient: bool) -> Result<ArrayRef> {
    let texts = as_text(column(columns, 0)?)?;
    let mut found = Vec::with_capacity(texts.len());
    for text in &texts {
        found.push(match text.map(|text| (text, iso(text))) {
            None => None,
            Some((_, Some(millis))) => Some(millis),
            Some(_) if lenient => None,
            Some((text, None)) => return exec_err!("Invalid format: \"{}\"", text.escape_debug()),
        });
    }
    Ok(Arc::new(TimestampMillisecondArray::from(found).with_timezone("+00:00")))
}

/// Milliseconds of an ISO 8601 date or time; without a zone it is UTC.
fn iso(text: &str) -> Option<i64> {
    let Some((date, clock)) = text.split_once('T') else {
        return Some(date(text)?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    };
    let zone_at = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let formats = ["%H:%M:%S%.f", "%H:%M:%S", "%H:%M"];
    let time =
        formats.iter().find_map(|format| chrono::NaiveTime::parse_from_str(clock, format).ok())?;
    let offset = match zone {
        "" | "Z" | "z" => 0,
        _ => {
            let (sign, digits) = zone.split_at_checked(1)?;
            let (hours, minutes) = match digits.split_once(':') {
                Some(parts) => parts,
                None if digits.len() == 2 => (digits, "0"),
                None => digits.split_at_checked(2)?,
            };
            let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
            let minutes = i64::from(hours) * 60 + i64::from(minutes);
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let wall = self::date(date)?.and_time(time);
    Some(wall.and_utc().timestamp_millis() - offset * 60_000)
}

fn date(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()
}

#[derive(Clone, Copy)]
enum Unit {
    Millis(i64),
    Months(i64),
}

fn unit(name: &str) -> Result<Unit> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "millisecond" => Unit::Millis(1),
        "second" => Unit::Millis(1_000),
        "minute" => Unit::Millis(60_000),
        "hour" => Unit::Millis(3_600_000),
        "day" => Unit::Millis(DAY),
        "week" => Unit::Millis(7 * DAY),
        "month" => Unit::Months(1),
        "quarter" => Unit::Months(3),
        "year" => Unit::Months(12),
        _ => return exec_err!("'{}' is not a valid unit", name.escape_debug()),
    })
}

fn plus_months(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { time.checked_sub_months(count) } else { time.checked_add_months(count) }
}

/// Whole elapsed units from `a` to `b`, toward zero.
fn elapsed(unit: Unit, a: NaiveDateTime, b: NaiveDateTime) -> Option<i64> {
    match unit {
        Unit::Millis(length) => Some((b - a).num_milliseconds() / length),
        Unit::Months(length) => {
            let calendar =
                |time: NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
            let mut months = calendar(b) - calendar(a);
            let reached = plus_months(a, months)?;
            if months > 0 && reached > b {
                months -= 1;
            } else if months < 0 && reached < b {
                months += 1;
            }
            Some(months / length)
        }
    }
}

fn date_diff(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let units = as_text(column(columns, 0)?)?;
    let (from, to) = (millis(column(columns, 1)?)?, millis(column(columns, 2)?)?);
    let mut found = Vec::with_capacity(units.len());
    for row in 0..units.len() {
        found.push(match (value(&units, row), moment(&from, row), moment(&to, row)) {
            (Some(name), Some(a), Some(b)) => elapsed(unit(name)?, a, b),
            _ => None,
        });
    }
    Ok(Arc::new(Int64Array::from(found)))
}

fn date_add(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (units, counts) = (as_text(column(columns, 0)?)?, as_numbers(column(columns, 1)?)?);
    let given = column(columns, 2)?;
    let times = millis(given)?;
    let mut found = Vec::with_capacity(units.len());
    for row in 0..units.len() {
        found.push(match (value(&units, row), whole(&counts, row), moment(&times, row)) {
            (Some(name), Some(count), Some(time)) => {
                let moved = match unit(name)? {
                    Unit::Millis(length) => count
                        .checked_mul(length)
                        .and_then(TimeDelta::try_milliseconds)
                        .and_then(|span| time.checked_add_signed(span)),
                    Unit::Months(length) => {
                        count.checked_mul(length).and_then(|months| plus_months(time, months))
                    }
                };
                match moved {
                    Some(moved) => Some(moved.and_utc().timestamp_millis()),
                    None => return exec_err!("date_add leaves the range of dates"),
                }
            }
            _ => None,
        });
    }
    let moved: ArrayRef = match given.data_type() {
        DataType::Timestamp(_, Some(zone)) => {
            Arc::new(TimestampMillisecondArray::from(found).with_timezone(zone.clone()))
        }
        _ => Arc::new(TimestampMillisecondArray::from(found)),
    };
    Ok(cast(&moved, given.data_type())?)
}

/// The letters of MySQL in those of chrono; `None` when there is no such letter.
fn format_of(mysql: &str) -> Option<String> {
    let mut format = String::new();
    let mut letters = mysql.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            format.push(letter);
            continue;
        }
        format.push_str(match letters.next()? {
            'Y' => "%Y",
            'y' => "%y",
            'm' => "%m",
            'c' => "%-m",
            'd' => "%d",
            'e' => "%-d",
            'H' => "%H",
            'k' => "%-H",
            'h' | 'I' => "%I",
            'l' => "%-I",
            'i' => "%M",
            's' | 'S' => "%S",
            'f' => "%6f",
            'p' => "%p",
            'r' => "%I:%M:%S %p",
            'T' => "%H:%M:%S",
            'M' => "%B",
            'b' => "%b",
            'W' => "%A",
            'a' => "%a",
            'j' => "%j",
            'v' => "%V",
            'x' => "%G",
            '%' => "%%",
            _ => return None,
        });
    }
    Some(format)
}

fn date_format(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (times, formats) = (millis(column(columns, 0)?)?, as_text(column(columns, 1)?)?);
    let mut found = StringBuilder::new();
    for row in 0..times.len() {
        match (moment(&times, row), value(&formats, row)) {
            (Some(time), Some(format)) => match format_of(format) {
                Some(format) => found.append_value(time.format(&format).to_string()),
                None => {
                    return exec_err!(
                        "'{}' has a letter that is not supported",
                        format.escape_debug()
                    );
                }
            },
            _ => found.append_null(),
        }
    }
    Ok(Arc::new(found.finish()))
}

fn date_parse(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, formats) = (as_text(column(columns, 0)?)?, as_text(column(columns, 1)?)?);
    let mut found = Vec::with_capacity(texts.len());
    for row in 0..texts.len() {
        found.push(match (value(&texts, row), value(&formats, row)) {
            (Some(text), Some(format)) => {
                let parsed = format_of(format).and_then(|format| {
                    let time = NaiveDateTime::parse_from_str(text, &format);
                    time.ok().or_else(|| {
                        NaiveDate::parse_from_str(text, &format).ok()?.and_hms_opt(0, 0, 0)
                    })
                });
                match parsed {
                    Some(time) => Some(time.and_utc().timestamp_millis()),
                    None => return exec_err!("Invalid format: \"{}\"", text.escape_debug()),
                }
            }
            _ => None,
        });
    }
    Ok(Arc::new(TimestampMillisecondArray::from(found)))
}

fn to_unixtime(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let times = millis(column(columns, 0)?)?;
    let seconds = times.iter().map(|millis| millis.map(|millis| millis as f64 / 1000.0));
    Ok(Arc::new(seconds.collect::<Float64Array>()))
}

/// Monday is 1, Sunday 7.
fn day_of_week(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let times = millis(column(columns, 0)?)?;
    let day = |row| moment(&times, row).map(|time| i64::from(time.weekday().number_from_monday()));
    Ok(Arc::new((0..times.len()).map(day).collect::<Int64Array>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_texts() {
        let zulu = |text: &str| text.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_millis();
        for (text, same) in [
            ("2024-03-04T08:05:01Z", "2024-03-04T08:05:01Z"),
            ("2024-03-04T08:05:01.123456789+01:30", "2024-03-04T06:35:01.123Z"),
            ("2024-03-04T08:05-0200", "2024-03-04T10:05:00Z"),
            ("2024-03-04T08:05:01+02", "2024-03-04T06:05:01Z"),
            ("2024-03-04", "2024-03-04T00:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(iso(text), Some(zulu(same)), "{text}");
        }
        for bad in [
            "",
            "2024-03-04 08:05:01",
            "2024-13-04",
            "x",
            "2024-03-04T",
            "2024-03-04T08:05:01+",
            "2024-03-04T25:00:00Z",
        ] {
            assert_eq!(iso(bad), None, "{bad}");
        }
    }

    #[test]
    fn differences_count_whole_elapsed_units() {
        let time = |text: &str| text.parse::<NaiveDateTime>().unwrap();
        for (name, a, b, expected) in [
            ("day", "2024-01-01T23:59:59", "2024-01-02T23:59:58", 0),
            ("day", "2024-01-02T23:59:58", "2024-01-01T23:59:59", 0),
            ("year", "2023-12-31T00:00:00", "2024-01-01T00:00:00", 0),
            ("month", "2024-01-31T00:00:00", "2024-02-29T00:00:00", 1),
            ("month", "2024-03-15T00:00:00", "2024-01-16T00:00:00", -1),
            ("second", "2024-01-01T00:00:00", "2024-01-01T00:02:00.9", 120),
        ] {
            assert_eq!(
                elapsed(unit(name).unwrap(), time(a), time(b)),
                Some(expected),
                "{name} {a} {b}"
            );
        }
        assert!(unit("days").is_err());
    }
}
