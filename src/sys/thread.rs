//! What a thread has for itself: unshare(2). nix makes the call.

use std::io;

use nix::sched::{CloneFlags, unshare};

/// unshare(2), `CLONE_FILES`: gives this thread a descriptor table of its own, a copy of the one that it shared with the others of
/// its process. What is opened from here on is this thread's alone, the limit on descriptors counts for it alone, and the kernel
/// looks up a descriptor without locking.
///
/// # Errors
/// `EMFILE`: more descriptors are open than the limit allows. `ENOMEM`: out of kernel memory.
pub fn unshare_descriptors() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_FILES)?)
}
