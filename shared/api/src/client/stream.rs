//! Bodies that are read piece by piece.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::ClientError;
use crate::{ApiError, limits};

/// A recording on its way; each piece has a limit of time, and the end is told apart from a break.
#[derive(Debug)]
pub struct RecordingStream {
    body: Incoming,
    idle: Duration,
    left: Option<u64>,
}

impl RecordingStream {
    pub(crate) fn new(response: Response<Incoming>, idle: Duration) -> Self {
        let left = response
            .headers()
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        Self { body: response.into_body(), idle, left }
    }

    /// How many bytes are to come, where the service said so.
    pub fn remaining(&self) -> Option<u64> {
        self.left
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = timeout(self.idle, self.body.frame()).await.map_err(|_| {
                ClientError::TimedOut { what: "more of a recording".to_owned(), limit: self.idle }
            })?;
            match frame {
                None => {
                    return if self.left.is_some_and(|left| left > 0) {
                        Err(ClientError::Cut)
                    } else {
                        Ok(None)
                    };
                }
                Some(frame) => {
                    if let Ok(data) = frame?.into_data()
                        && !data.is_empty()
                    {
                        if let Some(left) = &mut self.left {
                            *left = left.saturating_sub(data.len() as u64);
                        }
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Everything, written to `out`; answers how much.
    pub async fn write_to(
        mut self,
        out: &mut (impl tokio::io::AsyncWrite + Unpin),
    ) -> Result<u64, CopyOutError> {
        use tokio::io::AsyncWriteExt as _;
        let mut total = 0;
        while let Some(piece) = self.next().await? {
            out.write_all(&piece).await?;
            total += piece.len() as u64;
        }
        out.flush().await?;
        Ok(total)
    }
}

/// Which end of a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyOutError {
    /// The service's.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Ours.
    #[error("write")]
    Write(#[from] std::io::Error),
}

/// A whole JSON body, bounded.
pub(crate) async fn collect(
    body: Incoming,
    what: &str,
    limit: usize,
    wait: Duration,
) -> Result<Bytes, ClientError> {
    let collected = timeout(wait, http_body_util::Limited::new(body, limit).collect())
        .await
        .map_err(|_| ClientError::TimedOut { what: what.to_owned(), limit: wait })?;
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(err) => match err.downcast::<hyper::Error>() {
            Ok(err) => Err((*err).into()),
            Err(_) => Err(ClientError::TooLong { what: what.to_owned(), limit }),
        },
    }
}

/// The error a failed reply carries.
pub(crate) async fn refusal(
    response: Response<Incoming>,
    what: &str,
    wait: Duration,
) -> ClientError {
    let status = response.status();
    match collect(response.into_body(), what, limits::MAX_REQUEST, wait).await {
        Ok(body) => ApiError::from_reply(status, &body).into(),
        Err(_) => ApiError::from_reply(status, b"").into(),
    }
}
