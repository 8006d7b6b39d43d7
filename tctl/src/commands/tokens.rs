//! `tctl tokens`.

use chrono::{DateTime, Utc};
use shared_api::{CreateTokenRequest, Secret};
use shared_cli::{CliError, ExitCode, Format, Table, print_structured, printable, terminal_width};
use shared_types::{GoDuration, ResourceKind, SystemRole};

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
        /// What may join with it: proxy, …; separated by commas
        #[arg(long = "type", required = true, value_delimiter = ',', value_parser = system_role)]
        roles: Vec<SystemRole>,
        /// File that holds the token, in place of a random one
        #[arg(long, value_name = "FILE")]
        value_file: Option<std::path::PathBuf>,
        /// How long it works
        #[arg(long, default_value = "30m")]
        ttl: GoDuration,
        /// Output format; text prints the token only
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// List join tokens
    Ls {
        /// Print the tokens themselves
        #[arg(long)]
        with_secrets: bool,
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

fn system_role(text: &str) -> Result<SystemRole, String> {
    let known = [SystemRole::Auth, SystemRole::Proxy, SystemRole::Node];
    known
        .into_iter()
        .find(|role| role.to_string().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("{text:?} is no type of service; known: auth, proxy, node"))
}

/// Runs the verb.
pub async fn run(connection: &Connection, args: TokensArgs) -> Result<ExitCode, CliError> {
    match args.verb {
        Verb::Add { roles, value_file, ttl, format } => {
            let value = match value_file {
                Some(path) => Some(read_token(&path)?),
                None => None,
            };
            let request = CreateTokenRequest {
                roles,
                value,
                ttl_seconds: Some(ttl.as_std().as_secs()),
                labels: Default::default(),
            };
            let reply = connection.api.create_token(&request).await.map_err(Connection::error)?;
            match format {
                Some(Format::Text) => println!("{}", reply.token.expose()),
                Some(format) => print_structured(&reply, format)?,
                None => {
                    println!("The invite token: {}", reply.token.expose());
                    println!(
                        "This token will expire in {} minutes.\n",
                        ttl.as_std().as_secs() / 60
                    );
                    println!(
                        "Put it into a file on the joining host and name the file in teleport.yaml:\n"
                    );
                    println!(
                        "  teleport:\n    auth_server: AUTH-HOST:3025\n    auth_token: /path/to/token"
                    );
                    for pin in &reply.ca_pins {
                        println!("    ca_pin: \"{pin}\"");
                    }
                }
            }
        }
        Verb::Ls { with_secrets, format } => list(connection, with_secrets, format).await?,
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

fn read_token(path: &std::path::Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::wrap(format!("read the token in {}", path.display()), &error))?;
    Ok(Secret::new(text.trim()))
}

async fn list(connection: &Connection, with_secrets: bool, format: Format) -> Result<(), CliError> {
    let mut tokens =
        connection.api.list_resources(ResourceKind::Token).await.map_err(Connection::error)?;
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
    #[test]
    fn three_quarters_of_a_token_are_hidden() {
        assert_eq!(super::masked("0123456789abcdef"), "************cdef");
    }
}
