//! Who is there: nodes, and what other agents serve.
//!
//! In memory: everything, its life and what changed since when, so that proxies are told of changes only. On disk: the
//! same, written when it changes, and else once in half of its life: a cluster of a thousand nodes says that it is there
//! seventeen times a second. What was in memory only is said again within a minute of a restart.
//!
//! Another kind of service is another [`Part`] of a host, with a field of its own in the view.

mod databases;
mod known;
mod nodes;

pub(crate) use databases::{Served, served_key};
pub(crate) use known::{Part, Presence};
pub(crate) use nodes::keep_swept;

use chrono::{DateTime, Utc};
use shared_api::limits;

/// How long who is there lives on after having said so.
fn life() -> chrono::Duration {
    chrono::Duration::from_std(limits::PRESENCE_LIFE).unwrap_or_default()
}

/// Whether what is on disk says long enough that something is there.
fn lasts(ends: Option<DateTime<Utc>>, stored: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    match (ends, stored) {
        (None, None) => true,
        (Some(_), Some(stored)) => stored > now + life() / 2,
        _ => false,
    }
}
