//! `[user@]host`, as typed.

use shared_cli::CliError;
use shared_types::{HostName, Login};

/// Whom to log in as, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Destination {
    pub(in crate::commands) login: Login,
    pub(in crate::commands) host: HostName,
}

impl Destination {
    /// In front of `@`, else `--login`, else the operating system's user if the certificate has it, else
    /// the certificate's first login.
    pub(in crate::commands) fn parse(
        text: &str,
        flag: Option<&str>,
        logins: &[String],
    ) -> Result<Self, CliError> {
        let (user, host) = match text.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, text),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let usage = |error: shared_types::NameError| {
            CliError::from_error(&error).exit(shared_cli::ExitCode::Usage)
        };
        let host: HostName = host.parse().map_err(usage)?;
        let login = match user.or(flag) {
            Some(login) => login.to_owned(),
            None => {
                let own =
                    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
                default_login(&own, logins).to_owned()
            }
        };
        let login: Login = login.parse().map_err(usage)?;
        Ok(Self { login, host })
    }
}

fn default_login<'a>(own: &'a str, logins: &'a [String]) -> &'a str {
    match logins.first() {
        Some(first) if !logins.iter().any(|login| login == own) => first,
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, String), CliError> {
        let logins = ["root".to_owned()];
        let parsed = Destination::parse(text, Some("flag"), &logins)?;
        Ok((parsed.login.to_string(), parsed.host.to_string()))
    }

    #[test]
    fn login_and_host_as_users_write_them() {
        assert_eq!(parse("joe@db").unwrap(), ("joe".into(), "db".into()));
        assert_eq!(parse("db").unwrap(), ("flag".into(), "db".into()));
        assert_eq!(parse("joe@corp@db").unwrap(), ("joe@corp".into(), "db".into()));
        assert_eq!(parse("joe@[::1]").unwrap(), ("joe".into(), "::1".into()));
        assert_eq!(parse("joe@::1").unwrap(), ("joe".into(), "::1".into()));
    }

    #[test]
    fn names_that_could_be_taken_for_something_else_are_refused() {
        for text in [
            "-oProxyCommand=x",
            "joe@-db",
            "-joe@db",
            "joe@a;b",
            "joe@$(x)",
            "joe@",
            "@db",
            "joe@a\nb",
            "joe@a\x1bb",
            "joe@a%h",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.exit_code().code(), 2, "{text:?}");
        }
    }

    #[test]
    fn a_login_of_the_certificate_is_the_default() {
        let logins = ["root".to_owned(), "joe".to_owned()];
        assert_eq!(default_login("joe", &logins), "joe");
        assert_eq!(default_login("eve", &logins), "root");
        assert_eq!(default_login("eve", &[]), "eve");
    }
}
