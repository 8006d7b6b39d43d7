//! `tctl inventory`: the processes that serve the cluster.

use chrono::{DateTime, Utc};
use shared_api::Instance;
use shared_cli::{CliError, ExitCode, Format, Table, print_structured, terminal_width};
use shared_types::GoDuration;

use crate::connect::Connection;

/// An instance that was not heard of for so long does not count as connected.
const SILENT: chrono::Duration = chrono::Duration::minutes(3);

/// Flags of `tctl inventory`.
#[derive(Debug, clap::Args)]
pub struct InventoryArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List instances: auth service, proxies, agents
    #[command(visible_alias = "list")]
    Ls {
        /// Output format
        #[arg(short = 'f', long, value_enum, default_value_t)]
        format: Format,
    },
    /// Count instances by service and version
    Status {
        /// Output format
        #[arg(short = 'f', long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: InventoryArgs) -> Result<ExitCode, CliError> {
    let instances = connection.api.inventory().await.map_err(Connection::error)?;
    let now = Utc::now();
    match args.verb {
        Verb::Ls { format: Format::Text } => {
            table(&instances, now).write(terminal_width(), &mut std::io::stdout().lock())?;
        }
        Verb::Ls { format } => print_structured(&instances, format)?,
        Verb::Status { format: Format::Text } => {
            let status = Status::of(&instances, now);
            println!("Instances: {} ({} connected)", status.instances, status.connected);
            for (title, counts) in [("Services", &status.services), ("Versions", &status.versions)]
            {
                println!("{title}:");
                for (name, count) in counts {
                    println!("  {name}: {count}");
                }
            }
        }
        Verb::Status { format } => {
            print_structured(&Status::of(&instances, now).to_json(), format)?
        }
    }
    Ok(ExitCode::Done)
}

fn services(instance: &Instance) -> String {
    let names: Vec<String> =
        instance.services.iter().map(|role| role.as_str().to_lowercase()).collect();
    names.join(",")
}

fn table(instances: &[Instance], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&["Server ID", "Hostname", "Services", "Version", "Last Seen"]);
    for instance in instances {
        let seen = match instance.last_seen {
            None => "never".to_owned(),
            Some(at) => {
                let ago = u64::try_from((now - at).num_seconds()).unwrap_or(0);
                format!("{} ago", GoDuration::from_secs(ago))
            }
        };
        table.row([
            instance.host_id.to_string(),
            instance.hostname.clone(),
            services(instance),
            instance.version.clone(),
            seen,
        ]);
    }
    table
}

/// How many instances there are.
#[derive(Debug, Default)]
struct Status {
    instances: usize,
    connected: usize,
    services: std::collections::BTreeMap<String, usize>,
    versions: std::collections::BTreeMap<String, usize>,
}

impl Status {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "instances": self.instances,
            "connected": self.connected,
            "services": self.services,
            "versions": self.versions,
        })
    }

    fn of(instances: &[Instance], now: DateTime<Utc>) -> Self {
        let mut status = Self { instances: instances.len(), ..Self::default() };
        for instance in instances {
            if instance.last_seen.is_some_and(|at| at > now - SILENT) {
                status.connected += 1;
            }
            for role in &instance.services {
                *status.services.entry(role.as_str().to_lowercase()).or_default() += 1;
            }
            let version = if instance.version.is_empty() { "unknown" } else { &instance.version };
            *status.versions.entry(version.to_owned()).or_default() += 1;
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use shared_types::{HostId, SystemRole};

    use super::*;

    #[test]
    fn instances_are_counted_by_what_they_are() {
        let now = Utc::now();
        let instance = |services: &[SystemRole], seen: Option<i64>| Instance {
            host_id: HostId::random(),
            hostname: "a".to_owned(),
            version: if seen.is_some() { "1.0.0".to_owned() } else { String::new() },
            services: services.to_vec(),
            last_seen: seen.map(|seconds| now - chrono::Duration::seconds(seconds)),
        };
        let all = [
            instance(&[SystemRole::Auth, SystemRole::Proxy], Some(0)),
            instance(&[SystemRole::Node], Some(75)),
            instance(&[SystemRole::Node], None),
        ];
        let status = Status::of(&all, now);
        assert_eq!((status.instances, status.connected), (3, 2));
        assert_eq!((status.services["node"], status.services["auth"]), (2, 1));
        assert_eq!((status.versions["1.0.0"], status.versions["unknown"]), (2, 1));
        let mut out = Vec::new();
        table(&all, now).write(160, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("auth,proxy 1.0.0   0s ago"), "{text}");
        assert!(text.contains("1m15s ago") && text.contains("never"), "{text}");
    }
}
