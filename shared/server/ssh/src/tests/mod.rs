//! The service with unmodified OpenSSH clients.

mod forwarding;
mod refusals;
mod sessions;
mod support;
mod transfers;

/// What the service starts in these tests, in place of `teleport exec`.
#[test]
fn becomes_a_program() {
    if std::env::args().any(|argument| argument == "exec") {
        std::process::exit(crate::child::run_exec().into());
    }
}
