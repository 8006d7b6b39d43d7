//! `tsh login`: password and public keys go to the auth service itself, over TLS that the proxy
//! only passes on.

use shared_api::{Client, ClientConfig, LoginRequest, Route, Secret};
use shared_cli::{CliError, ExitCode, Prompter, printable};
use shared_config::Profile;
use shared_pki::{KeyPair, TlsKey};
use shared_types::{ClusterName, UserName};

use crate::commands::status;
use crate::context::{Ctx, NewLogin, api_error};
use crate::ping::ProxyAddr;

/// Flags of `tsh login`.
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// How long the certificates are valid, in minutes
    #[arg(long, value_name = "MINUTES")]
    ttl: Option<u64>,
    /// Pin of the cluster's host authority, sha256:…; compared at the first login
    #[arg(long, value_name = "PIN")]
    ca_pin: Vec<String>,
    /// Log in again although the certificates are still valid
    #[arg(long)]
    force: bool,
}

/// Logs in, and shows the status.
pub async fn run(ctx: &Ctx, args: &LoginArgs) -> Result<ExitCode, CliError> {
    let current = ctx.profile_for_login()?;
    let addr: ProxyAddr = match (&ctx.global.proxy, &current) {
        (Some(proxy), _) => proxy.parse()?,
        (None, Some(profile)) => profile.web_proxy_addr.parse()?,
        (None, None) => {
            return Err(CliError::usage("No proxy address specified, missed --proxy flag?"));
        }
    };
    let user = user_name(ctx, current.as_ref().map(|profile| &profile.user))?;
    let proxy = Proxy::asked(&addr, ctx.global.insecure).await?;
    let profile = log_in(ctx, &proxy, user, args).await?;
    status::print_profile(ctx, &profile, true)?;
    Ok(ExitCode::Done)
}

/// Logs the same user in again, for a program that goes on. The proxy is asked for nothing that is known.
pub(crate) async fn again(ctx: &Ctx) -> Result<(), CliError> {
    let profile = ctx.profile()?;
    let args = LoginArgs { ttl: None, ca_pin: Vec::new(), force: true };
    log_in(ctx, &Proxy::known(&profile), profile.user.clone(), &args).await.map(drop)
}

/// What a login needs to know of a proxy.
struct Proxy {
    host: String,
    cluster: ClusterName,
    web_addr: String,
    ssh_addr: String,
    postgres_addr: String,
    mysql_addr: String,
    tls_routing: bool,
}

impl Proxy {
    /// As it says itself.
    async fn asked(addr: &ProxyAddr, insecure: bool) -> Result<Self, CliError> {
        let (web_addr, ping) = addr.ping(insecure).await?;
        let ssh_port = addr.ssh_port.or_else(|| ping.ssh_port()).unwrap_or(3023);
        Ok(Self {
            host: addr.host.clone(),
            web_addr,
            ssh_addr: addr.join(ssh_port),
            postgres_addr: ping.proxy.db.postgres(addr),
            mysql_addr: ping.proxy.db.mysql(addr),
            tls_routing: ping.proxy.tls_routing_enabled,
            cluster: ping.cluster_name,
        })
    }

    /// As an earlier login has kept it.
    fn known(profile: &Profile) -> Self {
        Self {
            host: profile.name().to_owned(),
            cluster: profile.cluster.clone(),
            web_addr: profile.web_proxy_addr.clone(),
            ssh_addr: profile.ssh_proxy_addr.clone(),
            postgres_addr: profile.postgres_proxy_addr.clone(),
            mysql_addr: profile.mysql_proxy_addr.clone(),
            tls_routing: profile.tls_routing_enabled,
        }
    }
}

async fn log_in(
    ctx: &Ctx,
    proxy: &Proxy,
    user: UserName,
    args: &LoginArgs,
) -> Result<Profile, CliError> {
    let route = Route::Proxy { addr: proxy.web_addr.clone(), cluster: Some(proxy.cluster.clone()) };
    let authorities = ctx.authorities(&proxy.host, &route, &args.ca_pin).await?;

    let question = format!("Enter password for user {}:", printable(user.as_ref()));
    let password = Prompter.secret(&question).map_err(|error| CliError::from_error(&error))?;
    let ssh_key = KeyPair::generate().map_err(|error| CliError::wrap("make an SSH key", &error))?;
    let tls_key = TlsKey::generate().map_err(|error| CliError::wrap("make a TLS key", &error))?;
    let api =
        Client::new(ClientConfig::new(route, authorities.authorities, None)).map_err(api_error)?;
    let request = LoginRequest {
        user,
        password: Secret::from(password),
        ssh_public_key: ssh_key.public_openssh(),
        tls_public_key: tls_key.public().to_pem(),
        ttl_seconds: args.ttl.map(|minutes| minutes.saturating_mul(60)),
    };
    let reply = api.login(&request).await.map_err(api_error)?;
    let login = NewLogin {
        proxy_host: proxy.host.clone(),
        web_proxy_addr: proxy.web_addr.clone(),
        ssh_proxy_addr: proxy.ssh_addr.clone(),
        postgres_proxy_addr: proxy.postgres_addr.clone(),
        mysql_proxy_addr: proxy.mysql_addr.clone(),
        tls_routing: proxy.tls_routing,
        ssh_key,
        tls_key,
        reply,
    };
    let profile = ctx.save_login(&login)?;
    if ctx.global.uses_local_ssh_agent() {
        ctx.load_into_agent(&profile).await;
    }
    Ok(profile)
}

/// Flag, then the profile's user, then the operating system's.
fn user_name(ctx: &Ctx, known: Option<&UserName>) -> Result<UserName, CliError> {
    let wrong = |error: shared_types::NameError| CliError::from_error(&error).exit(ExitCode::Usage);
    if let Some(user) = &ctx.global.user {
        return user.parse().map_err(wrong);
    }
    if let Some(user) = known {
        return Ok(user.clone());
    }
    let os_user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    if os_user.is_empty() {
        return Err(CliError::usage("no user name given").hint("--user=NAME"));
    }
    os_user.parse().map_err(wrong)
}
