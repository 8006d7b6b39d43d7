//! A client that is not served: it learns why from the answer to its first request.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use server_core::tunnel::BoxedStream;

use super::{Dialect, Fault, MOST_HEAD};
use crate::engine::EngineError;

/// How long it has to ask and to read.
const TO_ASK: Duration = Duration::from_secs(10);

pub(super) async fn refuse(dialect: &dyn Dialect, client: BoxedStream, why: &EngineError) {
    let service = service_fn(|_request: Request<Incoming>| async {
        let (status, fault, text) = reply(why);
        Ok::<_, Infallible>(dialect.error(status, fault, &text))
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(TO_ASK)
        .max_buf_size(MOST_HEAD)
        .keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(client), service);
    let _ = tokio::time::timeout(TO_ASK, connection).await;
}

fn reply(why: &EngineError) -> (StatusCode, Fault, String) {
    match why {
        // What may not be is a 400 in AWS: clients show it, and do not try again.
        EngineError::Refused(refusal) => {
            (StatusCode::BAD_REQUEST, Fault::Client, refusal.peer_text().into_owned())
        }
        EngineError::Connect(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, Fault::Away, why.peer_text())
        }
        EngineError::Audit(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, Fault::Away, why.peer_text().to_owned())
        }
        EngineError::NotPassedOn(text) => (StatusCode::BAD_REQUEST, Fault::Client, text.clone()),
        EngineError::Ended(text) => (StatusCode::BAD_REQUEST, Fault::Client, text.clone()),
        _ => {
            let text = "could not connect to the database".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, Fault::Away, text)
        }
    }
}
