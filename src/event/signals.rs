//! Signals that come through the event loop instead of interrupting it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::signal::{self, Signal};

/// A set of blocked signals and the signalfd(2) that they are read from.
///
/// Make it before any thread is started: a thread that does not block them would take them away (signal(7)).
///
/// ```
/// use edgecho::event::Signals;
/// use edgecho::sys::signal::Signal;
///
/// let signals = Signals::new(&[Signal::SIGUSR2])?;
/// assert_eq!(signals.next()?, None);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks `signals` for this thread, and opens a descriptor to read them from.
    ///
    /// # Errors
    /// Those of [`signal::signalfd`].
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        signal::block(signals)?;
        Ok(Self { fd: signal::signalfd(signals)? })
    }

    /// The number of the next signal that has come, or none. To be asked until there is none: the edge is told once.
    ///
    /// # Errors
    /// Those of read(2) that mean a defect here.
    pub fn next(&self) -> io::Result<Option<i32>> {
        loop {
            match signal::read(self.fd.as_fd()) {
                Ok(number) => return Ok(Some(number)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SIGWINCH is ignored by default, so that a thread of the test runner that does not block it comes to no harm; it is sent to
    /// this thread alone.
    #[test]
    fn a_signal_is_read_instead_of_being_delivered() {
        let signals = Signals::new(&[Signal::SIGWINCH]).expect("signalfd");
        assert_eq!(signals.next().expect("read"), None);
        nix::sys::signal::raise(Signal::SIGWINCH.into()).expect("raise");
        assert_eq!(signals.next().expect("read"), Some(Signal::SIGWINCH as i32));
        assert_eq!(signals.next().expect("read"), None);
        assert_eq!(signal::name(Signal::SIGWINCH as i32), "SIGWINCH");
    }
}
