//! What this process may take, set before it reads the statement's data. The parent limits too; this
//! also holds when the parent is gone.

use std::{io, time::Duration};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::Request;

/// Limits memory, processor time and life of this process, and forbids it to write files.
pub fn apply(request: &Request) -> io::Result<()> {
    let fixed = |resource, value| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    fixed(Resource::Data, request.memory_bytes)?;
    fixed(Resource::Cpu, request.cpu_seconds)?;
    fixed(Resource::Core, 0)?;
    fixed(Resource::Fsize, 0)?;
    let life = Duration::from_secs(request.wall_seconds.saturating_add(5));
    std::thread::Builder::new().name("deadline".into()).stack_size(64 << 10).spawn(move || {
        std::thread::sleep(life);
        std::process::exit(3);
    })?;
    Ok(())
}
