//! For tests only: starts the real programs (ours, sshd, ssh-agent) on free ports in a folder of
//! their own, drives them through terminals, and cleans up. Logs of failed runs are kept.

pub mod agent;
pub mod browser;
pub mod chaos;
pub mod cluster;
pub mod disk;
pub mod forwarder;
pub mod memory;
pub mod process;
pub mod pty;
pub mod redact;
pub mod scratch;
pub mod sshd;
pub mod stage;
pub mod stores;
pub mod stream;
pub mod tmux;
pub mod wait;

pub use browser::Browser;
pub use cluster::{Cluster, ClusterOptions, Home};
pub use disk::SmallDisk;
pub use forwarder::{Cut, Forwarder};
pub use process::{Guard, Outcome, bin, run};
pub use pty::Terminal;
pub use scratch::Scratch;
pub use sshd::{Sshd, SshdOptions};
pub use stage::Stage;
pub use stores::ObjectServer;
pub use tmux::Tmux;
pub use wait::{free_port, until};
