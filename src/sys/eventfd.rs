//! eventfd(2): a counter that one thread raises and another hears of through epoll.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{check, check_count};

bitflags::bitflags! {
    /// Flags of [`create`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct EventFdFlags: i32 {
        /// No call on it ever blocks.
        const NONBLOCK = libc::EFD_NONBLOCK;
        /// Close it at execve(2).
        const CLOEXEC = libc::EFD_CLOEXEC;

        const _ = !0;
    }
}

/// eventfd2(2): a new counter, at 0.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`: out of resources.
pub fn create(flags: EventFdFlags) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = check(unsafe { libc::eventfd(0, flags.bits()) })?;
    // SAFETY: the kernel has just made `fd` for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// write(2) on an eventfd: raises the counter by one, which makes an event for who watches it.
///
/// # Errors
/// `EAGAIN`: it stands at its highest value, and whoever watches it has long been told.
pub fn raise(fd: BorrowedFd<'_>) -> io::Result<()> {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the kernel reads the 8 bytes of `one`, which outlive the call.
    check_count(unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) })?;
    Ok(())
}

/// read(2) on an eventfd: gives the counter, and sets it to 0.
///
/// # Errors
/// `EAGAIN`: it is 0.
pub fn take(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut count = [0; size_of::<u64>()];
    // SAFETY: the kernel writes at most 8 bytes, which `count` has room for.
    check_count(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) })?;
    Ok(u64::from_ne_bytes(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_raised_is_taken_once() {
        let fd = create(EventFdFlags::NONBLOCK | EventFdFlags::CLOEXEC).expect("eventfd");
        assert_eq!(take(fd.as_fd()).expect_err("it is 0").kind(), io::ErrorKind::WouldBlock);
        raise(fd.as_fd()).expect("write");
        raise(fd.as_fd()).expect("write");
        assert_eq!(take(fd.as_fd()).expect("read"), 2);
        assert!(take(fd.as_fd()).is_err());
    }
}
