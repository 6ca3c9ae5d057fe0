//! A running server, and the kernel's accounting of it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::Result;

/// A server, the first process of its own group. Dropping it ends the whole group.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    /// Time from the start of the process until it listened.
    pub start_time: Duration,
}

impl Running {
    pub fn new(child: Child, address: SocketAddr) -> Self {
        Self { child, address, start_time: Duration::ZERO }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the process and its children.
    fn processes(&self) -> Vec<u32> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(self.pid()).chain(children).collect()
    }

    /// Returns the CPU time of all threads and processes (proc(5)). `schedstat` is exact, but counts only threads that still exist; `stat`
    /// counts ended threads as well, in ticks of 10 ms.
    pub fn cpu_time(&self) -> Duration {
        self.of_current_threads().max(self.of_all_threads())
    }

    fn of_all_threads(&self) -> Duration {
        let of_process = |pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let fields: Vec<u64> = stat
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .skip(11)
                .take(4)
                .filter_map(|field| field.parse().ok())
                .collect();
            Some(fields.iter().sum::<u64>())
        };
        let ticks: u64 = self.processes().into_iter().filter_map(of_process).sum();
        Duration::from_millis(ticks * 10)
    }

    fn of_current_threads(&self) -> Duration {
        let of_thread = |path: PathBuf| {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(self.threads().filter_map(of_thread).sum())
    }

    /// Returns the directories of all threads in proc(5).
    fn threads(&self) -> impl Iterator<Item = PathBuf> {
        let processes = self.processes().into_iter();
        let threads = processes.filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
        threads.filter_map(|thread| Some(thread.ok()?.path()))
    }

    /// Waits until all threads are asleep, in two samples in a row.
    pub fn await_sleep(&self) -> Result<()> {
        let is_asleep = |thread: PathBuf| {
            let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('S'))
        };
        let mut samples = 0;
        await_that("the server does not become idle", || {
            samples = if self.threads().all(is_asleep) { samples + 1 } else { 0 };
            samples == 2
        })
    }

    /// Waits until strace has attached to all threads.
    pub fn await_tracer(&self) -> Result<()> {
        let is_traced = |thread: PathBuf| {
            let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        await_that("strace does not attach", || self.threads().all(is_traced))
    }

    /// Returns the resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let of_process = |pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.processes().into_iter().filter_map(of_process).sum::<u64>() * 1024
    }

    /// Sends a signal to the first process.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
    }
}

impl Drop for Running {
    /// Ends the process group and waits until it is gone, so that no process of it runs while the next server is measured.
    fn drop(&mut self) {
        let group = Pid::from_raw(self.pid().cast_signed());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        if let Err(error) = await_that("a process of the server is still running", || killpg(group, None).is_err()) {
            eprintln!("bench.sh: {error}");
        }
    }
}

/// Polls a condition for up to 5 seconds.
fn await_that(failure: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > Duration::from_secs(5) {
            return Err(failure.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
