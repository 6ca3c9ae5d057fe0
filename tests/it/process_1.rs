//! Programs as process 1 of a PID namespace, as in a container.

use std::process::Command;

use crate::support::{eventually, proc, skip};

/// Returns unshare(1) with the options for a new PID namespace, or none where the kernel allows none. Reports the test as skipped
/// then.
pub fn unshare_pids(test: &str) -> Option<Command> {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--fork", "--pid", "--mount-proc", "--kill-child"]);
    let is_allowed =
        Command::new("unshare").args(command.get_args()).arg("true").status().is_ok_and(|status| status.success());
    if !is_allowed {
        skip(test, "unshare(1) may not make a PID namespace");
    }
    is_allowed.then_some(command)
}

/// Returns the number that the one child of a process has outside of its namespace.
pub fn child_of(pid: u32) -> u32 {
    eventually("a child", || proc::only_child(pid))
}
