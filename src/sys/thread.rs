//! Resources of one thread: unshare(2) and getrusage(2) through nix, close_range(2) through libc.

use std::io;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::check;

/// CPU time of a thread, with a resolution of a microsecond.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Time in user space.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
}

/// Returns the CPU time that the calling thread has used: getrusage(2), `RUSAGE_THREAD`.
///
/// # Errors
/// None are known for this argument.
pub fn cpu_time() -> io::Result<CpuTime> {
    let duration = |time: TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok(CpuTime { user: duration(usage.user_time()), system: duration(usage.system_time()) })
}

/// Gives the calling thread its own copy of the process's descriptor table: unshare(2), `CLONE_FILES`.
///
/// From then on, descriptors that this thread opens exist only in this thread, the descriptor limit applies to this table alone, and the
/// kernel looks up descriptors without taking a reference on the file.
///
/// # Errors
/// `EMFILE`: more descriptors are open than the limit allows. `ENOMEM`: out of kernel memory.
pub fn unshare_descriptors() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_FILES)?)
}

/// Gives the calling thread its own descriptor table, and closes every descriptor from `first` to `last` in it: close_range(2),
/// `CLOSE_RANGE_UNSHARE`. Other threads keep their descriptors.
///
/// If this thread owns one of the closed descriptors, for example as an `OwnedFd`, it must forget that value: when it is dropped, its
/// number may name another descriptor.
///
/// # Errors
/// `ENOSYS`: the kernel is older than Linux 5.9. `EMFILE`: more descriptors are open than the limit allows. `ENOMEM`: out of kernel
/// memory. `EINVAL`: `first` is greater than `last`.
pub fn unshare_and_close(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only, and closes no descriptor of another thread.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_UNSHARE) } as libc::c_int)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn a_descriptor_closed_in_one_threads_table_stays_open_in_the_others() {
        let file = File::open("/dev/null").expect("/dev/null exists");
        let number = file.as_raw_fd() as u32;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if unshare_and_close(number, number).is_ok() {
                    assert!(file.as_fd().try_clone_to_owned().is_err(), "closed in this thread");
                }
            });
        });
        assert!(file.as_fd().try_clone_to_owned().is_ok(), "open in the other thread");
    }
}
