//! Certificates that lead to one database: asked for, kept in the profile, read back.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use shared_api::{Client, UserCertsRequest};
use shared_cli::{CliError, ExitCode};
use shared_config::{Profile, ProfileDir};
use shared_pki::{DatabaseRoute, Identity, TlsKey};
use shared_transport::tls;

use super::settings::{Settings, remove_sections};
use crate::context::{api_error, config_error};

/// A certificate for a database, and its key.
pub(crate) struct Issued {
    /// The key.
    pub(crate) key: TlsKey,
    /// The certificate, PEM.
    pub(crate) certificate: String,
    /// When it ends.
    pub(crate) ends: SystemTime,
}

/// Asks for one, with a key made here.
pub(crate) async fn issue(api: &Client, route: &DatabaseRoute) -> Result<Issued, CliError> {
    let key = TlsKey::generate().map_err(|error| CliError::wrap("make a TLS key", &error))?;
    let request = UserCertsRequest {
        user: None,
        ssh_public_key: String::new(),
        tls_public_key: key.public().to_pem(),
        ttl_seconds: None,
        database: Some(route.clone()),
    };
    let certificate = api.sign_user(&request).await.map_err(api_error)?.tls_cert;
    let ends = read(&certificate)
        .map(|active| active.ends)
        .ok_or_else(|| CliError::new("the certificate for the database is not readable"))?;
    Ok(Issued { key, certificate, ends: ends.into() })
}

/// A database that the user is logged in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Active {
    /// What the certificate says.
    pub(crate) route: DatabaseRoute,
    /// When it ends.
    pub(crate) ends: DateTime<Utc>,
}

fn read(pem: &str) -> Option<Active> {
    let certs = tls::certs_from_pem(pem.as_bytes()).ok()?;
    let identity = Identity::from_tls_cert(certs.first()?).ok()?;
    Some(Active { route: identity.database?, ends: identity.valid_until })
}

/// The databases with a certificate that has not ended, by name.
pub(crate) fn active(dir: &ProfileDir, profile: &Profile) -> Result<Vec<Active>, CliError> {
    let mut found = Vec::new();
    for name in dir.databases(profile).map_err(config_error)? {
        let path = dir.database_cert_path(profile, &name).map_err(config_error)?;
        let Some(pem) = dir.read_secret(&path).map_err(config_error)? else { continue };
        found.extend(read(&pem).filter(|active| active.route.service == name));
    }
    let now = Utc::now();
    found.retain(|active| active.ends > now);
    Ok(found)
}

/// The active one that is meant; without a name, the only one.
pub(crate) fn pick_active<'a>(
    active: &'a [Active],
    name: Option<&str>,
) -> Result<&'a Active, CliError> {
    let login = || {
        CliError::with_exit(
            ExitCode::NotLoggedIn,
            "please login into the database first. 'tsh db login'",
        )
    };
    let names = || {
        let names: Vec<&str> = active.iter().map(|one| one.route.service.as_str()).collect();
        names.join(", ")
    };
    let Some(name) = name else {
        return match active {
            [] => Err(login()),
            [one] => Ok(one),
            _ => Err(CliError::usage(
                "please specify a database service by name, --labels, or --query",
            )
            .hint(format!("you are logged in to {}", names()))),
        };
    };
    if let Some(exact) = active.iter().find(|one| one.route.service == name) {
        return Ok(exact);
    }
    let begin: Vec<&Active> =
        active.iter().filter(|one| one.route.service.starts_with(name)).collect();
    match begin.as_slice() {
        [one] => Ok(one),
        [] => Err(login()),
        _ => Err(CliError::new(format!("{name:?} is the beginning of several names: {}", names()))
            .hint("give the whole name")),
    }
}

/// Keeps a certificate, and tells other programs of it.
pub(crate) fn store(
    dir: &ProfileDir,
    profile: &Profile,
    route: &DatabaseRoute,
    issued: &Issued,
    insecure: bool,
) -> Result<Settings, CliError> {
    let settings = Settings::new(dir, profile, route, insecure)?;
    let write = |path, text: &str| dir.write_secret(path, text.as_bytes()).map_err(config_error);
    write(&settings.key, &issued.key.to_pem())?;
    write(&settings.cert, &issued.certificate)?;
    settings.save(dir)?;
    Ok(settings)
}

/// Removes what [`store`] left; answers whether there was anything.
pub(crate) fn forget(dir: &ProfileDir, profile: &Profile, name: &str) -> Result<bool, CliError> {
    remove_sections(dir, profile, name)?;
    dir.remove_database(profile, name).map_err(config_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(name: &str) -> Active {
        let route = DatabaseRoute {
            service: name.to_owned(),
            protocol: "postgres".to_owned(),
            user: "alice".to_owned(),
            name: String::new(),
        };
        Active { route, ends: Utc::now() }
    }

    #[test]
    fn the_only_login_is_meant_where_none_is_named() {
        let two = [active("web-1"), active("web-2")];
        assert_eq!(pick_active(&two[..1], None).unwrap(), &two[0]);
        assert_eq!(pick_active(&two, Some("web-2")).unwrap(), &two[1]);
        assert_eq!(pick_active(&two[..1], Some("we")).unwrap(), &two[0]);
        assert!(pick_active(&two, None).is_err() && pick_active(&two, Some("web")).is_err());
        for name in [None, Some("x")] {
            assert_eq!(
                pick_active(&[], name).unwrap_err().message(),
                "please login into the database first. 'tsh db login'"
            );
        }
    }

    #[test]
    fn a_login_is_no_certificate_for_a_database() {
        assert!(read("").is_none() && read("-----BEGIN CERTIFICATE-----\n").is_none());
    }
}
