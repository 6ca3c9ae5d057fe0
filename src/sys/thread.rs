//! What a thread has for itself: unshare(2), getrusage(2). nix makes the calls.

use std::io;
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
