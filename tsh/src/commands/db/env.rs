//! `tsh db env`.

use std::collections::BTreeMap;

use shared_cli::{CliError, ExitCode, Format, print_structured};

use super::config::chosen;
use super::select::PickArgs;
use super::settings::local_proxy_reason;
use crate::context::Ctx;

/// Flags of `tsh db env`.
#[derive(Debug, clap::Args)]
pub(super) struct EnvArgs {
    #[command(flatten)]
    pick: PickArgs,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: Format,
}

/// Prints what to set.
pub(super) async fn run(ctx: &Ctx, args: &EnvArgs) -> Result<ExitCode, CliError> {
    let settings = chosen(ctx, &args.pick).await?;
    let profile = ctx.profile()?;
    if let Some(reason) = local_proxy_reason(settings.protocol, &profile) {
        return Err(CliError::new(format!(
            "a local proxy is needed for {}: {reason}",
            settings.protocol.display()
        ))
        .hint(format!("tsh proxy db --tunnel {}", settings.name)));
    }
    let environment = settings.environment();
    match args.format {
        Format::Text => {
            for (name, value) in &environment {
                println!("export {name}={}", quoted(value));
            }
        }
        format => print_structured(&environment.into_iter().collect::<BTreeMap<_, _>>(), format)?,
    }
    Ok(ExitCode::Done)
}

/// As a shell reads it when it evaluates the line.
fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%,+".contains(&byte);
    match !value.is_empty() && value.bytes().all(plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_in_a_value_reaches_the_shell() {
        assert_eq!(super::quoted("/h/.tsh/keys"), "/h/.tsh/keys");
        assert_eq!(super::quoted("a b"), "'a b'");
        assert_eq!(super::quoted("$(x)'"), r"'$(x)'\'''");
        assert_eq!(super::quoted(""), "''");
    }
}
