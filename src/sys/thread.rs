//! Resources of a single thread: unshare(2), close_range(2), getrusage(2). nix makes the calls but for one.

use std::io;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::check;

/// CPU time that a thread has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user space.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

/// getrusage(2), `RUSAGE_THREAD`: the CPU time that the calling thread has used.
///
/// # Errors
/// None that this argument could bring about.
pub fn cpu_time() -> io::Result<CpuTime> {
    let duration = |time: TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok(CpuTime { user: duration(usage.user_time()), system: duration(usage.system_time()) })
}

/// unshare(2), `CLONE_FILES`: gives this thread a descriptor table of its own, a copy of the one that it shared with the others of
/// its process. What is opened from here on is this thread's alone, the limit on descriptors counts for it alone, and the kernel
/// looks up a descriptor without locking.
///
/// # Errors
/// `EMFILE`: more descriptors are open than the limit allows. `ENOMEM`: out of kernel memory.
pub fn unshare_descriptors() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_FILES)?)
}

/// close_range(2), `CLOSE_RANGE_UNSHARE`: gives this thread a descriptor table of its own, unless it has one, and closes in it every
/// descriptor from `first` to `last`. Those that other threads share stay open for them. A value of this thread that owns one of them, such as an
/// `OwnedFd`, must be forgotten: its number may name another descriptor by the time it is dropped.
///
/// # Errors
/// `ENOSYS`: before Linux 5.9. `EMFILE`: more descriptors are open than the limit allows. `ENOMEM`: out of kernel memory. `EINVAL`:
/// `first` is greater than `last`.
pub fn unshare_and_close(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only. No descriptor of another thread is closed.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_UNSHARE) } as libc::c_int)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn what_a_thread_closes_in_its_own_table_stays_open_for_the_others() {
        let file = File::open("/dev/null").expect("it is always there");
        let number = file.as_raw_fd() as u32;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if unshare_and_close(number, number).is_ok() {
                    assert!(file.as_fd().try_clone_to_owned().is_err(), "closed here");
                }
            });
        });
        assert!(file.as_fd().try_clone_to_owned().is_ok(), "open there");
    }
}
