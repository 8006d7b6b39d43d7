//! `tsh login`: password and public keys go to the auth service itself, over TLS that the proxy
//! only passes on.

use shared_api::{Client, ClientConfig, LoginRequest, Route, Secret};
use shared_cli::{CliError, ExitCode, Prompter, printable};
use shared_pki::{KeyPair, TlsKey};
use shared_types::UserName;

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

/// Logs in, or shows the status when that is done already.
pub async fn run(ctx: &Ctx, args: &LoginArgs) -> Result<ExitCode, CliError> {
    let current = ctx.profile_for_login()?;
    let proxy: ProxyAddr = match (&ctx.global.proxy, &current) {
        (Some(proxy), _) => proxy.parse()?,
        (None, Some(profile)) => profile.web_proxy_addr.parse()?,
        (None, None) => {
            return Err(CliError::usage("No proxy address specified, missed --proxy flag?"));
        }
    };
    let user = user_name(ctx, current.as_ref().map(|profile| &profile.user))?;
    let (web_addr, ping) = proxy.ping(ctx.global.insecure).await?;
    let route = Route::Proxy { addr: web_addr.clone(), cluster: Some(ping.cluster_name.clone()) };
    let authorities = ctx.authorities(&proxy.host, &route, &args.ca_pin).await?;

    let question = format!("Enter password for user {}:", printable(user.as_ref()));
    let password = Prompter.secret(&question).map_err(|error| CliError::from_error(&error))?;
    let ssh_key = KeyPair::generate().map_err(|error| CliError::wrap("make an SSH key", &error))?;
    let tls_key = TlsKey::generate().map_err(|error| CliError::wrap("make a TLS key", &error))?;
    let api =
        Client::new(ClientConfig::new(route, authorities.authorities, None)).map_err(api_error)?;
    let request = LoginRequest {
        user: user.clone(),
        password: Secret::from(password),
        ssh_public_key: ssh_key.public_openssh(),
        tls_public_key: tls_key.public().to_pem(),
        ttl_seconds: args.ttl.map(|minutes| minutes.saturating_mul(60)),
    };
    let reply = api.login(&request).await.map_err(api_error)?;
    let ssh_port = proxy.ssh_port.or_else(|| ping.ssh_port()).unwrap_or(3023);
    let login = NewLogin {
        proxy_host: proxy.host.clone(),
        web_proxy_addr: web_addr,
        ssh_proxy_addr: proxy.join(ssh_port),
        tls_routing: ping.proxy.tls_routing_enabled,
        ssh_key,
        tls_key,
        reply,
    };
    let profile = ctx.save_login(&login)?;
    if ctx.global.uses_local_ssh_agent() {
        ctx.load_into_agent(&profile).await;
    }
    status::print_profile(ctx, &profile, true)?;
    Ok(ExitCode::Done)
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
