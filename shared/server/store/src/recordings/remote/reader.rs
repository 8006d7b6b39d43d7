//! Reading an object range by range: no connection waits for a slow reader, and a range that fails is asked again.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use super::bucket::{Bucket, Object};
use super::fault::{FaultKind, StoreFault};

/// How much is asked for at once. A reader holds at most three of these: one in hand, one ready, one on its way.
pub(super) const RANGE: u64 = 2 << 20;
/// How often a range is asked for.
const TRIES: u32 = 4;
/// Before the second try; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(500);

/// An object as a stream of bytes.
pub(super) struct ObjectReader {
    ranges: mpsc::Receiver<Result<Bytes, StoreFault>>,
    current: Bytes,
    /// What is still to come.
    left: u64,
}

impl ObjectReader {
    /// Begins to read; ends when it is dropped.
    pub(super) fn new(bucket: Arc<dyn Bucket>, key: String, object: Object) -> Self {
        let (sender, ranges) = mpsc::channel(1);
        let left = object.bytes;
        tokio::spawn(async move {
            let mut offset = 0;
            while offset < object.bytes {
                let length = RANGE.min(object.bytes - offset);
                // Asked for only when there is room for it.
                let Ok(room) = sender.reserve().await else { return };
                let range = range(bucket.as_ref(), &key, &object, offset, length).await;
                let failed = range.is_err();
                room.send(range);
                if failed {
                    return;
                }
                offset += length;
            }
        });
        Self { ranges, current: Bytes::new(), left }
    }
}

async fn range(
    bucket: &dyn Bucket,
    key: &str,
    object: &Object,
    offset: u64,
    length: u64,
) -> Result<Bytes, StoreFault> {
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        let fault = match bucket.read(key, object, offset, length).await {
            Ok(bytes) if bytes.len() as u64 == length => return Ok(bytes),
            Ok(bytes) => bucket.at("read", key).fault(
                FaultKind::Unreachable,
                format!("{} bytes came instead of {length}", bytes.len()),
            ),
            Err(fault) => fault,
        };
        if tries == TRIES || !matches!(fault.kind, FaultKind::Unreachable | FaultKind::Busy) {
            return Err(fault);
        }
        tries += 1;
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

impl AsyncRead for ObjectReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match std::task::ready!(self.ranges.poll_recv(cx)) {
                None if self.left == 0 => return Poll::Ready(Ok(())),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Some(Ok(bytes)) => {
                    self.left = self.left.saturating_sub(bytes.len() as u64);
                    self.current = bytes;
                }
                Some(Err(fault)) => return Poll::Ready(Err(io::Error::other(fault))),
            }
        }
        let taken = buf.remaining().min(self.current.len());
        let bytes = self.current.split_to(taken);
        buf.put_slice(bytes.chunk());
        Poll::Ready(Ok(()))
    }
}
