//! `tsh ls`: nodes of the cluster. An unregistered sshd need not be listed to be reached.

use shared_api::NodesQuery;
use shared_cli::{
    CliError, ExitCode, Format, node_table, print_structured, printable, terminal_width,
};
use shared_types::parse_labels;

use crate::context::{Ctx, api_error};

/// The proxy's word for a name that several nodes have.
const AMBIGUOUS: &str = "err-node-is-ambiguous";

/// Flags of `tsh ls`.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// Labels that must match: k=v,k2=v2
    labels: Option<String>,
    /// Words that must stand in names, addresses or labels, separated by commas
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// Condition, such as 'labels["env"] == "prod" && hasPrefix(name, "db-")'
    #[arg(long, value_name = "CONDITION")]
    query: Option<String>,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: ListFormat,
    /// Show ids, and labels whole
    #[arg(short, long)]
    verbose: bool,
}

/// What `--format` of `tsh ls` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum ListFormat {
    /// For people.
    #[default]
    Text,
    /// Node resources.
    Json,
    /// Node resources.
    Yaml,
    /// One host name per line.
    Names,
}

/// Lists them, by name; the names are kept for completion.
pub async fn run(ctx: &Ctx, args: &LsArgs) -> Result<ExitCode, CliError> {
    if let Some(labels) = &args.labels {
        parse_labels(labels).map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    }
    let query = NodesQuery {
        search: args.search.clone(),
        labels: args.labels.clone(),
        query: args.query.clone(),
    };
    let reply = ctx.api()?.nodes(&query).await.map_err(api_error)?;
    let names = reply.items.iter().map(|node| node.spec.hostname.as_str());
    ctx.remember_hosts(names.chain(reply.visited.iter().map(|host| host.hostname.as_str())));
    match args.format {
        ListFormat::Json => print_structured(&reply.items, Format::Json)?,
        ListFormat::Yaml => print_structured(&reply.items, Format::Yaml)?,
        ListFormat::Names => {
            for node in &reply.items {
                println!("{}", printable(&node.spec.hostname));
            }
        }
        ListFormat::Text => {
            let table = node_table(&reply.items, args.verbose);
            table.write(terminal_width(), &mut std::io::stdout().lock())?;
            println!();
            hints(reply.items.is_empty(), query == NodesQuery::default(), &reply.visited);
        }
    }
    Ok(ExitCode::Done)
}

fn hints(empty: bool, all: bool, visited: &[shared_api::VisitedHost]) {
    if empty && all {
        eprintln!(
            "No host is registered. Any sshd that trusts the cluster is reached by its name: tsh ssh --port=22 user@host"
        );
    } else if empty {
        eprintln!("No node matches. See all that you may reach: tsh ls");
    }
    if !visited.is_empty() {
        let names: Vec<&str> = visited.iter().map(|host| host.hostname.as_str()).collect();
        eprintln!("Not registered, but lately visited: {}", printable(&names.join(", ")));
    }
}

/// Whether the proxy refused a connection because several nodes have the name.
pub(crate) fn is_ambiguous(error: &CliError) -> bool {
    error.message().contains(AMBIGUOUS)
}

/// Shows the nodes that `host` may mean, and answers with the error to end with.
pub(crate) async fn ambiguous(ctx: &Ctx, host: &str) -> CliError {
    let query = NodesQuery { search: Some(host.to_owned()), ..NodesQuery::default() };
    let found = match ctx.api() {
        Ok(api) => api.nodes(&query).await.map_err(api_error),
        Err(error) => Err(error),
    };
    let nodes = match found {
        Ok(reply) => reply.items,
        Err(error) => return error.context("ask for the nodes of this name"),
    };
    let known =
        nodes.iter().filter(|node| node.names().any(|name| name.eq_ignore_ascii_case(host)));
    let table = node_table(known, true);
    eprintln!("error: ambiguous host could match multiple nodes\n");
    table.write(terminal_width(), &mut std::io::stderr().lock()).ok();
    eprintln!("\nHint: try addressing the node by its id, such as: tsh ssh user@NODE-ID");
    eprintln!("Hint: use 'tsh ls -v' to list all nodes with their ids\n");
    CliError::new(format!("{host} is the name of several nodes"))
}
