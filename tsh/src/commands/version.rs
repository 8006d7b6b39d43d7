//! `tsh version`.

use shared_cli::{CliError, ExitCode, Format, print_structured};

use crate::context::Ctx;

/// Flags of `tsh version`.
#[derive(Debug, clap::Args)]
pub struct VersionArgs {
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
    /// Only this program's version
    #[arg(long)]
    client: bool,
}

/// Prints it, with the proxy of the profile when there is one.
pub fn run(ctx: &Ctx, args: &VersionArgs) -> Result<ExitCode, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    let proxy = if args.client {
        None
    } else {
        ctx.current_profile().ok().flatten().map(|profile| profile.web_proxy_addr)
    };
    match args.format {
        Format::Text => {
            println!("Gatehouse v{version}");
            if let Some(proxy) = proxy {
                println!("Proxy: {proxy}");
            }
        }
        format => {
            let mut value = serde_json::json!({ "version": version });
            if let Some(proxy) = proxy {
                value["proxyPublicAddress"] = proxy.into();
            }
            print_structured(&value, format)?;
        }
    }
    Ok(ExitCode::Done)
}
