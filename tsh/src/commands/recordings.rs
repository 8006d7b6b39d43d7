//! `tsh recordings`.

use chrono::{DateTime, Duration, NaiveDate, Utc};
use shared_api::RecordingsQuery;
use shared_cli::{CliError, ExitCode, Format, Table, print_structured, terminal_width};
use shared_types::GoDuration;

use crate::context::{Ctx, api_error};

/// Flags of `tsh recordings`.
#[derive(Debug, clap::Args)]
pub struct RecordingsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List recorded sessions, newest first
    Ls(LsArgs),
}

#[derive(Debug, clap::Args)]
struct LsArgs {
    /// First day, YYYY-MM-DD; a day ago when left out
    #[arg(long)]
    from_utc: Option<NaiveDate>,
    /// Last day, YYYY-MM-DD; now when left out
    #[arg(long)]
    to_utc: Option<NaiveDate>,
    /// Instead of days: how far back, such as 5h30m
    #[arg(long)]
    last: Option<GoDuration>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
}

/// Longest range, in days.
const LONGEST_RANGE: i64 = 365;

/// Runs the verb.
pub async fn run(ctx: &Ctx, args: &RecordingsArgs) -> Result<ExitCode, CliError> {
    let Verb::Ls(args) = &args.verb;
    let (from, to) = range(args, Utc::now())?;
    let query = RecordingsQuery { from: Some(from), to: Some(to), limit: Some(args.limit) };
    let ends = ctx
        .api()?
        .recordings(&query)
        .await
        .map_err(|error| api_error(error).context("getting session events"))?;
    if args.format != Format::Text {
        print_structured(&ends, args.format)?;
        return Ok(ExitCode::Done);
    }
    let mut table = Table::new(&["ID", "Type", "Participants", "Target", "Timestamp"]);
    for end in &ends {
        let row = shared_events::recording_row(end);
        table.row([row.id, row.kind, row.participants, row.target, row.time]);
    }
    table.write(terminal_width(), &mut std::io::stdout().lock())?;
    println!();
    Ok(ExitCode::Done)
}

fn range(args: &LsArgs, now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>), CliError> {
    let midnight = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc();
    if let Some(last) = args.last {
        if args.from_utc.is_some() || args.to_utc.is_some() {
            return Err(CliError::usage(
                "use of 'last' is mutually exclusive with 'from-utc' and 'to-utc' flags",
            ));
        }
        let back = Duration::from_std(last.as_std()).unwrap_or(Duration::days(LONGEST_RANGE));
        return Ok((now - back, now));
    }
    let far = || CliError::usage("--from-utc and --to-utc are days of this calendar, YYYY-MM-DD");
    let to = match args.to_utc {
        Some(day) => midnight(day).checked_add_signed(Duration::days(1)).ok_or_else(far)?,
        None => now,
    };
    let from = match args.from_utc {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_beyond_the_calendar_are_a_usage_error() {
        let args = |from: Option<NaiveDate>, to: Option<NaiveDate>| LsArgs {
            from_utc: from,
            to_utc: to,
            last: None,
            limit: 50,
            format: Format::Text,
        };
        let now = DateTime::<Utc>::UNIX_EPOCH;
        for (from, to) in [
            (None, Some(NaiveDate::MAX)),
            (Some(NaiveDate::MAX), None),
            (Some(NaiveDate::MIN), None),
        ] {
            assert!(range(&args(from, to), now).is_err());
        }
        assert_eq!(range(&args(None, None), now).unwrap().1, now);
        let last = LsArgs {
            last: Some(GoDuration(std::time::Duration::from_nanos(i64::MAX as u64))),
            ..args(None, None)
        };
        assert!(range(&last, now).is_ok());
    }
}
