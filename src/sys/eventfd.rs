//! An eventfd: a counter that one thread increments and another watches through epoll (eventfd(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{check, check_count};

bitflags::bitflags! {
    /// Flags for [`create`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct EventFdFlags: i32 {
        /// No call on the descriptor blocks.
        const NONBLOCK = libc::EFD_NONBLOCK;
        /// Close the descriptor on execve(2).
        const CLOEXEC = libc::EFD_CLOEXEC;

        const _ = !0;
    }
}

/// Creates a counter with the value 0: eventfd2(2).
///
/// # Errors
/// `EMFILE`, `ENFILE`: the process or the system is out of descriptors. `ENOMEM`: out of kernel memory.
pub fn create(flags: EventFdFlags) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = check(unsafe { libc::eventfd(0, flags.bits()) })?;
    // SAFETY: the kernel has just created `fd`, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Increments the counter, which makes the descriptor readable: write(2).
///
/// # Errors
/// `EAGAIN`: the counter is at its maximum of 2^64 - 2. The descriptor is readable already.
pub fn raise(fd: BorrowedFd<'_>) -> io::Result<()> {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the kernel reads the 8 bytes of `one`, which outlive the call.
    check_count(unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) })?;
    Ok(())
}

/// Returns the value of the counter and resets it to 0: read(2).
///
/// # Errors
/// `EAGAIN`: the counter is 0.
pub fn take(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut count = [0; size_of::<u64>()];
    // SAFETY: the kernel writes at most 8 bytes, the size of `count`.
    check_count(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) })?;
    Ok(u64::from_ne_bytes(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_counter_is_taken_once() {
        let fd = create(EventFdFlags::NONBLOCK | EventFdFlags::CLOEXEC).expect("eventfd");
        assert_eq!(take(fd.as_fd()).expect_err("the counter is 0").kind(), io::ErrorKind::WouldBlock);
        raise(fd.as_fd()).expect("write");
        raise(fd.as_fd()).expect("write");
        assert_eq!(take(fd.as_fd()).expect("read"), 2);
        assert!(take(fd.as_fd()).is_err());
    }
}
