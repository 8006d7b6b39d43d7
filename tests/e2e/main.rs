//! End-to-end tests: our built programs against real sshd, OpenSSH clients and ssh-agents. One
//! file per acceptance topic.

mod audit;
mod crash;
mod crash_two;
mod flow;
mod forwarding;
mod fuzz;
mod guide;
mod handover;
mod hostile;
mod input;
mod limits;
mod locks;
mod modes;
mod openssh;
mod pinning;
mod play;
mod refusals;
mod roles;
mod screens;
mod sshaudit;
mod stores;
mod support;
mod tampering;
mod terminal;
mod transfer;
