//! `tctl tokens`.

use chrono::{DateTime, Utc};
use shared_api::{CreateTokenReply, CreateTokenRequest, Secret};
use shared_cli::{CliError, ExitCode, Format, Table, print_structured, printable, terminal_width};
use shared_types::{DbProtocol, GoDuration, Labels, ResourceKind, SystemRole, parse_labels};

use crate::connect::Connection;

/// Flags of `tctl tokens`.
#[derive(Debug, clap::Args)]
pub struct TokensArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a join token
    Add {
        /// What may join with it: node, db, proxy; separated by commas
        #[arg(long = "type", required = true, value_delimiter = ',', value_parser = system_role)]
        roles: Vec<SystemRole>,
        /// The token, in place of a random one; others on this host may see it, unlike that of a file
        #[arg(long, value_name = "TOKEN", conflicts_with = "value_file")]
        value: Option<String>,
        /// File that holds the token
        #[arg(long, value_name = "FILE")]
        value_file: Option<std::path::PathBuf>,
        /// Labels to keep with it: k=v,k2=v2
        #[arg(long)]
        labels: Option<String>,
        /// How long it works
        #[arg(long, default_value = "30m")]
        ttl: GoDuration,
        /// Let one service in, and no second
        #[arg(long)]
        single_use: bool,
        #[command(flatten)]
        database: DatabaseWords,
        /// Output format; text prints the token only
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// List join tokens
    Ls {
        /// Print the tokens themselves
        #[arg(long)]
        with_secrets: bool,
        /// Labels that must match: k=v,k2=v2
        #[arg(long)]
        labels: Option<String>,
        /// Output format
        #[arg(short = 'f', long, value_enum, default_value_t)]
        format: Format,
    },
    /// Delete a join token
    #[command(visible_alias = "del")]
    Rm {
        /// The token
        token: String,
    },
}

/// The database that the printed command names.
#[derive(Debug, Default, clap::Args)]
pub(super) struct DatabaseWords {
    /// Name of the database in the command that is printed
    #[arg(long, value_name = "NAME")]
    db_name: Option<String>,
    /// What it speaks: postgres, mysql, redis, …
    #[arg(long, value_name = "PROTOCOL")]
    db_protocol: Option<DbProtocol>,
    /// Where it is
    #[arg(long, value_name = "HOST:PORT")]
    db_uri: Option<String>,
}

/// A word of `--type`.
pub(super) fn system_role(text: &str) -> Result<SystemRole, String> {
    let known = [SystemRole::Proxy, SystemRole::Node, SystemRole::Db];
    if let Some(role) = known.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(text)) {
        return Ok(role);
    }
    let later = [
        "app",
        "kube",
        "auth",
        "windowsdesktop",
        "discovery",
        "trusted_cluster",
        "bot",
        "mdm",
        "okta",
        "remote_proxy",
    ];
    if later.contains(&text.to_ascii_lowercase().as_str()) {
        return Err(format!(
            "{text:?} cannot join with a token in this version; known: node, db, proxy"
        ));
    }
    Err(format!("{text:?} is no type of service; known: node, db, proxy"))
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: TokensArgs) -> Result<ExitCode, CliError> {
    match args.verb {
        Verb::Add { roles, value, value_file, labels, ttl, single_use, database, format } => {
            let value = match value_file {
                Some(path) => Some(read_token(&path)?),
                None => value.map(Secret::new),
            };
            let request = CreateTokenRequest {
                roles,
                value,
                ttl_seconds: Some(ttl.as_std().as_secs()),
                labels: label_filter(labels.as_deref())?,
                single_use,
            };
            let reply = connection.api.create_token(&request).await.map_err(Connection::error)?;
            match format {
                Some(Format::Text) => println!("{}", reply.token.expose()),
                Some(format) => print_structured(&reply, format)?,
                None => {
                    print!("{}", invitation(&reply, ttl, connection.proxy.as_deref(), &database))
                }
            }
        }
        Verb::Ls { with_secrets, labels, format } => {
            let labels = label_filter(labels.as_deref())?;
            list(connection, with_secrets, &labels, format).await?;
        }
        Verb::Rm { token } => {
            connection
                .api
                .delete_resource(ResourceKind::Token, &token)
                .await
                .map_err(Connection::error)?;
            println!("Token {} has been deleted", printable(&token));
        }
    }
    Ok(ExitCode::Done)
}

fn label_filter(text: Option<&str>) -> Result<Labels, CliError> {
    parse_labels(text.unwrap_or_default())
        .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))
}

/// What to do with a token, for people. `proxy`: the one by which this program's user reaches the cluster.
pub(super) fn invitation(
    reply: &CreateTokenReply,
    ttl: GoDuration,
    proxy: Option<&str>,
    database: &DatabaseWords,
) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let minutes = ttl.as_std().as_secs() / 60;
    let _ = writeln!(text, "The invite token: {}", reply.token.expose());
    let _ = writeln!(text, "This token will expire in {minutes} minutes.\n");
    let auth = reply.auth.as_deref().unwrap_or("AUTH-HOST:3025");
    let what = match reply.roles.as_slice() {
        [SystemRole::Db] => "database agent",
        roles if roles.contains(&SystemRole::Node) => "node",
        _ => {
            let _ = writeln!(
                text,
                "Put it into a file on the joining host and name the file in teleport.yaml:\n\n  teleport:\n    auth_server: {auth}\n    auth_token: /path/to/token"
            );
            for pin in &reply.ca_pins {
                let _ = writeln!(text, "    ca_pin: \"{pin}\"");
            }
            return text;
        }
    };
    let _ = writeln!(text, "Run this on the new {what} to join the cluster:\n");
    let _ = writeln!(text, "{}", command(reply, auth, database));
    let _ = writeln!(text, "Please note:\n");
    let _ = writeln!(text, "  - This invitation token will expire in {minutes} minutes");
    let _ = writeln!(text, "  - {auth} must be reachable from the new {what}");
    if let Some(proxy) = proxy.or(reply.proxy.as_deref()) {
        let _ = writeln!(
            text,
            "  - A {what} that can only reach the proxy joins with --proxy-server={proxy} in place of --auth-server"
        );
    }
    text
}

/// The command that joins, a flag a line.
fn command(reply: &CreateTokenReply, auth: &str, database: &DatabaseWords) -> String {
    let mut lines = Vec::new();
    let only_databases = reply.roles == [SystemRole::Db];
    if only_databases {
        lines.push("> teleport db start".to_owned());
    } else {
        let roles: Vec<String> =
            reply.roles.iter().map(|role| role.as_str().to_ascii_lowercase()).collect();
        lines.push("> teleport start".to_owned());
        lines.push(format!("--roles={}", roles.join(",")));
    }
    lines.push(format!("--token={}", reply.token.expose()));
    lines.extend(reply.ca_pins.iter().map(|pin| format!("--ca-pin={pin}")));
    lines.push(format!("--auth-server={auth}"));
    if only_databases {
        let protocol = database.db_protocol.unwrap_or(DbProtocol::Postgres);
        let name = database.db_name.as_deref().unwrap_or("NAME");
        let usual = || format!("HOST:{}", protocol.default_port());
        let uri = database.db_uri.clone().unwrap_or_else(usual);
        lines.push(format!("--name={}", printable(name)));
        lines.push(format!("--protocol={protocol}"));
        lines.push(format!("--uri={}", printable(&uri)));
    }
    lines.join(" \\\n   ") + "\n"
}

fn read_token(path: &std::path::Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::wrap(format!("read the token in {}", path.display()), &error))?;
    Ok(Secret::new(text.trim()))
}

async fn list(
    connection: &Connection,
    with_secrets: bool,
    labels: &Labels,
    format: Format,
) -> Result<(), CliError> {
    let mut tokens =
        connection.api.list_resources(ResourceKind::Token).await.map_err(Connection::error)?;
    tokens.retain(|token| {
        let held = &token["metadata"]["labels"];
        labels.iter().all(|(key, value)| held[key.as_str()].as_str() == Some(value))
    });
    tokens.sort_by_key(|token| token["metadata"]["expires"].as_str().map(str::to_owned));
    if !with_secrets {
        for token in &mut tokens {
            if let Some(name) = token["metadata"]["name"].as_str() {
                token["metadata"]["name"] = masked(name).into();
            }
        }
    }
    if format != Format::Text {
        return print_structured(&tokens, format);
    }
    if tokens.is_empty() {
        println!("No active tokens found.");
        return Ok(());
    }
    let mut table = Table::new(&["Token", "Type", "Labels", "Expiry Time (UTC)"]).elastic("Labels");
    for token in &tokens {
        let roles: Vec<&str> = token["spec"]["roles"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|role| role.as_str())
            .collect();
        let labels: Vec<String> = token["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        let expires: Option<DateTime<Utc>> =
            token["metadata"]["expires"].as_str().and_then(|text| text.parse().ok());
        let expires = expires.map_or_else(
            || "never".to_owned(),
            |at| {
                let left = u64::try_from((at - Utc::now()).num_seconds()).unwrap_or(0);
                format!("{} ({})", at.format("%d %b %y %H:%M UTC"), GoDuration::from_secs(left))
            },
        );
        table.row([
            token["metadata"]["name"].as_str().unwrap_or_default(),
            &roles.join(","),
            &labels.join(","),
            &expires,
        ]);
    }
    table.write(terminal_width(), &mut std::io::stdout().lock())?;
    Ok(())
}

/// All but the last quarter as stars.
fn masked(token: &str) -> String {
    let length = token.chars().count();
    let hidden = length - length / 4;
    token.chars().enumerate().map(|(at, c)| if at < hidden { '*' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_a_command_to_copy() {
        let reply = CreateTokenReply {
            token: Secret::new("0123456789abcdef"),
            roles: vec![SystemRole::Node],
            expires: Utc::now(),
            ca_pins: vec!["sha256:ab".to_owned()],
            auth: Some("auth.example.test:3025".to_owned()),
            proxy: Some("proxy.example.test:443".to_owned()),
        };
        let text = invitation(&reply, GoDuration::from_secs(1800), None, &DatabaseWords::default());
        let start = "The invite token: 0123456789abcdef\nThis token will expire in 30 minutes.\n";
        assert!(text.starts_with(start), "{text}");
        let command = "> teleport start \\\n   --roles=node \\\n   --token=0123456789abcdef \\\n   --ca-pin=sha256:ab \\\n   --auth-server=auth.example.test:3025\n";
        assert!(text.contains(command), "{text}");
        assert!(text.contains("--proxy-server=proxy.example.test:443"), "{text}");
        let proxy = CreateTokenReply { roles: vec![SystemRole::Proxy], ..reply };
        let text = invitation(&proxy, GoDuration::from_secs(60), None, &DatabaseWords::default());
        assert!(
            text.contains("auth_server: auth.example.test:3025") && !text.contains("> teleport")
        );
        assert!(
            system_role("Node").is_ok() && system_role("app").unwrap_err().contains("this version")
        );
    }

    #[test]
    fn an_invitation_of_a_database_agent_names_the_database() {
        let reply = CreateTokenReply {
            token: Secret::new("0123456789abcdef"),
            roles: vec![SystemRole::Db],
            expires: Utc::now(),
            ca_pins: vec!["sha256:ab".to_owned()],
            auth: Some("auth.example.test:3025".to_owned()),
            proxy: None,
        };
        let database = DatabaseWords {
            db_name: Some("orders".to_owned()),
            db_protocol: Some(DbProtocol::Mysql),
            db_uri: None,
        };
        let text = invitation(&reply, GoDuration::from_secs(1800), None, &database);
        let command = "> teleport db start \\\n   --token=0123456789abcdef \\\n   --ca-pin=sha256:ab \\\n   --auth-server=auth.example.test:3025 \\\n   --name=orders \\\n   --protocol=mysql \\\n   --uri=HOST:3306\n\n";
        assert!(text.contains(command), "{text}");
        assert!(text.contains("from the new database agent"), "{text}");
        assert!(system_role("DB").is_ok());
        let both = CreateTokenReply { roles: vec![SystemRole::Node, SystemRole::Db], ..reply };
        let text = invitation(&both, GoDuration::from_secs(60), None, &database);
        assert!(text.contains("> teleport start \\\n   --roles=node,db \\\n"), "{text}");
    }

    #[test]
    fn three_quarters_of_a_token_are_hidden() {
        assert_eq!(super::masked("0123456789abcdef"), "************cdef");
    }
}
