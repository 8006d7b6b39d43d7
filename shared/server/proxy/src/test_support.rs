//! A cluster in memory, a real sshd that trusts it, and a proxy in front.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use server_core::host::HostKeys;
use server_core::tunnel::LocalServices;
use server_core::{Authority, AuthorityError, EmitError};
use shared_api::client::{Client, ClientConfig, Route};
use shared_api::{Account, ClusterState, CompleteUpload, NodeView};
use shared_events::AuditEvent;
use shared_pki::{CaKind, CertAuthority, HostCertSpec, HostTlsSpec, KeyPair, TlsKey, UserCertSpec};
use shared_types::{HostId, Node, RecordingMode, Role, SessionId, SystemRole};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{ProxyListeners, ProxyService, ProxySettings, RemoteAuth};

pub(crate) struct Cluster {
    host: CertAuthority,
    pub(crate) user: CertAuthority,
    pub(crate) recording: CertAuthority,
    pub(crate) openssh: CertAuthority,
    /// The id of the proxy's host.
    pub(crate) recorder: HostId,
    /// The id that the host of the sshd has as a node.
    pub(crate) node: HostId,
    state: watch::Sender<Arc<ClusterState>>,
    pub(crate) nodes: watch::Sender<Arc<NodeView>>,
    pub(crate) events: Mutex<Vec<AuditEvent>>,
    parts: Mutex<BTreeMap<(Uuid, u64), Bytes>>,
    /// Sessions that were said to run.
    pub(crate) renewed: Mutex<std::collections::BTreeSet<SessionId>>,
    pub(crate) recordings: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Cluster {
    pub(crate) fn new() -> Arc<Self> {
        let name: shared_types::ClusterName = "main".parse().unwrap();
        let generate = |kind| CertAuthority::generate(kind, &name, Utc::now()).unwrap();
        let (host, user) = (generate(CaKind::Host), generate(CaKind::User));
        let role = serde_json::json!({
            "kind": "role", "version": "v7", "metadata": {"name": "dev"},
            "spec": {
                "options": {"forward_agent": true, "port_forwarding": true},
                "allow": {"logins": ["root"], "node_labels": {"teleport.dev/host": "127.0.0.1"}},
            },
        });
        let role: Role = serde_json::from_value(role).unwrap();
        let joe = Account { roles: vec!["dev".parse().unwrap()], ..Account::default() };
        let mut state = ClusterState {
            revision: 1,
            cluster: name.clone(),
            authorities: vec![host.trusted(), user.trusted()],
            roles: [("dev".parse().unwrap(), role)].into(),
            users: [("joe".parse().unwrap(), joe)].into(),
            locks: Vec::new(),
            recording: Default::default(),
            networking: Default::default(),
            auth_preference: Default::default(),
            databases: Vec::new(),
        };
        state.recording.spec.mode = RecordingMode::Proxy;
        Arc::new(Self {
            host,
            user,
            recording: generate(CaKind::Recording),
            openssh: generate(CaKind::Openssh),
            recorder: HostId::random(),
            node: HostId::random(),
            state: watch::channel(Arc::new(state)).0,
            nodes: watch::Sender::default(),
            events: Mutex::default(),
            parts: Mutex::default(),
            renewed: Mutex::default(),
            recordings: Mutex::default(),
        })
    }

    /// Changes the state, as a resource that was updated would.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ClusterState)) {
        self.state.send_modify(|state| {
            let mut next = ClusterState::clone(state);
            next.revision += 1;
            change(&mut next);
            *state = Arc::new(next);
        });
    }

    fn host_cert(
        &self,
        names: Vec<String>,
        key: shared_pki::ssh_key::PublicKey,
        role: SystemRole,
    ) -> String {
        let spec = HostCertSpec {
            public_key: key,
            principals: names,
            role,
            cluster: "main".parse().unwrap(),
            now: Utc::now(),
            ttl: Some(Duration::from_secs(3600)),
        };
        self.host.ssh_ca().unwrap().sign_host(spec).unwrap().to_openssh().unwrap()
    }

    /// The keys of a service, as joining gives them.
    pub(crate) fn host_keys(&self, host_id: HostId, role: SystemRole) -> HostKeys {
        let (tls, ssh) = (TlsKey::generate().unwrap(), KeyPair::generate().unwrap());
        let cluster: shared_types::ClusterName = "main".parse().unwrap();
        let names = HostCertSpec::service_principals(host_id, "", &cluster, &[]);
        let spec = HostTlsSpec { host_id, role, cluster, names: Vec::new() };
        let hour = Duration::from_secs(3600);
        let ca = self.host.tls_ca().unwrap();
        HostKeys {
            tls_cert_pem: ca
                .sign_server(&spec, &tls.public(), Utc::now(), Some(hour))
                .unwrap()
                .pem(),
            tls_key_pem: tls.to_pem(),
            ssh_cert: self.host_cert(names, ssh.public().clone(), role),
            ssh_key_pem: ssh.to_openssh_private_pem().unwrap(),
            valid_until: Utc::now() + hour,
        }
    }

    /// Writes a key and its certificate for a user.
    pub(crate) fn write_user(&self, path: &Path, user: &str, logins: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let mut spec = UserCertSpec::new(
            key.public().clone(),
            user.parse().unwrap(),
            logins.iter().map(|login| login.parse().unwrap()).collect(),
            "main".parse().unwrap(),
            Utc::now(),
            Duration::from_secs(3600),
        );
        spec.roles = vec!["dev".parse().unwrap()];
        spec.permit_port_forwarding = true;
        spec.permit_agent_forwarding = true;
        let certificate = self.user.ssh_ca().unwrap().sign_user(spec).unwrap();
        private(path, &key.to_openssh_private_pem().unwrap());
        std::fs::write(path.with_extension("pub"), key.public_openssh()).unwrap();
        std::fs::write(format!("{}-cert.pub", path.display()), certificate.to_openssh().unwrap())
            .unwrap();
    }

    pub(crate) fn seen(&self, kind: &str) -> Vec<serde_json::Value> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter(|event| event.kind() == kind)
            .map(|event| serde_json::from_str(&event.to_json()).unwrap())
            .collect()
    }

    /// Waits for so many events of a kind.
    pub(crate) async fn wait_for(&self, kind: &str, count: usize) -> Vec<serde_json::Value> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let seen = self.seen(kind);
            if seen.len() >= count {
                return seen;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "only {} of {count} {kind}",
                seen.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[async_trait]
impl Authority for Cluster {
    fn state(&self) -> Arc<ClusterState> {
        self.state.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.subscribe()
    }

    fn nodes(&self) -> Arc<NodeView> {
        self.nodes.borrow().clone()
    }

    fn watch_nodes(&self) -> watch::Receiver<Arc<NodeView>> {
        self.nodes.subscribe()
    }

    async fn heartbeat(&self, _node: Node) -> Result<Duration, AuthorityError> {
        Ok(Duration::from_secs(60))
    }

    async fn withdraw(&self) -> Result<(), AuthorityError> {
        Ok(())
    }

    async fn sign_proxy_host(
        &self,
        principals: Vec<String>,
        public_key: &str,
    ) -> Result<String, AuthorityError> {
        let key = shared_pki::ssh_key::PublicKey::from_openssh(public_key).unwrap();
        Ok(self.host_cert(principals, key, SystemRole::Proxy))
    }

    /// What the proxy shows is believed; the key id is the user's.
    async fn sign_openssh_user(
        &self,
        request: shared_api::OpensshUserRequest,
    ) -> Result<String, AuthorityError> {
        let shown = shared_pki::parse_certificate_line(&request.certificate).unwrap();
        let spec = shared_pki::OpensshUserSpec {
            public_key: shared_pki::parse_public_key(&request.public_key).unwrap(),
            user: shown.key_id().parse().unwrap(),
            login: request.login,
            now: Utc::now(),
            ttl: Duration::from_secs(60),
            permit_port_forwarding: true,
            permit_agent_forwarding: true,
            source_addresses: Vec::new(),
        };
        let signed = self.openssh.ssh_ca().unwrap().sign_openssh_user(&spec).unwrap();
        Ok(signed.to_openssh().unwrap())
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
        let spec = shared_pki::RecorderCertSpec {
            public_key: shared_pki::ssh_key::PublicKey::from_openssh(public_key).unwrap(),
            host_id: self.recorder,
            role: SystemRole::Proxy,
            cluster: "main".parse().unwrap(),
            now: Utc::now(),
            ttl: Duration::from_secs(3600),
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
        let whole = parts
            .iter()
            .filter(|((id, _), _)| *id == upload)
            .flat_map(|(_, bytes)| bytes.to_vec())
            .collect();
        self.recordings.lock().unwrap().insert(session.to_string(), whole);
        Ok(())
    }

    async fn renew_sessions(&self, sessions: Vec<SessionId>) -> Result<Duration, AuthorityError> {
        self.renewed.lock().unwrap().extend(sessions);
        Ok(Duration::from_millis(50))
    }

    async fn export(&self, kind: Option<&str>) -> Result<String, AuthorityError> {
        match kind {
            Some("user") => Ok(self.user.trusted().authorized_line()),
            _ => Ok(self.host.trusted().known_hosts_line(None)),
        }
    }
}

/// Ends a program when dropped.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything running.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) ssh: SocketAddr,
    pub(crate) web: SocketAddr,
    pub(crate) tunnel: SocketAddr,
    pub(crate) target: u16,
    pub(crate) stop: CancellationToken,
    pub(crate) proxy: Option<tokio::task::JoinHandle<()>>,
    agent: PathBuf,
    _programs: Vec<Killed>,
}

/// Whether the programs are there.
pub(crate) fn have_ssh() -> bool {
    let have = ["/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/ssh-agent"]
        .iter()
        .all(|path| Path::new(path).exists());
    if !have {
        assert!(std::env::var_os("CI").is_none(), "OpenSSH is missing");
        eprintln!("SKIPPED: OpenSSH is missing");
    }
    have
}

impl World {
    pub(crate) async fn start(sshd_extra: &str, certified: bool) -> Self {
        shared_transport::install_crypto();
        let cluster = Cluster::new();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let target =
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();

        let host_key = KeyPair::generate().unwrap();
        private(&path("host"), &host_key.to_openssh_private_pem().unwrap());
        let cert = cluster.host_cert(
            vec!["127.0.0.1".into(), cluster.node.to_string(), "web-1".into()],
            host_key.public().clone(),
            SystemRole::Node,
        );
        std::fs::write(path("host-cert.pub"), cert).unwrap();
        let user_ca = cluster.user.trusted().authorized_line();
        std::fs::write(path("user_ca.pub"), user_ca.replace("cert-authority ", "")).unwrap();
        let certificate = if certified {
            format!("HostCertificate {}\n", path("host-cert.pub").display())
        } else {
            String::new()
        };
        let config = format!(
            "ListenAddress 127.0.0.1:{target}\nHostKey {}\n{certificate}TrustedUserCAKeys {}\nAuthorizedKeysFile none\nUsePAM no\n\
             StrictModes no\nPidFile none\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxSessions 100\n{sshd_extra}\n",
            path("host").display(),
            path("user_ca.pub").display(),
        );
        std::fs::write(path("sshd_config"), config).unwrap();
        let _ = std::fs::create_dir_all("/run/sshd");
        let log = std::fs::File::create(path("sshd.log")).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut programs = vec![Killed(sshd.spawn().unwrap())];

        cluster.write_user(&path("user"), "joe", &["root"]);
        let agent = path("agent.sock");
        let mut command = Command::new("/usr/bin/ssh-agent");
        command
            .arg("-D")
            .arg("-a")
            .arg(&agent)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        programs.push(Killed(command.spawn().unwrap()));
        let known = cluster.host.trusted().ssh_ca_line();
        std::fs::write(path("known_hosts"), known).unwrap();

        let settings = ProxySettings::new(dir.path().join("data"), cluster.recorder, "proxy");
        let listeners = ProxyListeners {
            web: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            ssh: Some(TcpListener::bind("127.0.0.1:0").await.unwrap()),
            tunnel: Some(TcpListener::bind("127.0.0.1:0").await.unwrap()),
            postgres: None,
            mysql: None,
        };
        let at = |listener: &Option<TcpListener>| listener.as_ref().unwrap().local_addr().unwrap();
        let web = listeners.web.local_addr().unwrap();
        let (ssh, tunnel) = (at(&listeners.ssh), at(&listeners.tunnel));
        std::fs::create_dir_all(&settings.data_dir).unwrap();
        let authority: Arc<dyn Authority> = Arc::<Cluster>::clone(&cluster);
        let nowhere =
            ClientConfig::new(Route::Direct { addr: "127.0.0.1:1".into() }, Vec::new(), None);
        let nowhere = Client::new(nowhere).unwrap();
        let auth = Arc::new(RemoteAuth::new(nowhere));
        let keys = watch::channel(Arc::new(cluster.host_keys(cluster.recorder, SystemRole::Proxy)));
        let service =
            ProxyService::new(settings, authority, auth, keys.1, LocalServices::default())
                .await
                .unwrap();
        let stop = CancellationToken::new();
        let ending = stop.clone();
        let proxy = tokio::spawn(async move { service.run(listeners, ending).await.unwrap() });

        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", target)).is_err() || !agent.exists() {
            assert!(std::time::Instant::now() < deadline, "sshd or ssh-agent did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let world = Self {
            dir,
            cluster,
            ssh,
            web,
            tunnel,
            target,
            stop,
            proxy: Some(proxy),
            agent,
            _programs: programs,
        };
        let added = Command::new("/usr/bin/ssh-add")
            .arg("-q")
            .arg(world.path("user"))
            .env("SSH_AUTH_SOCK", &world.agent)
            .status();
        assert!(added.unwrap().success());
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self, forward: bool) -> Vec<String> {
        [
            "BatchMode=yes".to_owned(),
            format!("UserKnownHostsFile={}", self.path("known_hosts").display()),
            "GlobalKnownHostsFile=/dev/null".into(),
            "StrictHostKeyChecking=yes".into(),
            format!("ForwardAgent={}", if forward { "yes" } else { "no" }),
            "LogLevel=INFO".into(),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect()
    }

    /// The documented command line, on an OpenSSH client.
    pub(crate) fn ssh(&self, forward: bool) -> tokio::process::Command {
        let mut command = self.client("ssh", forward);
        command.arg("root@127.0.0.1");
        command
    }

    pub(crate) fn client(&self, program: &str, forward: bool) -> tokio::process::Command {
        self.client_on(program, forward, self.target)
    }

    /// The same for another port of the target.
    pub(crate) fn client_on(
        &self,
        program: &str,
        forward: bool,
        port: u16,
    ) -> tokio::process::Command {
        let options = self.options(forward);
        let jump = options.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let proxy = format!(
            "ProxyCommand=ssh -F none {jump} -p {} %r@127.0.0.1 -s proxy:%h:%p",
            self.ssh.port()
        );
        let mut command = tokio::process::Command::new(program);
        command
            .args(["-F", "none"])
            .args(options)
            .args(["-o", &proxy])
            .args(["-o", &format!("Port={port}")]);
        command.env("SSH_AUTH_SOCK", &self.agent).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

trait CaLine {
    fn ssh_ca_line(&self) -> String;
}

impl CaLine for shared_pki::TrustedAuthority {
    fn ssh_ca_line(&self) -> String {
        self.known_hosts_line(None).replace("*.main", "*")
    }
}
