//! Signals as events of the loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::signal::{self, Signal};

/// A set of blocked signals, and a signalfd(2) from which they are read.
///
/// Create it before any thread starts: the kernel delivers a signal of the process to any thread that does not block it (signal(7)).
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
    /// Blocks `signals` in the calling thread, and creates a descriptor from which to read them.
    ///
    /// # Errors
    /// Those of [`signal::signalfd`].
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        signal::block(signals)?;
        Ok(Self { fd: signal::signalfd(signals)? })
    }

    /// Returns the number of the next pending signal, if any. Call it until it returns `None`: the loop reports an edge once.
    ///
    /// # Errors
    /// Those of read(2), except `EAGAIN` and `EINTR`. They mean a defect in this crate.
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

    /// Sends SIGWINCH to this thread alone. Its default action is to be ignored, so other threads of the test runner are safe.
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
