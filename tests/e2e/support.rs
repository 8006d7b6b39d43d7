//! What the topics share: a cluster with one user and one sshd.

pub(crate) use shared_testkit::Stage;
