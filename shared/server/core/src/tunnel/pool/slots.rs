//! Who holds a tunnel to which proxy.
//!
//! A holder of an address goes to whichever proxy answers there, which may be one of several behind a balancer. Every
//! proxy tells which others there are; each of those gets a holder of its own, which dials until it meets that one. A
//! proxy that somebody has a tunnel to is not held twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use shared_transport::tunnel::ProxyEntry;
use shared_types::HostId;
use tokio::sync::watch;

use super::TunnelStatus;

/// Proxies that are believed to be there at most.
const MOST: usize = 64;

/// What one holder is after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Where it dials.
    pub(super) addr: String,
    /// The proxy it wants; any, where none.
    pub(super) wanted: Option<HostId>,
}

impl Holder {
    pub(super) fn of_address(addr: String) -> Self {
        Self { addr, wanted: None }
    }
}

/// The proxies that are listed, and those that are held.
#[derive(Debug)]
pub(super) struct Slots {
    listed: watch::Sender<BTreeMap<HostId, String>>,
    status: watch::Sender<TunnelStatus>,
    /// Proxies that a holder was started for.
    started: Mutex<BTreeSet<HostId>>,
}

impl Default for Slots {
    fn default() -> Self {
        let (listed, status) = (watch::Sender::default(), watch::Sender::default());
        Self { listed, status, started: Mutex::default() }
    }
}

/// A tunnel to a proxy, as long as it lives.
#[derive(Debug)]
pub(super) struct Claim {
    proxy: HostId,
    status: watch::Sender<TunnelStatus>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.status.send_modify(|status| {
            status.proxies.remove(&self.proxy);
        });
    }
}

impl Slots {
    pub(super) fn status(&self) -> watch::Receiver<TunnelStatus> {
        self.status.subscribe()
    }

    pub(super) fn listed(&self) -> watch::Receiver<BTreeMap<HostId, String>> {
        self.listed.subscribe()
    }

    /// A proxy told which proxies there are.
    pub(super) fn list(&self, proxies: Vec<ProxyEntry>) {
        let proxies: BTreeMap<HostId, String> = proxies
            .into_iter()
            .filter_map(|proxy| Some((proxy.host_id.parse().ok()?, proxy.addr)))
            .take(MOST)
            .collect();
        self.listed.send_if_modified(|listed| {
            let changed = *listed != proxies;
            *listed = proxies;
            changed
        });
    }

    /// Holders for listed proxies that have none.
    pub(super) fn holders_to_start(&self) -> Vec<Holder> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = self.listed.borrow();
        let fresh = listed.iter().filter(|(proxy, _)| started.insert(**proxy));
        fresh.map(|(proxy, addr)| Holder { addr: addr.clone(), wanted: Some(*proxy) }).collect()
    }

    /// Whether a holder has nothing to do any more: its proxy is listed no longer. It may be started again later.
    pub(super) fn retire(&self, holder: &Holder) -> bool {
        let Some(wanted) = holder.wanted else { return false };
        let gone = !self.listed.borrow().contains_key(&wanted);
        if gone {
            self.started.lock().unwrap_or_else(PoisonError::into_inner).remove(&wanted);
        }
        gone
    }

    /// Whether what a holder is after is held: its proxy; or, where any will do, any.
    pub(super) fn is_held(&self, holder: &Holder) -> bool {
        let status = self.status.borrow();
        match holder.wanted {
            Some(wanted) => status.proxies.contains(&wanted),
            None => !status.proxies.is_empty(),
        }
    }

    /// Takes a proxy that nobody has a tunnel to.
    pub(super) fn claim(&self, proxy: HostId) -> Option<Claim> {
        let taken = self.status.send_if_modified(|status| {
            let taken = status.proxies.insert(proxy);
            status.connected += u64::from(taken);
            taken
        });
        taken.then(|| Claim { proxy, status: self.status.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_held_once_and_given_back() {
        let slots = Slots::default();
        let proxy = HostId::random();
        let any = Holder::of_address("gate:443".to_owned());
        assert!(!slots.is_held(&any));
        let claim = slots.claim(proxy).unwrap();
        assert!(slots.claim(proxy).is_none());
        assert!(slots.is_held(&any));
        drop(claim);
        assert!(!slots.is_held(&any));
        let _again = slots.claim(proxy).unwrap();
        assert_eq!(slots.status().borrow().connected, 2);
    }

    #[test]
    fn listed_proxies_get_a_holder_each_until_they_go() {
        let slots = Slots::default();
        let (one, two) = (HostId::random(), HostId::random());
        let entry =
            |id: HostId| ProxyEntry { host_id: id.to_string(), addr: "gate:443".to_owned() };
        slots.list(vec![entry(one), ProxyEntry { host_id: "x".to_owned(), ..entry(one) }]);
        let started = slots.holders_to_start();
        assert_eq!(started.len(), 1);
        assert_eq!(started[0].wanted, Some(one));
        slots.list(vec![entry(one), entry(two)]);
        assert_eq!(slots.holders_to_start()[0].wanted, Some(two));
        assert!(slots.holders_to_start().is_empty());
        assert!(!slots.retire(&started[0]));
        slots.list(vec![entry(two)]);
        assert!(slots.retire(&started[0]));
        slots.list(vec![entry(one), entry(two)]);
        assert_eq!(slots.holders_to_start()[0].wanted, Some(one), "it came back");
        slots.list((0..1000).map(|_| entry(HostId::random())).collect());
        assert_eq!(slots.listed().borrow().len(), MOST);
    }
}
