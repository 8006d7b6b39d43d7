//! Signatures of AWS, version 4: the client's is taken off, the agent's is put on.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use shared_types::Database;

use super::TARGET;
use crate::engine::http::Asked;

/// The name of the service in signatures.
const SERVICE: &str = "dynamodb";
/// The region where nobody names one.
const ANY_REGION: &str = "us-east-1";
/// Headers of clients that are signed, besides those that a signature brings itself.
const SIGNED: [HeaderName; 2] = [header::CONTENT_TYPE, HeaderName::from_static(TARGET)];

/// Why a request cannot be signed; the client reads it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignError {
    #[error("the header {0} is not text")]
    Header(HeaderName),
    #[error("the path of the request is none")]
    Uri,
    #[error("the agent's AWS credentials are not usable; ask your administrator")]
    Credential,
}

/// Takes out of `headers` what says who the client is, and all else of AWS that would have to be signed.
pub(super) fn drop_identity(headers: &mut HeaderMap) {
    let of_aws: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned().collect();
    for name in of_aws {
        if name != TARGET {
            headers.remove(name);
        }
    }
    headers.remove(header::AUTHORIZATION);
    headers.remove(header::COOKIE);
    headers.remove(header::CONTENT_LENGTH);
}

/// The region in which a request is signed: as the database's configuration or its address says, else as the client
/// signed it, else as the agent's environment says.
pub(super) fn region<'a>(database: &'a Database, headers: &'a HeaderMap) -> Cow<'a, str> {
    let configured = database.spec.aws.as_ref().map(|aws| aws.region.as_str());
    let configured = configured.filter(|region| !region.is_empty());
    let host = database.spec.address().map(|(host, _)| host);
    let named =
        configured.or_else(|| host.and_then(region_of_host)).or_else(|| signed_region(headers));
    let environment = || {
        let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        names.iter().find_map(|name| std::env::var(name).ok().filter(|region| is_region(region)))
    };
    match named {
        Some(region) => Cow::Borrowed(region),
        None => environment().map_or(Cow::Borrowed(ANY_REGION), Cow::Owned),
    }
}

/// `dynamodb.eu-west-1.amazonaws.com`, or an endpoint of a virtual network in front of the same.
fn region_of_host(host: &str) -> Option<&str> {
    let front = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
    let front = front.strip_suffix(".vpce").unwrap_or(front);
    front.rsplit_once('.').map(|(_, region)| region).filter(|region| is_region(region))
}

/// `AWS4-HMAC-SHA256 Credential=KEY/20260101/eu-west-1/dynamodb/aws4_request, …`
fn signed_region(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let scope = authorization.split_once("Credential=")?.1.split(',').next()?;
    scope.split('/').nth(2).filter(|region| is_region(region))
}

fn is_region(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The headers of a signature for this request, with the host and what is signed of the client's.
pub(super) fn signed(
    credential: &AwsCredential,
    region: &str,
    database: &Database,
    asked: &Asked,
) -> Result<HeaderMap, SignError> {
    let usable = |text: &str| HeaderValue::from_str(text).is_ok();
    if !usable(&credential.key_id) || !credential.token.as_deref().is_none_or(usable) {
        return Err(SignError::Credential);
    }
    let uri = absolute(database, &asked.uri).ok_or(SignError::Uri)?;
    let mut request = Request::builder()
        .method(asked.method.clone())
        .uri(uri)
        .body(HttpRequestBody::from(asked.body.clone()))
        .map_err(|_| SignError::Uri)?;
    for name in SIGNED {
        if let Some(value) = asked.headers.get(&name) {
            value.to_str().map_err(|_| SignError::Header(name.clone()))?;
            request.headers_mut().insert(name, value.clone());
        }
    }
    AwsAuthorizer::new(credential, SERVICE, region).authorize(&mut request, None);
    Ok(std::mem::take(request.headers_mut()))
}

/// The request's address at the database.
fn absolute(database: &Database, uri: &Uri) -> Option<Uri> {
    let (host, port) = database.spec.address()?;
    let scheme = if database.spec.uri.starts_with("http://") { "http" } else { "https" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let absolute = format!("{scheme}://{host}:{port}{target}");
    // The signer reads it with this, and takes for granted that it can.
    url::Url::parse(&absolute).ok()?;
    absolute.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shared_types::resource::{DatabaseSpec, DbProtocol};

    use super::*;

    fn database(uri: &str) -> Database {
        Database::new("d", DatabaseSpec::new(DbProtocol::Dynamodb, uri))
    }

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        let entry = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        entries.iter().map(entry).collect()
    }

    const THEIRS: &str = "AWS4-HMAC-SHA256 Credential=THEIRS/20260101/eu-north-1/dynamodb/aws4_request, SignedHeaders=host, Signature=00";

    #[test]
    fn the_region_is_found() {
        let signed = headers(&[("authorization", THEIRS)]);
        for (uri, wanted) in [
            ("dynamodb.eu-west-1.amazonaws.com:443", "eu-west-1"),
            ("https://dynamodb.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("vpce-1-2.dynamodb.eu-west-2.vpce.amazonaws.com:443", "eu-west-2"),
            ("http://127.0.0.1:8000", "eu-north-1"),
        ] {
            assert_eq!(region(&database(uri), &signed), wanted, "{uri}");
        }
    }

    #[test]
    fn the_clients_identity_does_not_go_on() {
        let mut headers = headers(&[
            ("authorization", THEIRS),
            ("x-amz-security-token", "secret"),
            ("x-amz-date", "x"),
            ("x-amz-target", "DynamoDB_20120810.ListTables"),
            ("user-agent", "x"),
        ]);
        drop_identity(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["user-agent", "x-amz-target"]);
    }

    fn asked(headers: HeaderMap) -> Asked {
        let (method, uri) = (http::Method::POST, "/".parse().unwrap());
        Asked { method, uri, headers, body: Bytes::from_static(b"{}") }
    }

    fn credential() -> AwsCredential {
        AwsCredential { key_id: "OURS".to_owned(), secret_key: "key".to_owned(), token: None }
    }

    #[test]
    fn the_agents_signature_goes_on() {
        let asked = asked(headers(&[("authorization", THEIRS), ("x-amz-target", "T.Op")]));
        let signed =
            signed(&credential(), "eu-west-1", &database("http://127.0.0.1:8000"), &asked).unwrap();
        let authorization = signed.get(header::AUTHORIZATION).unwrap().to_str().unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=OURS/"), "{authorization}");
        assert!(authorization.contains("/eu-west-1/dynamodb/aws4_request"), "{authorization}");
        assert!(
            authorization.contains("host;x-amz-content-sha256;x-amz-date;x-amz-target"),
            "{authorization}"
        );
        assert_eq!(signed.get(header::HOST).unwrap(), "127.0.0.1:8000");
    }

    #[test]
    fn what_cannot_be_signed_is_refused() {
        let mut wrong = HeaderMap::new();
        wrong.insert(TARGET, HeaderValue::from_bytes(b"\xff").unwrap());
        let database = database("http://127.0.0.1:8000");
        let refused = signed(&credential(), "r", &database, &asked(wrong)).unwrap_err();
        assert_eq!(refused, SignError::Header(HeaderName::from_static(TARGET)));
        let broken = AwsCredential { token: Some("a\nb".to_owned()), ..credential() };
        let refused = signed(&broken, "r", &database, &asked(HeaderMap::new())).unwrap_err();
        assert_eq!(refused, SignError::Credential);
    }
}
