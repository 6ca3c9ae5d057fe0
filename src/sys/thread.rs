//! What a thread has for itself: unshare(2), close_range(2), getrusage(2). nix makes the calls but for one.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

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

/// close_range(2), `CLOSE_RANGE_UNSHARE`: gives this thread a descriptor table of its own, with a copy of the descriptors below `first`
/// only. Unlike [`unshare_descriptors`], it never holds the others open, not even for a moment.
///
/// # Errors
/// `ENOSYS`: a kernel before 5.9. `EPERM`: a seccomp filter does not know the call. `ENOMEM`: out of kernel memory.
pub fn keep_descriptors_below(first: RawFd) -> io::Result<()> {
    let (first, last) = (first as libc::c_uint, libc::c_uint::MAX);
    // SAFETY: what this thread has in its table is closed for no other thread. A value that owns a descriptor belongs to the thread
    // that opened it, and is not used in this one: the caller's part, as after unshare(2).
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_UNSHARE) };
    super::check(result as libc::c_int)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_thread_that_keeps_the_standard_streams_leaves_the_others_alone() {
        let file = fs::File::open("/dev/null").expect("/dev/null");
        let number = file.as_raw_fd().to_string();
        let of_thread = std::thread::spawn(|| {
            keep_descriptors_below(3)?;
            // The directory itself is open while it is read.
            let entries = fs::read_dir("/proc/thread-self/fd")?;
            entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
        });
        match of_thread.join().expect("no panic") {
            Ok(names) => assert!(names.len() <= 4, "{names:?}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}"),
        }
        assert!(fs::exists(format!("/proc/thread-self/fd/{number}")).expect("proc(5)"));
        assert!(file.metadata().is_ok());
    }
}
