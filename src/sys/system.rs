//! Facts about the system: sysconf(3), clock_gettime(2).

use std::io;
use std::time::Duration;

use super::{check, check_count};

/// Returns the clock ticks of a second, in which proc(5) gives times: sysconf(3), `_SC_CLK_TCK`.
///
/// # Errors
/// None are known for this name.
pub fn ticks_per_second() -> io::Result<u64> {
    // SAFETY: the call takes a number only.
    check_count(unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as libc::ssize_t).map(|ticks| ticks as u64)
}

/// Returns the size of a page of memory, in bytes: sysconf(3), `_SC_PAGESIZE`.
///
/// # Errors
/// None are known for this name.
pub fn page_bytes() -> io::Result<u64> {
    // SAFETY: the call takes a number only.
    check_count(unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as libc::ssize_t).map(|bytes| bytes as u64)
}

/// Returns the time since the system was started, with the time for which it was suspended: clock_gettime(2), `CLOCK_BOOTTIME`. In a time
/// namespace it is the time of that namespace, as the times of proc(5) are (time_namespaces(7)).
///
/// # Errors
/// None are known for this clock.
pub fn time_since_boot() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, and `time` outlives the call.
    check(unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_has_ticks_and_pages() {
        assert!(ticks_per_second().expect("sysconf") >= 100);
        assert!(page_bytes().expect("sysconf").is_power_of_two());
    }

    #[test]
    fn the_time_since_the_boot_is_that_of_proc() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("proc(5)");
        let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        assert!((time_since_boot().expect("clock_gettime").as_secs_f64() - seconds).abs() < 10.0, "{uptime}");
    }
}
