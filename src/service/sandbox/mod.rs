//! The sandbox: the list of allowed system calls.
//!
//! A filter in the kernel (seccomp(2)) looks at each system call of the process. A call that is not on the [list](calls) is logged, or ends
//! the process. The list has what a server calls while it serves: nothing on it opens a file, makes a socket, starts a thread or a program,
//! or makes memory executable. So everything is opened and every thread is started before [`install`]. [`prepare`] comes before all of that.
//!
//! The kernel remembers for each call number whether the filter allows it with any arguments (since Linux 5.11), and does not run the filter
//! for it. The calls of an echoed message have no conditions on their arguments for this reason.

mod list;

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::sys::memory;
pub use list::{Alternative, Call, Use, calls};
use list::{Condition, Is};

/// The effect of a system call that is not on the list.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The call is made, and the kernel logs it (seccomp(2), `SECCOMP_RET_LOG`).
    Log,
    /// The process ends with SIGSYS, which a shell reports as status 159 (seccomp(2), `SECCOMP_RET_KILL_PROCESS`).
    Kill,
}

/// The reason why the sandbox could not be installed. No call is filtered then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list could not be translated for the kernel.
    #[error("cannot make the filter of the sandbox: {0}")]
    Filter(#[from] BackendError),
    /// The kernel refuses the filter.
    #[error(
        "cannot install the sandbox (seccomp): {0}; it needs Linux 4.14 or newer with CONFIG_SECCOMP_FILTER, and an environment that allows \
         seccomp(2)"
    )]
    Install(seccompiler::Error),
}

/// Prepares the C library for the sandbox. Call it before the program starts a second thread.
///
/// Keeps all threads on one heap (mallopt(3), `M_ARENA_MAX`): otherwise the GNU C library opens a file of proc(5) when a thread returns
/// memory, at any time, and that ends the process.
pub fn prepare() {
    memory::use_one_heap();
}

/// Installs the sandbox in all threads of the process, for good. The list has the calls that each server needs, and the calls for `uses`.
///
/// Forbids new privileges first (`no_new_privs`), as seccomp(2) requires of a process without `CAP_SYS_ADMIN`. A filter that is in force
/// already, such as systemd's, stays in force: a call must pass both. A call of another architecture ends the process in each mode.
///
/// # Errors
/// [`Error::Install`] if the kernel has no filters, or something forbids them.
pub fn install(mode: Mode, uses: Use) -> Result<(), Error> {
    let program = program(mode, uses)?;
    seccompiler::apply_filter_all_threads(&program).map_err(Error::Install)
}

/// Translates the list for the kernel.
fn program(mode: Mode, uses: Use) -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
    for call in calls(uses) {
        let alternatives: Result<Vec<_>, _> = call.alternatives.iter().map(rule).collect();
        rules.entry(call.number()).or_default().extend(alternatives?);
    }
    let mismatch = match mode {
        Mode::Log => SeccompAction::Log,
        Mode::Kill => SeccompAction::KillProcess,
    };
    let filter = SeccompFilter::new(rules, mismatch, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    filter.try_into()
}

/// Translates one alternative: all of its conditions must hold.
fn rule(alternative: &Alternative) -> Result<SeccompRule, BackendError> {
    let translate = |&Condition { argument, is }: &Condition| {
        let (operator, value) = match is {
            Is::Equal(value) => (SeccompCmpOp::Eq, value),
            Is::Without(bits) => (SeccompCmpOp::MaskedEq(bits.into()), 0),
            Is::OwnProcess => (SeccompCmpOp::Eq, std::process::id()),
        };
        // The kernel looks at the lower half of each of these arguments: all are of type int.
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
    };
    let conditions: Result<Vec<_>, _> = alternative.conditions().iter().map(translate).collect();
    SeccompRule::new(conditions?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest program that the kernel takes (bpf_common.h, BPF_MAXINSNS).
    const MAX_INSTRUCTIONS: usize = 4096;

    #[test]
    fn every_list_becomes_a_program_for_the_kernel() {
        for mode in [Mode::Log, Mode::Kill] {
            let (least, most) = (program(mode, Use::empty()), program(mode, Use::all()));
            let (least, most) = (least.expect("a program"), most.expect("a program"));
            assert!(least.len() < most.len() && most.len() < MAX_INSTRUCTIONS, "{} {}", least.len(), most.len());
        }
    }

    #[test]
    fn each_call_is_on_the_list_once_and_the_calls_of_a_message_have_no_conditions() {
        let calls: Vec<_> = calls(Use::all()).collect();
        for (index, call) in calls.iter().enumerate() {
            // Further alternatives may follow, for a use.
            let has_conditions = |call: &Call| !call.alternatives.is_empty();
            let is_other =
                |other: &&Call| other.number() != call.number() || (has_conditions(other) && has_conditions(call));
            assert!(calls[..index].iter().all(is_other), "{} stands there twice", call.name);
        }
        for name in ["recvfrom", "sendto", "splice", "accept4", "epoll_ctl", "close", "read", "write"] {
            let call = calls.iter().find(|call| call.name == name).expect("it is on the list");
            assert!(call.alternatives.is_empty(), "the kernel would run the filter for each {name}");
        }
        let waits = calls.iter().filter(|call| call.name.starts_with("epoll_") && call.name.contains("wait"));
        assert!(waits.into_iter().all(|call| call.alternatives.is_empty()));
    }
}
