//! Waiting for a condition with a deadline, never for a time.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Polls until `check` gives a value; after `seconds`, an error that names what was awaited.
pub fn until<T>(what: &str, seconds: u64, mut check: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {seconds} s for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port on loopback that was free a moment ago, for servers that cannot choose their own.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
