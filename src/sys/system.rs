//! Constants of the system: sysconf(3).

use std::io;

use super::check_count;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_has_ticks_and_pages() {
        assert!(ticks_per_second().expect("sysconf") >= 100);
        assert!(page_bytes().expect("sysconf").is_power_of_two());
    }
}
