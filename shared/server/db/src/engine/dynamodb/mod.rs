//! DynamoDB: AWS JSON 1.0 over HTTP.
//!
//! What must stay true: a request goes on signed by the agent's own AWS identity and nobody else's; the client's
//! signature says nothing here, because the certificate has said who it is, and does not go on; no key of AWS is in an
//! event, in a log or in an error.

mod body;
mod credentials;
mod sign;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::Full;
use server_core::tunnel::BoxedStream;
use shared_events::{AuditEvent, DynamoDbRequest};
use shared_types::Database;
use shared_wire::http::aws;

use super::http::{Asked, Dialect, Fault, Said, drop_hop};
use super::{Engine, EngineError};
use crate::audit::fit_to;
use crate::session::Session;

/// Names the operation: `DynamoDB_20120810.GetItem`.
const TARGET: &str = "x-amz-target";
/// The longest request that DynamoDB takes is 16 MiB; in base64 and JSON it is longer.
const MOST_BODY: usize = 24 * 1024 * 1024;
/// The most that an event keeps of a path, a query or a target, in bytes.
const MOST_TEXT: usize = 2048;

/// The engine.
#[derive(Debug)]
pub(super) struct Dynamodb;

#[async_trait]
impl Engine for Dynamodb {
    async fn serve(&self, client: BoxedStream, session: &mut Session) -> Result<(), EngineError> {
        super::http::serve(Arc::new(AwsJson), client, session).await
    }
}

struct AwsJson;

#[async_trait]
impl Dialect for AwsJson {
    fn most_body(&self) -> usize {
        MOST_BODY
    }

    async fn headers(&self, database: &Database, asked: &Asked) -> Result<HeaderMap, String> {
        let mut headers = asked.headers.clone();
        drop_hop(&mut headers);
        sign::drop_identity(&mut headers);
        let region = sign::region(database, &asked.headers);
        let credential = credentials::current(&region).await.map_err(|error| {
            tracing::warn!(db = database.name(), %error, "no AWS credentials");
            "the agent has no AWS credentials; ask your administrator".to_owned()
        })?;
        let signed = sign::signed(&credential, &region, database, asked);
        let signed = signed.map_err(|error| error.to_string())?;
        headers.remove(header::HOST);
        headers.extend(signed);
        Ok(headers)
    }

    fn event(&self, asked: &Asked, status: StatusCode) -> AuditEvent {
        let text = |text: &str| fit_to(text, MOST_TEXT).into_owned();
        let target =
            asked.headers.get(TARGET).map(|value| String::from_utf8_lossy(value.as_bytes()));
        DynamoDbRequest {
            status_code: u32::from(status.as_u16()),
            path: text(asked.uri.path()),
            raw_query: text(asked.uri.query().unwrap_or_default()),
            method: text(asked.method.as_str()),
            target: text(&target.unwrap_or_default()),
            body: body::shown(&asked.body),
            ..DynamoDbRequest::default()
        }
        .into()
    }

    fn error(&self, status: StatusCode, fault: Fault, text: &str) -> Said {
        let kind = match fault {
            Fault::Client => aws::ACCESS_DENIED,
            Fault::Away => aws::UNAVAILABLE,
        };
        let mut said = Said::new(Full::new(Bytes::from(aws::error(kind, text))));
        *said.status_mut() = status;
        said.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(aws::JSON_1_0));
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_request_and_its_status() {
        let mut headers = HeaderMap::new();
        headers.insert(TARGET, HeaderValue::from_static("DynamoDB_20120810.GetItem"));
        let body = Bytes::from_static(br#"{"TableName":"t","Key":{"id":{"S":"1"}}}"#);
        let asked =
            Asked { method: http::Method::POST, uri: "/?a=b".parse().unwrap(), headers, body };
        let AuditEvent::DynamoDbRequest(event) = AwsJson.event(&asked, StatusCode::BAD_REQUEST)
        else {
            unreachable!()
        };
        assert_eq!(
            (event.status_code, event.path.as_str(), event.raw_query.as_str()),
            (400, "/", "a=b")
        );
        assert_eq!(
            (event.method.as_str(), event.target.as_str()),
            ("POST", "DynamoDB_20120810.GetItem")
        );
        let wanted = serde_json::json!({"TableName": "t", "Key": {"id": {"S": "1"}}});
        assert_eq!(serde_json::to_value(event.body).unwrap(), wanted);
    }
}
