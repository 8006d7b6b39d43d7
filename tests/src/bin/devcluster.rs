//! The cluster that the end-to-end tests use, given to your hands: starts it with one user and one
//! sshd, prints how to reach them, and runs until Ctrl-C.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use shared_testkit::cluster::PASSWORD;
use shared_testkit::{Cluster, ClusterOptions, until};

/// Start a cluster for trying things out
#[derive(Parser)]
struct Args {
    /// Where its files go
    #[arg(long, default_value = "target/devcluster")]
    folder: PathBuf,
    /// Auth and proxy as two processes
    #[arg(long)]
    two_processes: bool,
    /// `session_recording`
    #[arg(long, default_value = "proxy")]
    recording: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.folder.exists() {
        std::fs::remove_dir_all(&args.folder)?;
    }
    std::fs::create_dir_all(&args.folder)?;
    let folder = args.folder.canonicalize()?;
    let options = ClusterOptions {
        recording: Some(args.recording),
        two_processes: args.two_processes,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(&folder, &options)?;
    let login = e2e::login_name();
    cluster.loopback_role("loopback", &[&login])?;
    let joe = cluster.user("joe", "access,auditor,loopback", &login)?;
    let sshd = cluster.sshd("sshd", "127.0.0.1,localhost", "")?;
    println!("files      {}", folder.display());
    println!("web, ssh   {}, {}", cluster.address("web"), cluster.address("ssh"));
    println!("admin      tctl --config {}/auth.yaml …", folder.display());
    println!("user       joe, password {PASSWORD:?}, logged in at HOME={}", joe.folder.display());
    println!(
        "try        HOME={} tsh ssh --port={} {login}@127.0.0.1",
        joe.folder.display(),
        sshd.port
    );
    println!("Ctrl-C ends it");
    until("the daemon's end", 24 * 3600, || (!cluster.auth.running()).then_some(()))
}
