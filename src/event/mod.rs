//! The event loop: what is ready, what is due, and which signals came. It knows nothing of sockets or of echo.

mod deadlines;
mod signals;
mod token;
mod wheel;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

pub use deadlines::Deadlines;
pub use signals::Signals;
pub use token::{Name, Token};
pub use wheel::Wheel;

use crate::sys::epoll::{self, CreateFlags, EpollFlags, Event};

/// How long [`EventLoop::wait`] may sleep.
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
    /// Not at all: there is work left, and only what is ready is asked for.
    Poll,
    /// Until this moment, rounded up to a millisecond so that waking early never turns into a spin.
    Until(Instant),
    /// For as long as nothing happens.
    Forever,
}

impl Wait {
    /// Until a deadline if there is one.
    #[must_use]
    pub fn until(deadline: Option<Instant>) -> Self {
        deadline.map_or(Self::Forever, Self::Until)
    }

    /// The timeout as epoll_wait(2) takes it: -1 is for ever. About 24 days at the most; who waits longer wakes up once more.
    fn to_millis(self) -> i32 {
        match self {
            Self::Poll => 0,
            Self::Forever => -1,
            Self::Until(at) => round_up(at.saturating_duration_since(Instant::now())),
        }
    }
}

/// Whole milliseconds, never less than `duration`.
fn round_up(duration: Duration) -> i32 {
    i32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Whole milliseconds, never more than `duration`.
fn round_down(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// What one call of [`EventLoop::wait`] has heard.
#[derive(Debug)]
pub struct Events {
    buffer: Box<[Event]>,
    count: usize,
}

impl Events {
    /// Room for `capacity` events a turn, at least one. What does not fit is told in the next turn, first come, first served.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: vec![Event::EMPTY; capacity.max(1)].into_boxed_slice(), count: 0 }
    }

    /// Replaces what was heard, as far as there is room: for a kernel that is not the real one.
    pub fn fill(&mut self, events: impl IntoIterator<Item = (Token, EpollFlags)>) {
        self.count = 0;
        for (slot, (token, flags)) in self.buffer.iter_mut().zip(events) {
            *slot = Event::new(flags, token.into_raw());
            self.count += 1;
        }
    }

    /// How many events there were.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there was none: the time was up, or a signal interrupted.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What happened, and to which token.
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
    /// A loop that watches nothing yet.
    ///
    /// # Errors
    /// Those of [`epoll::create`].
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Watches `fd` for `interest`, edge-triggered: each change is told once, so the owner has to remember it until a call says
    /// that nothing is left. Closing the descriptor ends the watch.
    ///
    /// # Errors
    /// Those of [`epoll::add`].
    pub fn watch(&self, fd: impl AsFd, token: Token, interest: EpollFlags) -> io::Result<()> {
        epoll::add(self.epoll.as_fd(), fd.as_fd(), interest | EpollFlags::ET, token.into_raw())
    }

    /// Watches for `interest` from now on. What is ready already is told again.
    ///
    /// # Errors
    /// Those of [`epoll::modify`].
    pub fn rewatch(&self, fd: impl AsFd, token: Token, interest: EpollFlags) -> io::Result<()> {
        epoll::modify(self.epoll.as_fd(), fd.as_fd(), interest | EpollFlags::ET, token.into_raw())
    }

    /// Sleeps until something happens, and puts it into `events`: nothing when the time was up or a signal interrupted.
    ///
    /// # Errors
    /// Those of epoll_wait(2) that mean a defect here; `EINTR` is not one.
    #[inline]
    pub fn wait(&self, events: &mut Events, wait: Wait) -> io::Result<()> {
        events.count = 0;
        match epoll::wait(self.epoll.as_fd(), &mut events.buffer, wait.to_millis()) {
            Ok(count) => events.count = count,
            // SIGSTOP and SIGCONT interrupt even where no handler is set (signal(7)). The caller's own loop goes round.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// As [`wait`](Self::wait), for `duration` to the nanosecond, as far as the system's timers go: for who has a schedule to keep.
    /// Before Linux 5.11 it is cut to whole milliseconds, and the caller's own loop goes round for the rest.
    ///
    /// # Errors
    /// As those of [`wait`](Self::wait).
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
    fn a_deadline_that_has_passed_does_not_wait() {
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
        assert!(start.elapsed() >= waits * Duration::from_micros(10), "it came early");
        assert_eq!(round_down(Duration::from_micros(1_999)), 1, "cut, for a kernel that has no such call");
    }

    #[test]
    fn an_edge_is_told_once_and_again_at_a_change() {
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
