//! `tctl audit`: questions to the audit log in SQL.

use std::io::{IsTerminal, Read};

use shared_api::{QueryReply, QueryRequest};
use shared_cli::{
    CliError, ExitCode, Format, Table, print_json_line, print_structured, printable,
    stdout_is_terminal, terminal_width,
};

use crate::connect::Connection;

/// Longest statement, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// Flags of `tctl audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, clap::Subcommand)]
enum Noun {
    /// Ask in SQL
    Query {
        #[command(subcommand)]
        verb: QueryVerb,
    },
}

#[derive(Debug, clap::Subcommand)]
enum QueryVerb {
    /// Run one statement and print its rows
    Exec {
        /// SQL; read from standard input when left out
        sql: Option<String>,
        /// How many days back the views reach
        #[arg(long)]
        days: Option<u32>,
        /// Output format
        #[arg(short = 'f', long, value_enum, default_value = "json")]
        format: QueryFormat,
    },
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum QueryFormat {
    /// A list of objects whose `data` is a row; the first row names the columns
    Json,
    /// The same as YAML
    Yaml,
    /// A table
    Text,
    /// Comma-separated values with a head line
    Csv,
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: AuditArgs) -> Result<ExitCode, CliError> {
    let Noun::Query { verb: QueryVerb::Exec { sql, days, format } } = args.noun;
    let sql = match sql {
        Some(sql) => sql,
        None => from_stdin()?,
    };
    if sql.trim().is_empty() {
        return Err(CliError::usage("audit query required")
            .hint("tctl audit query exec 'select * from exec limit 10'"));
    }
    let reply =
        connection.api.query(&QueryRequest { sql, days }).await.map_err(Connection::error)?;
    print(&reply, format)?;
    Ok(ExitCode::Done)
}

fn from_stdin() -> Result<String, CliError> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("SQL, ended by Ctrl-D:");
    }
    let mut sql = String::new();
    stdin.lock().take(LONGEST).read_to_string(&mut sql)?;
    Ok(sql)
}

fn print(reply: &QueryReply, format: QueryFormat) -> Result<(), CliError> {
    let names = || reply.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    let rows = || {
        reply
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.clone().unwrap_or_default()).collect::<Vec<_>>())
    };
    match format {
        QueryFormat::Json => {
            let lines: Vec<_> = std::iter::once(names())
                .chain(rows())
                .map(|data| serde_json::json!({ "data": data }))
                .collect();
            print_json_line(&lines)?;
        }
        QueryFormat::Yaml => {
            let lines: Vec<_> = std::iter::once(names())
                .chain(rows())
                .map(|data| serde_json::json!({ "data": data }))
                .collect();
            print_structured(&lines, Format::Yaml)?;
        }
        QueryFormat::Text => {
            let names = names();
            let mut table = Table::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
            rows().for_each(|row| table.row(row));
            table.write(terminal_width(), &mut std::io::stdout().lock())?;
        }
        QueryFormat::Csv => {
            // A file gets what is there; a terminal is not driven by it.
            let shown = |cell: String| match stdout_is_terminal() {
                true => printable(&cell).into_owned(),
                false => cell,
            };
            let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
            let failed = |error: csv::Error| match error.into_kind() {
                csv::ErrorKind::Io(error) => CliError::from(error),
                other => CliError::new(format!("print CSV: {other:?}")),
            };
            for row in std::iter::once(names()).chain(rows()) {
                writer.write_record(row.into_iter().map(shown)).map_err(failed)?;
            }
            writer.flush()?;
        }
    }
    Ok(())
}
