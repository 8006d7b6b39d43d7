//! What a database service needs to know of its configuration.

use std::time::Duration;

use shared_types::resource::LabelMap;
use shared_types::{Database, HostId, HostName};

/// Settings of a database service.
#[derive(Debug, Clone)]
pub struct DbServiceSettings {
    /// This host's id.
    pub host_id: HostId,
    /// This host's name.
    pub hostname: HostName,
    /// The databases of the configuration file.
    pub databases: Vec<Database>,
    /// Which of the databases that administrators write are served: those whose labels one of these matches.
    pub resources: Vec<LabelMap>,
    /// How long a session whose statements are not taken by the recording or the audit log stands still before it ends.
    pub recording_wait: Duration,
    /// What a TCP connection to a database may take.
    pub dial: Duration,
    /// How often it is looked whether each database takes connections.
    pub health: Duration,
    /// What running sessions have at the end.
    pub drain: Duration,
}

impl DbServiceSettings {
    /// Settings with the documented defaults.
    pub fn new(host_id: HostId, hostname: HostName) -> Self {
        Self {
            host_id,
            hostname,
            databases: Vec::new(),
            resources: Vec::new(),
            recording_wait: Duration::from_secs(30),
            dial: Duration::from_secs(15),
            health: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}
