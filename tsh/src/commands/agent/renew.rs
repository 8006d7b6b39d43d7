//! Keeps the agent's login that of the profile: a new one is taken up, one that has ended or was logged
//! out is forgotten.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use shared_api::StoredLogin;
use shared_cli::CliError;
use shared_config::{Profile, ProfileDir};
use shared_ssh::agent::{AgentKey, SocketAgent, agent_comment};

/// How often the profile's files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A certificate that ends sooner than this is read again at every look.
const ENDING: TimeDelta = TimeDelta::minutes(1);

/// What tells one version of a file from the next: they are replaced, not rewritten.
type Stamp = Option<(u64, i64, i64, u64)>;

/// Serves for ever what the profile says.
pub(super) async fn follow(
    dir: &ProfileDir,
    profile: Profile,
    login: &StoredLogin,
    agent: Arc<SocketAgent>,
    talks: bool,
) -> Infallible {
    let mut renewal = Renewal::new(dir, profile, login);
    loop {
        tokio::time::sleep(LOOK).await;
        let change = renewal.look(Utc::now());
        if let Some(text) = apply(change, &agent)
            && talks
        {
            eprintln!("{text}");
        }
    }
}

fn apply(change: Change, agent: &SocketAgent) -> Option<String> {
    match change {
        Change::None => None,
        Change::Login(login) => {
            let until = login.until.format("%Y-%m-%d %H:%M:%S UTC");
            agent.replace(Arc::new(login.key), login.authorities);
            Some(format!("A new login was taken up, valid until {until}."))
        }
        Change::Ended => {
            agent.forget();
            Some("The certificate has ended; 'tsh login' makes a new one.".to_owned())
        }
        Change::LoggedOut => {
            agent.forget();
            Some("Logged out; the agent waits for the next 'tsh login'.".to_owned())
        }
    }
}

struct NewLogin {
    key: AgentKey,
    authorities: Vec<shared_pki::TrustedAuthority>,
    until: DateTime<Utc>,
}

enum Change {
    None,
    Login(Box<NewLogin>),
    Ended,
    LoggedOut,
}

/// What is served, and the files it came from.
struct Renewal<'a> {
    dir: &'a ProfileDir,
    profile: Profile,
    seen: Vec<Stamp>,
    /// The certificate in use, until it has ended.
    serving: Option<(Vec<u8>, DateTime<Utc>)>,
}

impl<'a> Renewal<'a> {
    fn new(dir: &'a ProfileDir, profile: Profile, login: &StoredLogin) -> Self {
        let serving = login.ssh_cert.to_bytes().ok().map(|cert| (cert, login.identity.valid_until));
        // Files that change while the login is read are read again at the first look.
        Self { dir, profile, seen: Vec::new(), serving }
    }

    fn look(&mut self, now: DateTime<Utc>) -> Change {
        let stamps = self.stamps();
        let ending = self.serving.as_ref().is_some_and(|(_, until)| *until - now < ENDING);
        if stamps == self.seen && !ending {
            return Change::None;
        }
        match self.read() {
            Ok(Some(login)) => {
                self.seen = stamps;
                self.take(login, now)
            }
            Ok(None) => {
                self.seen = stamps;
                if self.serving.take().is_some() { Change::LoggedOut } else { Change::None }
            }
            Err(error) => {
                // A login is several files, and may be half written; the next look sees the rest.
                tracing::debug!(%error, "profile cannot be read");
                self.ended(now)
            }
        }
    }

    fn take(&mut self, login: NewLogin, now: DateTime<Utc>) -> Change {
        let same = |(cert, _): &(Vec<u8>, _)| cert == login.key.blob();
        if login.until <= now || self.serving.as_ref().is_some_and(same) {
            return self.ended(now);
        }
        self.serving = Some((login.key.blob().to_vec(), login.until));
        Change::Login(Box::new(login))
    }

    fn ended(&mut self, now: DateTime<Utc>) -> Change {
        match &self.serving {
            Some((_, until)) if *until <= now => {
                self.serving = None;
                Change::Ended
            }
            _ => Change::None,
        }
    }

    /// The login on disk; it may be another user's by now, but is one behind the same proxy.
    fn read(&mut self) -> Result<Option<NewLogin>, CliError> {
        let name = self.profile.name().to_owned();
        let profile = self.dir.load(&name).map_err(|error| CliError::from_error(&error))?;
        let Some(profile) = profile else { return Ok(None) };
        self.profile = profile;
        let stored = StoredLogin::load(self.dir, &self.profile)
            .map_err(|error| CliError::from_error(&error))?;
        let Some(stored) = stored else { return Ok(None) };
        let comment = agent_comment(&self.profile.user);
        let key = AgentKey::new(stored.ssh_key.private().clone(), stored.ssh_cert, comment)
            .map_err(|error| CliError::from_error(&error))?;
        let until = stored.identity.valid_until;
        Ok(Some(NewLogin { key, authorities: stored.authorities, until }))
    }

    fn stamps(&self) -> Vec<Stamp> {
        let (dir, profile) = (self.dir, &self.profile);
        let paths = [
            dir.path().join(format!("{}.yaml", profile.name())),
            dir.ssh_key_path(profile),
            dir.ssh_cert_path(profile),
            dir.tls_cert_path(profile),
            dir.cas_path(profile),
            dir.known_hosts_path(),
        ];
        let stamp = |path| -> Stamp {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
        };
        paths.into_iter().map(stamp).collect()
    }
}

#[cfg(test)]
#[path = "renew_tests.rs"]
mod tests;
