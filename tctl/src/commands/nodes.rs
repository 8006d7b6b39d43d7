//! `tctl nodes`: SSH servers of the cluster.

use shared_api::{CreateTokenReply, CreateTokenRequest, NodesQuery, Secret};
use shared_cli::{
    CliError, ExitCode, Format, TUNNEL, Table, labels_text, print_structured, terminal_width,
};
use shared_types::{GoDuration, Node, SystemRole, parse_labels};

use super::tokens::{invitation, system_role};
use crate::connect::Connection;

/// Flags of `tctl nodes`.
#[derive(Debug, clap::Args)]
pub struct NodesArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a token for a new node, and print how it joins
    Add {
        /// What may join with it, separated by commas
        #[arg(long, default_value = "node", value_delimiter = ',', value_parser = system_role)]
        roles: Vec<SystemRole>,
        /// How long the token works
        #[arg(long, default_value = "30m")]
        ttl: GoDuration,
        /// The token, in place of a random one; better from a file: tctl tokens add --value-file
        #[arg(long)]
        token: Option<String>,
        /// Output format
        #[arg(long, value_enum, hide = true)]
        format: Option<Format>,
    },
    /// List nodes
    Ls {
        #[command(flatten)]
        select: Select,
        /// Output format
        #[arg(short = 'f', long, value_enum, default_value_t)]
        format: Format,
        /// Show labels whole
        #[arg(short, long)]
        verbose: bool,
    },
}

/// Which nodes, or databases, are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Select {
    /// Labels that must match: k=v,k2=v2
    labels: Option<String>,
    /// Words that must stand in names, addresses or labels, separated by commas
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// Condition, such as 'labels["env"] == "prod" && hasPrefix(name, "db-")'
    #[arg(long, value_name = "CONDITION")]
    query: Option<String>,
}

impl From<Select> for NodesQuery {
    fn from(select: Select) -> Self {
        Self { search: select.search, labels: select.labels, query: select.query }
    }
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: NodesArgs) -> Result<ExitCode, CliError> {
    match args.verb {
        Verb::Add { roles, ttl, token, format } => {
            let request = CreateTokenRequest {
                roles,
                value: token.map(Secret::new),
                ttl_seconds: Some(ttl.as_std().as_secs()),
                labels: Default::default(),
                single_use: false,
            };
            let reply = connection.api.create_token(&request).await.map_err(Connection::error)?;
            show_token(connection, &reply, ttl, format)?;
        }
        Verb::Ls { select, format, verbose } => list(connection, select, format, verbose).await?,
    }
    Ok(ExitCode::Done)
}

fn show_token(
    connection: &Connection,
    reply: &CreateTokenReply,
    ttl: GoDuration,
    format: Option<Format>,
) -> Result<(), CliError> {
    match format {
        Some(Format::Text) => println!("{}", reply.token.expose()),
        Some(format) => print_structured(&[reply.token.expose()], format)?,
        None => {
            print!("{}", invitation(reply, ttl, connection.proxy.as_deref(), &Default::default()))
        }
    }
    Ok(())
}

async fn list(
    connection: &Connection,
    select: Select,
    format: Format,
    verbose: bool,
) -> Result<(), CliError> {
    if let Some(labels) = &select.labels {
        parse_labels(labels).map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    }
    let nodes = connection.api.nodes(&select.into()).await.map_err(Connection::error)?.items;
    if format != Format::Text {
        return print_structured(&nodes, format);
    }
    table(&nodes, verbose).write(terminal_width(), &mut std::io::stdout().lock())?;
    Ok(())
}

fn table(nodes: &[Node], verbose: bool) -> Table {
    let mut table = Table::new(&["Host", "UUID", "Public Address", "Labels", "Version"]);
    if !verbose {
        table = table.elastic("Labels");
    }
    for node in nodes {
        let address = match node.spec.public_addrs.first() {
            Some(public) => public,
            None if node.spec.use_tunnel => TUNNEL,
            None => node.spec.addr.as_str(),
        };
        let labels = labels_text(&node.all_labels());
        let version = node.spec.version.as_str();
        table.row([node.spec.hostname.as_str(), node.name(), address, &labels, version]);
    }
    table
}

#[cfg(test)]
mod tests {
    use shared_types::resource::NodeSpec;

    use super::*;

    #[test]
    fn columns_as_documented() {
        let spec = NodeSpec {
            hostname: "db-1".to_owned(),
            use_tunnel: true,
            version: "0.1.0".to_owned(),
            ..NodeSpec::default()
        };
        let mut node = Node::new("5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11", spec);
        node.metadata.labels = [("env".to_owned(), "prod".to_owned())].into();
        let mut out = Vec::new();
        table(&[node], true).write(120, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(lines[0].join(" "), "Host UUID Public Address Labels Version");
        assert!(
            text.ends_with("5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11 ⟵ Tunnel       env=prod 0.1.0\n"),
            "{text}"
        );
    }
}
