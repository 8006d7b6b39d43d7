//! The agent's own AWS identity: environment, web identity or the credentials file, then the container's or the
//! instance's role; the order of the AWS command line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use tokio::sync::OnceCell;

/// How long a role's credentials may take to come.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest credentials file, in bytes.
const MOST_FILE: u64 = 256 * 1024;
/// Variables that come before the credentials file.
const FIRST: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Where roles' credentials come from; it keeps them while they are good.
static PROVIDER: OnceCell<AwsCredentialProvider> = OnceCell::const_new();

/// Why there are no credentials. For the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    #[error("{0}")]
    Provider(#[from] object_store::Error),
    #[error("no credentials within {} s", PATIENCE.as_secs())]
    Slow,
}

/// The credentials that requests are signed with now.
pub(super) async fn current(region: &str) -> Result<Arc<AwsCredential>, CredentialError> {
    if !FIRST.iter().any(|name| std::env::var_os(name).is_some()) {
        let file = tokio::task::spawn_blocking(from_file).await.ok().flatten();
        if let Some(credential) = file {
            return Ok(Arc::new(credential));
        }
    }
    let provider = PROVIDER.get_or_try_init(|| async { provider(region) }).await?;
    let credential = tokio::time::timeout(PATIENCE, provider.get_credential()).await;
    Ok(credential.map_err(|_| CredentialError::Slow)??)
}

fn provider(region: &str) -> Result<AwsCredentialProvider, object_store::Error> {
    // A bucket has to be named and is never asked for.
    let builder = AmazonS3Builder::from_env().with_bucket_name("none").with_region(region);
    Ok(Arc::clone(builder.build()?.credentials()))
}

/// Of the file that `AWS_SHARED_CREDENTIALS_FILE` names, or `~/.aws/credentials`, the profile `AWS_PROFILE`, or
/// `default`.
fn from_file() -> Option<AwsCredential> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
    let path = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(home)?;
    if std::fs::metadata(&path).ok()?.len() > MOST_FILE {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
    of_profile(&text, &profile)
}

/// The credentials of a profile; none where a key is missing.
fn of_profile(text: &str, profile: &str) -> Option<AwsCredential> {
    let (mut inside, mut key_id, mut secret_key, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
            let place = match name.trim() {
                "aws_access_key_id" => &mut key_id,
                "aws_secret_access_key" => &mut secret_key,
                "aws_session_token" => &mut token,
                _ => continue,
            };
            *place = Some(value.trim().to_owned());
        }
    }
    Some(AwsCredential { key_id: key_id?, secret_key: secret_key?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=a/b+c=\n\n[ other ]\n\
                        aws_access_key_id=B\naws_secret_access_key=b\naws_session_token=t\n[half]\naws_access_key_id=C\n";

    #[test]
    fn a_profile_is_read() {
        let read = |profile| of_profile(FILE, profile).map(|c| (c.key_id, c.secret_key, c.token));
        let of = |id: &str, key: &str, token: Option<&str>| {
            Some((id.to_owned(), key.to_owned(), token.map(str::to_owned)))
        };
        assert_eq!(read("default"), of("A", "a/b+c=", None));
        assert_eq!(read("other"), of("B", "b", Some("t")));
        assert_eq!(read("half"), None);
        assert_eq!(read("missing"), None);
    }
}
