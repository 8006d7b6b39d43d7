//! End-to-end tests: our built programs against real sshd, OpenSSH clients and ssh-agents. One
//! file per acceptance topic.

mod crash;
mod guide;
mod hostile;
mod limits;
mod openssh;
mod refusals;
mod roles;
mod support;
mod terminal;
mod transfer;
