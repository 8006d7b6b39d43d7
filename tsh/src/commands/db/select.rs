//! Which database is meant, and as whom.

use shared_api::{Client, DatabaseEntry, DatabasesQuery};
use shared_cli::{CliError, ExitCode};
use shared_pki::DatabaseRoute;
use shared_types::{DbProtocol, parse_labels};

use crate::commands::completion;
use crate::context::{Ctx, api_error};
use clap_complete::engine::ArgValueCompleter;

/// The user of Redis that everybody is who names none.
const REDIS_USER: &str = "default";
/// A database found in a cloud may be asked for by the name it has there.
const DISCOVERED: &str = "teleport.internal/discovered-name";
/// Candidates that an error lists at most.
const MOST_CANDIDATES: usize = 20;

/// Ways to say which databases are meant without their names.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct FilterArgs {
    /// Labels that must match: k=v,k2=v2
    #[arg(long, value_name = "LABELS")]
    pub(crate) labels: Option<String>,
    /// Condition, such as 'labels["env"] == "prod"'
    #[arg(long, value_name = "CONDITION")]
    pub(crate) query: Option<String>,
    /// Cluster of the database; only the one you are logged in to
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
}

impl FilterArgs {
    fn is_given(&self) -> bool {
        self.labels.is_some() || self.query.is_some()
    }

    /// Refuses labels that are none, and another cluster.
    pub(crate) fn check(&self, ctx: &Ctx) -> Result<(), CliError> {
        if let Some(labels) = &self.labels {
            let wrong = |error| CliError::from_error(&error).exit(ExitCode::Usage);
            parse_labels(labels).map_err(wrong)?;
        }
        check_cluster(ctx, self.cluster.as_deref())
    }

    /// The query for the auth service.
    pub(crate) fn to_query(&self) -> DatabasesQuery {
        DatabasesQuery { search: None, labels: self.labels.clone(), query: self.query.clone() }
    }
}

/// As whom, and to which database on the server.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct AsArgs {
    /// Database user; may be left out where your roles leave one choice
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) db_user: Option<String>,
    /// Database on the server
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) db_name: Option<String>,
    /// Roles of a user that is made for the session; not supported yet
    #[arg(short = 'r', long, value_name = "ROLES")]
    pub(crate) db_roles: Option<String>,
    /// Accepted, and without effect: access is not requested by a connection
    #[arg(long, hide = true)]
    request_reason: Option<String>,
    /// Accepted, and without effect: access is not requested by a connection
    #[arg(long, hide = true)]
    disable_access_request: bool,
}

/// One database.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PickArgs {
    /// Database: its name, or the beginning of it
    #[arg(value_name = "DB", add = ArgValueCompleter::new(completion::databases))]
    pub(crate) database: Option<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

/// The cluster of the profile, or none.
pub(crate) fn check_cluster(ctx: &Ctx, cluster: Option<&str>) -> Result<(), CliError> {
    let profile = ctx.profile()?;
    match cluster {
        Some(name) if name != profile.cluster.as_str() => Err(CliError::with_exit(
            ExitCode::NotFound,
            format!("cluster {name:?} is not known; you are logged in to {}", profile.cluster),
        )),
        _ => Ok(()),
    }
}

/// The databases that the filter leaves; their names are kept for completion where it leaves all.
pub(crate) async fn reachable(
    ctx: &Ctx,
    api: &Client,
    filter: &FilterArgs,
) -> Result<Vec<DatabaseEntry>, CliError> {
    filter.check(ctx)?;
    let entries = api.databases(&filter.to_query()).await.map_err(api_error)?;
    if !filter.is_given() {
        ctx.remember_databases(entries.iter().map(|entry| entry.database.name()));
    }
    Ok(entries)
}

/// The one that is meant.
pub(crate) fn pick<'a>(
    entries: &'a [DatabaseEntry],
    name: Option<&str>,
    filter: &FilterArgs,
) -> Result<&'a DatabaseEntry, CliError> {
    let Some(name) = name else {
        return match entries {
            [one] if filter.is_given() => Ok(one),
            [] if filter.is_given() => Err(none("no database matches".to_owned())),
            _ if filter.is_given() => Err(ambiguous("several databases match", entries.iter())),
            _ => Err(CliError::usage(
                "please specify a database service by name, --labels, or --query",
            )
            .hint("tsh db ls")),
        };
    };
    if let Some(exact) = entries.iter().find(|entry| entry.database.name() == name) {
        return Ok(exact);
    }
    let discovered = |entry: &&DatabaseEntry| {
        entry.database.metadata.labels.get(DISCOVERED).is_some_and(|found| found == name)
    };
    let found: Vec<&DatabaseEntry> = entries.iter().filter(discovered).collect();
    let found = match found.is_empty() {
        true => entries.iter().filter(|entry| entry.database.name().starts_with(name)).collect(),
        false => found,
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(none(format!("database {name:?} not found"))),
        several => {
            let text = format!("{name:?} is the beginning of several databases' names");
            Err(ambiguous(&text, several.iter().copied()))
        }
    }
}

fn none(text: String) -> CliError {
    CliError::with_exit(ExitCode::NotFound, text).hint("tsh db ls lists what you may reach")
}

fn ambiguous<'a>(text: &str, found: impl Iterator<Item = &'a DatabaseEntry>) -> CliError {
    let mut names: Vec<&str> = found.map(|entry| entry.database.name()).collect();
    let more = names.len().saturating_sub(MOST_CANDIDATES);
    names.truncate(MOST_CANDIDATES);
    let mut list = names.join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    CliError::new(format!("{text}: {list}")).hint("give the whole name")
}

/// The only choice there is, where roles leave one.
fn only(allowed: &[String]) -> Option<&str> {
    match allowed {
        [one] if one != "*" => Some(one),
        _ => None,
    }
}

fn missing(what: &str, flag: &str, allowed: &[String]) -> CliError {
    let text = format!("please provide the {what} using the {flag} flag");
    let named: Vec<&str> = allowed
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "*")
        .take(MOST_CANDIDATES)
        .collect();
    match named.is_empty() {
        true => CliError::usage(text),
        false => CliError::usage(text).hint(format!("your roles allow {}", named.join(", "))),
    }
}

/// What a certificate is to say: flags, then what an earlier login to this database said, then the only choice.
pub(crate) fn route(
    entry: &DatabaseEntry,
    args: &AsArgs,
    active: Option<&DatabaseRoute>,
) -> Result<DatabaseRoute, CliError> {
    if args.db_roles.is_some() {
        return Err(CliError::usage(
            "--db-roles: users that are made for a session are not supported yet",
        ));
    }
    let protocol = entry.database.spec.protocol;
    let active = active.filter(|route| route.service == entry.database.name());
    let former = |value: Option<&String>| value.filter(|value| !value.is_empty()).cloned();
    let user = match args.db_user.clone().or_else(|| former(active.map(|route| &route.user))) {
        Some(user) => user,
        None => match only(&entry.allowed_users) {
            Some(user) => user.to_owned(),
            None if protocol == DbProtocol::Redis => REDIS_USER.to_owned(),
            None => return Err(missing("database user name", "--db-user", &entry.allowed_users)),
        },
    };
    let name = match args.db_name.clone().or_else(|| former(active.map(|route| &route.name))) {
        Some(name) => name,
        None if !protocol.has_names() => String::new(),
        None => match only(&entry.allowed_names) {
            Some(name) => name.to_owned(),
            // The client says it.
            None if entry.allowed_names.iter().any(|name| name == "*") => String::new(),
            None if entry.allowed_names.is_empty() => String::new(),
            None => return Err(missing("database name", "--db-name", &entry.allowed_names)),
        },
    };
    let service = entry.database.name().to_owned();
    let route = DatabaseRoute { service, protocol: protocol.as_str().to_owned(), user, name };
    route.check().map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    Ok(route)
}

#[cfg(test)]
mod tests {
    use shared_types::Database;
    use shared_types::resource::DatabaseSpec;

    use super::*;

    fn entry(name: &str, protocol: DbProtocol, users: &[&str], names: &[&str]) -> DatabaseEntry {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        DatabaseEntry {
            database: Database::new(name, DatabaseSpec::new(protocol, "db:1")),
            servers: 1,
            health: Default::default(),
            allowed_users: own(users),
            denied_users: Vec::new(),
            allowed_names: own(names),
            denied_names: Vec::new(),
        }
    }

    fn pg(name: &str) -> DatabaseEntry {
        entry(name, DbProtocol::Postgres, &["*"], &["*"])
    }

    #[test]
    fn exact_beats_beginning_and_beginning_must_be_unique() {
        let mut entries = vec![pg("web"), pg("web-2"), pg("audit"), pg("audio")];
        entries[2].database.metadata.labels.insert(DISCOVERED.to_owned(), "found-1".to_owned());
        let filter = FilterArgs::default();
        let name = |name| pick(&entries, Some(name), &filter).map(|entry| entry.database.name());
        assert_eq!(name("web").unwrap(), "web");
        assert_eq!(name("web-").unwrap(), "web-2");
        assert_eq!(name("found-1").unwrap(), "audit");
        assert!(name("aud").unwrap_err().message().contains("audit, audio"));
        assert_eq!(name("x").unwrap_err().exit_code(), ExitCode::NotFound);
    }

    #[test]
    fn without_a_name_the_filter_must_leave_one() {
        let (one, two) = (vec![pg("a")], vec![pg("a"), pg("b")]);
        let none = FilterArgs::default();
        let given = FilterArgs { labels: Some("env=prod".to_owned()), ..none.clone() };
        assert_eq!(pick(&one, None, &given).unwrap().database.name(), "a");
        assert!(pick(&two, None, &given).unwrap_err().message().contains("a, b"));
        assert_eq!(pick(&[], None, &given).unwrap_err().exit_code(), ExitCode::NotFound);
        assert_eq!(
            pick(&one, None, &none).unwrap_err().message(),
            "please specify a database service by name, --labels, or --query"
        );
    }

    #[test]
    fn an_only_choice_is_filled_in_and_several_name_the_flag() {
        let none = AsArgs::default();
        let chosen = |entry: &DatabaseEntry| route(entry, &none, None).map(|r| (r.user, r.name));
        let owned = |user: &str, name: &str| (user.to_owned(), name.to_owned());
        let only = entry("a", DbProtocol::Postgres, &["alice"], &["shop"]);
        assert_eq!(chosen(&only).unwrap(), owned("alice", "shop"));
        let any_name = entry("a", DbProtocol::Postgres, &["alice"], &["*", "shop"]);
        assert_eq!(chosen(&any_name).unwrap(), owned("alice", ""));
        let users = entry("a", DbProtocol::Postgres, &["alice", "bob"], &["*"]);
        assert!(chosen(&users).unwrap_err().message().contains("--db-user"));
        let names = entry("a", DbProtocol::Postgres, &["alice"], &["a", "b"]);
        assert!(chosen(&names).unwrap_err().message().contains("--db-name"));
        let any = entry("a", DbProtocol::Mysql, &["*"], &[]);
        assert!(chosen(&any).unwrap_err().message().contains("--db-user"));
        let redis = entry("a", DbProtocol::Redis, &["*"], &[]);
        assert_eq!(chosen(&redis).unwrap(), owned("default", ""));
    }

    #[test]
    fn flags_beat_an_earlier_login_which_beats_the_only_choice() {
        let entry = entry("a", DbProtocol::Postgres, &["alice"], &["*"]);
        let earlier = DatabaseRoute {
            service: "a".to_owned(),
            protocol: "postgres".to_owned(),
            user: "bob".to_owned(),
            name: "shop".to_owned(),
        };
        let none = AsArgs::default();
        assert_eq!(route(&entry, &none, Some(&earlier)).unwrap(), earlier);
        let flags = AsArgs { db_user: Some("eve".to_owned()), ..AsArgs::default() };
        assert_eq!(route(&entry, &flags, Some(&earlier)).unwrap().user, "eve");
        let other = DatabaseRoute { service: "b".to_owned(), ..earlier };
        assert_eq!(route(&entry, &none, Some(&other)).unwrap().user, "alice");
        let roles = AsArgs { db_roles: Some("r".to_owned()), ..AsArgs::default() };
        assert!(route(&entry, &roles, None).is_err());
    }
}
