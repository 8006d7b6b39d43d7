//! `tctl db`: databases that agents serve.

use shared_api::DatabasesQuery;
use shared_authz::Query;
use shared_cli::{
    CliError, ExitCode, Format, Table, labels_text, print_structured, terminal_width,
};
use shared_types::resource::HealthStatus;
use shared_types::{DatabaseServer, Labels, ResourceKind, parse_labels};

use super::nodes::Select;
use crate::connect::Connection;

/// Flags of `tctl db`.
#[derive(Debug, clap::Args)]
pub struct DbArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List databases, once for each agent that serves them
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

/// Runs the verb.
pub async fn run(connection: &Connection, args: DbArgs) -> Result<ExitCode, CliError> {
    let Verb::Ls { select, format, verbose } = args.verb;
    let wanted = Wanted::of(&select.into())?;
    let listed =
        connection.api.list_resources(ResourceKind::DbServer).await.map_err(Connection::error)?;
    let mut servers = listed
        .into_iter()
        .map(serde_json::from_value)
        .collect::<Result<Vec<DatabaseServer>, _>>()
        .map_err(|error| CliError::wrap("read the list of databases", &error))?;
    servers.retain(|server| wanted.has(server));
    servers.sort_by(|a, b| (a.name(), &a.spec.hostname).cmp(&(b.name(), &b.spec.hostname)));
    if format == Format::Text {
        table(&servers, verbose).write(terminal_width(), &mut std::io::stdout().lock())?;
    } else {
        print_structured(&servers, format)?;
    }
    Ok(ExitCode::Done)
}

/// Which databases are meant: all that is given must hold.
struct Wanted {
    words: Vec<String>,
    labels: Labels,
    query: Option<Query>,
}

impl Wanted {
    fn of(select: &DatabasesQuery) -> Result<Self, CliError> {
        let labels = select.labels.as_deref().unwrap_or_default();
        let query = select.query.as_deref().filter(|text| !text.trim().is_empty());
        let words = select.search.as_deref().unwrap_or_default().split(',').map(str::trim);
        Ok(Self {
            words: words.filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            labels: parse_labels(labels)
                .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?,
            query: query
                .map(str::parse)
                .transpose()
                .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?,
        })
    }

    fn has(&self, server: &DatabaseServer) -> bool {
        let database = &server.spec.database;
        let labels = database.all_labels();
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && database.contains_all(&self.words)
            && self.query.as_ref().is_none_or(|query| query.matches(database, &labels))
    }
}

fn table(servers: &[DatabaseServer], verbose: bool) -> Table {
    let mut table = Table::new(&["Host", "Name", "Protocol", "URI", "Health", "Labels", "Version"]);
    if !verbose {
        table = table.elastic("Labels");
    }
    for server in servers {
        let database = &server.spec.database;
        let health = match server.spec.health.status {
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unknown => "unknown",
            HealthStatus::Unhealthy => "unhealthy",
        };
        table.row([
            server.spec.hostname.as_str(),
            database.name(),
            database.spec.protocol.as_str(),
            &database.spec.uri,
            health,
            &labels_text(&database.all_labels()),
            &server.spec.version,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use shared_types::resource::DatabaseSpec;
    use shared_types::{Database, DbProtocol, HostId};

    use super::*;

    fn servers() -> Vec<DatabaseServer> {
        let mut orders =
            Database::new("orders", DatabaseSpec::new(DbProtocol::Postgres, "pg.test:5432"));
        orders.metadata.labels = [("env".to_owned(), "prod".to_owned())].into();
        let cache = Database::new("cache", DatabaseSpec::new(DbProtocol::Redis, "cache.test:6379"));
        [orders, cache]
            .map(|database| DatabaseServer::of(HostId::random(), "agent-1", database))
            .into()
    }

    #[test]
    fn columns_as_documented() {
        let mut out = Vec::new();
        table(&servers(), true).write(120, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let words: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0].join(" "), "Host Name Protocol URI Health Labels Version");
        assert_eq!(words[2].join(" "), "agent-1 orders postgres pg.test:5432 unknown env=prod");
    }

    #[test]
    fn all_that_is_given_must_hold() {
        let chosen = |labels: Option<&str>, search: Option<&str>, query: Option<&str>| -> String {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let select = DatabasesQuery {
                labels: owned(labels),
                search: owned(search),
                query: owned(query),
            };
            let wanted = Wanted::of(&select).unwrap();
            let servers = servers();
            let names: Vec<&str> = servers
                .iter()
                .filter(|server| wanted.has(server))
                .map(|server| server.name())
                .collect();
            names.join(",")
        };
        assert_eq!(chosen(None, None, None), "orders,cache");
        assert_eq!(chosen(Some("env=prod"), None, None), "orders");
        assert_eq!(chosen(None, Some("REDIS, cache"), None), "cache");
        assert_eq!(chosen(None, None, Some(r#"labels["env"] == "prod""#)), "orders");
        assert_eq!(chosen(Some("env=prod"), Some("redis"), None), "");
        let bad = DatabasesQuery { query: Some("env =".to_owned()), ..Default::default() };
        assert!(Wanted::of(&bad).is_err());
    }
}
