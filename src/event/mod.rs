//! An event loop: readiness (epoll(7)), deadlines and signals (signalfd(2)). It knows nothing about sockets or echo.

mod deadlines;
mod signals;
mod token;
mod wheel;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub use deadlines::Deadlines;
pub use signals::Signals;
pub use token::{Name, Token};
pub use wheel::Wheel;

use crate::sys::epoll::{self, CreateFlags, EpollFlags, Event};

/// The limit of a wait, for [`EventLoop::wait`].
///
/// ```
/// use std::time::Instant;
///
/// use edgecho::event::Wait;
///
/// assert_eq!(Wait::until(None), Wait::Forever);
/// let now = Instant::now();
/// assert_eq!(Wait::until(Some(now)), Wait::Until(now));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Do not wait; only collect the events that are ready.
    Poll,
    /// Wait until this time, rounded up to a millisecond. Rounded down, the loop would wake early and spin.
    Until(Instant),
    /// Wait without limit.
    Forever,
}

impl Wait {
    /// Waits until `deadline`, or without limit if there is none.
    #[must_use]
    pub fn until(deadline: Option<Instant>) -> Self {
        deadline.map_or(Self::Forever, Self::Until)
    }

    /// Converts to the timeout of epoll_wait(2), where -1 means no limit. The maximum is about 24 days; a longer wait wakes once more.
    #[inline]
    fn to_millis(self) -> i32 {
        match self {
            Self::Poll => 0,
            Self::Forever => -1,
            Self::Until(at) => round_up(at.saturating_duration_since(Instant::now())),
        }
    }
}

/// Converts to whole milliseconds, rounded up.
fn round_up(duration: Duration) -> i32 {
    i32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Converts to whole milliseconds, rounded down.
fn round_down(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// A buffer of events, filled by [`EventLoop::wait`].
#[derive(Debug)]
pub struct Events {
    buffer: Box<[Event]>,
    count: usize,
}

impl Events {
    /// Creates a buffer for `capacity` events, at least one. The kernel keeps further events for the next wait, in order (epoll(7)).
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: vec![Event::EMPTY; capacity.max(1)].into_boxed_slice(), count: 0 }
    }

    /// Replaces the events, up to the capacity, for a test that simulates the kernel.
    #[doc(hidden)]
    pub fn fill(&mut self, events: impl IntoIterator<Item = (Token, EpollFlags)>) {
        self.count = 0;
        for (slot, (token, flags)) in self.buffer.iter_mut().zip(events) {
            *slot = Event::new(flags, token.into_raw());
            self.count += 1;
        }
    }

    /// Returns the number of events.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there is no event: the wait reached its limit, or a signal interrupted it.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the events, each with the token of its descriptor.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (Token, EpollFlags)> + '_ {
        self.buffer[..self.count].iter().map(|event| (Token::from_raw(event.data()), event.flags()))
    }
}

/// An epoll instance.
///
/// ```
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
///
/// use edgecho::event::{EventLoop, Events, Token, Wait};
/// use edgecho::sys::epoll::EpollFlags;
///
/// let (mut near, far) = UnixStream::pair()?;
/// let event_loop = EventLoop::new()?;
/// event_loop.watch(&far, Token::fixed(1), EpollFlags::IN)?;
/// near.write_all(b"hello")?;
///
/// let mut events = Events::with_capacity(64);
/// event_loop.wait(&mut events, Wait::Forever)?;
/// assert_eq!(events.iter().collect::<Vec<_>>(), [(Token::fixed(1), EpollFlags::IN)]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct EventLoop {
    epoll: OwnedFd,
}

impl EventLoop {
    /// Creates a loop that watches no descriptors.
    ///
    /// # Errors
    /// Those of [`epoll::create`].
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Watches `fd` for `interest`, edge-triggered (epoll(7)). The kernel reports each change once, so the owner must remember it until a call
    /// returns `EAGAIN` or a short count. Closing the descriptor ends the watch.
    ///
    /// # Errors
    /// Those of [`epoll::add`].
    pub fn watch(&self, fd: impl AsFd, token: Token, interest: EpollFlags) -> io::Result<()> {
        epoll::add(self.epoll.as_fd(), fd.as_fd(), interest | EpollFlags::ET, token.into_raw())
    }

    /// Replaces the interest in a watched `fd`. If it is ready already, the next wait reports that again.
    ///
    /// # Errors
    /// Those of [`epoll::modify`].
    pub fn rewatch(&self, fd: impl AsFd, token: Token, interest: EpollFlags) -> io::Result<()> {
        epoll::modify(self.epoll.as_fd(), fd.as_fd(), interest | EpollFlags::ET, token.into_raw())
    }

    /// Stops watching `fd`. Needed only if another process shares the open file: the kernel would go on to report its events after the
    /// descriptor is closed (epoll(7)).
    ///
    /// # Errors
    /// Those of [`epoll::remove`].
    pub fn unwatch(&self, fd: impl AsFd) -> io::Result<()> {
        epoll::remove(self.epoll.as_fd(), fd.as_fd())
    }

    /// Waits for events, and stores them in `events`. Stores none if the wait reaches its limit, or if a signal interrupts it.
    ///
    /// # Errors
    /// Those of epoll_wait(2), except `EINTR`. They mean a defect in this crate.
    #[inline]
    pub fn wait(&self, events: &mut Events, wait: Wait) -> io::Result<()> {
        events.count = 0;
        match epoll::wait(self.epoll.as_fd(), &mut events.buffer, wait.to_millis()) {
            Ok(count) => events.count = count,
            // SIGSTOP and SIGCONT interrupt a wait even without a handler (signal(7)). The caller waits again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits as [`wait`](Self::wait) does, but up to `duration` with the precision of the system's timers, for callers that send on a schedule.
    /// Before Linux 5.11, `duration` is rounded down to milliseconds, and the caller waits again for the rest.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_exactly(&self, events: &mut Events, duration: Duration) -> io::Result<()> {
        events.count = 0;
        let result = match epoll::wait_nanoseconds(self.epoll.as_fd(), &mut events.buffer, duration) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                epoll::wait(self.epoll.as_fd(), &mut events.buffer, round_down(duration))
            }
            result => result,
        };
        match result {
            Ok(count) => events.count = count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl AsFd for EventLoop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_rounded_up_so_that_a_wait_never_spins() {
        assert_eq!(round_up(Duration::ZERO), 0);
        assert_eq!(round_up(Duration::from_nanos(1)), 1);
        assert_eq!(round_up(Duration::from_millis(7)), 7);
        assert_eq!(round_up(Duration::from_micros(7_001)), 8);
        assert_eq!(round_up(Duration::MAX), i32::MAX);
    }

    #[test]
    fn a_deadline_in_the_past_does_not_wait() {
        assert_eq!(Wait::Until(Instant::now()).to_millis(), 0);
        assert_eq!(Wait::until(None).to_millis(), -1);
        assert_eq!(Wait::Poll.to_millis(), 0);
    }

    #[test]
    fn an_exact_wait_is_not_rounded_to_milliseconds() {
        let event_loop = EventLoop::new().expect("epoll");
        let mut events = Events::with_capacity(1);
        let start = Instant::now();
        let waits = 50;
        for _ in 0..waits {
            event_loop.wait_exactly(&mut events, Duration::from_micros(10)).expect("wait");
        }
        assert!(start.elapsed() >= waits * Duration::from_micros(10), "the wait ended early");
        assert_eq!(round_down(Duration::from_micros(1_999)), 1, "rounded down for a kernel without epoll_pwait2(2)");
    }

    #[test]
    fn an_edge_is_reported_once_and_again_after_a_change() {
        let event_loop = EventLoop::new().expect("epoll");
        let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        let token = Token::fixed(7);
        event_loop.watch(&near, token, EpollFlags::IN).expect("watch");

        let mut events = Events::with_capacity(8);
        let mut heard = |wait| {
            event_loop.wait(&mut events, wait).expect("wait");
            events.iter().collect::<Vec<_>>()
        };
        assert_eq!(heard(Wait::Poll), []);
        std::io::Write::write_all(&mut &far, b"x").expect("write");
        assert_eq!(heard(Wait::Forever), [(token, EpollFlags::IN)]);
        assert_eq!(heard(Wait::Poll), []);

        event_loop.rewatch(&near, token, EpollFlags::IN | EpollFlags::OUT).expect("rewatch");
        assert_eq!(heard(Wait::Forever), [(token, EpollFlags::IN | EpollFlags::OUT)]);
        drop(near);
        assert_eq!(heard(Wait::Poll), []);
    }
}
