//! For tests only: starts the real programs (ours, sshd, ssh-agent) on free ports in a folder of
//! their own, drives them through terminals, and cleans up. Logs of failed runs are kept.

pub mod agent;
pub mod browser;
pub mod chaos;
pub mod cluster;
pub mod db_stage;
pub mod disk;
pub mod dynamodb;
pub mod forwarder;
pub mod mariadb;
pub mod memory;
pub mod postgres;
pub mod postgres_suite;
pub mod process;
pub mod pty;
pub mod redact;
pub mod redis;
pub mod scratch;
pub mod sshd;
pub mod stage;
pub mod stores;
pub mod stream;
pub mod tls_server;
pub mod tmux;
pub mod wait;

pub use browser::Browser;
pub use cluster::{Cluster, ClusterOptions, Home};
pub use db_stage::{DbAgent, DbOptions, DbResource, DbStage, DbTunnel};
pub use disk::SmallDisk;
pub use dynamodb::DynamoDb;
pub use forwarder::{Cut, Forwarder};
pub use mariadb::MariaDb;
pub use postgres::Postgres;
pub use process::{Guard, Outcome, bin, run};
pub use pty::Terminal;
pub use redis::Redis;
pub use scratch::Scratch;
pub use sshd::{Sshd, SshdOptions};
pub use stage::Stage;
pub use stores::ObjectServer;
pub use tls_server::{Tls, TlsServer};
pub use tmux::Tmux;
pub use wait::{free_port, until};
