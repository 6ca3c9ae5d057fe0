//! A running server, and what the kernel's accounting says of it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::Result;

/// A server, the first process of a group of its own. It is ended, with all that it has started, when it goes out of scope.
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

    /// The time that it has had a CPU, with all its threads and processes (proc(5)). schedstat is exact, and knows only who is still
    /// there; stat knows those who have ended, too, and counts in ticks of 10 ms.
    pub fn cpu_time(&self) -> Duration {
        self.of_the_living().max(self.of_all())
    }

    fn of_all(&self) -> Duration {
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

    fn of_the_living(&self) -> Duration {
        let of_thread = |path: PathBuf| {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(self.threads().filter_map(of_thread).sum())
    }

    /// The directories of all its threads in proc(5).
    fn threads(&self) -> impl Iterator<Item = PathBuf> {
        let processes = self.processes().into_iter();
        let threads = processes.filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
        threads.filter_map(|thread| Some(thread.ok()?.path()))
    }

    /// Waits until none of its threads has anything to do: two looks in a row find all of them asleep.
    pub fn await_sleep(&self) -> Result<()> {
        let is_asleep = |thread: PathBuf| {
            let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('S'))
        };
        let mut looks = 0;
        await_that("it does not come to rest", || {
            looks = if self.threads().all(is_asleep) { looks + 1 } else { 0 };
            looks == 2
        })
    }

    /// Waits until strace has hold of all its threads.
    pub fn await_tracer(&self) -> Result<()> {
        let is_traced = |thread: PathBuf| {
            let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        await_that("strace does not come", || self.threads().all(is_traced))
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

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
    }
}

impl Drop for Running {
    /// Ends it with all that it has started, and waits until they are gone: nothing of it is to run while the next one is measured.
    fn drop(&mut self) {
        let group = Pid::from_raw(self.pid().cast_signed());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        if let Err(error) = await_that("what it has started is still there", || killpg(group, None).is_err()) {
            eprintln!("bench.sh: {error}");
        }
    }
}

/// Looks again and again whether something has come about.
fn await_that(otherwise: &str, mut has_come: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !has_come() {
        if start.elapsed() > Duration::from_secs(5) {
            return Err(otherwise.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
