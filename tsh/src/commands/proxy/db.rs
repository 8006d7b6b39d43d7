//! `tsh proxy db`: listeners on this machine for the clients of databases.

use std::net::SocketAddr;
use std::sync::Arc;

use clap_complete::engine::ArgValueCompleter;
use local_proxy::listen_address;
use serde::Serialize;
use shared_cli::{CliError, ExitCode, printable};
use shared_config::Profile;
use shared_pki::DatabaseRoute;
use shared_types::DbProtocol;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::commands::completion;
use crate::commands::db::native::{Reach, client, installed};
use crate::commands::db::select::{AsArgs, FilterArgs, pick, reachable, route};
use crate::commands::db::tunnel::{
    Listening, Reauth, Settings, any_port, listen_error, local_proxy_reason, nth_address, open,
    open_bare, raise_descriptors, store,
};
use crate::commands::db::{active, issue};
use crate::context::Ctx;

/// Shown below the flags.
const HELP: &str = "\
    With --tunnel clients connect without a certificate and without a password: whoever reaches the listener is you. It \
    is on 127.0.0.1, which other users of this machine reach too. Without --tunnel a client brings the certificate \
    itself. Several databases take ports one after the other. When the login ends, the terminal asks for the password \
    and the listeners stay.";

/// Flags of `tsh proxy db`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct DbArgs {
    /// Databases: names, or the beginnings of them
    #[arg(value_name = "DB", add = ArgValueCompleter::new(completion::databases))]
    databases: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    as_whom: AsArgs,
    /// Listen on this port of 127.0.0.1; 0 takes any
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// The same on another loopback address
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Show the certificate for the clients, which need none then
    #[arg(long)]
    tunnel: bool,
    /// Let --listen be an address that other machines reach
    #[arg(long)]
    insecure_listen_anywhere: bool,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
}

/// What `--format` of `tsh proxy db` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// One object in one line, as soon as everything listens.
    Json,
}

/// A listener, as it is told.
#[derive(Debug, Serialize)]
struct Told {
    database: String,
    cluster: String,
    protocol: DbProtocol,
    address: SocketAddr,
    tunnel: bool,
    db_user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    db_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<std::path::PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert_file: Option<std::path::PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<std::path::PathBuf>,
    #[serde(skip)]
    random_port: bool,
}

/// Listens until the user ends it.
pub(super) async fn run(ctx: &Ctx, args: DbArgs) -> Result<ExitCode, CliError> {
    let at = listen_address(args.port, args.listen, args.insecure_listen_anywhere)
        .map_err(|error| listen_error(&error))?
        .unwrap_or_else(any_port);
    let routes = routes(ctx, &args).await?;
    raise_descriptors();
    let stop = CancellationToken::new();
    let reauth = Reauth::asking(ctx)?;
    let (mut told, mut tasks) = (Vec::new(), Vec::new());
    for (nth, route) in routes.iter().enumerate() {
        let at = nth_address(at, nth)
            .ok_or_else(|| CliError::usage("there are not that many ports above --port"))?;
        let (listening, one) = listen(ctx, &reauth, &args, route, at, &stop).await?;
        told.push(one);
        tasks.push(listening.task);
    }
    match args.format {
        Format::Json => shared_cli::print_json_line(&serde_json::json!({ "databases": told }))?,
        Format::Text => told.iter().for_each(tell),
    }
    ended().await?;
    stop.cancel();
    for task in tasks {
        let _ = task.await;
    }
    reauth.restore_terminal();
    Ok(ExitCode::Done)
}

async fn routes(ctx: &Ctx, args: &DbArgs) -> Result<Vec<DatabaseRoute>, CliError> {
    let entries = reachable(ctx, &ctx.api()?, &args.filter).await?;
    let active = active(&ctx.dir, &ctx.profile()?)?;
    let mut names: Vec<Option<&str>> =
        args.databases.iter().map(|name| Some(name.as_str())).collect();
    if names.is_empty() {
        let only = match active.as_slice() {
            [one] if args.filter.to_query() == Default::default() => {
                Some(one.route.service.as_str())
            }
            _ => None,
        };
        names.push(only);
    }
    let mut routes: Vec<DatabaseRoute> = Vec::new();
    for name in names {
        let entry = pick(&entries, name, &args.filter)?;
        let service = entry.database.name();
        let former = active.iter().find(|one| one.route.service == service).map(|one| &one.route);
        let route = route(entry, &args.as_whom, former).map_err(|error| {
            if args.databases.len() > 1 {
                error.context(format!("database {service}"))
            } else {
                error
            }
        })?;
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    Ok(routes)
}

async fn listen(
    ctx: &Ctx,
    reauth: &Arc<Reauth>,
    args: &DbArgs,
    route: &DatabaseRoute,
    at: SocketAddr,
    stop: &CancellationToken,
) -> Result<(Listening, Told), CliError> {
    let profile = ctx.profile()?;
    let protocol: DbProtocol =
        route.protocol.parse().map_err(|error| CliError::from_error(&error))?;
    let mut told = Told {
        database: route.service.clone(),
        cluster: profile.cluster.to_string(),
        protocol,
        address: at,
        tunnel: args.tunnel,
        db_user: route.user.clone(),
        db_name: route.name.clone(),
        command: None,
        ca_file: None,
        cert_file: None,
        key_file: None,
        random_port: at.port() == 0,
    };
    if args.tunnel {
        let listening = open(ctx, reauth, route, at, stop).await?;
        told.address = listening.addr;
        let reach = Reach::Tunnel(listening.addr.port());
        told.command = Some(client(protocol, &route.user, &route.name, reach, &installed)?.shown());
        return Ok((listening, told));
    }
    refuse_without_tunnel(protocol, &profile, &route.service)?;
    let settings = logged_in(ctx, &profile, route).await?;
    let listening = open_bare(ctx, reauth, route, at, stop)?;
    told.address = listening.addr;
    (told.ca_file, told.cert_file, told.key_file) =
        (Some(settings.ca), Some(settings.cert), Some(settings.key));
    Ok((listening, told))
}

/// Clients that could not bring a certificate.
fn refuse_without_tunnel(
    protocol: DbProtocol,
    profile: &Profile,
    service: &str,
) -> Result<(), CliError> {
    if protocol != DbProtocol::Dynamodb {
        return Ok(());
    }
    let reason = local_proxy_reason(protocol, profile).unwrap_or("its clients bring none");
    Err(CliError::usage(format!("--tunnel is needed for {}: {reason}", protocol.display()))
        .hint(format!("tsh proxy db --tunnel {service}")))
}

/// The certificate in the profile, got now where there is none for this route.
async fn logged_in(
    ctx: &Ctx,
    profile: &Profile,
    route: &DatabaseRoute,
) -> Result<Settings, CliError> {
    if active(&ctx.dir, profile)?.iter().any(|one| one.route == *route) {
        return Settings::new(&ctx.dir, profile, route, ctx.global.insecure);
    }
    let issued = issue(&ctx.api()?, route).await?;
    store(&ctx.dir, profile, route, &issued, ctx.global.insecure)
}

fn tell(told: &Told) {
    let (name, addr) = (printable(&told.database), told.address);
    if told.tunnel {
        println!(
            "Started authenticated tunnel for the {} database \"{name}\" in cluster \"{}\" on {addr}.",
            told.protocol.display(),
            printable(&told.cluster)
        );
    } else {
        println!("Started DB proxy on {addr}");
    }
    if told.random_port {
        println!(
            "To avoid port randomization, you can choose the listening port using the --port flag."
        );
    }
    println!();
    if let Some(command) = &told.command {
        println!(
            "Use the following command to connect to the database, or the address above in other clients:"
        );
        println!("  $ {}", printable(command));
    } else {
        println!("Use the following credentials to connect to the {name} proxy:");
        for (label, path) in [
            ("ca_file", &told.ca_file),
            ("cert_file", &told.cert_file),
            ("key_file", &told.key_file),
        ] {
            if let Some(path) = path {
                println!("  {label}={}", path.display());
            }
        }
        for (label, value) in [("user", &told.db_user), ("database", &told.db_name)] {
            if !value.is_empty() {
                println!("  {label}={}", printable(value));
            }
        }
    }
    println!();
}

/// Ends when the user or the system asks for it.
async fn ended() -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}
