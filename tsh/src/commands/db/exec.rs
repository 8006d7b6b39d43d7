//! `tsh db exec`: one command in several databases, each by its own client.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use futures::StreamExt as _;
use serde::Serialize;
use shared_api::DatabaseEntry;
use shared_cli::{CliError, ExitCode, Prompter, printable};
use shared_pki::DatabaseRoute;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio_util::sync::CancellationToken;

use super::certs::{Active, active};
use super::connect::{code, command, not_started};
use super::native::{Reach, client, installed};
use super::select::{AsArgs, FilterArgs, pick, route};
use super::tunnel::{Reauth, any_port, open};
use crate::context::{Ctx, api_error};

/// Databases at a time, at most.
const MOST_PARALLEL: u8 = 10;
/// Bytes of a line that are kept in memory.
const LONGEST_LINE: usize = 1024 * 1024;

/// Flags of `tsh db exec`.
#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    as_whom: AsArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Words that must stand in names, descriptions or labels, separated by commas
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// Databases by name, separated by commas
    #[arg(long, value_name = "DBS", value_delimiter = ',')]
    dbs: Vec<String>,
    /// Databases at a time, 10 at most
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_PARALLEL)))]
    parallel: u8,
    /// Folder for the outputs, one file for each database, and a summary
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Do not ask before the command runs
    #[arg(long = "no-confirm", overrides_with = "confirm")]
    no_confirm: bool,
    /// Ask before the command runs (the default)
    #[arg(long = "confirm", hide = true)]
    confirm: bool,
    /// Command, in the database's language
    command: String,
}

/// What `summary.json` says of one database.
#[derive(Debug, Serialize)]
struct Outcome {
    database: Target,
    command: String,
    success: bool,
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_file: Option<PathBuf>,
}

/// Which database, as whom.
#[derive(Debug, Serialize)]
struct Target {
    service_name: String,
    protocol: String,
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    database: String,
}

/// `summary.json`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    databases: &'a [Outcome],
    total: usize,
    success: usize,
    failure: usize,
}

/// Runs it everywhere; fails when it failed anywhere.
pub(super) async fn run(ctx: &Ctx, args: ExecArgs) -> Result<ExitCode, CliError> {
    let entries = chosen(ctx, &args).await?;
    let active = active(&ctx.dir, &ctx.profile()?)?;
    let routes = routes(&entries, &args.as_whom, &active)?;
    if !args.no_confirm {
        for route in &routes {
            eprintln!("  {} ({}) as {}", route.service, route.protocol, printable(&route.user));
        }
        let question = format!("Run the command in {} databases?", routes.len());
        let hint = "--no-confirm runs it unasked";
        let sure =
            Prompter.confirm(&question).map_err(|error| CliError::from_error(&error).hint(hint))?;
        if !sure {
            return Err(CliError::new("nothing was run"));
        }
    }
    if let Some(folder) = &args.output_dir {
        std::fs::create_dir_all(folder)
            .map_err(|error| CliError::wrap(format!("make {}", folder.display()), &error))?;
    }
    let reauth = Reauth::silent(ctx)?;
    let (reauth, args) = (&reauth, &args);
    let outcomes: Vec<Outcome> = futures::stream::iter(routes)
        .map(|route| async move { one(ctx, reauth, args, route).await })
        .buffered(usize::from(args.parallel))
        .collect()
        .await;
    let failed = outcomes.iter().filter(|outcome| !outcome.success).count();
    if let Some(folder) = &args.output_dir {
        write_summary(folder, &outcomes, failed)?;
    }
    match failed {
        0 => Ok(ExitCode::Done),
        _ => Err(CliError::new(format!(
            "the command failed in {failed} of {} databases",
            outcomes.len()
        ))),
    }
}

async fn chosen(ctx: &Ctx, args: &ExecArgs) -> Result<Vec<DatabaseEntry>, CliError> {
    args.filter.check(ctx)?;
    let mut query = args.filter.to_query();
    query.search.clone_from(&args.search);
    if args.dbs.is_empty() && query == Default::default() {
        return Err(CliError::usage(
            "please specify databases by --dbs, --labels, --query or --search",
        ));
    }
    let entries = ctx.api()?.databases(&query).await.map_err(api_error)?;
    if !args.dbs.is_empty() {
        let named = args.dbs.iter().map(|name| pick(&entries, Some(name), &args.filter).cloned());
        let mut named = named.collect::<Result<Vec<_>, _>>()?;
        named.sort_by(|a, b| a.database.name().cmp(b.database.name()));
        named.dedup_by(|a, b| a.database.name() == b.database.name());
        return Ok(named);
    }
    match entries.is_empty() {
        true => Err(CliError::with_exit(ExitCode::NotFound, "no database matches")),
        false => Ok(entries),
    }
}

/// All that is wrong is found before anything runs.
fn routes(
    entries: &[DatabaseEntry],
    as_whom: &AsArgs,
    active: &[Active],
) -> Result<Vec<DatabaseRoute>, CliError> {
    let mut routes = Vec::new();
    for entry in entries {
        let (name, protocol) = (entry.database.name(), entry.database.spec.protocol);
        let probe = client(protocol, "", "", Reach::Tunnel(0), &installed)?;
        if probe.with_command(protocol, "").is_none() {
            return Err(CliError::new(format!(
                "tsh db exec does not support {}, which {name} is",
                protocol.display()
            )));
        }
        let former = active.iter().find(|one| one.route.service == name).map(|one| &one.route);
        routes.push(
            route(entry, as_whom, former)
                .map_err(|error| error.context(format!("database {name}")))?,
        );
    }
    Ok(routes)
}

async fn one(ctx: &Ctx, reauth: &Arc<Reauth>, args: &ExecArgs, route: DatabaseRoute) -> Outcome {
    let output_file =
        args.output_dir.as_ref().map(|folder| folder.join(format!("{}.output", route.service)));
    let prefix = (args.parallel > 1).then(|| format!("[{}] ", route.service));
    let result =
        execute(ctx, reauth, args, &route, output_file.as_deref(), prefix.as_deref()).await;
    let (exit_code, error) = match result {
        Ok(code) => (Some(code), None),
        Err(error) => {
            eprintln!("{}: {}", route.service, printable(error.message()));
            (None, Some(error.to_string()))
        }
    };
    let database = Target {
        service_name: route.service,
        protocol: route.protocol,
        username: route.user,
        database: route.name,
    };
    let command = args.command.clone();
    Outcome { database, command, success: exit_code == Some(0), exit_code, error, output_file }
}

async fn execute(
    ctx: &Ctx,
    reauth: &Arc<Reauth>,
    args: &ExecArgs,
    route: &DatabaseRoute,
    output: Option<&Path>,
    prefix: Option<&str>,
) -> Result<u8, CliError> {
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let listening = open(ctx, reauth, route, any_port(), &stop).await?;
    let protocol = route.protocol.parse().map_err(|error| CliError::from_error(&error))?;
    let reach = Reach::Tunnel(listening.addr.port());
    let native = client(protocol, &route.user, &route.name, reach, &installed)?
        .with_command(protocol, &args.command)
        .ok_or_else(|| CliError::new("this client runs no single command"))?;
    let mut child = command(&native)?;
    child.stdin(Stdio::null());
    if let Some(path) = output {
        let failed = |error| CliError::wrap(format!("write {}", path.display()), &error);
        let file = std::fs::File::create(path).map_err(failed)?;
        child.stdout(file.try_clone().map_err(failed)?).stderr(file);
    } else {
        child.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let mut child = child.spawn().map_err(|error| not_started(&native, &error))?;
    let prefix = prefix.unwrap_or_default();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (_, _, status) = tokio::join!(
        lines(stdout, |line| println!("{prefix}{line}")),
        lines(stderr, |line| eprintln!("{prefix}{line}")),
        child.wait()
    );
    let status =
        status.map_err(|error| CliError::wrap(format!("wait for {}", native.program), &error))?;
    Ok(code(status))
}

/// Hands on line by line, so that those of several databases do not mix.
async fn lines(from: Option<impl AsyncRead + Unpin>, show: impl Fn(&str)) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut part = tokio::io::AsyncReadExt::take(&mut from, LONGEST_LINE as u64);
        match part.read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let text = String::from_utf8_lossy(&line);
        show(text.strip_suffix('\n').unwrap_or(&text));
    }
}

fn write_summary(folder: &Path, outcomes: &[Outcome], failed: usize) -> Result<(), CliError> {
    let summary = Summary {
        databases: outcomes,
        total: outcomes.len(),
        success: outcomes.len() - failed,
        failure: failed,
    };
    let path = folder.join("summary.json");
    let text = serde_json::to_vec_pretty(&summary)
        .map_err(|error| CliError::wrap("write the summary", &error))?;
    std::fs::write(&path, text)
        .map_err(|error| CliError::wrap(format!("write {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_handed_on_whole() {
        let seen = std::cell::RefCell::new(Vec::new());
        lines(Some(&b"a\n\nb\xff\nlast"[..]), |line| seen.borrow_mut().push(line.to_owned())).await;
        assert_eq!(seen.into_inner(), ["a", "", "b\u{fffd}", "last"]);
    }

    #[test]
    fn the_summary_counts() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = |success: bool| Outcome {
            database: Target {
                service_name: "web".to_owned(),
                protocol: "postgres".to_owned(),
                username: "alice".to_owned(),
                database: String::new(),
            },
            command: "select 1".to_owned(),
            success,
            exit_code: Some(u8::from(!success)),
            error: None,
            output_file: None,
        };
        write_summary(folder.path(), &[outcome(true), outcome(false)], 1).unwrap();
        let text = std::fs::read_to_string(folder.path().join("summary.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&summary["total"], &summary["success"], &summary["failure"]),
            (&2.into(), &1.into(), &1.into())
        );
        assert_eq!(summary["databases"][0]["database"]["service_name"], "web");
        assert_eq!(summary["databases"][1]["exit_code"], 1);
    }
}
