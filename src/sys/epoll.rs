//! An epoll instance: a descriptor that reports which other descriptors are ready (epoll(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::check;

bitflags::bitflags! {
    /// Event flags, requested and reported: the `events` field of epoll_ctl(2). Unnamed bits are preserved.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct EpollFlags: u32 {
        /// Input is available: bytes, a connection to accept, or the end of the stream.
        const IN = libc::EPOLLIN as u32;
        /// The send buffer has room.
        const OUT = libc::EPOLLOUT as u32;
        /// The stream holds urgent data (tcp(7)).
        const PRI = libc::EPOLLPRI as u32;
        /// The peer has shut down its write side. Since Linux 2.6.17.
        const RDHUP = libc::EPOLLRDHUP as u32;
        /// An error is pending. Reported even if not requested.
        const ERR = libc::EPOLLERR as u32;
        /// Both directions are shut down. Reported even if not requested.
        const HUP = libc::EPOLLHUP as u32;
        /// Edge-triggered: epoll reports changes of readiness, not readiness itself.
        const ET = libc::EPOLLET as u32;

        const _ = !0;
    }
}

bitflags::bitflags! {
    /// Flags for [`create`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CreateFlags: i32 {
        /// Close the descriptor on execve(2).
        const CLOEXEC = libc::EPOLL_CLOEXEC;

        const _ = !0;
    }
}

/// A `struct epoll_event`: event flags, and the number registered with the descriptor.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// An event without flags, to initialise a buffer for [`wait`].
    pub const EMPTY: Self = Self(libc::epoll_event { events: 0, u64: 0 });

    /// Creates an event, as the kernel would write it.
    #[must_use]
    pub const fn new(flags: EpollFlags, data: u64) -> Self {
        Self(libc::epoll_event { events: flags.bits(), u64: data })
    }

    /// Returns the event flags.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> EpollFlags {
        EpollFlags::from_bits_retain(self.0.events)
    }

    /// Returns the number that was passed to [`add`] or [`modify`].
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

/// Creates an epoll instance: epoll_create1(2).
///
/// # Errors
/// `EMFILE`, `ENFILE`: the process or the system is out of descriptors. `ENOMEM`: out of kernel memory.
pub fn create(flags: CreateFlags) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(flags.bits()) })?;
    // SAFETY: the kernel has just created `fd`, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers `fd` for events in `flags`, reported with `data`: epoll_ctl(2), `EPOLL_CTL_ADD`.
///
/// Closing the last descriptor of the open file removes the registration (epoll(7)); [`remove`] does if another process shares the file.
///
/// # Errors
/// `EEXIST`: `fd` is registered already. `ENOSPC`: the user has reached `/proc/sys/fs/epoll/max_user_watches`. `ENOMEM`: out of kernel
/// memory. `EPERM`: `fd` is a regular file or a directory.
pub fn add(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, flags, data)
}

/// Replaces the flags and the data of a registered `fd`: epoll_ctl(2), `EPOLL_CTL_MOD`.
///
/// If `fd` is ready already, epoll reports an event at once, even for an edge-triggered registration.
///
/// # Errors
/// `ENOENT`: `fd` is not registered. `ENOMEM`: out of kernel memory.
pub fn modify(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_MOD, fd, flags, data)
}

/// Removes the registration of `fd`: epoll_ctl(2), `EPOLL_CTL_DEL`.
///
/// # Errors
/// `ENOENT`: `fd` is not registered.
pub fn remove(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_DEL, fd, EpollFlags::empty(), 0)
}

fn control(epoll: BorrowedFd<'_>, operation: i32, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: flags.bits(), u64: data };
    // SAFETY: both descriptors stay open while they are borrowed, and `event` outlives the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) })?;
    Ok(())
}

/// Waits for an event, for a signal handler to run, or for `timeout_ms` milliseconds: epoll_wait(2). Returns the number of events written
/// to the start of `events`. A timeout of -1 waits without limit, 0 does not wait.
///
/// # Errors
/// `EINTR`: a signal handler ran, or SIGSTOP and SIGCONT interrupted the wait (signal(7)). `EINVAL`: `events` is empty.
#[inline]
pub fn wait(epoll: BorrowedFd<'_>, events: &mut [Event], timeout_ms: i32) -> io::Result<usize> {
    let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: `Event` is a transparent `epoll_event`, and the kernel writes at most `capacity` of them into `events`.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr().cast(), capacity, timeout_ms) };
    check(count).map(|count| count as usize)
}

/// Waits as [`wait`] does, with a timeout in nanoseconds: epoll_pwait2(2) without a signal mask. Since Linux 5.11.
///
/// # Errors
/// `ENOSYS`: the kernel predates the call. `EINTR`, `EINVAL`: as for [`wait`].
pub fn wait_nanoseconds(epoll: BorrowedFd<'_>, events: &mut [Event], timeout: Duration) -> io::Result<usize> {
    let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
    let seconds = libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX);
    let timeout = libc::timespec { tv_sec: seconds, tv_nsec: timeout.subsec_nanos().into() };
    let (fd, buffer) = (epoll.as_raw_fd(), events.as_mut_ptr().cast());
    // SAFETY: `Event` is a transparent `epoll_event`, the kernel writes at most `capacity` of them into `events`, `timeout` outlives
    // the call, and a null mask is allowed.
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
