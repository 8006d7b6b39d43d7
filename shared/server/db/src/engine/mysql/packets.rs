//! Single packets of the handshake, on a stream.

use std::io;

use shared_wire::mysql::{HEADER, packet, read_header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::engine::EngineError;
use crate::relay::Malformed;

/// The longest packet of a handshake, in bytes: attributes of a connection may take 64 KiB.
const LONGEST: usize = 128 << 10;

/// A packet's number and payload. Not a byte behind it is read, so that nothing sent in the clear is taken for a part
/// of what TLS protects. `failed` says whose connection it is.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    failed: fn(io::Error) -> EngineError,
) -> Result<(u8, Vec<u8>), EngineError> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.map_err(failed)?;
    let (length, sequence) = read_header(header);
    if length > LONGEST {
        let what = format!("a packet of {length} bytes in a handshake");
        return Err(Malformed { what, payload: header.to_vec() }.into());
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.map_err(failed)?;
    Ok((sequence, payload))
}

/// Writes a packet.
pub(super) async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    sequence: u8,
    payload: &[u8],
) -> io::Result<()> {
    stream.write_all(&packet(sequence, payload)).await?;
    stream.flush().await
}
