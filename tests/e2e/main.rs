//! End-to-end tests: our built programs against real sshd, OpenSSH clients and ssh-agents. One
//! file per acceptance topic.

mod audit;
mod crash;
mod crash_two;
mod flow;
mod forwarding;
mod fuzz;
mod guide;
mod hostile;
mod input;
mod limits;
mod openssh;
mod pinning;
mod play;
mod refusals;
mod roles;
mod sshaudit;
mod support;
mod terminal;
mod transfer;
