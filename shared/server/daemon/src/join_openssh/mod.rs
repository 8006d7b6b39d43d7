//! `teleport join openssh`: makes a stock sshd a registered node of the cluster, keeps its host certificate
//! renewed by a timer, and takes all of it back with `--undo`.
//!
//! What must stay true: sshd is told of a configuration only after sshd itself has found it valid, and every error on
//! the way puts back what was there; no line of the administrator's is changed; private keys are read by nobody else.

mod args;
mod cluster;
mod config;
mod files;
mod host_key;
mod join;
mod kept;
mod renew;
mod sshd;
mod timer;
mod undo;

pub(crate) use args::JoinTarget;

use shared_cli::{CliError, ExitCode};

/// Runs `teleport join …`.
pub(crate) fn run(target: JoinTarget) -> Result<ExitCode, CliError> {
    let JoinTarget::Openssh(args) = target;
    shared_transport::install_crypto();
    let done = if args.undo {
        undo::run(&args)
    } else if args.renew {
        renew::run(&args)
    } else {
        join::run(&args)
    };
    done.map(|()| ExitCode::Done)
}
