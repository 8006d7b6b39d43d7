//! DynamoDB Local on loopback: what AWS gives for tests, with the database in memory.
//!
//! `cargo xtask test` brings it into the cache. Where it is missing, the test says so and does nothing; in continuous
//! integration it fails.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::process::{Guard, command, installed};
use crate::scratch::Scratch;
use crate::stores::tools;
use crate::wait::{free_port, until};

/// Its main class.
const MAIN: &str = "com.amazonaws.services.dynamodbv2.local.main.ServerRunner";

/// A running server on loopback.
#[derive(Debug)]
pub struct DynamoDb {
    /// Its port.
    pub port: u16,
    /// Its process.
    pub process: Guard,
    /// Holds its log.
    _scratch: Scratch,
}

impl DynamoDb {
    /// The folder its libraries are in.
    pub fn libraries() -> PathBuf {
        tools().join("dynamodb-local")
    }

    /// Starts one. None, loudly, where it is missing.
    pub fn start() -> Result<Option<Self>> {
        let libraries = Self::libraries();
        if !installed("java")? {
            return Ok(None);
        }
        if !libraries.is_dir() {
            ensure!(
                std::env::var_os("CI").is_none(),
                "DynamoDB Local is missing; cargo xtask test brings it"
            );
            eprintln!("skipped: DynamoDB Local is not installed; cargo xtask test brings it");
            return Ok(None);
        }
        let scratch = Scratch::new("dynamodb")?;
        let port = free_port()?;
        let mut server = command("java", scratch.path());
        server.arg(format!("-Dsqlite4java.library.path={}", libraries.display()));
        server.arg("-cp").arg(libraries.join("*")).args([
            MAIN,
            "-inMemory",
            "-port",
            &port.to_string(),
        ]);
        let mut process = Guard::start("dynamodb", &mut server, &scratch.path().join("log"))?;
        until("DynamoDB Local", 60, || {
            let up = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            (up || !process.running()).then_some(())
        })?;
        ensure!(process.running(), "DynamoDB Local ended: {}", process.log());
        Ok(Some(Self { port, process, _scratch: scratch }))
    }

    /// `http://127.0.0.1:PORT`.
    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
