//! `tsh ls`: hosts the cluster knows of. An unregistered sshd need not be listed to be reached.

use shared_cli::{CliError, ExitCode, Format, Table, print_structured, terminal_width};

use crate::context::{Ctx, api_error};

/// Flags of `tsh ls`.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// Labels that must match: k=v,k2=v2
    labels: Option<String>,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
}

/// Lists them, by name; the names are kept for completion.
pub async fn run(ctx: &Ctx, args: &LsArgs) -> Result<ExitCode, CliError> {
    let wanted: Vec<(String, String)> = match &args.labels {
        None => Vec::new(),
        Some(text) => text
            .split(',')
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(CliError::usage(format!("{pair:?} is no label")).hint("k=v,k2=v2")),
            })
            .collect::<Result<_, _>>()?,
    };
    let mut nodes = ctx.api()?.nodes().await.map_err(api_error)?;
    ctx.remember_hosts(nodes.iter().map(|node| node.hostname.as_str()));
    nodes.retain(|node| wanted.iter().all(|(key, value)| node.labels.get(key) == Some(value)));
    nodes.sort_by(|a, b| a.hostname.cmp(&b.hostname));
    if args.format != Format::Text {
        print_structured(&nodes, args.format)?;
        return Ok(ExitCode::Done);
    }
    let mut table = Table::new(&["Node Name", "Address", "Labels"]).elastic("Labels");
    for node in &nodes {
        let labels: Vec<String> = node
            .labels
            .iter()
            .filter(|(key, _)| {
                !["teleport.dev/", "teleport.hidden/", "teleport.internal/"]
                    .iter()
                    .any(|space| key.starts_with(space))
            })
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        table.row([node.hostname.as_str(), &node.address, &labels.join(",")]);
    }
    table.write(terminal_width(), &mut std::io::stdout().lock())?;
    println!();
    if nodes.is_empty() {
        eprintln!(
            "No host is registered. Any sshd that trusts the cluster is reached by its name: tsh ssh --port=22 user@host"
        );
    }
    Ok(ExitCode::Done)
}
