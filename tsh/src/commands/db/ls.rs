//! `tsh db ls`.

use serde_json::{Value, json};
use shared_api::{Client, DatabaseEntry, DatabasesQuery};
use shared_cli::{
    CliError, ExitCode, Format, Table, labels_text, print_structured, terminal_width,
};
use shared_config::Profile;
use shared_types::{Resource, parse_labels};

use super::certs::{Active, active};
use super::select::check_cluster;
use crate::context::{Ctx, api_error, config_error};

/// From so many rows on there is a hint how to find one.
const MANY: usize = 20;

/// Flags of `tsh db ls`.
#[derive(Debug, clap::Args)]
pub(super) struct LsArgs {
    /// Labels that must match: k=v,k2=v2
    labels: Option<String>,
    /// Words that must stand in names, descriptions or labels, separated by commas
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// Condition, such as 'labels["env"] == "prod"'
    #[arg(long, value_name = "CONDITION")]
    query: Option<String>,
    /// Cluster to list; only the one you are logged in to
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// List behind all proxies that you are logged in to
    #[arg(short = 'R', long)]
    all: bool,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
    /// Show protocol, type and address too, and labels whole
    #[arg(short, long)]
    verbose: bool,
}

/// The databases behind one proxy.
struct Listed {
    profile: Profile,
    entries: Vec<DatabaseEntry>,
    active: Vec<Active>,
}

/// Lists them, by name; the names are kept for completion.
pub(super) async fn run(ctx: &Ctx, args: &LsArgs) -> Result<ExitCode, CliError> {
    if let Some(labels) = &args.labels {
        parse_labels(labels).map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    }
    check_cluster(ctx, args.cluster.as_deref())?;
    let query = DatabasesQuery {
        search: args.search.clone(),
        labels: args.labels.clone(),
        query: args.query.clone(),
    };
    let listed =
        if args.all { everywhere(ctx, &query).await? } else { vec![here(ctx, &query).await?] };
    if args.format != Format::Text {
        print_structured(&documents(&listed, args.all), args.format)?;
        return Ok(ExitCode::Done);
    }
    let table = table(&listed, args);
    table.write(terminal_width(), &mut std::io::stdout().lock())?;
    println!();
    if table.is_empty() {
        match query == DatabasesQuery::default() {
            true => eprintln!("There is no database that your roles let you use."),
            false => eprintln!("No database matches. See all that you may use: tsh db ls"),
        }
    } else if table.len() >= MANY {
        eprintln!("Hint: find databases by words with 'tsh db ls --search=WORDS',");
        eprintln!("      or by a condition with 'tsh db ls --query=CONDITION'.");
    }
    Ok(ExitCode::Done)
}

async fn here(ctx: &Ctx, query: &DatabasesQuery) -> Result<Listed, CliError> {
    let profile = ctx.profile()?;
    let entries = ctx.api()?.databases(query).await.map_err(api_error)?;
    if *query == DatabasesQuery::default() {
        ctx.remember_databases(entries.iter().map(|entry| entry.database.name()));
    }
    let active = active(&ctx.dir, &profile)?;
    Ok(Listed { profile, entries, active })
}

async fn everywhere(ctx: &Ctx, query: &DatabasesQuery) -> Result<Vec<Listed>, CliError> {
    let mut listed = Vec::new();
    for profile in ctx.dir.profiles().map_err(config_error)? {
        let Some(login) = ctx.login_of(&profile)? else { continue };
        if login.identity.valid_until <= chrono::Utc::now() {
            eprintln!("The login at {} has ended and is left out.", profile.name());
            continue;
        }
        let client = Client::new(login.client_config(&profile)).map_err(api_error)?;
        let entries = client.databases(query).await.map_err(api_error)?;
        let active = active(&ctx.dir, &profile)?;
        listed.push(Listed { profile, entries, active });
    }
    Ok(listed)
}

/// `[a b]`, and what is taken away from it.
fn users(allowed: &[String], denied: &[String]) -> String {
    if allowed.is_empty() {
        return "(none)".to_owned();
    }
    let mut text = format!("[{}]", allowed.join(" "));
    if !denied.is_empty() {
        text.push_str(&format!(", except: [{}]", denied.join(" ")));
    }
    text
}

/// The name; of one that the user is logged in to also as whom.
fn shown_name(name: &str, active: &[Active]) -> String {
    let Some(one) = active.iter().find(|one| one.route.service == name) else {
        return name.to_owned();
    };
    let mut parts = Vec::new();
    for (what, value) in [("user", &one.route.user), ("db", &one.route.name)] {
        if !value.is_empty() {
            parts.push(format!("{what}: {value}"));
        }
    }
    match parts.is_empty() {
        true => format!("> {name}"),
        false => format!("> {name} ({})", parts.join(", ")),
    }
}

fn connect(name: &str, active: &[Active]) -> String {
    match active.iter().any(|one| one.route.service == name) {
        true => format!("tsh db connect {name}"),
        false => String::new(),
    }
}

fn table(listed: &[Listed], args: &LsArgs) -> Table {
    let mut titles = Vec::new();
    if args.all {
        titles.extend(["Proxy", "Cluster"]);
    }
    titles.extend(["Name", "Description"]);
    if args.verbose {
        titles.extend(["Protocol", "Type", "URI"]);
    }
    titles.push("Allowed Users");
    if args.verbose {
        titles.push("Database Roles");
    }
    titles.extend(["Labels", "Connect"]);
    let table = Table::new(&titles);
    let mut table = if args.verbose { table } else { table.elastic("Labels") };
    for one in listed {
        for entry in &one.entries {
            let database = &entry.database;
            let name = database.name();
            let mut row = Vec::new();
            if args.all {
                row.extend([one.profile.name().to_owned(), one.profile.cluster.to_string()]);
            }
            row.push(shown_name(name, &one.active));
            row.push(database.metadata.description.clone().unwrap_or_default());
            if args.verbose {
                let protocol = database.spec.protocol.as_str().to_owned();
                row.extend([protocol, "self-hosted".to_owned(), database.spec.uri.clone()]);
            }
            row.push(users(&entry.allowed_users, &entry.denied_users));
            if args.verbose {
                row.push(String::new());
            }
            row.extend([labels_text(&database.metadata.labels), connect(name, &one.active)]);
            table.row(row);
        }
    }
    table
}

fn documents(listed: &[Listed], all: bool) -> Vec<Value> {
    let document = |one: &Listed, entry: &DatabaseEntry| {
        let mut value = Resource::Db(entry.database.clone()).to_json();
        if let Value::Object(map) = &mut value {
            map.insert(
                "users".to_owned(),
                json!({ "allowed": entry.allowed_users, "denied": entry.denied_users }),
            );
            map.insert("database_roles".to_owned(), json!([]));
        }
        match all {
            true => json!({
                "proxy": one.profile.name(),
                "cluster": one.profile.cluster,
                "database": value,
            }),
            false => value,
        }
    };
    listed
        .iter()
        .flat_map(|one| one.entries.iter().map(move |entry| document(one, entry)))
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use shared_pki::DatabaseRoute;

    use super::*;

    #[test]
    fn users_as_people_read_them() {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(users(&own(&["a", "b"]), &[]), "[a b]");
        assert_eq!(users(&own(&["*"]), &own(&["root"])), "[*], except: [root]");
        assert_eq!(users(&[], &own(&["root"])), "(none)");
    }

    #[test]
    fn an_active_one_says_as_whom() {
        let active = |user: &str, name: &str| {
            let route = DatabaseRoute {
                service: "web".to_owned(),
                protocol: "postgres".to_owned(),
                user: user.to_owned(),
                name: name.to_owned(),
            };
            vec![Active { route, ends: Utc::now() }]
        };
        assert_eq!(shown_name("web", &active("alice", "shop")), "> web (user: alice, db: shop)");
        assert_eq!(shown_name("web", &active("alice", "")), "> web (user: alice)");
        assert_eq!(shown_name("web", &active("", "")), "> web");
        assert_eq!(shown_name("other", &active("a", "b")), "other");
    }
}
