//! A cluster in memory, an SSH service of it on a loopback port, and OpenSSH's clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use server_core::host::HostKeys;
use server_core::labels::HostLabels;
use server_core::spool::{EventSpoolSettings, RecordingSpoolSettings};
use server_core::tunnel::{AgentService as _, Arrival, ArrivedBy, ConnType};
use server_core::{Authority, AuthorityError, EmitError, EventSpool, RecordingSpool};
use shared_api::{Account, ClusterState, CompleteUpload, NodeView, OpensshUserRequest};
use shared_events::AuditEvent;
use shared_pki::ssh_key::PublicKey;
use shared_pki::{CaKind, CertAuthority, HostCertSpec, KeyPair, RecorderCertSpec, UserCertSpec};
use shared_types::{ClusterName, HostId, Node, Role, SessionId, SystemRole};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::child::Launcher;
use crate::{SshService, SshServiceSettings};

pub(super) const DEADLINE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn name() -> ClusterName {
    "main".parse().unwrap()
}

pub(super) struct Cluster {
    host: CertAuthority,
    pub(super) user: CertAuthority,
    recording: CertAuthority,
    pub(super) node: HostId,
    state: watch::Sender<Arc<ClusterState>>,
    events: Mutex<Vec<AuditEvent>>,
    parts: Mutex<BTreeMap<(Uuid, u64), Bytes>>,
    recordings: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Cluster {
    fn new() -> Arc<Self> {
        let generate = |kind| CertAuthority::generate(kind, &name(), Utc::now()).unwrap();
        let (host, user) = (generate(CaKind::Host), generate(CaKind::User));
        let role = serde_json::json!({
            "kind": "role", "version": "v7", "metadata": {"name": "dev"},
            "spec": {
                "options": {"forward_agent": true, "port_forwarding": true},
                "allow": {"logins": ["root"], "node_labels": {"env": "test"}},
            },
        });
        let role: Role = serde_json::from_value(role).unwrap();
        let joe = Account { roles: vec!["dev".parse().unwrap()], ..Account::default() };
        let state = ClusterState {
            revision: 1,
            cluster: name(),
            authorities: vec![host.trusted(), user.trusted()],
            roles: [("dev".parse().unwrap(), role)].into(),
            users: [("joe".parse().unwrap(), joe)].into(),
            locks: Vec::new(),
            recording: Default::default(),
            networking: Default::default(),
            auth_preference: Default::default(),
            databases: Vec::new(),
        };
        Arc::new(Self {
            host,
            user,
            recording: generate(CaKind::Recording),
            node: HostId::random(),
            state: watch::channel(Arc::new(state)).0,
            events: Mutex::default(),
            parts: Mutex::default(),
            recordings: Mutex::default(),
        })
    }

    /// Changes the state, as a resource that was updated would.
    pub(super) fn change(&self, change: impl FnOnce(&mut ClusterState)) {
        self.state.send_modify(|state| {
            let mut next = ClusterState::clone(state);
            next.revision += 1;
            change(&mut next);
            *state = Arc::new(next);
        });
    }

    /// Changes options of the only role.
    pub(super) fn options(&self, options: serde_json::Value) {
        self.change(|state| {
            let role = state.roles.get_mut("dev").unwrap();
            role.spec.options = serde_json::from_value(options).unwrap();
        });
    }

    fn host_keys(&self) -> HostKeys {
        let key = KeyPair::generate().unwrap();
        let spec = HostCertSpec {
            public_key: key.public().clone(),
            principals: vec!["127.0.0.1".to_owned()],
            role: SystemRole::Node,
            cluster: name(),
            now: Utc::now(),
            ttl: Some(HOUR),
        };
        HostKeys {
            tls_cert_pem: String::new(),
            tls_key_pem: Default::default(),
            ssh_cert: self.host.ssh_ca().unwrap().sign_host(spec).unwrap().to_openssh().unwrap(),
            ssh_key_pem: key.to_openssh_private_pem().unwrap(),
            valid_until: Utc::now() + HOUR,
        }
    }

    /// A certificate of a user, changed before it is signed by `by`.
    pub(super) fn write_user(
        &self,
        path: &Path,
        by: &CertAuthority,
        change: impl FnOnce(&mut UserCertSpec),
    ) {
        let key = KeyPair::generate().unwrap();
        let (user, logins) = ("joe".parse().unwrap(), vec!["root".parse().unwrap()]);
        let mut spec =
            UserCertSpec::new(key.public().clone(), user, logins, name(), Utc::now(), HOUR);
        spec.roles = vec!["dev".parse().unwrap()];
        spec.permit_port_forwarding = true;
        spec.permit_agent_forwarding = true;
        change(&mut spec);
        let certificate = by.ssh_ca().unwrap().sign_user(spec).unwrap();
        write_key(path, &key, &certificate.to_openssh().unwrap());
    }

    /// A host's certificate, where a user's would be.
    pub(super) fn write_host_as_user(&self, path: &Path) {
        let key = KeyPair::generate().unwrap();
        let spec = HostCertSpec {
            public_key: key.public().clone(),
            principals: vec!["root".to_owned()],
            role: SystemRole::Node,
            cluster: name(),
            now: Utc::now(),
            ttl: Some(HOUR),
        };
        let certificate = self.host.ssh_ca().unwrap().sign_host(spec).unwrap();
        write_key(path, &key, &certificate.to_openssh().unwrap());
    }

    pub(super) fn seen(&self, kind: &str) -> Vec<serde_json::Value> {
        let events = self.events.lock().unwrap();
        let of_kind = events.iter().filter(|event| event.kind() == kind);
        of_kind.map(|event| serde_json::from_str(&event.to_json()).unwrap()).collect()
    }

    /// Waits for so many events of a kind.
    pub(super) async fn wait_for(&self, kind: &str, count: usize) -> Vec<serde_json::Value> {
        until(kind, || {
            let seen = self.seen(kind);
            (seen.len() >= count).then_some(seen)
        })
        .await
    }

    /// What a recording shows, once it was uploaded.
    pub(super) async fn printed(&self, sid: &str) -> Vec<u8> {
        let recording =
            until("a recording", || self.recordings.lock().unwrap().get(sid).cloned()).await;
        let mut decoder = shared_recording::Decoder::new(recording.as_slice());
        let mut out = Vec::new();
        while let Some(event) = decoder.next_event().unwrap() {
            if let AuditEvent::SessionPrint(print) = event {
                out.extend_from_slice(&print.data);
            }
        }
        out
    }

    pub(super) fn recordings(&self) -> usize {
        self.recordings.lock().unwrap().len()
    }
}

/// Waits until there is something.
pub(super) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "no {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn write_key(path: &Path, key: &KeyPair, certificate: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, key.to_openssh_private_pem().unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path.with_extension("pub"), key.public_openssh()).unwrap();
    std::fs::write(format!("{}-cert.pub", path.display()), certificate).unwrap();
}

#[async_trait]
impl Authority for Cluster {
    fn state(&self) -> Arc<ClusterState> {
        self.state.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.subscribe()
    }

    async fn sign_proxy_host(&self, _: Vec<String>, _: &str) -> Result<String, AuthorityError> {
        Err(AuthorityError::Unavailable("not for nodes".to_owned()))
    }

    async fn sign_openssh_user(&self, _: OpensshUserRequest) -> Result<String, AuthorityError> {
        Err(AuthorityError::Unavailable("not for nodes".to_owned()))
    }

    fn nodes(&self) -> Arc<NodeView> {
        Arc::default()
    }

    fn watch_nodes(&self) -> watch::Receiver<Arc<NodeView>> {
        watch::Sender::default().subscribe()
    }

    async fn heartbeat(&self, _node: Node) -> Result<Duration, AuthorityError> {
        Ok(HOUR)
    }

    async fn withdraw(&self) -> Result<(), AuthorityError> {
        Ok(())
    }

    async fn sign_database_client(
        &self,
        _request: shared_api::DatabaseCertRequest,
    ) -> Result<shared_api::DatabaseCertReply, AuthorityError> {
        Err(AuthorityError::Unavailable("no certificates here".to_owned()))
    }

    async fn heartbeat_db(
        &self,
        _servers: Vec<shared_types::DatabaseServer>,
    ) -> Result<std::time::Duration, AuthorityError> {
        Ok(std::time::Duration::from_secs(60))
    }

    async fn withdraw_db(&self) -> Result<(), AuthorityError> {
        Ok(())
    }

    async fn certify_recorder(&self, public_key: &str) -> Result<String, AuthorityError> {
        let spec = RecorderCertSpec {
            public_key: PublicKey::from_openssh(public_key).unwrap(),
            host_id: self.node,
            role: SystemRole::Node,
            cluster: name(),
            now: Utc::now(),
            ttl: HOUR,
        };
        let signed = self.recording.ssh_ca().unwrap().sign_recorder(spec).unwrap();
        Ok(signed.to_openssh().unwrap())
    }

    async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError> {
        self.events.lock().unwrap().extend(events);
        Ok(())
    }

    async fn upload_part(
        &self,
        upload: Uuid,
        _session: &SessionId,
        part: u64,
        bytes: Bytes,
    ) -> Result<(), AuthorityError> {
        self.parts.lock().unwrap().insert((upload, part), bytes);
        Ok(())
    }

    async fn complete_upload(
        &self,
        upload: Uuid,
        session: &SessionId,
        _complete: CompleteUpload,
    ) -> Result<(), AuthorityError> {
        let parts = self.parts.lock().unwrap();
        let of_it = parts.iter().filter(|((id, _), _)| *id == upload);
        let whole = of_it.flat_map(|(_, bytes)| bytes.to_vec()).collect();
        self.recordings.lock().unwrap().insert(session.to_string(), whole);
        Ok(())
    }

    async fn renew_sessions(&self, _: Vec<SessionId>) -> Result<Duration, AuthorityError> {
        Ok(HOUR)
    }

    async fn export(&self, _kind: Option<&str>) -> Result<String, AuthorityError> {
        Ok(String::new())
    }
}

/// Whether the programs are there.
pub(super) fn have_ssh() -> bool {
    let programs = ["/usr/bin/ssh", "/usr/bin/sftp", "/usr/bin/scp", "/usr/bin/ssh-agent"];
    let have = programs.iter().all(|path| Path::new(path).exists())
        && rustix::process::geteuid().is_root();
    if !have {
        assert!(std::env::var_os("CI").is_none(), "OpenSSH is missing, or this is not root");
        eprintln!("SKIPPED: OpenSSH is missing, or this is not root");
    }
    have
}

/// A service that runs.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) cluster: Arc<Cluster>,
    addr: SocketAddr,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_with(ArrivedBy::Direct, |_| {}).await
    }

    pub(super) async fn start_with(
        via: ArrivedBy,
        change: impl FnOnce(&mut SshServiceSettings),
    ) -> Self {
        shared_transport::install_crypto();
        let (cluster, dir) = (Cluster::new(), tempfile::tempdir().unwrap());
        let authority: Arc<dyn Authority> = Arc::<Cluster>::clone(&cluster);
        let (folder, never) = (dir.path().join("data"), CancellationToken::new());
        std::fs::create_dir_all(&folder).unwrap();
        let events = EventSpool::open(
            folder.join("log/events-spool"),
            Arc::clone(&authority),
            EventSpoolSettings::default(),
            &never,
        );
        let events = events.await.unwrap();
        let settings = RecordingSpoolSettings::default();
        let recordings = RecordingSpool::open(&folder, Arc::clone(&authority), settings, &never);
        let recordings = recordings.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut settings = SshServiceSettings::new(cluster.node, "web-1".parse().unwrap());
        settings.local = addr;
        settings.web_proxy = "proxy.example.com:3080".to_owned();
        settings.launcher = Launcher::new(
            std::env::current_exe().unwrap(),
            ["tests::becomes_a_program", "--exact", "--nocapture"].map(Into::into),
        );
        change(&mut settings);
        let labels = HostLabels::start([("env".into(), "test".into())].into(), BTreeMap::new());
        let keys = watch::channel(Arc::new(cluster.host_keys())).1;
        let service = SshService::new(settings, labels, authority, events, recordings, keys);
        let (service, stop, tasks) =
            (Arc::new(service), CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        tokio::spawn(async move {
            while let Some(Ok((stream, client))) =
                stopped.run_until_cancelled(listener.accept()).await
            {
                let arrival = Arrival { client, via, conn_type: ConnType::Node };
                let service = Arc::clone(&service);
                let stopped = stopped.clone();
                tasks.spawn(service.connection(Box::new(stream), arrival, stopped));
            }
        });
        let world = Self { dir, cluster, addr, stop };
        world.cluster.write_user(&world.path("user"), &world.cluster.user, |_| {});
        let known = world.cluster.host.trusted().known_hosts_line(None).replace("*.main", "*");
        std::fs::write(world.path("known_hosts"), known).unwrap();
        world
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One of OpenSSH's clients, with its options and nothing else.
    pub(super) fn client(&self, program: &str, key: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()));
        command.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]);
        command.args(["-o", "LogLevel=INFO"]);
        command.arg("-o").arg(format!("Port={}", self.addr.port()));
        command.arg("-i").arg(self.path(key));
        command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn ssh(&self) -> Command {
        self.ssh_as("user", "root")
    }

    pub(super) fn ssh_as(&self, key: &str, login: &str) -> Command {
        let mut command = self.client("ssh", key);
        command.arg(format!("{login}@127.0.0.1"));
        command
    }
}

pub(super) async fn run(command: &mut Command) -> Output {
    tokio::time::timeout(DEADLINE, command.output()).await.expect("the command hangs").unwrap()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
