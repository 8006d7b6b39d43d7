//! Sizes and times both sides hold to. No length from a peer allocates before it met one of these.

use std::time::Duration;

/// Largest JSON request body.
pub const MAX_REQUEST: usize = 2 * 1024 * 1024;
/// Largest JSON request body from who shows no certificate.
pub const MAX_ANONYMOUS: usize = 64 * 1024;
/// Largest JSON reply the client reads (query results are the large ones).
pub const MAX_REPLY: usize = 64 * 1024 * 1024;
/// Largest part of an upload.
pub const MAX_PART: usize = 16 * 1024 * 1024;
/// Most events in one batch.
pub const MAX_EVENTS: usize = 512;
/// Largest batch of events as sent, in bytes of its JSON.
pub const MAX_EVENT_BATCH: usize = 1024 * 1024;
/// How long a node counts as there after it last said so.
pub const PRESENCE_LIFE: Duration = Duration::from_secs(600);
/// How often a node says that it is there.
pub const PRESENCE_AGAIN: Duration = Duration::from_secs(60);
/// Most nodes of a cluster.
pub const MAX_NODES: usize = 20_000;
/// Most databases that one host serves.
pub const MAX_DATABASES: usize = 10_000;
/// Most databases that all hosts serve together; one that several serve counts as often.
pub const MAX_SERVED: usize = 50_000;
/// Largest report of what a host serves, in bytes of its JSON.
pub const MAX_PRESENCE: usize = 3 * 1024 * 1024;
/// How long the auth service holds a `cluster-state` request that has nothing new to say.
pub const STATE_WAIT: Duration = Duration::from_secs(25);
/// Most host names in one certificate request.
pub const MAX_PRINCIPALS: usize = 64;
/// Most sessions in one renewal.
pub const MAX_RENEWED: usize = 10_000;
/// Most recordings in one listing.
pub const MAX_LISTED: usize = 1000;
