//! `tsh config`: a configuration with which the plain OpenSSH client goes through the proxy.

use std::path::Path;

use shared_cli::{CliError, ExitCode};
use shared_pki::CaKind;

use crate::context::{Ctx, Login};

/// Flags of `tsh config`.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// Further hosts that are reached through the proxy, as patterns of ssh_config
    #[arg(long, value_name = "PATTERN")]
    host: Vec<String>,
    /// Port of the servers
    #[arg(short = 'p', long, default_value_t = 22)]
    port: u16,
    /// Print the host authority as a known_hosts line for HOST (for KnownHostsCommand)
    #[arg(long, value_name = "HOST", hide = true)]
    known_hosts: Option<String>,
}

/// Certificate algorithms of our host authority and of others a cluster may have had before.
const HOST_KEY_ALGORITHMS: &str = "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com";

/// Prints it.
pub fn run(ctx: &Ctx, args: &ConfigArgs) -> Result<ExitCode, CliError> {
    let profile = &ctx.profile()?;
    let login = ctx.login()?;
    if let Some(host) = &args.known_hosts {
        check_pattern(host)?;
        for key in host_keys(&login) {
            println!("@cert-authority {host} {key}");
        }
        return Ok(ExitCode::Done);
    }
    for pattern in &args.host {
        check_pattern(pattern)?;
    }
    let cluster = profile.cluster.as_ref();
    let proxy_host = profile.name();
    let web = &profile.web_proxy_addr;
    let key = quoted(&ctx.dir.ssh_key_path(profile))?;
    let certificate = quoted(&ctx.dir.ssh_cert_path(profile))?;
    let known_hosts = quoted(&ctx.dir.known_hosts_path())?;
    let tsh =
        std::env::current_exe().map_err(|error| CliError::wrap("find this program", &error))?;
    // The same folder of profiles, whatever the environment of the ssh that will run this.
    let tsh = format!("{} --home={}", quoted(&tsh)?, quoted(ctx.dir.path())?);
    let mut patterns = vec![format!("*.{cluster}")];
    patterns.extend(args.host.iter().cloned());
    println!("# Begin generated configuration for {proxy_host} by tsh");
    println!("#");
    println!(
        "# Servers are verified by the cluster's host authority. To name it in your own known_hosts, use"
    );
    for key in host_keys(&login) {
        println!("#   @cert-authority * {key}");
    }
    println!();
    println!("Host {} {proxy_host}", patterns.join(" "));
    println!("    IdentityFile {key}");
    println!("    CertificateFile {certificate}");
    println!("    UserKnownHostsFile {known_hosts}");
    println!("    KnownHostsCommand {tsh} config --known-hosts=%H");
    println!("    HostKeyAlgorithms {HOST_KEY_ALGORITHMS}");
    println!();
    println!("Host {} !{proxy_host}", patterns.join(" "));
    println!("    Port {}", args.port);
    println!("    ProxyCommand {tsh} proxy ssh --cluster={cluster} --proxy={web} '%r@%h:%p'");
    println!();
    println!("# End generated configuration");
    Ok(ExitCode::Done)
}

fn host_keys(login: &Login) -> Vec<String> {
    let hosts = login.authorities.iter().filter(|authority| authority.kind == CaKind::Host);
    hosts.flat_map(|authority| authority.ssh_keys.iter().map(|key| key.trim().to_owned())).collect()
}

/// A path between double quotes, as ssh_config wants it; what cannot be quoted there is refused.
fn quoted(path: &Path) -> Result<String, CliError> {
    let text = path.to_string_lossy();
    if text.chars().any(|c| c.is_control() || matches!(c, '"' | '\'' | '%' | '\\' | '$' | '`')) {
        return Err(CliError::new(format!(
            "the path {text:?} cannot be written into an OpenSSH configuration"
        ))
        .hint("set TELEPORT_HOME to a folder with a plainer name"));
    }
    Ok(format!("\"{text}\""))
}

/// A host pattern that stays one word in a configuration and in a command line.
fn check_pattern(pattern: &str) -> Result<(), CliError> {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '*' | '?' | '[' | ']')
    };
    if pattern.is_empty() || pattern.starts_with('-') || !pattern.chars().all(plain) {
        return Err(CliError::usage(format!("{pattern:?} is no host pattern")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_quotes() {
        for bad in ["a\"b", "a'b", "a%b", "a\nb", "a$b", "a`b"] {
            assert!(quoted(Path::new(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(quoted(Path::new("/home/a b/x")).unwrap(), "\"/home/a b/x\"");
        for bad in ["", "-x", "a b", "a;b", "$(x)", "a\nb", "%h"] {
            assert!(check_pattern(bad).is_err(), "{bad:?}");
        }
        assert!(check_pattern("[127.0.0.1]:2222").is_ok());
    }
}
