//! End-to-end tests, the development cluster, the demo and the benchmarks. What they share.

pub mod bench;
pub mod measure;

pub use shared_testkit::stage::login_name;
