//! `auth_service.audit_sessions_uri`: where finished recordings are kept.
//!
//! `file:///dir`, `s3://bucket/path?…` or `gs://bucket/path?…` with the documented parameters. A parameter
//! that is not known is refused, and so is a documented one that cannot be honoured: a setting that protects
//! recordings must not be ignored. Credentials never stand here; they come from the environment.

use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Parameters of `s3://`.
const S3: &[&str] = &[
    "region",
    "endpoint",
    "insecure",
    "disablesse",
    "sse_kms_key",
    "acl",
    "use_fips_endpoint",
    "use_s3_virtual_style_addressing",
    "complete_initiators",
];
/// Parameters of `gs://`.
const GCS: &[&str] = &["projectID", "credentialsPath", "endpoint", "keyName"];
/// The canned access control lists of S3.
const ACLS: &[&str] = &[
    "private",
    "public-read",
    "public-read-write",
    "aws-exec-read",
    "authenticated-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
];

/// Where finished recordings are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionsUri {
    /// A folder of this host.
    Directory(PathBuf),
    /// A bucket of S3 or of a store that speaks like it.
    S3(S3Uri),
    /// A bucket of Google Cloud Storage.
    Gcs(GcsUri),
}

/// A bucket of S3 or of a store that speaks like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Uri {
    /// The bucket.
    pub bucket: String,
    /// What stands before each name, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The region; the environment's when left out.
    pub region: Option<String>,
    /// Scheme, host and port of a store other than Amazon's.
    pub endpoint: Option<String>,
    /// The bucket stands in the host's name, not in the path.
    pub virtual_hosted: bool,
    /// Use Amazon's FIPS endpoints.
    pub fips: bool,
    /// How the store encrypts.
    pub encryption: S3Encryption,
    /// The canned access control list of new objects.
    pub acl: Option<String>,
    /// Whose abandoned uploads are cleaned up, by display name; everybody's when empty.
    pub complete_initiators: Vec<String>,
}

/// How the store encrypts what it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Encryption {
    /// As the bucket is set.
    BucketDefault,
    /// With the store's key management, by this key or by the store's own.
    Kms {
        /// The key's id or name.
        key: Option<String>,
    },
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcsUri {
    /// The bucket.
    pub bucket: String,
    /// What stands before each name, without slashes at its ends; may be empty.
    pub prefix: String,
    /// A service account's key file; the environment's credentials when left out.
    pub credentials_path: Option<PathBuf>,
    /// Scheme, host and port of another server.
    pub endpoint: Option<String>,
    /// The project; only making a bucket would need it, and buckets are not made.
    pub project_id: Option<String>,
}

/// Why the text is refused: what is wrong, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SessionsUriError(String);

fn refused(message: impl Into<String>) -> SessionsUriError {
    SessionsUriError(message.into())
}

impl FromStr for SessionsUri {
    type Err = SessionsUriError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected file:///dir, s3://BUCKET/PATH or gs://BUCKET/PATH";
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            Some("file") => return directory(text),
            Some("s3" | "gs") => {}
            Some("azblob" | "azblob-http") => {
                return Err(refused(format!(
                    "Azure Blob Storage is not part of this version; {expected}"
                )));
            }
            // The text is not shown: it may hold a password.
            _ => return Err(refused(expected)),
        }
        let url = Url::parse(text).map_err(|error| refused(format!("{error}; {expected}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(
                "credentials do not belong into the URI; set them in the environment of the auth service",
            ));
        }
        if url.port().is_some() || url.fragment().is_some() {
            return Err(refused(format!("a port or fragment has no meaning here; {expected}")));
        }
        let bucket = match url.host_str() {
            Some(bucket) if is_bucket(bucket) => bucket.to_owned(),
            other => {
                return Err(refused(format!(
                    "{:?} cannot be the name of a bucket; {expected}",
                    other.unwrap_or_default()
                )));
            }
        };
        let prefix = prefix(text)?;
        let known = if scheme == Some("s3") { S3 } else { GCS };
        let parameters = Parameters::read(&url, known)?;
        match scheme {
            Some("s3") => s3(bucket, prefix, &parameters),
            _ => gcs(bucket, prefix, &parameters),
        }
    }
}

fn directory(text: &str) -> Result<SessionsUri, SessionsUriError> {
    let path = text.strip_prefix("file://").unwrap_or_default();
    if path.contains(['?', '#']) {
        return Err(refused("file:// takes no parameters; expected file:///dir"));
    }
    if !path.starts_with('/') || path == "/" {
        return Err(refused("expected an absolute folder, as in file:///var/lib/recordings"));
    }
    Ok(SessionsUri::Directory(PathBuf::from(path)))
}

/// The rules of S3 and GCS in short: letters, digits, dots, hyphens and underscores.
fn is_bucket(name: &str) -> bool {
    (3..=222).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// The path as it was written: reading it as a URL would drop `..` without a word.
fn prefix(text: &str) -> Result<String, SessionsUriError> {
    let behind_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
    let address = behind_scheme.split(['?', '#']).next().unwrap_or_default();
    let path = address.split_once('/').map_or("", |(_, path)| path).trim_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '=');
    let segments_fit = path.is_empty()
        || path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if path.len() > 512 || !path.chars().all(plain) || !segments_fit {
        return Err(refused(format!(
            "the path {path:?} may have letters, digits and . - _ = between single slashes"
        )));
    }
    Ok(path.to_owned())
}

/// What stands behind the question mark: every name known, none twice.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(url: &Url, known: &[&str]) -> Result<Self, SessionsUriError> {
        let mut found: Vec<(String, String)> = Vec::new();
        for (name, value) in url.query_pairs() {
            if !known.contains(&name.as_ref()) {
                return Err(refused(format!(
                    "unknown parameter {name:?}; known are {}",
                    known.join(", ")
                )));
            }
            if found.iter().any(|(seen, _)| *seen == name) {
                return Err(refused(format!("{name} stands twice; expected it once")));
            }
            if value.is_empty() {
                return Err(refused(format!("{name} is empty; give it a value or leave it out")));
            }
            found.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(found))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    fn flag(&self, name: &str) -> Result<bool, SessionsUriError> {
        match self.text(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(refused(format!("{name}={other}; expected true or false"))),
        }
    }
}

fn s3(bucket: String, prefix: String, given: &Parameters) -> Result<SessionsUri, SessionsUriError> {
    let fips = given.flag("use_fips_endpoint")?;
    let endpoint = endpoint(given.text("endpoint"), given.flag("insecure")?)?;
    if fips && endpoint.is_some() {
        return Err(refused(
            "use_fips_endpoint chooses an endpoint of Amazon's; leave out endpoint",
        ));
    }
    if given.flag("insecure")? && endpoint.is_none() {
        return Err(refused("insecure=true is for a store named by endpoint; leave it out"));
    }
    let key = given.text("sse_kms_key");
    let encryption = match (given.flag("disablesse")?, key) {
        (true, Some(_)) => {
            return Err(refused("sse_kms_key has no effect with disablesse=true; leave out one"));
        }
        (true, None) => S3Encryption::BucketDefault,
        (false, key) => S3Encryption::Kms { key },
    };
    let acl = given.text("acl");
    if let Some(acl) = acl.as_deref().filter(|acl| !ACLS.contains(acl)) {
        return Err(refused(format!("acl={acl}; expected one of {}", ACLS.join(", "))));
    }
    let region = given.text("region");
    if let Some(region) = region.as_deref().filter(|region| !is_host_word(region)) {
        return Err(refused(format!("region={region}; expected a name such as eu-central-1")));
    }
    let initiators = given.text("complete_initiators").unwrap_or_default();
    // Where the bucket stands in the URL: in the host's name at Amazon's, in the path elsewhere, as everybody does.
    let chosen = given.text("use_s3_virtual_style_addressing").is_some();
    let virtual_hosted = if chosen {
        given.flag("use_s3_virtual_style_addressing")?
    } else {
        // A dot in the name would not match the certificate.
        endpoint.is_none() && !bucket.contains('.')
    };
    Ok(SessionsUri::S3(S3Uri {
        bucket,
        prefix,
        region,
        endpoint,
        virtual_hosted,
        fips,
        encryption,
        acl,
        complete_initiators: initiators
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    }))
}

fn gcs(
    bucket: String,
    prefix: String,
    given: &Parameters,
) -> Result<SessionsUri, SessionsUriError> {
    if given.text("keyName").is_some() {
        return Err(refused(
            "keyName is not part of this version; set the key as the bucket's default encryption key and leave it out",
        ));
    }
    let credentials_path = given.text("credentialsPath").map(PathBuf::from);
    if credentials_path.as_deref().is_some_and(|path| !path.is_absolute()) {
        return Err(refused("credentialsPath; expected an absolute path of a key file"));
    }
    let endpoint = match given.text("endpoint") {
        // The scheme says it already: there is no parameter for it here.
        Some(text) => endpoint(Some(text.clone()), text.starts_with("http://"))?,
        None => None,
    };
    Ok(SessionsUri::Gcs(GcsUri {
        bucket,
        prefix,
        credentials_path,
        endpoint,
        project_id: given.text("projectID"),
    }))
}

/// `https://host[:port]`, or `http://` where that is said.
fn endpoint(text: Option<String>, insecure: bool) -> Result<Option<String>, SessionsUriError> {
    let Some(text) = text else { return Ok(None) };
    let whole = match (text.contains("://"), insecure) {
        (true, _) => text.clone(),
        (false, true) => format!("http://{text}"),
        (false, false) => format!("https://{text}"),
    };
    let expected = || refused(format!("endpoint={text}; expected HOST or HOST:PORT"));
    let url = Url::parse(&whole).map_err(|_| expected())?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && matches!(url.path(), "" | "/")
        && url.host_str().is_some();
    match url.scheme() {
        _ if !bare => Err(expected()),
        "https" if insecure => {
            Err(refused("insecure=true means plain HTTP, but endpoint says https; leave out one"))
        }
        "http" if !insecure => Err(refused(
            "endpoint says http, which sends recordings in the clear; use https, or say so by insecure=true",
        )),
        "http" | "https" => Ok(Some(url.as_str().trim_end_matches('/').to_owned())),
        _ => Err(expected()),
    }
}

fn is_host_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(text: &str) -> S3Uri {
        match text.parse() {
            Ok(SessionsUri::S3(uri)) => uri,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_documented_parameters_of_s3() {
        let plain = s3("s3://audit/records/of/us");
        assert_eq!((plain.bucket.as_str(), plain.prefix.as_str()), ("audit", "records/of/us"));
        assert_eq!(plain.encryption, S3Encryption::Kms { key: None });
        assert!(plain.virtual_hosted && !plain.fips && plain.endpoint.is_none());
        assert!(!s3("s3://audit.example.com").virtual_hosted);

        let there =
            s3("s3://audit?endpoint=127.0.0.1:9000&insecure=true&disablesse=true&region=eu-1");
        assert_eq!(there.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!((there.prefix.as_str(), there.region.as_deref()), ("", Some("eu-1")));
        assert_eq!(there.encryption, S3Encryption::BucketDefault);
        assert!(!there.virtual_hosted);

        let full = s3(
            "s3://audit/p/?endpoint=s3.example.com&use_s3_virtual_style_addressing=true&acl=private\
             &sse_kms_key=arn%3Aaws%3Akms&complete_initiators=teleport,%20auth",
        );
        assert_eq!(full.endpoint.as_deref(), Some("https://s3.example.com"));
        assert_eq!(full.encryption, S3Encryption::Kms { key: Some("arn:aws:kms".into()) });
        assert_eq!(full.complete_initiators, ["teleport", "auth"]);
        assert!(full.virtual_hosted && full.acl.as_deref() == Some("private"));
        assert!(s3("s3://audit?use_fips_endpoint=true").fips);
    }

    #[test]
    fn folders_and_google() {
        assert_eq!(
            "file:///srv/rec".parse(),
            Ok(SessionsUri::Directory(PathBuf::from("/srv/rec")))
        );
        let text =
            "gs://audit/p?credentialsPath=/etc/key.json&projectID=p1&endpoint=http://127.0.0.1:9";
        let Ok(SessionsUri::Gcs(gcs)) = text.parse() else { panic!("{text}") };
        assert_eq!((gcs.bucket.as_str(), gcs.prefix.as_str()), ("audit", "p"));
        assert_eq!(gcs.credentials_path, Some(PathBuf::from("/etc/key.json")));
        assert_eq!(gcs.endpoint.as_deref(), Some("http://127.0.0.1:9"));
        assert_eq!(gcs.project_id.as_deref(), Some("p1"));
    }

    #[test]
    fn what_is_refused_says_what_to_do() {
        for (text, said) in [
            ("/var/records", "expected file:///dir, s3://BUCKET/PATH or gs://BUCKET/PATH"),
            ("file://var", "absolute folder"),
            ("file:///", "absolute folder"),
            ("file:///x?y=1", "takes no parameters"),
            ("azblob://acc.blob.core.windows.net", "not part of this version"),
            ("s3://a", "name of a bucket"),
            ("s3:///path", "name of a bucket"),
            ("s3://key:secret@audit/p", "credentials do not belong"),
            ("s3://audit/a//b", "single slashes"),
            ("s3://audit/%2e%2e/b", "may have letters"),
            ("s3://audit?regoin=x", "unknown parameter \"regoin\"; known are region, endpoint,"),
            ("s3://audit?projectID=x", "unknown parameter"),
            ("gs://audit?region=x", "known are projectID, credentialsPath, endpoint, keyName"),
            ("s3://audit?region=a&region=b", "stands twice"),
            ("s3://audit?region=", "is empty"),
            ("s3://audit?region=a/b", "such as eu-central-1"),
            ("s3://audit?insecure=yes", "expected true or false"),
            ("s3://audit?insecure=true", "named by endpoint"),
            ("s3://audit?endpoint=http://h", "insecure=true"),
            ("s3://audit?endpoint=https://h&insecure=true", "leave out one"),
            ("s3://audit?endpoint=h/path", "expected HOST or HOST:PORT"),
            ("s3://audit?endpoint=h&use_fips_endpoint=true", "leave out endpoint"),
            ("s3://audit?disablesse=true&sse_kms_key=k", "leave out one"),
            ("s3://audit?acl=everyone", "expected one of private,"),
            ("gs://audit?keyName=k", "default encryption key"),
            ("gs://audit?credentialsPath=key.json", "absolute path"),
            ("gs://audit?endpoint=ftp://h", "expected HOST"),
        ] {
            match text.parse::<SessionsUri>() {
                Ok(found) => panic!("{text} is accepted: {found:?}"),
                Err(error) => {
                    let shown = error.to_string();
                    assert!(shown.contains(said), "{text}: {shown}");
                    assert!(!shown.contains("secret") && !shown.contains('\n'), "{shown}");
                }
            }
        }
    }
}
