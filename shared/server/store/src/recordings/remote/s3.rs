//! S3 and stores that speak like it (Amazon S3 API Reference, 2006-03-01).
//!
//! Credentials, signatures and connections are `object_store`'s. The requests are made here: recordings need the
//! versions of an object, an upload that is finished only when nothing has its name, `Content-MD5` (which buckets
//! with object lock demand) and access control lists, and its interface has none of them.

mod xml;

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use md5::Md5;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use sha2::{Digest, Sha256};
use shared_config::{S3Encryption, S3Uri};

use super::bucket::{Block, Bucket, CHECK, Object, Written};
use super::fault::{At, FaultKind, StoreFault};
use super::http::{Reply, SMALL, client, credential_retries, encode, options, query, send};
use crate::recordings::StoreEnv;

/// The region when nobody names one.
const USUAL_REGION: &str = "us-east-1";
/// Most answers read for one listing; more is a bucket somebody plays with.
const PAGES: usize = 100;

/// A bucket of S3 or of a store that speaks like it.
pub(super) struct S3 {
    client: HttpClient,
    credentials: AwsCredentialProvider,
    /// Scheme, host and bucket, with a slash at the end.
    base: String,
    region: String,
    bucket: String,
    /// What new objects are made with: encryption, access control.
    new_objects: Vec<(&'static str, String)>,
    initiators: Vec<String>,
    /// What the store has shown not to know.
    no_versions: AtomicBool,
    no_conditions: AtomicBool,
    told: AtomicBool,
}

/// One request, but for its signature.
struct Ask<'a> {
    step: &'static str,
    method: Method,
    key: &'a str,
    query: &'a [(&'a str, &'a str)],
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    most: u64,
}

impl<'a> Ask<'a> {
    fn new(
        step: &'static str,
        method: Method,
        key: &'a str,
        query: &'a [(&'a str, &'a str)],
    ) -> Self {
        Self { step, method, key, query, headers: Vec::new(), body: Bytes::new(), most: SMALL }
    }
}

impl S3 {
    /// Takes the credentials of the environment; nothing is asked of the store yet.
    pub(super) fn open(uri: &S3Uri, env: &StoreEnv) -> Result<Self, StoreFault> {
        let at = At { step: "open", place: format!("s3://{}", uri.bucket) };
        let region =
            uri.region.clone().or_else(|| env.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let region = region.unwrap_or_else(|| USUAL_REGION.to_owned());
        let allow_http = uri.endpoint.as_deref().is_some_and(|text| text.starts_with("http://"));
        let mut builder = AmazonS3Builder::new();
        for (name, value) in env.starting_with("AWS_") {
            if value.chars().any(char::is_control) {
                return Err(
                    at.fault(FaultKind::Credentials, format!("{name} has a control character"))
                );
            }
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let credentials = builder
            .with_region(&region)
            .with_bucket_name(&uri.bucket)
            .with_client_options(options(false))
            .with_retry(credential_retries())
            .build()
            .map_err(|error| at.failed(FaultKind::Credentials, &error))?
            .credentials()
            .clone();
        let mut new_objects = Vec::new();
        if let S3Encryption::Kms { key } = &uri.encryption {
            new_objects.push(("x-amz-server-side-encryption", "aws:kms".to_owned()));
            let key = key.clone().map(|key| ("x-amz-server-side-encryption-aws-kms-key-id", key));
            new_objects.extend(key);
        }
        new_objects.extend(uri.acl.clone().map(|acl| ("x-amz-acl", acl)));
        Ok(Self {
            client: client(allow_http, &at)?,
            credentials,
            base: base(uri, &region),
            region,
            bucket: uri.bucket.clone(),
            new_objects,
            initiators: uri.complete_initiators.clone(),
            no_versions: AtomicBool::new(false),
            no_conditions: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })
    }

    /// Sends a signed request. What is no success is a fault.
    async fn ask(&self, ask: Ask<'_>) -> Result<Reply, StoreFault> {
        let at = self.at(ask.step, ask.key);
        let mut url = format!("{}{}", self.base, encode(ask.key, true));
        if !ask.query.is_empty() {
            url = format!("{url}?{}", query(ask.query));
        }
        let mut request = HttpRequest::new(HttpRequestBody::from(ask.body.clone()));
        let finishes = ask.method == Method::POST;
        *request.method_mut() = ask.method;
        *request.uri_mut() = url
            .parse()
            .map_err(|error: http::uri::InvalidUri| at.failed(FaultKind::Other, &error))?;
        for (name, value) in ask.headers {
            let value = value.parse().map_err(|error: http::header::InvalidHeaderValue| {
                at.failed(FaultKind::Other, &error)
            })?;
            request.headers_mut().insert(name, value);
        }
        let credential = self
            .credentials
            .get_credential()
            .await
            .map_err(|error| at.failed(FaultKind::Credentials, &error))?;
        let digest = sha256(ask.body, &at).await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, Some(&digest));
        let reply = send(&self.client, request, ask.most, &at).await?;
        // Finishing an upload may fail behind a status of 200.
        if reply.status.is_success() && !(finishes && xml::is_error(&reply.body)) {
            return Ok(reply);
        }
        let error = xml::error(&reply.text());
        Err(at.refused(reply.status, &error.code, &error.message))
    }

    /// Writes with the condition that nothing has the name, where the store knows such conditions.
    async fn ask_if_none<'a>(
        &self,
        ask: impl Fn() -> Ask<'a> + Send + Sync,
    ) -> Result<Written, StoreFault> {
        let mut conditional = ask();
        if !self.no_conditions.load(Ordering::Relaxed) {
            conditional.headers.push(("if-none-match", "*".to_owned()));
        }
        match self.ask(conditional).await {
            Ok(_) => Ok(Written::Stored),
            Err(fault) if fault.kind == FaultKind::Exists => Ok(Written::Exists),
            Err(fault)
                if fault.kind == FaultKind::NotImplemented
                    && !self.no_conditions.swap(true, Ordering::Relaxed) =>
            {
                tracing::warn!(%fault, "the recording store knows no conditional writes: only its versions protect recordings");
                self.ask(ask()).await.map(|_| Written::Stored)
            }
            Err(fault) => Err(fault),
        }
    }

    /// The versions and deletions of this object, newest first. `None` where the store does not tell.
    async fn versions(&self, key: &str) -> Result<Option<xml::Versions>, StoreFault> {
        if self.no_versions.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut all = xml::Versions::default();
        let (mut key_marker, mut version_marker) = (String::new(), String::new());
        for _ in 0..PAGES {
            let mut asked = vec![("versions", ""), ("prefix", key)];
            if !key_marker.is_empty() {
                asked.push(("key-marker", key_marker.as_str()));
                asked.push(("version-id-marker", version_marker.as_str()));
            }
            let reply = match self.ask(Ask::new("list versions of", Method::GET, "", &asked)).await
            {
                Err(fault)
                    if matches!(fault.kind, FaultKind::NotImplemented | FaultKind::Denied) =>
                {
                    if fault.kind == FaultKind::NotImplemented {
                        self.no_versions.store(true, Ordering::Relaxed);
                    }
                    if !self.told.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%fault, "versions of recordings cannot be listed: the newest is read instead of the oldest");
                    }
                    return Ok(None);
                }
                reply => reply?,
            };
            let page: xml::Versions = self.read_xml("list versions of", key, &reply)?;
            all.extend_of(page.clone(), key);
            // Names come in order, so this one's versions end where another name begins.
            if !page.truncated || page.next_key.as_deref() != Some(key) {
                return Ok(Some(all));
            }
            key_marker = page.next_key.unwrap_or_default();
            version_marker = page.next_version.unwrap_or_default();
        }
        Err(self.at("list versions of", key).fault(FaultKind::Other, "there are too many"))
    }

    /// The object as it is now, for stores that do not tell of versions.
    async fn newest(&self, key: &str) -> Result<Option<Object>, StoreFault> {
        let asked = [("list-type", "2"), ("prefix", key), ("max-keys", "1")];
        let reply = self.ask(Ask::new("look for", Method::GET, "", &asked)).await?;
        let page: xml::Objects = self.read_xml("look for", key, &reply)?;
        let found = page.objects.into_iter().find(|object| object.key == key);
        Ok(found.map(|object| Object { bytes: object.bytes, version: None }))
    }

    /// Says it once when others could put something else in a recording's place.
    async fn warn_without_versions(&self) {
        let ask = Ask::new("ask for versioning of", Method::GET, "", &[("versioning", "")]);
        let Ok(reply) = self.ask(ask).await else { return };
        if !xml::versioning_enabled(&reply.text()) {
            tracing::warn!(
                place = self.place(""),
                "the bucket keeps no versions: turn versioning on, so that nobody can replace a recording"
            );
        }
    }

    fn read_xml<T: serde::de::DeserializeOwned>(
        &self,
        step: &'static str,
        key: &str,
        reply: &Reply,
    ) -> Result<T, StoreFault> {
        xml::read(&reply.text())
            .map_err(|error| self.at(step, key).failed(FaultKind::Other, &error))
    }

    async fn begin_at(&self, step: &'static str, key: &str) -> Result<String, StoreFault> {
        let mut ask = Ask::new(step, Method::POST, key, &[("uploads", "")]);
        ask.headers = self.new_objects.clone();
        let reply = self.ask(ask).await?;
        let begun: xml::Begun = self.read_xml(step, key, &reply)?;
        Ok(begun.upload_id)
    }
}

/// Where the bucket is: in the host's name, or in the path.
fn base(uri: &S3Uri, region: &str) -> String {
    let endpoint = match &uri.endpoint {
        Some(endpoint) => endpoint.clone(),
        None if uri.fips => format!("https://s3-fips.{region}.amazonaws.com"),
        None => format!("https://s3.{region}.amazonaws.com"),
    };
    match endpoint.split_once("://") {
        Some((scheme, host)) if uri.virtual_hosted => format!("{scheme}://{}.{host}/", uri.bucket),
        _ => format!("{endpoint}/{}/", uri.bucket),
    }
}

/// Digests of megabytes are taken off the runtime.
async fn sha256(bytes: Bytes, at: &At) -> Result<[u8; 32], StoreFault> {
    if bytes.len() < 1 << 16 {
        return Ok(Sha256::digest(&bytes).into());
    }
    let digest = tokio::task::spawn_blocking(move || Sha256::digest(&bytes).into());
    digest.await.map_err(|error| at.failed(FaultKind::Other, &error))
}

async fn content_md5(bytes: Bytes, at: &At) -> Result<(&'static str, String), StoreFault> {
    let digest = tokio::task::spawn_blocking(move || STANDARD.encode(Md5::digest(&bytes)));
    let digest = digest.await.map_err(|error| at.failed(FaultKind::Other, &error))?;
    Ok(("content-md5", digest))
}

#[async_trait]
impl Bucket for S3 {
    fn place(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    async fn check(&self, prefix: &str) -> Result<(), StoreFault> {
        let key = format!("{prefix}{CHECK}");
        let upload = self.begin_at("check that recordings can be written to", &key).await?;
        match self.abort(&key, &upload).await {
            Err(fault) if fault.kind == FaultKind::Denied => {
                tracing::warn!(error = %fault, "uploads cannot be given up in the recording store");
            }
            done => done?,
        }
        self.warn_without_versions().await;
        Ok(())
    }

    async fn oldest(&self, key: &str) -> Result<Option<Object>, StoreFault> {
        let Some(found) = self.versions(key).await? else { return self.newest(key).await };
        // Stored newest first.
        Ok(found
            .versions
            .into_iter()
            .next_back()
            .map(|version| Object { bytes: version.bytes, version: Some(version.id) }))
    }

    async fn read(
        &self,
        key: &str,
        object: &Object,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, StoreFault> {
        let version = object.version.as_deref().map(|version| [("versionId", version)]);
        let asked = version.as_ref().map_or(&[] as &[_], |version| version);
        let mut ask = Ask::new("read", Method::GET, key, asked);
        let last = offset + length.saturating_sub(1);
        ask.headers.push(("range", format!("bytes={offset}-{last}")));
        ask.most = length;
        Ok(self.ask(ask).await?.body)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Written, StoreFault> {
        let md5 = content_md5(bytes.clone(), &self.at("write", key)).await?;
        self.ask_if_none(|| {
            let mut ask = Ask::new("write", Method::PUT, key, &[]);
            ask.headers = self.new_objects.clone();
            ask.headers.push(md5.clone());
            ask.body = bytes.clone();
            ask
        })
        .await
    }

    async fn begin(&self, key: &str, _total: u64) -> Result<String, StoreFault> {
        self.begin_at("begin upload of", key).await
    }

    async fn block(&self, key: &str, upload: &str, block: Block) -> Result<String, StoreFault> {
        let number = (block.index + 1).to_string();
        let asked = [("partNumber", number.as_str()), ("uploadId", upload)];
        let mut ask = Ask::new("upload a part of", Method::PUT, key, &asked);
        let at = self.at(ask.step, key);
        ask.headers.push(content_md5(block.bytes.clone(), &at).await?);
        ask.body = block.bytes;
        let reply = self.ask(ask).await?;
        reply
            .header("etag")
            .map(str::to_owned)
            .ok_or_else(|| at.fault(FaultKind::Other, "the answer has no ETag"))
    }

    async fn finish(
        &self,
        key: &str,
        upload: &str,
        names: &[String],
        last: Block,
    ) -> Result<Written, StoreFault> {
        let name = self.block(key, upload, last).await?;
        let body = Bytes::from(xml::completion(names.iter().chain([&name])));
        let asked = [("uploadId", upload)];
        self.ask_if_none(|| {
            let mut ask = Ask::new("finish upload of", Method::POST, key, &asked);
            ask.body = body.clone();
            ask
        })
        .await
    }

    async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreFault> {
        let asked = [("uploadId", upload)];
        match self.ask(Ask::new("give up upload of", Method::DELETE, key, &asked)).await {
            Err(fault) if !matches!(fault.kind, FaultKind::UploadGone | FaultKind::Missing) => {
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    async fn abort_abandoned(&self, key: &str) -> Result<(), StoreFault> {
        let asked = [("uploads", ""), ("prefix", key)];
        let reply = self.ask(Ask::new("list uploads of", Method::GET, "", &asked)).await?;
        let found: xml::Uploads = self.read_xml("list uploads of", key, &reply)?;
        for upload in found.uploads {
            let initiator = upload.initiator.map(|initiator| initiator.name).unwrap_or_default();
            let ours = self.initiators.is_empty() || self.initiators.contains(&initiator);
            if upload.key == key && ours {
                self.abort(key, &upload.upload_id).await?;
                tracing::info!(place = self.place(key), "abandoned upload given up");
            }
        }
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreFault> {
        let Some(found) = self.versions(key).await? else {
            let there = self.newest(key).await?.is_some();
            self.ask(Ask::new("remove", Method::DELETE, key, &[])).await?;
            return Ok(there);
        };
        let there = !found.versions.is_empty();
        // The oldest goes last, so that what is cut short reads as it did.
        for version in found.deletions.iter().chain(&found.versions) {
            let asked = [("versionId", version.id.as_str())];
            self.ask(Ask::new("remove", Method::DELETE, key, &asked)).await?;
        }
        Ok(there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_config::SessionsUri;

    fn at(text: &str) -> String {
        match text.parse() {
            Ok(SessionsUri::S3(uri)) => base(&uri, "eu-1"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_bucket_stands_in_the_host_or_in_the_path() {
        assert_eq!(at("s3://audit/p"), "https://audit.s3.eu-1.amazonaws.com/");
        assert_eq!(at("s3://a.b.c"), "https://s3.eu-1.amazonaws.com/a.b.c/");
        assert_eq!(
            at("s3://audit?use_fips_endpoint=true"),
            "https://audit.s3-fips.eu-1.amazonaws.com/"
        );
        assert_eq!(at("s3://audit?endpoint=h:9000&insecure=true"), "http://h:9000/audit/");
        assert_eq!(
            at("s3://audit?endpoint=h:9000&use_s3_virtual_style_addressing=true"),
            "https://audit.h:9000/"
        );
    }

    #[test]
    fn credentials_that_cannot_stand_in_a_header_are_refused() {
        let Ok(SessionsUri::S3(uri)) = "s3://audit".parse() else { panic!() };
        let env = StoreEnv::of([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b\nc")]);
        let fault = S3::open(&uri, &env).err().unwrap();
        assert_eq!(fault.kind, FaultKind::Credentials);
        assert!(!fault.to_string().contains("b c"), "{fault}");
        let env = StoreEnv::of([("AWS_ACCESS_KEY_ID", "a")]);
        assert_eq!(S3::open(&uri, &env).err().unwrap().kind, FaultKind::Credentials);
    }
}
