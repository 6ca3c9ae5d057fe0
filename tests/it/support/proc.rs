//! Facts about a process from proc(5).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

fn read(pid: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).expect("the process is running")
}

/// Returns a field of `status`, or none if the process has ended.
pub fn status_field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.split_whitespace().next()?.to_owned())
}

fn number(pid: u32, name: &str) -> u64 {
    status_field(pid, name).expect("the process is running").parse().expect("a number")
}

/// Returns the resident memory in bytes.
pub fn rss_bytes(pid: u32) -> u64 {
    number(pid, "VmRSS") * 1024
}

/// Returns the highest resident memory until now, in bytes.
pub fn peak_rss_bytes(pid: u32) -> u64 {
    number(pid, "VmHWM") * 1024
}

/// Returns the size of the address space in bytes.
pub fn address_space_bytes(pid: u32) -> u64 {
    number(pid, "VmSize") * 1024
}

/// Returns how often the process has gone to sleep.
pub fn sleeps(pid: u32) -> u64 {
    number(pid, "voluntary_ctxt_switches")
}

/// Returns the process that traces it, or 0.
pub fn tracer(pid: u32) -> u32 {
    number(pid, "TracerPid") as u32
}

/// Returns the state of the first thread: `S` is asleep, which a server is in epoll_wait(2) only; `T` is stopped; `t` is stopped
/// by a tracer.
pub fn state(pid: u32) -> char {
    let stat = read(pid, "stat");
    let (_, rest) = stat.rsplit_once(')').expect("proc(5)");
    rest.trim_start().chars().next().expect("a state")
}

/// Returns the time that the first thread has had a CPU.
pub fn cpu_time(pid: u32) -> Duration {
    let schedstat = read(pid, "schedstat");
    Duration::from_nanos(schedstat.split(' ').next().expect("proc(5)").parse().expect("nanoseconds"))
}

/// Returns how many open descriptors are below `limit`.
pub fn descriptors_below(pid: u32, limit: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is running");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|&number| number < limit).count()
}

/// Returns the child of a process that has one child, or none as long as it has none.
pub fn only_child(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.trim().parse().ok()
}

/// Returns whether a process has ended, even if its parent has not waited for it yet.
pub fn has_ended(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z')))
}

/// Returns whether a process has a handler for a signal.
pub fn catches(pid: u32, signal: Signal) -> bool {
    let set = status_field(pid, "SigCgt").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> (signal as u32 - 1) & 1 == 1)
}

/// Returns the folders of a process's threads.
pub fn threads(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks.filter_map(|task| Some(task.ok()?.path())).collect()
}

/// Returns a field of each thread's `status`, with one space between its words.
pub fn thread_fields(pid: u32, name: &str) -> Vec<String> {
    let value = |status: String| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the field");
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let threads = threads(pid).into_iter().filter_map(|thread| fs::read_to_string(thread.join("status")).ok());
    threads.map(value).collect()
}

/// Returns whether each thread has a tracer.
pub fn are_all_traced(pid: u32) -> bool {
    threads(pid).iter().all(|thread| {
        let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}

/// Returns the CPU time of all threads of a process and how often they have gone to sleep, or none when it has ended.
pub fn work_of_all_threads(pid: u32) -> Option<(Duration, u64)> {
    let (mut cpu, mut sleeps) = (Duration::ZERO, 0);
    for thread in threads(pid) {
        let schedstat = fs::read_to_string(thread.join("schedstat")).ok()?;
        cpu += Duration::from_nanos(schedstat.split(' ').next()?.parse().ok()?);
        let status = fs::read_to_string(thread.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        sleeps += line.trim().parse::<u64>().ok()?;
    }
    Some((cpu, sleeps))
}
