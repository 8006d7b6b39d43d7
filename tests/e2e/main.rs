//! End-to-end tests: our built programs against real sshd, OpenSSH clients and ssh-agents. One
//! file per acceptance topic.

mod audit;
mod clients;
mod crash;
mod crash_two;
mod faults;
mod flow;
mod forwarding;
mod fuzz;
mod guide;
mod handover;
mod hardening;
mod hostile;
mod input;
mod interchange;
mod joining;
mod ledger;
mod limits;
mod locks;
mod modes;
mod openssh;
mod openssh_nodes;
mod pinning;
mod play;
mod refusals;
mod roles;
mod screens;
mod ssh_service;
mod sshaudit;
mod stores;
mod stream;
mod support;
mod tampering;
mod terminal;
mod transfer;
mod tunnels;
