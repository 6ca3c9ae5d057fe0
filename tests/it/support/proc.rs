//! What the kernel says about a server: proc(5).

use std::fs;
use std::time::Duration;

fn read(pid: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).expect("the server is running")
}

fn status_field(pid: u32, name: &str) -> u64 {
    let status = read(pid, "status");
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a field of proc(5)");
    value.split_whitespace().next().expect("a value").parse().expect("a number")
}

/// Resident memory.
pub fn rss_bytes(pid: u32) -> u64 {
    status_field(pid, "VmRSS") * 1024
}

/// The highest that its resident memory has been.
pub fn peak_rss_bytes(pid: u32) -> u64 {
    status_field(pid, "VmHWM") * 1024
}

/// How often it has gone to sleep.
pub fn sleeps(pid: u32) -> u64 {
    status_field(pid, "voluntary_ctxt_switches")
}

/// The state of its one thread: `S` is asleep, which a server is nowhere but in epoll_wait(2); `T` is stopped; `t` is stopped by
/// a tracer.
pub fn state(pid: u32) -> char {
    let stat = read(pid, "stat");
    let (_, rest) = stat.rsplit_once(')').expect("proc(5)");
    rest.trim_start().chars().next().expect("a state")
}

/// The time that it has had a CPU.
pub fn cpu_time(pid: u32) -> Duration {
    let schedstat = read(pid, "schedstat");
    Duration::from_nanos(schedstat.split(' ').next().expect("proc(5)").parse().expect("nanoseconds"))
}

/// How many descriptors it has open with a number under `limit`.
pub fn descriptors_below(pid: u32, limit: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the server is running");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|&number| number < limit).count()
}

/// Returns its limit on open descriptors.
pub fn descriptor_limit(pid: u32) -> u32 {
    let limits = read(pid, "limits");
    let soft =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("proc(5)").split_whitespace().next();
    soft.expect("a value").parse().expect("a number")
}

/// The process that traces it, or 0.
pub fn tracer(pid: u32) -> u32 {
    status_field(pid, "TracerPid") as u32
}

/// Whether it has ended, though nobody may have asked yet how.
pub fn has_ended(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z')))
}

/// Whether each of its threads has a tracer.
pub fn are_all_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the server is running");
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}
