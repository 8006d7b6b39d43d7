//! An auth service for tests: remembers what it got, and is away when told so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use shared_api::{Account, ApiError, ClusterState, CompleteUpload, NodeView};
use shared_events::{AuditEvent, SessionConnect};
use shared_pki::{CaKind, CertAuthority, Identity, Permits, RecorderCertSpec};
use shared_types::{HostId, Node, Role, SessionId, SystemRole};
use tokio::sync::watch;
use uuid::Uuid;

use crate::authority::{Authority, AuthorityError, EmitError, EventSink, prepare};

/// A finished recording: its bytes and how it was completed.
pub(crate) type Stored = (Vec<u8>, CompleteUpload);

pub(crate) struct FakeAuthority {
    state: watch::Sender<Arc<ClusterState>>,
    pub(crate) nodes: watch::Sender<Arc<NodeView>>,
    away: AtomicBool,
    /// Uids that are refused for good.
    pub(crate) poison: Mutex<Vec<String>>,
    events: Mutex<Vec<AuditEvent>>,
    uploads: Mutex<BTreeMap<(Uuid, SessionId), BTreeMap<u64, Bytes>>>,
    stored: Mutex<BTreeMap<SessionId, Stored>>,
    /// Parts that are taken before it goes away; for uploads that break in the middle.
    pub(crate) parts_left: AtomicUsize,
    pub(crate) refuse_complete: AtomicBool,
    /// A stored recording is not replaced.
    pub(crate) once: AtomicBool,
    /// What signs keys of recorders.
    pub(crate) recording: CertAuthority,
    pub(crate) recorder: HostId,
}

pub(crate) fn state() -> ClusterState {
    let mut role = Role::preset_access();
    role.spec.allow.logins = vec!["root".to_owned()];
    let roles = vec!["access".parse().unwrap(), "gone".parse().unwrap()];
    let joe = Account { roles, ..Account::default() };
    ClusterState {
        revision: 1,
        cluster: "example.com".parse().unwrap(),
        authorities: Vec::new(),
        roles: BTreeMap::from([("access".parse().unwrap(), role)]),
        users: BTreeMap::from([("joe".parse().unwrap(), joe)]),
        locks: Vec::new(),
        recording: Default::default(),
        networking: Default::default(),
        auth_preference: Default::default(),
        databases: Vec::new(),
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        user: "joe".parse().unwrap(),
        roles: vec!["access".parse().unwrap()],
        traits: Default::default(),
        logins: Vec::new(),
        cluster: "example.com".parse().unwrap(),
        login_ip: None,
        pinned_ip: None,
        valid_until: chrono::Utc::now() + chrono::TimeDelta::hours(1),
        system_role: None,
        host_id: None,
        permits: Permits::default(),
        usage: Vec::new(),
        database: None,
    }
}

/// An event that is told from others by its id.
pub(crate) fn event(uid: &str) -> AuditEvent {
    let mut event = SessionConnect::default();
    event.metadata.uid = uid.to_owned();
    event.into()
}

impl FakeAuthority {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::channel(Arc::new(state())).0,
            nodes: watch::Sender::default(),
            away: AtomicBool::new(false),
            poison: Mutex::default(),
            events: Mutex::default(),
            uploads: Mutex::default(),
            stored: Mutex::default(),
            parts_left: AtomicUsize::new(usize::MAX),
            refuse_complete: AtomicBool::new(false),
            once: AtomicBool::new(false),
            recording: CertAuthority::generate(
                CaKind::Recording,
                &"example.com".parse().unwrap(),
                chrono::Utc::now(),
            )
            .unwrap(),
            recorder: HostId::random(),
        }
    }

    /// Changes the state, as news.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ClusterState)) {
        self.state.send_modify(|state| change(Arc::make_mut(state)));
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        if !away {
            self.parts_left.store(usize::MAX, Ordering::SeqCst);
        }
    }

    /// What was emitted, once per uid.
    pub(crate) fn events(&self) -> Vec<AuditEvent> {
        let mut seen = std::collections::HashSet::new();
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| seen.insert(event.metadata().uid.clone())).cloned().collect()
    }

    pub(crate) fn uids(&self) -> Vec<String> {
        self.events().iter().map(|event| event.metadata().uid.clone()).collect()
    }

    /// Every uid as it came, repeats and all.
    pub(crate) fn all_uids(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|event| event.metadata().uid.clone()).collect()
    }

    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.events().iter().map(AuditEvent::kind).collect()
    }

    pub(crate) fn stored(&self, session: &SessionId) -> Option<Stored> {
        self.stored.lock().unwrap().get(session).cloned()
    }

    fn here(&self) -> Result<(), String> {
        if self.away.load(Ordering::SeqCst) { Err("away".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl EventSink for FakeAuthority {
    async fn emit(&self, mut events: Vec<AuditEvent>) -> Result<(), EmitError> {
        prepare(&mut events, "example.com");
        Authority::emit(self, events).await
    }
}

#[async_trait]
impl Authority for FakeAuthority {
    fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state.borrow())
    }

    fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.subscribe()
    }

    fn nodes(&self) -> Arc<NodeView> {
        Arc::clone(&self.nodes.borrow())
    }

    fn watch_nodes(&self) -> watch::Receiver<Arc<NodeView>> {
        self.nodes.subscribe()
    }

    async fn heartbeat(&self, _node: Node) -> Result<std::time::Duration, AuthorityError> {
        self.here().map_err(AuthorityError::Unavailable)?;
        Ok(std::time::Duration::from_secs(60))
    }

    async fn withdraw(&self) -> Result<(), AuthorityError> {
        self.here().map_err(AuthorityError::Unavailable)
    }

    async fn sign_proxy_host(
        &self,
        _principals: Vec<String>,
        _public_key: &str,
    ) -> Result<String, AuthorityError> {
        Err(AuthorityError::Unavailable("no certificates here".to_owned()))
    }

    async fn sign_openssh_user(
        &self,
        _request: shared_api::OpensshUserRequest,
    ) -> Result<String, AuthorityError> {
        Err(AuthorityError::Unavailable("no certificates here".to_owned()))
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
        self.here().map_err(AuthorityError::Unavailable)?;
        let spec = RecorderCertSpec {
            public_key: shared_pki::ssh_key::PublicKey::from_openssh(public_key).unwrap(),
            host_id: self.recorder,
            role: SystemRole::Proxy,
            cluster: "example.com".parse().unwrap(),
            now: chrono::Utc::now(),
            ttl: std::time::Duration::from_secs(3600),
        };
        let signed = self.recording.ssh_ca().unwrap().sign_recorder(spec).unwrap();
        Ok(signed.to_openssh().unwrap())
    }

    async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError> {
        self.here().map_err(EmitError::Unavailable)?;
        let poison = self.poison.lock().unwrap();
        if let Some(bad) = events.iter().find(|event| poison.contains(&event.metadata().uid)) {
            return Err(EmitError::Refused(format!("{} is bad", bad.metadata().uid)));
        }
        self.events.lock().unwrap().extend(events);
        Ok(())
    }

    async fn upload_part(
        &self,
        upload: Uuid,
        session: &SessionId,
        part: u64,
        bytes: Bytes,
    ) -> Result<(), AuthorityError> {
        self.here().map_err(AuthorityError::Unavailable)?;
        let left = self
            .parts_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            self.set_away(true);
            return Err(AuthorityError::Unavailable("gone".to_owned()));
        }
        self.uploads.lock().unwrap().entry((upload, *session)).or_default().insert(part, bytes);
        Ok(())
    }

    async fn complete_upload(
        &self,
        upload: Uuid,
        session: &SessionId,
        complete: CompleteUpload,
    ) -> Result<(), AuthorityError> {
        self.here().map_err(AuthorityError::Unavailable)?;
        if self.refuse_complete.load(Ordering::SeqCst) {
            return Err(ApiError::bad_request("no recording").into());
        }
        if self.once.load(Ordering::SeqCst) && self.stored(session).is_some() {
            return Err(ApiError::already_exists("recording exists").into());
        }
        let uploads = self.uploads.lock().unwrap();
        let parts = uploads
            .get(&(upload, *session))
            .ok_or_else(|| AuthorityError::from(ApiError::not_found("no such upload")))?;
        let numbers: Vec<u64> = parts.keys().copied().collect();
        assert_eq!(numbers, (1..=complete.parts).collect::<Vec<_>>(), "every part was sent");
        let bytes: Vec<u8> = parts.values().flatten().copied().collect();
        assert_eq!(bytes.len() as u64, complete.bytes);
        self.stored.lock().unwrap().insert(*session, (bytes, complete));
        Ok(())
    }

    async fn renew_sessions(
        &self,
        _: Vec<SessionId>,
    ) -> Result<std::time::Duration, AuthorityError> {
        self.here().map_err(AuthorityError::Unavailable)?;
        Ok(std::time::Duration::from_secs(60))
    }

    async fn export(&self, _kind: Option<&str>) -> Result<String, AuthorityError> {
        Ok(String::new())
    }
}
