//! Listing recordings: flags and table, the same in every program.

use chrono::{DateTime, Duration, NaiveDate, Utc};
use serde_json::Value;
use shared_types::GoDuration;

use crate::error::CliError;
use crate::format::{Format, print_structured};
use crate::table::Table;
use crate::text::terminal_width;

/// Longest range, in days.
const LONGEST_RANGE: i64 = 365;

/// Which recordings to list, and how.
#[derive(Debug, Default, clap::Args)]
pub struct ListArgs {
    /// First day, YYYY-MM-DD; a day ago when left out
    #[arg(long, value_name = "DAY")]
    pub from_utc: Option<NaiveDate>,
    /// Last day, YYYY-MM-DD; now when left out
    #[arg(long, value_name = "DAY")]
    pub to_utc: Option<NaiveDate>,
    /// Instead of days: how far back, such as 5h30m
    #[arg(long, value_name = "DURATION")]
    pub last: Option<GoDuration>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// Sessions of this user only
    #[arg(long)]
    pub user: Option<String>,
    /// Sessions with this login on the host only
    #[arg(long)]
    pub login: Option<String>,
    /// Sessions on this host only
    #[arg(long)]
    pub host: Option<String>,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    pub format: Format,
}

impl ListArgs {
    /// From when to when sessions must have ended.
    pub fn range(&self, now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>), CliError> {
        let midnight = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc();
        if let Some(last) = self.last {
            if self.from_utc.is_some() || self.to_utc.is_some() {
                return Err(CliError::usage(
                    "use of 'last' is mutually exclusive with 'from-utc' and 'to-utc' flags",
                ));
            }
            let back = Duration::from_std(last.as_std()).unwrap_or(Duration::days(LONGEST_RANGE));
            return Ok((now - back, now));
        }
        let far =
            || CliError::usage("--from-utc and --to-utc are days of this calendar, YYYY-MM-DD");
        let to = match self.to_utc {
            Some(day) => midnight(day).checked_add_signed(Duration::days(1)).ok_or_else(far)?,
            None => now,
        };
        let from = match self.from_utc {
            Some(day) => midnight(day),
            None => to.checked_sub_signed(Duration::days(1)).ok_or_else(far)?,
        };
        let days = (to - from).num_days();
        if days > LONGEST_RANGE {
            return Err(CliError::usage(format!(
                "cannot request recordings: date range for recording listing too large: {days} days specified: limit {LONGEST_RANGE} days"
            )));
        }
        if from > to {
            return Err(CliError::usage("--from-utc is after --to-utc"));
        }
        Ok((from, to))
    }

    /// Prints end events. `target` is what the column of hosts, clusters and databases is called.
    pub fn print(&self, ends: &[Value], target: &str) -> Result<(), CliError> {
        if self.format != Format::Text {
            return print_structured(&ends, self.format);
        }
        let mut table = Table::new(&["ID", "Type", "Participants", target, "Timestamp"]);
        for end in ends {
            let row = shared_events::recording_row(end);
            table.row([row.id, row.kind, row.participants, row.target, row.time]);
        }
        table.write(terminal_width(), &mut std::io::stdout().lock())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_beyond_the_calendar_are_a_usage_error() {
        let args = |from: Option<NaiveDate>, to: Option<NaiveDate>| ListArgs {
            from_utc: from,
            to_utc: to,
            last: None,
            ..ListArgs::default()
        };
        let now = DateTime::<Utc>::UNIX_EPOCH;
        for (from, to) in [
            (None, Some(NaiveDate::MAX)),
            (Some(NaiveDate::MAX), None),
            (Some(NaiveDate::MIN), None),
        ] {
            assert!(args(from, to).range(now).is_err());
        }
        assert_eq!(args(None, None).range(now).unwrap().1, now);
        let last = ListArgs {
            last: Some(GoDuration(std::time::Duration::from_nanos(i64::MAX as u64))),
            ..args(None, None)
        };
        assert!(last.range(now).is_ok());
    }
}
