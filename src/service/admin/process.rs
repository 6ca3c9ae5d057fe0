//! Facts about the own process from proc(5), for metrics.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use crate::sys::{limits, system};

/// Facts about the process. The names are the standard names of Prometheus.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) cpu_seconds: f64,
    pub(super) start_time_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    /// Unknown before Linux 6.2, where it would have to be counted.
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

/// The files that the facts are read from. They are opened once, so that a process that has given up rights can still read them.
#[derive(Debug)]
pub(super) struct Process {
    stat: File,
    descriptors: File,
    ticks: f64,
    max_fds: Option<u64>,
    page_bytes: u64,
    boot_seconds: f64,
}

impl Process {
    /// Opens the files.
    ///
    /// # Errors
    /// Returns the errors of open(2): without proc(5) there are no facts.
    pub(super) fn open() -> io::Result<Self> {
        // Not from /proc/stat: with ProcSubset=pid (systemd.exec(5)) there is none.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
        let boot_seconds = now.as_secs_f64() - system::time_since_boot()?.as_secs_f64();
        Ok(Self {
            stat: File::open("/proc/self/stat")?,
            descriptors: File::open("/proc/self/fd")?,
            ticks: system::ticks_per_second()? as f64,
            max_fds: limits::descriptors().ok().map(|limit| limit.soft),
            page_bytes: system::page_bytes()?,
            boot_seconds,
        })
    }

    /// Reads the facts, with pread(2) and statx(2) on files that are open.
    ///
    /// # Errors
    /// Returns the error of read(2), or `InvalidData`.
    pub(super) fn read(&self) -> io::Result<Facts> {
        let mut text = [0; 1024];
        let count = self.stat.read_at(&mut text, 0)?;
        let text = str::from_utf8(&text[..count]).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut facts = self.parse(text).ok_or(io::ErrorKind::InvalidData)?;
        // The size is the number of descriptors since Linux 6.2, and 0 before (proc(5)).
        facts.open_fds = self.descriptors.metadata().ok().map(|metadata| metadata.len()).filter(|&count| count > 0);
        Ok(facts)
    }

    /// Reads `/proc/self/stat` (proc(5)). The name of the process, in parentheses, may contain anything.
    fn parse(&self, stat: &str) -> Option<Facts> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok(); // the first of them has the number 3
        Some(Facts {
            cpu_seconds: (number(14)? + number(15)?) as f64 / self.ticks,
            start_time_seconds: self.boot_seconds + number(22)? as f64 / self.ticks,
            virtual_bytes: number(23)?,
            resident_bytes: number(24)? * self.page_bytes,
            open_fds: None,
            max_fds: self.max_fds,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_facts_are_those_of_this_process() {
        let process = Process::open().expect("proc(5)");
        let facts = process.read().expect("proc(5)");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!((facts.start_time_seconds - now).abs() < 3_600.0, "{facts:?}");
        assert!(facts.resident_bytes > 100_000 && facts.virtual_bytes > facts.resident_bytes, "{facts:?}");
        assert!(facts.open_fds.is_none_or(|count| count >= 3 && Some(count) < facts.max_fds), "{facts:?}");
    }

    #[test]
    fn the_clocks_tell_the_time_of_the_boot_that_proc_tells() {
        let stat = fs::read_to_string("/proc/stat").expect("proc(5)");
        let boot: f64 = stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).expect("a number");
        let process = Process::open().expect("proc(5)");
        assert!((process.boot_seconds - boot).abs() < 10.0, "{} {boot}", process.boot_seconds);
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_no_field() {
        let process = Process::open().expect("proc(5)");
        let rest = "S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 2048 3 0";
        let facts = process.parse(&format!("7 (a) b (c) {rest}")).expect("a line of proc(5)");
        assert_eq!((facts.cpu_seconds, facts.virtual_bytes), (300.0 / process.ticks, 2048));
        assert_eq!(process.parse("7 (edgecho) S 1"), None);
    }
}
