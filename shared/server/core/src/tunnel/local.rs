//! Services of agents in this very process. A proxy beside them reaches them without a tunnel: the client's connection
//! itself is what the service gets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shared_transport::tunnel::ConnType;
use shared_types::HostId;

use super::AgentService;

type Offers = HashMap<(HostId, ConnType), Arc<dyn AgentService>>;

/// The services that are here. Copies are of the same list.
#[derive(Clone, Default)]
pub struct LocalServices(Arc<Mutex<Offers>>);

impl std::fmt::Debug for LocalServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let offers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(offers.keys()).finish()
    }
}

/// A service that is offered, until this is dropped.
#[derive(Debug)]
#[must_use = "the service is offered only as long as this is kept"]
pub struct Offered {
    of: LocalServices,
    key: (HostId, ConnType),
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl LocalServices {
    /// Offers a host's service of one kind, in place of one that was offered before.
    pub fn offer(
        &self,
        host: HostId,
        conn_type: ConnType,
        service: Arc<dyn AgentService>,
    ) -> Offered {
        let key = (host, conn_type);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, service);
        Offered { of: self.clone(), key }
    }

    /// A host's service, where that host is this process.
    pub fn get(&self, host: HostId, conn_type: ConnType) -> Option<Arc<dyn AgentService>> {
        let offers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offers.get(&(host, conn_type)).cloned()
    }
}
