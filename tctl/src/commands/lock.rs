//! `tctl lock`.

use chrono::{DateTime, TimeDelta, Utc};
use shared_cli::{CliError, ExitCode};
use shared_types::resource::{Lock, LockSpec, LockTarget};
use shared_types::{GoDuration, HostId, Login, Resource, RoleName, UserName};

use crate::connect::Connection;

/// Flags of `tctl lock`.
///
/// Everything that is named must fit for the lock to stop somebody: --user=joe --login=root stops joe as root. Running
/// sessions end at once; new ones, logins and certificates are refused. List locks with `tctl get locks`, take one
/// away with `tctl rm lock/NAME`.
#[derive(Debug, clap::Args)]
pub struct LockArgs {
    /// User to stop
    #[arg(long)]
    user: Option<UserName>,
    /// Role whose holders are stopped
    #[arg(long)]
    role: Option<RoleName>,
    /// OS login to stop on every target
    #[arg(long)]
    login: Option<Login>,
    /// Host id of a service to stop; tctl get proxies shows those of proxies
    #[arg(long, alias = "node", value_name = "HOST-ID")]
    server_id: Option<HostId>,
    /// What those who are stopped read
    #[arg(long, default_value = "", hide_default_value = true)]
    message: String,
    /// When the lock ends, as 2030-01-02T15:04:05Z; never when left out
    #[arg(long, value_name = "TIME")]
    expires: Option<DateTime<Utc>>,
    /// How long the lock lasts, in place of --expires
    #[arg(long)]
    ttl: Option<GoDuration>,
}

impl LockArgs {
    fn lock(self, now: DateTime<Utc>) -> Result<Lock, CliError> {
        let expires = match (self.expires, self.ttl) {
            (Some(_), Some(_)) => {
                return Err(CliError::usage("use only one of --expires and --ttl"));
            }
            (Some(end), None) => Some(end),
            (None, Some(ttl)) => Some(end_of(ttl, now)?),
            (None, None) => None,
        };
        let target = LockTarget {
            user: self.user,
            role: self.role,
            login: self.login,
            server_id: self.server_id,
        };
        if target.is_empty() {
            return Err(CliError::usage("nothing to lock is named")
                .hint("name at least one of --user, --role, --login and --server-id"));
        }
        let spec = LockSpec { target, message: self.message, expires, ..LockSpec::default() };
        let lock = Lock::new(uuid::Uuid::new_v4().to_string(), spec);
        lock.check().map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
        Ok(lock)
    }
}

fn end_of(ttl: GoDuration, now: DateTime<Utc>) -> Result<DateTime<Utc>, CliError> {
    let end = TimeDelta::from_std(ttl.as_std())
        .ok()
        .filter(|ttl| *ttl > TimeDelta::zero())
        .and_then(|ttl| now.checked_add_signed(ttl));
    end.ok_or_else(|| CliError::usage(format!("--ttl: {ttl} is no time for a lock")))
}

/// Runs it.
pub async fn run(connection: &Connection, args: LockArgs) -> Result<ExitCode, CliError> {
    let lock = args.lock(Utc::now())?;
    let name = lock.name().to_owned();
    connection
        .api
        .create_resource(&Resource::from(lock), false)
        .await
        .map_err(Connection::error)?;
    println!("Created a lock with name {name:?}.");
    Ok(ExitCode::Done)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LockArgs,
    }

    fn lock(words: &[&str]) -> Result<Lock, CliError> {
        let words = std::iter::once("lock").chain(words.iter().copied());
        let Ok(line) = Line::try_parse_from(words) else { return Err(CliError::usage("clap")) };
        line.args.lock(DateTime::UNIX_EPOCH)
    }

    #[test]
    fn targets_and_times() {
        let made = lock(&["--user=joe", "--login=root", "--message=gone", "--ttl=1h"]).unwrap();
        assert_eq!(made.spec.target.to_string(), "User:\"joe\" Login:\"root\"");
        assert_eq!(made.spec.message, "gone");
        assert_eq!(made.spec.expires, Some(DateTime::UNIX_EPOCH + TimeDelta::hours(1)));
        let made = lock(&["--role=dev", "--expires=2030-01-02T15:04:05Z"]).unwrap();
        assert_eq!(made.spec.expires.unwrap().to_rfc3339(), "2030-01-02T15:04:05+00:00");
        let server = HostId::random();
        let made = lock(&["--node", &server.to_string()]).unwrap();
        assert_eq!(made.spec.target.server_id, Some(server));
        assert_eq!(made.spec.expires, None);
    }

    #[test]
    fn what_makes_no_lock_is_refused() {
        for (words, expected) in [
            (&[][..], "nothing to lock is named"),
            (&["--message=x"], "nothing to lock is named"),
            (
                &["--user=joe", "--ttl=1h", "--expires=2030-01-02T15:04:05Z"],
                "use only one of --expires and --ttl",
            ),
            (&["--user=joe", "--ttl=0s"], "is no time for a lock"),
            (&["--user=joe", "--message=a\tb"], "control character"),
            (&["--user=j o e"], "clap"),
            (&["--server-id=gate"], "clap"),
        ] {
            let error = lock(words).unwrap_err();
            assert!(error.message().contains(expected), "{words:?}: {}", error.message());
        }
    }
}
