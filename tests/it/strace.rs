//! Faults in system calls: strace(1), `--inject`.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::scratch::Scratch;
use crate::support::{Process, Program, proc, skip, wait_until};

/// Returns whether strace is installed. Reports the test as skipped if it is not.
pub fn has_strace(test: &str) -> bool {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        skip(test, "strace is missing");
    }
    found
}

/// strace, attached to a server. It is detached when it goes out of scope.
pub struct Tracer {
    program: Program,
    scratch: Scratch,
}

impl Tracer {
    /// Attaches strace to the first thread of a server, or with `-f` to all of them.
    pub fn attach(process: &Process, arguments: &[&str]) -> Self {
        let scratch = Scratch::new();
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", &scratch.file("trace")]).args(arguments).args(["-p", &process.pid().to_string()]);
        let program = Program::spawn(command.stderr(Stdio::null()));
        // strace interrupts epoll_wait(2) when it attaches. The server calls it again, and an injected fault may end the server.
        let is_attached = || match arguments.contains(&"-f") {
            true => proc::are_all_traced(process.pid()),
            false => process.tracer() == program.pid(),
        };
        wait_until("strace is attached", || process.has_ended() || is_attached());
        Self { program, scratch }
    }

    fn trace(&self) -> Option<String> {
        fs::read_to_string(self.scratch.file("trace")).ok()
    }

    /// Returns whether the fault has been injected.
    pub fn has_injected(&self) -> bool {
        self.trace().is_some_and(|trace| trace.contains("(INJECTED)"))
    }

    /// Waits until the server and strace have ended, and returns the calls that strace has seen.
    pub fn calls(&mut self) -> BTreeSet<String> {
        self.program.wait();
        let trace = self.trace().expect("the trace");
        trace.lines().filter_map(|line| line.split_once('(')).map(|(call, _)| call.to_owned()).collect()
    }
}
