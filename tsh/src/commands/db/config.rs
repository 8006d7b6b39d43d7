//! `tsh db config`.

use shared_cli::{CliError, ExitCode, Format, print_structured, printable};

use super::certs::{active, pick_active};
use super::native::{Reach, client, installed};
use super::select::{PickArgs, check_cluster, pick, reachable};
use super::settings::{Settings, local_proxy_reason};
use crate::context::Ctx;

/// Flags of `tsh db config`.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    pick: PickArgs,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value_t)]
    format: ConfigFormat,
}

/// What `--format` of `tsh db config` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum ConfigFormat {
    /// Labels and values.
    #[default]
    Text,
    /// The command that connects.
    Cmd,
    /// One object.
    Json,
    /// One document.
    Yaml,
}

/// How to connect to the database that is meant, among those that the user is logged in to.
pub(super) async fn chosen(ctx: &Ctx, args: &PickArgs) -> Result<Settings, CliError> {
    check_cluster(ctx, args.filter.cluster.as_deref())?;
    let profile = ctx.profile()?;
    let active = active(&ctx.dir, &profile)?;
    let mut name = args.database.clone();
    if name.is_none() && (args.filter.labels.is_some() || args.filter.query.is_some()) {
        let entries = reachable(ctx, &ctx.api()?, &args.filter).await?;
        name = Some(pick(&entries, None, &args.filter)?.database.name().to_owned());
    }
    let one = pick_active(&active, name.as_deref())?;
    Settings::new(&ctx.dir, &profile, &one.route, ctx.global.insecure)
}

/// Prints it.
pub(super) async fn run(ctx: &Ctx, args: &ConfigArgs) -> Result<ExitCode, CliError> {
    let settings = chosen(ctx, &args.pick).await?;
    match args.format {
        ConfigFormat::Json => print_structured(&settings, Format::Json)?,
        ConfigFormat::Yaml => print_structured(&settings, Format::Yaml)?,
        ConfigFormat::Text => print!("{}", text(&settings)),
        ConfigFormat::Cmd => {
            if let Some(reason) = local_proxy_reason(settings.protocol, &ctx.profile()?) {
                return Err(CliError::new(format!(
                    "a local proxy is needed for {}: {reason}",
                    settings.protocol.display()
                ))
                .hint(format!("tsh proxy db --tunnel {}", settings.name)));
            }
            let reach = Reach::Proxy(&settings);
            let (user, name) = (&settings.user, &settings.database);
            println!("{}", client(settings.protocol, user, name, reach, &installed)?.shown());
        }
    }
    Ok(ExitCode::Done)
}

/// One line each, values from column 12.
fn text(settings: &Settings) -> String {
    let mut text = String::new();
    for (label, value) in [
        ("Name", settings.name.clone()),
        ("Host", settings.host.clone()),
        ("Port", settings.port.to_string()),
        ("User", settings.user.clone()),
        ("Database", settings.database.clone()),
        ("CA", settings.ca.display().to_string()),
        ("Cert", settings.cert.display().to_string()),
        ("Key", settings.key.display().to_string()),
    ] {
        let line = format!("{:<11}{}", format!("{label}:"), printable(&value));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use shared_config::{Profile, ProfileDir};
    use shared_pki::DatabaseRoute;

    use super::*;

    fn settings() -> Settings {
        let profile = Profile::new(
            "gate.test:443".into(),
            "gate.test:443".into(),
            "joe".parse().unwrap(),
            "main".parse().unwrap(),
            true,
        );
        let route = DatabaseRoute {
            service: "web".to_owned(),
            protocol: "postgres".to_owned(),
            user: "alice".to_owned(),
            name: String::new(),
        };
        let dir = ProfileDir::at(std::path::Path::new("/h"));
        Settings::new(&dir, &profile, &route, false).unwrap()
    }

    #[test]
    fn text_and_json_as_scripts_know_them() {
        insta::assert_snapshot!(text(&settings()), @r"
        Name:      web
        Host:      gate.test
        Port:      443
        User:      alice
        Database:
        CA:        /h/keys/gate.test/cas/main.pem
        Cert:      /h/keys/gate.test/joe-db/main/web.crt
        Key:       /h/keys/gate.test/joe-db/main/web.key
        ");
        let json = serde_json::to_value(settings()).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut known = ["name", "host", "port", "user", "database", "ca", "cert", "key"];
        known.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(keys, known);
    }
}
