//! Diagnostics over plain HTTP: `/metrics` in Prometheus' text format, `/healthz`, `/readyz`.
//!
//! Who may reach the address may read all of it; nothing of users or sessions is in it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use server_core::RecordingSpool;
use server_core::spool::SpoolStatus;
use shared_transport::AcceptLimits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS: usize = 64;

/// What can be asked about this process.
#[derive(Default)]
pub(crate) struct Diagnostics {
    ready: AtomicBool,
    spool: OnceLock<Arc<RecordingSpool>>,
    /// Counts the agents that are connected to the proxy.
    agents: OnceLock<Box<dyn Fn() -> usize + Send + Sync>>,
}

impl Diagnostics {
    /// Everything listens, or nothing new is taken any more.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Connected agents are counted from now on.
    pub(crate) fn count_agents(&self, agents: impl Fn() -> usize + Send + Sync + 'static) {
        // There is one proxy in a process.
        let _ = self.agents.set(Box::new(agents));
    }

    /// The recordings of a service are looked at from now on.
    pub(crate) fn watch(&self, spool: Arc<RecordingSpool>) {
        // Where a proxy and an SSH service share a process, the proxy's count: it comes first.
        let _ = self.spool.set(spool);
    }
}

/// Answers on `listener` until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    diagnostics: Arc<Diagnostics>,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(diagnostics);
    let limits = AcceptLimits {
        connections: CONNECTIONS,
        per_peer: CONNECTIONS,
        drain: Duration::from_secs(1),
    };
    shared_transport::serve(listener, limits, stop, move |stream, _: SocketAddr, ending| {
        let service = TowerToHyperService::new(router.clone());
        async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(true);
            let serving = http.serve_connection(TokioIo::new(stream), service);
            let _ = ending.run_until_cancelled(serving).await;
        }
    })
    .await;
}

async fn healthz() -> impl IntoResponse {
    axum::Json(serde_json::json!({ "status": "ok" }))
}

async fn readyz(State(diagnostics): State<Arc<Diagnostics>>) -> impl IntoResponse {
    match diagnostics.ready.load(Ordering::Acquire) {
        true => (StatusCode::OK, axum::Json(serde_json::json!({ "status": "ok" }))),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            axum::Json(serde_json::json!({ "status": "starting or ending" })),
        ),
    }
}

async fn metrics(State(diagnostics): State<Arc<Diagnostics>>) -> impl IntoResponse {
    let status = match diagnostics.spool.get() {
        Some(spool) => match spool.status().await {
            Ok(status) => Some(status),
            Err(error) => {
                tracing::warn!(%error, "look at the recording spool");
                return (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    [(header::CONTENT_TYPE, TEXT)],
                    String::new(),
                );
            }
        },
        None => None,
    };
    let agents = diagnostics.agents.get().map(|count| count());
    (StatusCode::OK, [(header::CONTENT_TYPE, TEXT)], text(status.as_ref(), agents))
}

/// The version of the format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics as text: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
fn text(spool: Option<&SpoolStatus>, agents: Option<usize>) -> String {
    let mut out = String::new();
    let mut add = |name: &str, kind: &str, help: &str, labels: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}");
    };
    let build = format!("{{version=\"{}\"}}", escaped(env!("CARGO_PKG_VERSION")));
    add("gatehouse_build_info", "gauge", "The version that runs.", &build, 1.0);
    if let Some(agents) = agents {
        let help = "Agents that are connected to this proxy.";
        add("gatehouse_connected_agents", "gauge", help, "", agents as f64);
    }
    let Some(spool) = spool else { return out };
    let number = |value: u64| value as f64;
    for (name, kind, help, value) in [
        (
            "gatehouse_recording_spool_bytes",
            "gauge",
            "Bytes of recordings on this disk, of sessions that run and of those that wait.",
            number(spool.bytes),
        ),
        (
            "gatehouse_recording_spool_max_bytes",
            "gauge",
            "The budget of the spool in bytes.",
            number(spool.max_bytes),
        ),
        (
            "gatehouse_recording_oldest_unsent_seconds",
            "gauge",
            "Age of the oldest slice that is not sent; 0 where there is none.",
            spool.oldest.map_or(0.0, |age| age.as_secs_f64()),
        ),
        (
            "gatehouse_recordings_waiting",
            "gauge",
            "Recordings that have ended and wait, or are being sent.",
            number(spool.waiting),
        ),
        (
            "gatehouse_recording_upload_failures_total",
            "counter",
            "Uploads that failed and are tried again.",
            number(spool.failures),
        ),
        (
            "gatehouse_recordings_set_aside",
            "gauge",
            "Recordings the auth service will never take, in the folder of such.",
            number(spool.set_aside),
        ),
    ] {
        add(name, kind, help, "", value);
    }
    out
}

/// The value of a label: backslash, quote and line feed are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_in_the_text_format() {
        let spool = SpoolStatus {
            bytes: 12,
            max_bytes: 100,
            waiting: 2,
            oldest: Some(Duration::from_millis(1500)),
            failures: 3,
            set_aside: 1,
        };
        let shown = text(Some(&spool), Some(3));
        assert!(shown.contains("\ngatehouse_connected_agents 3\n"), "{shown}");
        for line in [
            "# TYPE gatehouse_recording_spool_bytes gauge",
            "gatehouse_recording_spool_bytes 12",
            "gatehouse_recording_oldest_unsent_seconds 1.5",
            "gatehouse_recordings_waiting 2",
            "gatehouse_recording_upload_failures_total 3",
            "gatehouse_recordings_set_aside 1",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is missing in {shown}");
        }
        assert!(text(None, None).contains("gatehouse_build_info{version=\""));
        for line in shown.lines() {
            assert!(line.starts_with("# ") || line.split(' ').count() == 2, "{line}");
        }
    }

    #[test]
    fn labels_cannot_break_out() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
