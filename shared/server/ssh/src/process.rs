//! Programs of this host, as the SSH server sees them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use shared_ssh::node::{self, Exit, Process, ProcessControl};
use shared_ssh::relay::Size;
use tokio::net::UnixStream;

use crate::child::{AgentSocket, Child, ChildControl};

/// A program that runs, with what the server does to it.
pub(crate) fn process(child: Child) -> Process {
    Process {
        input: Box::new(child.input),
        output: Box::new(child.output),
        errors: child.error.map(|error| Box::new(error) as Box<_>),
        control: Arc::new(Control(child.control)),
    }
}

struct Control(ChildControl);

#[async_trait]
impl ProcessControl for Control {
    async fn resize(&self, size: Size, pixels: (u32, u32)) {
        self.0.resize(size.columns, size.rows, pixels);
    }

    async fn signal(&self, name: &str) {
        if let Err(error) = self.0.signal(name) {
            tracing::debug!(%error, "signal is not sent");
        }
    }

    async fn hangup(&self) {
        self.0.hangup();
    }

    async fn wait(&self) -> Exit {
        let exit = self.0.wait().await;
        Exit { status: exit.status, signal: exit.signal, core_dumped: exit.core }
    }
}

/// The socket for a client's agent.
pub(crate) struct Agent(pub(crate) AgentSocket);

#[async_trait]
impl node::AgentSocket for Agent {
    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        self.0.accept().await
    }
}
