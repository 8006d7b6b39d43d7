//! The cluster's nodes, kept current on a proxy: by a request that the auth service holds until something changed.
//!
//! While the auth service is away the last view stands, and it is kept on disk for a start in that time. A node that is
//! gone meanwhile costs a dial that fails; one that is missing could not be reached at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use shared_api::{Client, NodeView};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::kept::KeptState;

/// How long several changes are gathered into one answer.
const GATHER: Duration = Duration::from_millis(200);
/// How often the nodes are written to the disk, at most. A cluster that starts changes them all the time.
const SAVE: Duration = Duration::from_secs(30);

/// Keeps the view current.
pub(crate) struct NodeFollower {
    client: Client,
    kept: KeptState,
    nodes: watch::Sender<Arc<NodeView>>,
}

impl NodeFollower {
    /// With the view of now, or the kept one where the auth service does not answer.
    pub(crate) async fn start(
        client: Client,
        kept: KeptState,
    ) -> (Self, watch::Receiver<Arc<NodeView>>) {
        let first = match client.node_changes(None).await {
            Ok(all) => NodeView::default().after(all),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the nodes cannot be asked for, those that were kept are used"
                );
                load(&kept).await.unwrap_or_default()
            }
        };
        let (nodes, watched) = watch::channel(Arc::new(first));
        (Self { client, kept, nodes }, watched)
    }

    /// Goes on for ever.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        let mut saved: Option<Instant> = None;
        let mut unsaved = true;
        // What is in hand may be from the disk; only an auth service knows what has changed since its own revision.
        loop {
            let current = Arc::clone(&self.nodes.borrow());
            match self.client.node_changes(Some(current.revision)).await {
                Ok(changes) => {
                    backoff.reset();
                    if changes.revision != current.revision {
                        self.nodes.send_replace(Arc::new(current.after(changes)));
                        unsaved = true;
                    }
                    if unsaved && saved.is_none_or(|at| at.elapsed() >= SAVE) {
                        saved = Some(Instant::now());
                        unsaved = false;
                        self.save().await;
                    }
                    tokio::time::sleep(GATHER).await;
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "follow nodes");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    async fn save(&self) {
        let (kept, nodes) = (self.kept.clone(), Arc::clone(&self.nodes.borrow()));
        let saved = tokio::task::spawn_blocking(move || kept.save_nodes(&nodes, Utc::now())).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(error = &error as &dyn std::error::Error, "the nodes are not kept");
        }
    }
}

async fn load(kept: &KeptState) -> Option<NodeView> {
    let kept = kept.clone();
    let loaded = tokio::task::spawn_blocking(move || kept.load_nodes(Utc::now())).await.ok()?;
    loaded
        .inspect_err(|error| {
            tracing::warn!(error = error as &dyn std::error::Error, "there are no kept nodes");
        })
        .ok()
}
