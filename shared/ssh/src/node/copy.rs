//! From something that is read to the client's channel, and streams with both.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::Channel;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::input::Input;
use crate::relay::pump::{self, Flow, Moved, PumpEnd, Waiting};
use crate::server::INNER_PACKET;

/// How long a client may take to hear that a channel is closed.
const LAST_MESSAGE: Duration = Duration::from_secs(2);

/// The next bytes of `source`; nothing at its end, and where it fails: a terminal without a program reads as an error.
pub(super) async fn next(
    source: &mut (dyn AsyncRead + Send + Unpin),
    buffer: &mut BytesMut,
) -> Option<Bytes> {
    buffer.reserve(INNER_PACKET as usize);
    match source.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(buffer.split().freeze()),
    }
}

async fn down(
    source: &mut (dyn AsyncRead + Send + Unpin),
    client: &ChannelWriteHalf<Msg>,
    moved: &AtomicU64,
    waits: &Waiting,
) -> bool {
    let mut buffer = BytesMut::new();
    while let Some(data) = next(source, &mut buffer).await {
        let len = data.len() as u64;
        if waits.during(client.data_bytes(data)).await.is_err() {
            return false;
        }
        moved.fetch_add(len, Ordering::Relaxed);
    }
    client.eof().await.is_ok()
}

/// Passes bytes between a channel and a connection until both have said all, or either is gone. Answers why where it
/// was ended by this side. `siblings` counts the channels on the client's connection.
pub(super) async fn both(
    channel: Channel<Msg>,
    stream: TcpStream,
    siblings: &AtomicUsize,
    moved: &Moved,
    stop: &CancellationToken,
) -> Option<String> {
    let (mut client_read, client_write) = channel.split();
    let (mut read, write) = stream.into_split();
    let input = Input::new();
    input.begin(Box::new(write)).await;
    let (up_waits, down_waits) = (Waiting::default(), Waiting::default());
    let flow = Flow { siblings, moved: &moved.to_target, mine: &up_waits, opposite: &down_waits };
    let up = pump::pump(&mut client_read, &input, flow, pump::Limits::default(), pump::Ignore);
    let down = async {
        if down(&mut read, &client_write, &moved.to_client, &down_waits).await {
            input.ended().await;
        }
    };
    let error = tokio::select! {
        end = up => (end == PumpEnd::Overflow).then(|| "one side does not read".to_owned()),
        () = down => None,
        () = stop.cancelled() => None,
    };
    let _ = tokio::time::timeout(LAST_MESSAGE, client_write.close()).await;
    error
}
