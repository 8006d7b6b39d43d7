//! Ports that a client has the node listen on (`-R`; RFC 4254 §7.1).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use russh::server::Handle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::channels::Channels;
use super::service::NodeService;
use crate::relay::ForwardTap;

/// Ports one client may have the node listen on.
const MAX_LISTENERS: usize = 32;

/// What a connection has the node listen on: the address as the client wrote it, and the port, to what ends it.
#[derive(Default)]
pub(super) struct Listeners(Mutex<HashMap<(String, u16), CancellationToken>>);

impl Listeners {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn add(&self, address: &str, port: u16, end: CancellationToken) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.entry((address.to_owned(), port)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(end);
                true
            }
        }
    }

    fn remove(&self, address: &str, port: u16) -> Option<CancellationToken> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(address.to_owned(), port))
    }
}

impl<S: NodeService> Channels<S> {
    /// `tcpip-forward`. Answers the port that is listened on.
    pub(super) async fn listen(
        self: &Arc<Self>,
        address: &str,
        port: u32,
        handle: Handle,
    ) -> Option<u16> {
        let (identity, login) = self.user()?;
        let port = u16::try_from(port).ok()?;
        if self.listeners.len() >= MAX_LISTENERS {
            return None;
        }
        let (listener, tap) = self.service.listen(&identity, &login, (address, port)).await.ok()?;
        let bound = listener.local_addr().map(|addr| addr.port()).unwrap_or(port);
        let end = self.stop.child_token();
        if !self.listeners.add(address, bound, end.clone()) {
            tap.end(0, 0, Some("this address is listened on already".to_owned())).await;
            return None;
        }
        let (channels, address) = (Arc::clone(self), address.to_owned());
        self.tasks.spawn(async move {
            channels.accept(listener, (&address, bound), &handle, end, tap).await;
        });
        Some(bound)
    }

    /// `cancel-tcpip-forward`. Connections that were made go on.
    pub(super) fn unlisten(&self, address: &str, port: u32) -> bool {
        let found = u16::try_from(port).ok().and_then(|port| self.listeners.remove(address, port));
        if let Some(end) = &found {
            end.cancel();
        }
        found.is_some()
    }

    async fn accept(
        self: &Arc<Self>,
        listener: TcpListener,
        listening: (&str, u16),
        handle: &Handle,
        end: CancellationToken,
        tap: Arc<dyn ForwardTap>,
    ) {
        let mut running = futures::stream::FuturesUnordered::new();
        let (mut to_target, mut to_client) = (0_u64, 0_u64);
        let mut listener = Some(listener);
        loop {
            let accepting = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = accepting => match accepted {
                    Ok((stream, from)) => running.push(self.forwarded(handle, stream, from, listening)),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some((up, down)) = running.next(), if !running.is_empty() => {
                    to_target = to_target.saturating_add(up);
                    to_client = to_client.saturating_add(down);
                }
                () = end.cancelled(), if listener.is_some() => drop(listener.take()),
            }
            if listener.is_none() && running.is_empty() {
                break;
            }
        }
        tap.end(to_target, to_client, None).await;
    }
}
