//! epoll(7): one descriptor that says which others are ready.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::check;

bitflags::bitflags! {
    /// What to be told of a descriptor, and what was told: the `events` of epoll_ctl(2). Bits without a name here are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct EpollFlags: u32 {
        /// There is something to read: bytes, a connection to accept, or the end of the stream.
        const IN = libc::EPOLLIN as u32;
        /// There is room to write.
        const OUT = libc::EPOLLOUT as u32;
        /// There is urgent data on the stream (tcp(7)).
        const PRI = libc::EPOLLPRI as u32;
        /// The peer has shut down its writing half. Linux 2.6.17.
        const RDHUP = libc::EPOLLRDHUP as u32;
        /// An error is pending. Always reported, asked for or not.
        const ERR = libc::EPOLLERR as u32;
        /// Both halves are shut down. Always reported, asked for or not.
        const HUP = libc::EPOLLHUP as u32;
        /// Tell of changes only, not of states: edge-triggered.
        const ET = libc::EPOLLET as u32;

        const _ = !0;
    }
}

bitflags::bitflags! {
    /// Flags of [`create`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CreateFlags: i32 {
        /// Close the descriptor at execve(2).
        const CLOEXEC = libc::EPOLL_CLOEXEC;

        const _ = !0;
    }
}

/// One `struct epoll_event`: some flags, and the number that was registered with the descriptor.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// An event that says nothing: filler for a buffer that the kernel will write to.
    pub const EMPTY: Self = Self(libc::epoll_event { events: 0, u64: 0 });

    /// An event as the kernel would write it.
    #[must_use]
    pub const fn new(flags: EpollFlags, data: u64) -> Self {
        Self(libc::epoll_event { events: flags.bits(), u64: data })
    }

    /// What happened.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> EpollFlags {
        EpollFlags::from_bits_retain(self.0.events)
    }

    /// The number given to [`add`] or [`modify`].
    #[inline]
    #[must_use]
    pub fn data(&self) -> u64 {
        self.0.u64
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event").field("flags", &self.flags()).field("data", &self.data()).finish()
    }
}

/// epoll_create1(2): a new epoll instance.
///
/// # Errors
/// `EMFILE`, `ENFILE`: out of descriptors, here or in the whole system. `ENOMEM`: out of kernel memory.
pub fn create(flags: CreateFlags) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(flags.bits()) })?;
    // SAFETY: the kernel has just made `fd` for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// epoll_ctl(2), `EPOLL_CTL_ADD`: tell of `flags` on `fd` from now on, each time with `data`.
///
/// There is no counterpart for removal: close(2) on the last descriptor of a file removes it (epoll(7)).
///
/// # Errors
/// `EEXIST`: it is registered. `ENOSPC`: the user's `max_user_watches` is reached. `ENOMEM`. `EPERM`: it is a regular file.
pub fn add(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, flags, data)
}

/// epoll_ctl(2), `EPOLL_CTL_MOD`: tell of `flags` instead of what was asked for before.
///
/// What is already ready makes an event at once, on an edge-triggered registration too.
///
/// # Errors
/// `ENOENT`: it is not registered. `ENOMEM`.
pub fn modify(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_MOD, fd, flags, data)
}

fn control(epoll: BorrowedFd<'_>, operation: i32, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: flags.bits(), u64: data };
    // SAFETY: both descriptors are open for as long as they are borrowed, and `event` outlives the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) })?;
    Ok(())
}

/// epoll_wait(2): waits until there is an event, `timeout_ms` milliseconds have gone by, or a signal handler has run. Gives
/// how many of `events`, from the first on, were filled. -1 milliseconds is for ever, 0 is not at all.
///
/// # Errors
/// `EINTR`: a signal, or SIGSTOP and SIGCONT (signal(7)), came first. `EINVAL`: `events` is empty.
#[inline]
pub fn wait(epoll: BorrowedFd<'_>, events: &mut [Event], timeout_ms: i32) -> io::Result<usize> {
    let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: `Event` is a transparent `epoll_event`, and the kernel writes at most `capacity` of them into `events`.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr().cast(), capacity, timeout_ms) };
    check(count).map(|count| count as usize)
}

/// epoll_pwait2(2), without a signal mask: as [`wait`], to the nanosecond. Linux 5.11.
///
/// # Errors
/// `ENOSYS`: the kernel is older than the call. `EINTR`, `EINVAL`: as for [`wait`].
pub fn wait_nanoseconds(epoll: BorrowedFd<'_>, events: &mut [Event], timeout: Duration) -> io::Result<usize> {
    let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
    let seconds = libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX);
    let timeout = libc::timespec { tv_sec: seconds, tv_nsec: timeout.subsec_nanos().into() };
    let (fd, buffer) = (epoll.as_raw_fd(), events.as_mut_ptr().cast());
    // SAFETY: `Event` is a transparent `epoll_event`, the kernel writes at most `capacity` of them into `events`, `timeout` outlives
    // the call, and no mask is given.
    let count = unsafe { libc::epoll_pwait2(fd, buffer, capacity, &raw const timeout, std::ptr::null()) };
    check(count).map(|count| count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_flags_are_kept() {
        let flags = EpollFlags::from_bits_retain(EpollFlags::IN.bits() | 1 << 20);
        assert_eq!(flags.bits(), libc::EPOLLIN as u32 | 1 << 20);
        assert_eq!(EpollFlags::from_bits_truncate(flags.bits()), flags);
    }
}
