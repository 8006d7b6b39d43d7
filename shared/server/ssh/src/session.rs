//! One session channel on this host.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use server_core::ssh::limits;
use shared_pki::Identity;
use shared_ssh::node::{AgentSocket, Launch, NodeSession, Process, PtyRequest};
use shared_ssh::relay::{Program, Tap};
use shared_types::{Login, SessionId};

use crate::child::{self, ChildSpec, PtySpec};
use crate::environment;
use crate::process::{Agent, process};
use crate::service::SshService;

/// A session of a user who may have it.
pub(crate) struct Session {
    pub(crate) service: Arc<SshService>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) login: Login,
    pub(crate) client: SocketAddr,
    pub(crate) sid: SessionId,
    pub(crate) tap: Arc<dyn Tap>,
    /// Counted among the connection's sessions.
    pub(crate) _place: limits::Session,
}

fn terminal(pty: PtyRequest) -> PtySpec {
    PtySpec {
        term: pty.term,
        columns: pty.size.columns,
        rows: pty.size.rows,
        pixels: pty.pixels,
        modes: pty.modes,
    }
}

#[async_trait]
impl NodeSession for Session {
    fn tap(&self) -> Arc<dyn Tap> {
        Arc::clone(&self.tap)
    }

    fn takes_env(&self, name: &str) -> bool {
        environment::takes(name, self.service.settings.permit_user_env)
    }

    async fn agent(&self) -> Result<Box<dyn AgentSocket>, String> {
        let socket = child::agent_socket(&self.login).await;
        socket
            .map(|socket| -> Box<dyn AgentSocket> { Box::new(Agent(socket)) })
            .map_err(|err| server_core::chain(&err))
    }

    async fn launch(&self, launch: Launch) -> Result<Process, String> {
        let settings = &self.service.settings;
        let program = match launch.program {
            Program::Shell => child::Program::Shell,
            Program::Exec(_) => child::Program::Exec(launch.command),
            Program::Subsystem(_) => child::Program::Sftp,
        };
        let agent = launch.agent.as_deref();
        let spec = ChildSpec {
            login: self.login.clone(),
            // The SFTP server has no terminal, whatever was asked for.
            pty: launch.pty.filter(|_| program != child::Program::Sftp).map(terminal),
            program,
            client_env: launch.env,
            env: environment::of_session(settings, &self.identity, self.sid, self.client, agent),
            permit_user_env: settings.permit_user_env,
        };
        settings.launcher.spawn(spec).await.map(process).map_err(|err| {
            let (login, sid, error) = (&self.login, self.sid, server_core::chain(&err));
            tracing::warn!(%login, %sid, error, "program is not started");
            err.to_string()
        })
    }
}
