//! An SFTP session over a session channel.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use russh_sftp::client::SftpSession;
use shared_cli::{CliError, ExitCode};
use shared_ssh::client::{ByteQueue, SessionIo, SessionRequest, Start, TargetConn, printable};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::CHUNK;
use crate::commands::ssh::connect::Connected;

/// How long one answer may take, in seconds: a slow line and a slow disk are no errors.
const PATIENCE: u64 = 600;
/// Pieces of input that may wait.
const QUEUE: usize = 16;

/// Starts the server's half.
pub(super) async fn open(connected: &Connected) -> Result<SftpSession, CliError> {
    let (near, far) = tokio::io::duplex(CHUNK);
    let (started, has_started) = oneshot::channel();
    let target = Arc::clone(&connected.target);
    let mut running = tokio::spawn(carry(target, far, started));
    let ended = |end: Result<Result<(), CliError>, tokio::task::JoinError>| match end {
        Ok(Err(error)) => error,
        _ => CliError::new("the server ended the file transfer").exit(ExitCode::Remote(255)),
    };
    tokio::select! {
        begun = has_started => if begun.is_err() {
            return Err(ended(running.await));
        },
        end = &mut running => return Err(ended(end)),
    }
    let opening = SftpSession::new(near);
    let session = tokio::select! {
        session = opening => session.map_err(|error| CliError::wrap("begin the file transfer", &error)),
        end = &mut running => return Err(ended(end)),
    };
    let session = match session {
        Ok(session) => session,
        // The server said why on its standard error, and that was shown.
        Err(error) => return Err(error),
    };
    session.set_timeout(PATIENCE);
    Ok(session)
}

/// Runs the channel until either side is done.
async fn carry(
    target: Arc<TargetConn>,
    stream: DuplexStream,
    started: oneshot::Sender<()>,
) -> Result<(), CliError> {
    let (stdout, stderr) = (Arc::new(ByteQueue::new()), Arc::new(ByteQueue::new()));
    let (input, stdin) = mpsc::channel(QUEUE);
    let (_control, control) = mpsc::channel(1);
    let (from_client, to_client) = tokio::io::split(stream);
    let io = SessionIo {
        stdin,
        stdout: Arc::clone(&stdout),
        stderr: Arc::clone(&stderr),
        control,
        // Who asked may have given up.
        started: Some(Box::new(|| {
            let _ = started.send(());
        })),
    };
    let start = Start::Subsystem("sftp".to_owned());
    let request = SessionRequest { pty: None, env: Vec::new(), start };
    let (end, ..) = tokio::join!(
        target.run_session(request, io),
        give(from_client, input),
        take(stdout, to_client),
        complain(stderr),
    );
    end.map(drop).map_err(|error| crate::commands::ssh::connect::failed(&error))
}

async fn give(mut from: ReadHalf<DuplexStream>, to: mpsc::Sender<Bytes>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if to.send(buffer.split().freeze()).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn take(queue: Arc<ByteQueue>, mut to: WriteHalf<DuplexStream>) {
    while let Some(bytes) = queue.take().await {
        let length = bytes.len();
        if to.write_all(&bytes).await.is_err() {
            queue.break_off();
            return;
        }
        queue.written(length);
    }
    let _ = to.shutdown().await;
}

/// What the server says beside its files.
async fn complain(queue: Arc<ByteQueue>) {
    while let Some(bytes) = queue.take().await {
        let text = String::from_utf8_lossy(&bytes);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            eprintln!("{}", printable(line));
        }
        queue.written(bytes.len());
    }
}
