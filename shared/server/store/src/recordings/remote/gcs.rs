//! Google Cloud Storage by its JSON API, with resumable uploads.
//!
//! Credentials and connections are `object_store`'s. Its uploads in parts take no condition; a resumable upload
//! takes `ifGenerationMatch=0`, so an object that is there is never replaced, and one that nobody finishes
//! disappears by itself within a week.

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, InvalidHeaderValue, RANGE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use serde::Deserialize;
use shared_config::GcsUri;

use super::bucket::{Block, Bucket, CHECK, Object, Written};
use super::fault::{At, FaultKind, StoreFault};
use super::http::{Reply, SMALL, client, credential_retries, encode, options, query, send};
use crate::recordings::StoreEnv;

const USUAL: &str = "https://storage.googleapis.com";
/// Most answers read for one listing.
const PAGES: usize = 100;
/// What the service answers when an upload is given up.
const GIVEN_UP: u16 = 499;

/// A bucket of Google Cloud Storage.
pub(super) struct Gcs {
    client: HttpClient,
    credentials: GcpCredentialProvider,
    endpoint: String,
    bucket: String,
}

struct Ask {
    method: Method,
    url: String,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
    most: u64,
    /// An upload's own address needs no credentials, and gets none.
    signed: bool,
}

impl Ask {
    fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: Vec::new(), body: Bytes::new(), most: SMALL, signed: true }
    }
}

/// `storage#objects`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Objects {
    items: Vec<Item>,
    next_page_token: Option<String>,
}

/// `storage#object`; numbers are texts.
#[derive(Debug, Clone, Deserialize)]
struct Item {
    name: String,
    generation: String,
    size: String,
}

impl Item {
    fn generation(&self) -> u64 {
        self.generation.parse().unwrap_or(u64::MAX)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RefusalBody {
    message: String,
    errors: Vec<Reason>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

impl Gcs {
    /// Takes the named key file or the credentials of the environment; nothing is asked of the store yet.
    pub(super) fn open(uri: &GcsUri, env: &StoreEnv) -> Result<Self, StoreFault> {
        let at = At { step: "open", place: format!("gs://{}", uri.bucket) };
        let allow_http = uri.endpoint.as_deref().is_some_and(|text| text.starts_with("http://"));
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&uri.bucket)
            .with_client_options(options(allow_http))
            .with_retry(credential_retries());
        if let Some(path) = &uri.credentials_path {
            builder = builder.with_service_account_path(path.to_string_lossy());
        } else {
            for (name, value) in env.starting_with("GOOGLE_") {
                if let Ok(key) = name.to_ascii_lowercase().parse() {
                    builder = builder.with_config(key, value);
                }
            }
            builder = builder.with_bucket_name(&uri.bucket);
        }
        let store = builder.build().map_err(|error| at.failed(FaultKind::Credentials, &error))?;
        if uri.project_id.is_some() {
            tracing::info!(
                "projectID is needed only to make a bucket, and buckets are not made here"
            );
        }
        Ok(Self {
            client: client(allow_http, &at)?,
            credentials: store.credentials().clone(),
            endpoint: uri.endpoint.clone().unwrap_or_else(|| USUAL.to_owned()),
            bucket: uri.bucket.clone(),
        })
    }

    async fn send(&self, at: &At, ask: Ask) -> Result<Reply, StoreFault> {
        let mut request = HttpRequest::new(HttpRequestBody::from(ask.body));
        *request.method_mut() = ask.method;
        *request.uri_mut() = ask
            .url
            .parse()
            .map_err(|error: http::uri::InvalidUri| at.failed(FaultKind::Other, &error))?;
        let header = |kind, text: &str| {
            HeaderValue::from_str(text).map_err(|error: InvalidHeaderValue| at.failed(kind, &error))
        };
        for (name, value) in ask.headers {
            request.headers_mut().insert(name, header(FaultKind::Other, &value)?);
        }
        if ask.signed {
            let credential = self
                .credentials
                .get_credential()
                .await
                .map_err(|error| at.failed(FaultKind::Credentials, &error))?;
            if !credential.bearer.is_empty() {
                let mut bearer =
                    header(FaultKind::Credentials, &format!("Bearer {}", credential.bearer))?;
                bearer.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, bearer);
            }
        }
        send(&self.client, request, ask.most, at).await
    }

    /// Sends a request. What is no success is a fault.
    async fn ask(&self, at: &At, ask: Ask) -> Result<Reply, StoreFault> {
        let reply = self.send(at, ask).await?;
        if reply.status.is_success() { Ok(reply) } else { Err(refused(at, &reply)) }
    }

    fn objects(&self) -> String {
        format!("{}/storage/v1/b/{}/o", self.endpoint, encode(&self.bucket, false))
    }

    fn object(&self, key: &str, asked: &[(&str, &str)]) -> String {
        let query = query(asked);
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/{}{mark}{query}", self.objects(), encode(key, false))
    }

    /// The generations of this object, oldest first.
    async fn generations(&self, key: &str) -> Result<Vec<Item>, StoreFault> {
        let at = self.at("list versions of", key);
        let mut found: Vec<Item> = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES {
            let mut asked = vec![("versions", "true"), ("prefix", key)];
            asked.extend(token.as_deref().map(|token| ("pageToken", token)));
            let url = format!("{}?{}", self.objects(), query(&asked));
            let reply = match self.ask(&at, Ask::new(Method::GET, url)).await {
                // A listing that finds nothing is empty; only the bucket can be missing.
                Err(fault) if fault.kind == FaultKind::Missing => {
                    return Err(StoreFault { kind: FaultKind::NoBucket, ..fault });
                }
                reply => reply?,
            };
            let page: Objects = serde_json::from_slice(&reply.body)
                .map_err(|error| at.failed(FaultKind::Other, &error))?;
            found.extend(page.items.into_iter().filter(|item| item.name == key));
            token = page.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                found.sort_by_key(Item::generation);
                return Ok(found);
            }
        }
        Err(at.fault(FaultKind::Other, "there are too many"))
    }

    async fn begin_at(&self, at: &At, key: &str) -> Result<String, StoreFault> {
        let asked =
            query(&[("uploadType", "resumable"), ("name", key), ("ifGenerationMatch", "0")]);
        let bucket = encode(&self.bucket, false);
        let url = format!("{}/upload/storage/v1/b/{bucket}/o?{asked}", self.endpoint);
        let mut ask = Ask::new(Method::POST, url);
        ask.headers.push((CONTENT_TYPE, "application/json".to_owned()));
        ask.body = Bytes::from_static(b"{\"contentType\":\"application/octet-stream\"}");
        let reply = match self.ask(at, ask).await {
            Err(fault) if fault.kind == FaultKind::Missing => {
                return Err(StoreFault { kind: FaultKind::NoBucket, ..fault });
            }
            reply => reply?,
        };
        reply
            .header("location")
            .map(str::to_owned)
            .ok_or_else(|| at.fault(FaultKind::Other, "the answer has no address for the upload"))
    }

    /// Sends a range. `None` when the object is there now, else how much of it is.
    async fn range(&self, at: &At, upload: &str, block: &Block) -> Result<Option<u64>, StoreFault> {
        let end = block.offset + block.bytes.len() as u64;
        let mut ask = Ask::new(Method::PUT, upload.to_owned());
        let last = end.saturating_sub(1);
        ask.headers.push((CONTENT_RANGE, format!("bytes {}-{last}/{}", block.offset, block.total)));
        ask.body = block.bytes.clone();
        ask.signed = false;
        let reply = self.send(at, ask).await?;
        if reply.status.is_success() {
            return Ok(None);
        }
        if reply.status != StatusCode::PERMANENT_REDIRECT {
            let fault = refused(at, &reply);
            // The address is the upload: one that is not found has ended.
            let kind =
                if fault.kind == FaultKind::Missing { FaultKind::UploadGone } else { fault.kind };
            return Err(StoreFault { kind, ..fault });
        }
        // "Resume Incomplete": how much has arrived stands in Range, and nothing has where it is missing.
        let arrived = match reply.header(RANGE.as_str()) {
            None => Some(0),
            Some(text) => text
                .rsplit_once('-')
                .and_then(|(_, last)| last.parse::<u64>().ok())
                .and_then(|last| last.checked_add(1)),
        };
        match arrived {
            Some(arrived) if arrived <= end => Ok(Some(arrived)),
            _ => {
                Err(at
                    .fault(FaultKind::UploadGone, "the store has more of the upload than was sent"))
            }
        }
    }

    /// Sends a block until all of it has arrived. `true` when that finished the object.
    async fn send_block(
        &self,
        at: &At,
        upload: &str,
        mut block: Block,
    ) -> Result<bool, StoreFault> {
        let end = block.offset + block.bytes.len() as u64;
        loop {
            let Some(arrived) = self.range(at, upload, &block).await? else { return Ok(true) };
            if arrived == end {
                return Ok(false);
            }
            // The service may keep less than was sent, never less than it had.
            let skip = usize::try_from(arrived.saturating_sub(block.offset)).unwrap_or(usize::MAX);
            if skip == 0 || skip > block.bytes.len() {
                return Err(at.fault(FaultKind::UploadGone, "the store lost a part of the upload"));
            }
            block.offset = arrived;
            block.bytes = block.bytes.split_off(skip);
        }
    }
}

fn refused(at: &At, reply: &Reply) -> StoreFault {
    let refusal: Refusal = serde_json::from_slice(&reply.body).unwrap_or_default();
    let code = refusal.error.errors.first().map_or("", |reason| reason.reason.as_str());
    at.refused(reply.status, code, &refusal.error.message)
}

#[async_trait]
impl Bucket for Gcs {
    fn place(&self, key: &str) -> String {
        format!("gs://{}/{key}", self.bucket)
    }

    async fn check(&self, prefix: &str) -> Result<(), StoreFault> {
        let key = format!("{prefix}{CHECK}");
        let at = self.at("check that recordings can be written to", &key);
        let upload = self.begin_at(&at, &key).await?;
        self.abort(&key, &upload).await
    }

    async fn oldest(&self, key: &str) -> Result<Option<Object>, StoreFault> {
        let Some(item) = self.generations(key).await?.into_iter().next() else { return Ok(None) };
        let bytes = item.size.parse().map_err(|error: std::num::ParseIntError| {
            self.at("list versions of", key).failed(FaultKind::Other, &error)
        })?;
        Ok(Some(Object { bytes, version: Some(item.generation) }))
    }

    async fn read(
        &self,
        key: &str,
        object: &Object,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, StoreFault> {
        let mut asked = vec![("alt", "media")];
        asked.extend(object.version.as_deref().map(|generation| ("generation", generation)));
        let mut ask = Ask::new(Method::GET, self.object(key, &asked));
        let last = offset + length.saturating_sub(1);
        ask.headers.push((RANGE, format!("bytes={offset}-{last}")));
        ask.most = length;
        Ok(self.ask(&self.at("read", key), ask).await?.body)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Written, StoreFault> {
        let total = bytes.len() as u64;
        let upload = self.begin(key, total).await?;
        self.finish(key, &upload, &[], Block { index: 0, offset: 0, total, bytes }).await
    }

    async fn begin(&self, key: &str, _total: u64) -> Result<String, StoreFault> {
        self.begin_at(&self.at("begin upload of", key), key).await
    }

    async fn block(&self, key: &str, upload: &str, block: Block) -> Result<String, StoreFault> {
        let at = self.at("upload a part of", key);
        match self.send_block(&at, upload, block).await? {
            false => Ok(String::new()),
            true => Err(at.fault(FaultKind::UploadGone, "the upload ended before its last part")),
        }
    }

    async fn finish(
        &self,
        key: &str,
        upload: &str,
        _names: &[String],
        last: Block,
    ) -> Result<Written, StoreFault> {
        let at = self.at("finish upload of", key);
        match self.send_block(&at, upload, last).await {
            Ok(true) => Ok(Written::Stored),
            Ok(false) => {
                Err(at.fault(FaultKind::UploadGone, "the last part did not end the upload"))
            }
            Err(fault) if fault.kind == FaultKind::Exists => Ok(Written::Exists),
            Err(fault) => Err(fault),
        }
    }

    async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreFault> {
        let mut ask = Ask::new(Method::DELETE, upload.to_owned());
        ask.signed = false;
        let at = self.at("give up upload of", key);
        let reply = self.send(&at, ask).await?;
        match reply.status.as_u16() {
            GIVEN_UP | 404 | 410 | 200..=299 => Ok(()),
            _ => Err(refused(&at, &reply)),
        }
    }

    /// They end by themselves; nothing can list them.
    async fn abort_abandoned(&self, _key: &str) -> Result<(), StoreFault> {
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreFault> {
        let at = self.at("remove", key);
        let found = self.generations(key).await?;
        // The oldest goes last, so that what is cut short reads as it did.
        for item in found.iter().rev() {
            let url = self.object(key, &[("generation", item.generation.as_str())]);
            match self.ask(&at, Ask::new(Method::DELETE, url)).await {
                Err(fault) if fault.kind != FaultKind::Missing => return Err(fault),
                _ => {}
            }
        }
        Ok(!found.is_empty())
    }
}
