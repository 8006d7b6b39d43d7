//! Programs of a login, really started: by this package's `teleport`, as accounts of a passwd file of the test's own
//! that only its processes see (a mount namespace). Needs root; a laptop without it skips loudly, CI fails.

#![allow(clippy::unwrap_used)]

mod exec;
mod host;
mod pty;
mod refusals;
mod sftp;
