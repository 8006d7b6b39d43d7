//! End-to-end tests, the development cluster, the demo and the benchmarks. What they share.

pub mod measure;

/// The operating system's user, the only login that an unprivileged sshd accepts.
pub fn login_name() -> String {
    let output = std::process::Command::new("id").arg("-un").output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
