//! `tctl users`.

use shared_api::{InviteUserRequest, ResetUserRequest, UpdateUserRequest, UserTokenReply};
use shared_cli::{CliError, ExitCode, Format, Table, print_structured, printable, terminal_width};
use shared_types::{GoDuration, ResourceKind, RoleName, Traits, UserName};

use crate::connect::Connection;

/// Flags of `tctl users`.
#[derive(Debug, clap::Args)]
pub struct UsersArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a user and print an invitation
    Add(AddArgs),
    /// Change a user's roles or logins
    Update(UpdateArgs),
    /// List users
    Ls {
        /// Output format
        #[arg(short = 'f', long, value_enum, default_value_t)]
        format: Format,
    },
    /// Delete users
    #[command(visible_alias = "del")]
    Rm {
        /// User names, separated by commas
        #[arg(value_delimiter = ',', required = true)]
        users: Vec<UserName>,
    },
    /// Reset a user's password and print a link to set a new one
    Reset {
        /// User name
        user: UserName,
        /// How long the link works, at most 24h
        #[arg(long)]
        ttl: Option<GoDuration>,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// User name
    user: UserName,
    /// Roles, separated by commas
    #[arg(long, required = true, value_delimiter = ',')]
    roles: Vec<RoleName>,
    #[command(flatten)]
    traits: AddTraits,
    /// How long the invitation works, at most 48h
    #[arg(long)]
    ttl: Option<GoDuration>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What roles see as `{{internal.…}}`.
#[derive(Debug, clap::Args)]
struct AddTraits {
    /// OS logins, separated by commas
    #[arg(long, value_delimiter = ',')]
    logins: Vec<String>,
    /// Windows logins
    #[arg(long, value_delimiter = ',')]
    windows_logins: Vec<String>,
    /// Kubernetes users
    #[arg(long, value_delimiter = ',')]
    kubernetes_users: Vec<String>,
    /// Kubernetes groups
    #[arg(long, value_delimiter = ',')]
    kubernetes_groups: Vec<String>,
    /// Database users
    #[arg(long, value_delimiter = ',')]
    db_users: Vec<String>,
    /// Database names
    #[arg(long, value_delimiter = ',')]
    db_names: Vec<String>,
    /// Roles in databases
    #[arg(long, value_delimiter = ',', value_parser = database_role)]
    db_roles: Vec<String>,
}

/// A role in a database: one, not a pattern.
fn database_role(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return Err("a wildcard is no role in a database; name the roles".to_owned());
    }
    Ok(text.to_owned())
}

impl AddTraits {
    fn into_traits(self) -> Traits {
        [
            ("logins", self.logins),
            ("windows_logins", self.windows_logins),
            ("kubernetes_users", self.kubernetes_users),
            ("kubernetes_groups", self.kubernetes_groups),
            ("db_users", self.db_users),
            ("db_names", self.db_names),
            ("db_roles", self.db_roles),
        ]
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| (name.to_owned(), values))
        .collect()
    }
}

#[derive(Debug, clap::Args)]
struct UpdateArgs {
    /// User name
    user: UserName,
    /// New roles, in place of the former
    #[arg(long, value_delimiter = ',')]
    set_roles: Option<Vec<RoleName>>,
    /// New OS logins, in place of the former
    #[arg(long, value_delimiter = ',')]
    set_logins: Option<Vec<String>>,
    /// New Windows logins
    #[arg(long, value_delimiter = ',')]
    set_windows_logins: Option<Vec<String>>,
    /// New Kubernetes users
    #[arg(long, value_delimiter = ',')]
    set_kubernetes_users: Option<Vec<String>>,
    /// New Kubernetes groups
    #[arg(long, value_delimiter = ',')]
    set_kubernetes_groups: Option<Vec<String>>,
    /// New database users
    #[arg(long, value_delimiter = ',')]
    set_db_users: Option<Vec<String>>,
    /// New database names
    #[arg(long, value_delimiter = ',')]
    set_db_names: Option<Vec<String>>,
    /// New roles in databases
    #[arg(long, value_delimiter = ',', value_parser = database_role)]
    set_db_roles: Option<Vec<String>>,
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: UsersArgs) -> Result<ExitCode, CliError> {
    match args.verb {
        Verb::Add(args) => add(connection, args).await?,
        Verb::Update(args) => update(connection, args).await?,
        Verb::Ls { format } => list(connection, format).await?,
        Verb::Rm { users } => {
            for user in users {
                connection
                    .api
                    .delete_resource(ResourceKind::User, user.as_ref())
                    .await
                    .map_err(Connection::error)?;
                println!("User {:?} has been deleted", user.as_ref());
            }
        }
        Verb::Reset { user, ttl, format } => {
            let request = ResetUserRequest { ttl_seconds: ttl.map(|ttl| ttl.as_std().as_secs()) };
            let token =
                connection.api.reset_user(&user, &request).await.map_err(Connection::error)?;
            link(connection, &token, format, "reset", "has been reset", "password reset")?;
        }
    }
    Ok(ExitCode::Done)
}

async fn add(connection: &Connection, args: AddArgs) -> Result<(), CliError> {
    let request = InviteUserRequest {
        user: args.user.clone(),
        roles: args.roles,
        traits: args.traits.into_traits(),
        ttl_seconds: args.ttl.map(|ttl| ttl.as_std().as_secs()),
    };
    let token = connection.api.invite_user(&request).await.map_err(|error| {
        let error = Connection::error(error);
        if error.message().contains("already exists") {
            error.hint(format!("tctl users update {} --set-roles=…", args.user))
        } else {
            error
        }
    })?;
    link(
        connection,
        &token,
        args.format,
        "invite",
        "has been created but requires a password",
        "user setup",
    )
}

/// Prints the URL with which a user sets a password, and the command that redeems it.
fn link(
    connection: &Connection,
    token: &UserTokenReply,
    format: Format,
    path: &str,
    what: &str,
    purpose: &str,
) -> Result<(), CliError> {
    let proxy = token.proxy.clone().or_else(|| connection.proxy.clone());
    let shown = proxy.as_deref().unwrap_or("PROXY:3080");
    let url = format!("https://{shown}/web/{path}/{}", token.token.expose());
    if format != Format::Text {
        let value = serde_json::json!({
            "user": token.user, "token": token.token.expose(), "url": url, "expires": token.expires,
        });
        return print_structured(&value, format);
    }
    let left = (token.expires - chrono::Utc::now()).num_seconds().max(0);
    let valid = GoDuration::from_secs(u64::try_from(left + 30).unwrap_or(0) / 60 * 60);
    println!(
        "User {:?} {what}. Share this URL with the user to complete {purpose}, link is valid for {valid}:",
        token.user.as_ref()
    );
    println!("{}\n", printable(&url));
    println!("The user types:\n  tsh signup {}\n", printable(&url));
    println!("NOTE: Make sure {} points at a proxy which users can access.", printable(shown));
    Ok(())
}

async fn update(connection: &Connection, args: UpdateArgs) -> Result<(), CliError> {
    let changes: Vec<(&str, &str, Option<Vec<String>>)> = vec![
        ("logins", "logins", args.set_logins),
        ("windows_logins", "Windows logins", args.set_windows_logins),
        ("kubernetes_users", "Kubernetes users", args.set_kubernetes_users),
        ("kubernetes_groups", "Kubernetes groups", args.set_kubernetes_groups),
        ("db_users", "database users", args.set_db_users),
        ("db_names", "database names", args.set_db_names),
        ("db_roles", "database roles", args.set_db_roles),
    ];
    let traits: Traits = changes
        .iter()
        .filter_map(|(name, _, values)| Some(((*name).to_owned(), values.clone()?)))
        .collect();
    if args.set_roles.is_none() && traits.is_empty() {
        return Err(CliError::usage("Nothing to update. Please provide at least one --set flag."));
    }
    let request = UpdateUserRequest { roles: args.set_roles.clone(), traits };
    connection.api.update_user(&args.user, &request).await.map_err(Connection::error)?;
    println!("User {} has been updated:", args.user);
    if let Some(roles) = args.set_roles {
        let roles: Vec<&str> = roles.iter().map(AsRef::as_ref).collect();
        println!("\tNew roles: {}", roles.join(","));
    }
    for (_, shown, values) in changes {
        if let Some(values) = values {
            println!("\tNew {shown}: {}", printable(&values.join(",")));
        }
    }
    Ok(())
}

async fn list(connection: &Connection, format: Format) -> Result<(), CliError> {
    let users =
        connection.api.list_resources(ResourceKind::User).await.map_err(Connection::error)?;
    if format != Format::Text {
        return print_structured(&users, format);
    }
    if users.is_empty() {
        println!("No users found");
        return Ok(());
    }
    let mut table = Table::new(&["User", "Roles"]);
    for user in &users {
        let roles: Vec<&str> = user["spec"]["roles"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|role| role.as_str())
            .collect();
        table.row([user["metadata"]["name"].as_str().unwrap_or_default(), &roles.join(",")]);
    }
    table.write(terminal_width(), &mut std::io::stdout().lock())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        traits: AddTraits,
    }

    #[test]
    fn what_a_user_may_be_in_databases_becomes_traits() {
        let line = Line::parse_from([
            "add",
            "--db-users=alice,*",
            "--db-names=app",
            "--db-roles=reader,writer",
        ]);
        let traits = line.traits.into_traits();
        let of = |name: &str| traits[name].join(",");
        assert_eq!(
            [of("db_users"), of("db_names"), of("db_roles")],
            ["alice,*", "app", "reader,writer"]
        );
        let refused = Line::try_parse_from(["add", "--db-roles=*"]).unwrap_err().to_string();
        assert!(refused.contains("no role in a database"), "{refused}");
    }
}
