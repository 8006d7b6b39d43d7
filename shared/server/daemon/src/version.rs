//! `teleport version` and `teleport status`.

use std::io::Write;

use shared_cli::{CliError, ExitCode, printable};

/// The line that `tsh version` and `tctl version` print too.
pub(crate) fn print() -> Result<ExitCode, CliError> {
    writeln!(std::io::stdout(), "Gatehouse v{}", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::Done)
}

/// What the environment of a recorded session says.
pub(crate) fn status() -> Result<ExitCode, CliError> {
    let text = describe(|name| std::env::var(name).ok());
    write!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::Done)
}

fn describe(variable: impl Fn(&str) -> Option<String>) -> String {
    let value = |name: &str| printable(&variable(name).unwrap_or_default()).into_owned();
    if variable("SSH_TELEPORT_USER").is_none() {
        return "You are not inside of a Teleport SSH session\n".to_owned();
    }
    let (proxy, cluster, session) = (
        value("SSH_SESSION_WEBPROXY_ADDR"),
        value("SSH_TELEPORT_CLUSTER_NAME"),
        value("SSH_SESSION_ID"),
    );
    let client = value("SSH_CLIENT");
    format!(
        "User ID     : {}, logged in as {} from {}\n\
         Cluster Name: {cluster}\n\
         Host UUID   : {}\n\
         Session ID  : {session}\n\
         Session URL : https://{proxy}/web/cluster/{cluster}/console/session/{session}\n",
        value("SSH_TELEPORT_USER"),
        value("USER"),
        client.split(' ').next().unwrap_or_default(),
        value("SSH_TELEPORT_HOST_UUID"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_and_inside_of_a_session() {
        assert_eq!(describe(|_| None), "You are not inside of a Teleport SSH session\n");
        let text = describe(|name| Some(name.to_lowercase()));
        assert!(
            text.starts_with(
                "User ID     : ssh_teleport_user, logged in as user from ssh_client\n"
            )
        );
    }
}
