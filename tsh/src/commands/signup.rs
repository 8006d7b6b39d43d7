//! `tsh signup`: redeems an invitation or a password reset in the terminal, end to end with the
//! auth service, so that the proxy never sees the password.

use shared_api::{Client, ClientConfig, InviteInfoRequest, Route, Secret, SignupRequest};
use shared_cli::{CliError, ExitCode, Prompter, printable};

use crate::context::{Ctx, api_error};
use crate::ping::ProxyAddr;

/// Flags of `tsh signup`.
#[derive(Debug, clap::Args)]
pub struct SignupArgs {
    /// The URL that `tctl users add` or `tctl users reset` printed
    url: String,
    /// Pin of the cluster's host authority, sha256:…
    #[arg(long, value_name = "PIN")]
    ca_pin: Vec<String>,
}

/// Shortest and longest password, in characters.
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 12..=128;

/// Asks for a password twice and sets it.
pub async fn run(ctx: &Ctx, args: &SignupArgs) -> Result<ExitCode, CliError> {
    let (proxy, token) = parse(&args.url)?;
    let (web_addr, ping) = proxy.ping(ctx.global.insecure).await?;
    let route = Route::Proxy { addr: web_addr.clone(), cluster: Some(ping.cluster_name.clone()) };
    let authorities = ctx.authorities(&proxy.host, &route, &args.ca_pin).await?;
    let api =
        Client::new(ClientConfig::new(route, authorities.authorities, None)).map_err(api_error)?;
    let info =
        api.invite_info(&InviteInfoRequest { token: token.clone() }).await.map_err(api_error)?;
    let what = if info.reset { "Reset the password" } else { "Set a password" };
    eprintln!(
        "{what} of user {} in cluster {}",
        printable(info.user.as_ref()),
        printable(info.cluster.as_ref())
    );
    let ask =
        |question: &str| Prompter.secret(question).map_err(|error| CliError::from_error(&error));
    let password = ask("Enter a new password:")?;
    let length = password.chars().count();
    if !PASSWORD_LENGTH.contains(&length) {
        return Err(CliError::usage(format!(
            "a password has {} to {} characters, this one has {length}",
            PASSWORD_LENGTH.start(),
            PASSWORD_LENGTH.end()
        )));
    }
    if *password != *ask("Enter it again:")? {
        return Err(CliError::usage("the two passwords differ"));
    }
    let reply = api
        .signup(&SignupRequest { token, password: Secret::from(password) })
        .await
        .map_err(api_error)?;
    println!("The password of {} is set. Log in with:", printable(reply.user.as_ref()));
    println!(
        "  tsh login --proxy={} --user={}",
        printable(&web_addr),
        printable(reply.user.as_ref())
    );
    Ok(ExitCode::Done)
}

/// `https://HOST[:PORT]/web/invite/TOKEN` or `/web/reset/TOKEN`.
fn parse(text: &str) -> Result<(ProxyAddr, Secret), CliError> {
    let wrong = || {
        CliError::usage("this is no invitation URL")
            .hint("https://PROXY:3080/web/invite/TOKEN, as `tctl users add` printed it")
    };
    let url = url::Url::parse(text).map_err(|_| wrong())?;
    let host = url.host_str().filter(|_| url.scheme() == "https").ok_or_else(wrong)?;
    let mut path = url.path_segments().ok_or_else(wrong)?;
    if path.next() != Some("web") || !matches!(path.next(), Some("invite" | "reset")) {
        return Err(wrong());
    }
    let token = path
        .next()
        .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let address: ProxyAddr = host.parse().map_err(|_: CliError| wrong())?;
    let web_port = Some(url.port().unwrap_or(443));
    Ok((ProxyAddr { web_port, ..address }, Secret::new(token.ok_or_else(wrong)?)))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_invitation_urls_are_taken() {
        let (proxy, token) =
            parse("https://p.example.com:3080/web/invite/0123456789abcdef0123456789abcdef")
                .unwrap();
        assert_eq!((proxy.host.as_str(), proxy.web_port), ("p.example.com", Some(3080)));
        assert_eq!(token.expose(), "0123456789abcdef0123456789abcdef");
        for wrong in [
            "http://p/web/invite/00",
            "https://p/web/login/00",
            "https://p/web/invite/",
            "https://p/web/invite/x;y",
            "p",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
