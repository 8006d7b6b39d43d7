//! The login behind listeners that outlive it.
//!
//! A certificate for a database is renewed with the login that the profile holds by then. Where that has ended too, the
//! terminal is asked for the password, by a thread of its own: clients meanwhile are told so, and nothing waits for a
//! person. A login in another terminal does as well.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use local_proxy::{Credentials, Renew, Upstream};
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use shared_api::{Client, StoredLogin};
use shared_cli::{CliError, ExitCode};
use shared_config::{Profile, ProfileDir};
use shared_pki::{DatabaseRoute, TrustedAuthority};
use shared_transport::tls;

use super::certs::{Issued, issue};
use crate::GlobalArgs;
use crate::commands::login;
use crate::context::{Ctx, api_error, config_error};

/// A login that ends sooner than this counts as ended.
const ENDING: chrono::TimeDelta = chrono::TimeDelta::seconds(5);
/// Passwords that are asked for in a row.
const TRIES: usize = 3;
/// How long nobody is asked after all of them were wrong, or none was given.
const PAUSE: Duration = Duration::from_secs(30);
/// What somebody at a database client reads.
const LOG_IN_HERE: &str = "your login to the cluster has ended: enter your password in the terminal where tsh runs, then connect again";
const LOG_IN: &str = "your login to the cluster has ended: run 'tsh login', then connect again";

/// The login of one user behind one proxy, as it is on disk at any time.
pub(crate) struct Reauth {
    dir: ProfileDir,
    profile: Profile,
    global: GlobalArgs,
    terminal: Option<Termios>,
    asking: AtomicBool,
    not_before: Mutex<Option<Instant>>,
}

impl Reauth {
    /// That of the profile; asks at the terminal if there is one.
    pub(crate) fn asking(ctx: &Ctx) -> Result<Arc<Self>, CliError> {
        let stdin = std::io::stdin();
        let terminal = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten();
        Self::new(ctx, terminal)
    }

    /// That of the profile; the terminal is somebody else's.
    pub(crate) fn silent(ctx: &Ctx) -> Result<Arc<Self>, CliError> {
        Self::new(ctx, None)
    }

    fn new(ctx: &Ctx, terminal: Option<Termios>) -> Result<Arc<Self>, CliError> {
        let profile = ctx.profile()?;
        let mut global = ctx.global.clone();
        global.proxy = Some(profile.web_proxy_addr.clone());
        global.user = Some(profile.user.to_string());
        Ok(Arc::new(Self {
            dir: ctx.dir.clone(),
            profile,
            global,
            terminal,
            asking: AtomicBool::new(false),
            not_before: Mutex::new(None),
        }))
    }

    /// The profile it began with.
    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The login on disk, if it holds.
    fn stored(&self) -> Result<(Profile, StoredLogin), Trouble> {
        let other = |error: CliError| Trouble::Other(error.to_string());
        let profile = self
            .dir
            .load(self.profile.name())
            .map_err(config_error)
            .map_err(other)?
            .ok_or(Trouble::LoginEnded)?;
        if profile.user != self.profile.user || profile.cluster != self.profile.cluster {
            return Err(Trouble::Other(format!(
                "{} is logged in instead of {} by now",
                profile.user, self.profile.user
            )));
        }
        let stored = StoredLogin::load(&self.dir, &profile)
            .map_err(|error| Trouble::Other(error.to_string()))?
            .filter(|login| login.identity.valid_until > Utc::now() + ENDING)
            .ok_or(Trouble::LoginEnded)?;
        Ok((profile, stored))
    }

    /// A certificate for `route`, without asking anybody.
    async fn certificate(
        self: &Arc<Self>,
        route: &DatabaseRoute,
    ) -> Result<(Issued, Vec<TrustedAuthority>), Trouble> {
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || this.stored()).await;
        let (profile, login) = read.map_err(|error| Trouble::Other(error.to_string()))??;
        let client = Client::new(login.client_config(&profile)).map_err(api_error);
        let issued = async { issue(&client?, route).await }.await;
        match issued {
            Ok(issued) => Ok((issued, login.authorities)),
            Err(error) if error.exit_code() == ExitCode::NotLoggedIn => Err(Trouble::LoginEnded),
            Err(error) => Err(Trouble::Other(error.to_string())),
        }
    }

    /// Whether there is somebody to ask. A program in the background would be stopped by its terminal, and its
    /// listeners with it.
    fn has_terminal(&self) -> bool {
        self.terminal.is_some() && tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == getpgrp())
    }

    /// Begins to ask, if nobody is asked yet.
    fn ask(self: &Arc<Self>) {
        let paused = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        let paused = paused.is_some_and(|until| Instant::now() < until);
        if !self.has_terminal() || paused || self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        std::thread::spawn(move || {
            let asked = this.ask_until_right();
            if !asked {
                let mut not_before = this.not_before.lock().unwrap_or_else(PoisonError::into_inner);
                *not_before = Some(Instant::now() + PAUSE);
            }
            this.asking.store(false, Ordering::Release);
        });
    }

    fn ask_until_right(&self) -> bool {
        eprintln!(
            "\nThe login of {} has ended; database clients wait for a new one.",
            self.profile.user
        );
        for _ in 0..TRIES {
            let done = (|| {
                let ctx = Ctx::new(self.global.clone())?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(login::again(&ctx))
            })();
            match done {
                Ok(()) => {
                    eprintln!("Logged in again; clients may connect.");
                    return true;
                }
                Err(error) => {
                    shared_cli::report(&error, false, &mut std::io::stderr().lock()).ok();
                    // A wrong password is asked for anew; anything else is not the person's to mend.
                    if !matches!(error.exit_code(), ExitCode::NotLoggedIn | ExitCode::Denied) {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Undoes what a question that is cut short leaves: a terminal without an echo.
    pub(crate) fn restore_terminal(&self) {
        if let Some(before) = &self.terminal
            && self.asking.load(Ordering::Acquire)
            && self.has_terminal()
        {
            tcsetattr(std::io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

/// Why there is no new certificate.
enum Trouble {
    LoginEnded,
    Other(String),
}

/// New certificates for one database.
pub(crate) struct DatabaseRenewal {
    reauth: Arc<Reauth>,
    route: DatabaseRoute,
    alpn: Vec<u8>,
}

impl DatabaseRenewal {
    /// For `route`, by the login of `reauth`.
    pub(crate) fn new(reauth: Arc<Reauth>, route: DatabaseRoute, alpn: Vec<u8>) -> Self {
        Self { reauth, route, alpn }
    }

    /// The credentials out of a certificate.
    pub(crate) fn credentials(
        &self,
        issued: &Issued,
        authorities: &[TrustedAuthority],
    ) -> Result<Credentials, String> {
        let certs = tls::certs_from_pem(issued.certificate.as_bytes());
        let config = certs.and_then(|certs| {
            Upstream::tls(authorities, &self.alpn, Some((certs, issued.key.to_rustls())))
        });
        let tls = config.map_err(|error| error.to_string())?;
        Ok(Credentials { tls, ends: Some(issued.ends) })
    }
}

#[async_trait]
impl Renew for DatabaseRenewal {
    async fn renew(&self) -> Result<Credentials, String> {
        match self.reauth.certificate(&self.route).await {
            Ok((issued, authorities)) => self.credentials(&issued, &authorities),
            Err(Trouble::LoginEnded) => {
                self.reauth.ask();
                let here = self.reauth.has_terminal();
                Err(if here { LOG_IN_HERE } else { LOG_IN }.to_owned())
            }
            Err(Trouble::Other(text)) => {
                Err(format!("no new certificate for database {}: {text}", self.route.service))
            }
        }
    }
}
