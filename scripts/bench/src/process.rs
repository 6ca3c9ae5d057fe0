//! A running server, and what the kernel's accounting says of it.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::Duration;

/// A server. It is ended, with the processes that it has started, when it goes out of scope.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    /// How long it took from the start of the process until it listened.
    pub start_time: Duration,
}

impl Running {
    pub fn new(child: Child, address: SocketAddr) -> Self {
        Self { child, address, start_time: Duration::ZERO }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It, and those that it has started.
    fn processes(&self) -> Vec<u32> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(self.pid()).chain(children).collect()
    }

    /// The time that all its threads have had a CPU (proc(5), schedstat).
    pub fn cpu_time(&self) -> Duration {
        let of_task = |path: std::path::PathBuf| {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        let tasks = self.processes().into_iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
        Duration::from_nanos(tasks.filter_map(|task| of_task(task.ok()?.path())).sum())
    }

    /// Resident memory, in bytes.
    pub fn rss(&self) -> u64 {
        let of_process = |pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.processes().into_iter().filter_map(of_process).sum::<u64>() * 1024
    }

    /// Sends it a signal, by its name.
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in self.processes().into_iter().skip(1) {
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
