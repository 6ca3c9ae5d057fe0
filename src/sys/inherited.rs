//! Descriptors that the parent process has passed on: fcntl(2).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use super::check;

/// The numbers that were found. The parent process has passed on each number once.
static FOUND: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// A descriptor that was open when this program started, and has no owner yet. No other value has the same number.
///
/// The proof is its flag: a descriptor with `FD_CLOEXEC` does not survive execve(2). The Rust library and this crate open all descriptors with that
/// flag, and [`take`](Self::take) sets it. A program that opens descriptors without it must not look for inherited ones among them.
#[derive(Debug)]
pub(crate) struct Inherited {
    number: RawFd,
}

impl Inherited {
    /// Finds a descriptor by its number, once: fcntl(2), `F_GETFD`. Returns `None` if it was found before, if it has `FD_CLOEXEC`, since this process
    /// has opened it then, and for a standard stream (0, 1, 2), which belongs to the Rust library.
    ///
    /// # Errors
    /// `EBADF`: no descriptor with this number is open.
    pub(crate) fn find(number: RawFd) -> io::Result<Option<Self>> {
        // SAFETY: the call takes no pointer.
        let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
        let is_candidate = number > libc::STDERR_FILENO && flags & libc::FD_CLOEXEC == 0;
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((is_candidate && found.insert(number)).then_some(Self { number }))
    }

    /// Takes ownership, and sets `FD_CLOEXEC`: fcntl(2), `F_SETFD`.
    ///
    /// # Errors
    /// `EBADF`: the descriptor was closed meanwhile.
    pub(crate) fn take(self) -> io::Result<OwnedFd> {
        // SAFETY: the call takes no pointer.
        check(unsafe { libc::fcntl(self.number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        // SAFETY: the descriptor is open, and nothing else owns it. It was open without FD_CLOEXEC, so it has come from the parent process (see
        // above). It is no standard stream. `find` returns a number once, and `take` consumes it, so there is no other `OwnedFd` for it.
        Ok(unsafe { OwnedFd::from_raw_fd(self.number) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_descriptor_of_this_process_is_not_inherited() {
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert!(Inherited::find(file.as_raw_fd()).expect("it is open").is_none());
        let error = Inherited::find(1_000_000).expect_err("it is not open");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn the_standard_streams_are_not_inherited() {
        for number in 0..=2 {
            assert!(Inherited::find(number).is_ok_and(|found| found.is_none()), "{number}");
        }
    }

    #[test]
    fn a_descriptor_is_found_once() {
        let file = std::fs::File::open("/dev/null").expect("a file");
        // A number that no other test has, without FD_CLOEXEC: as after execve(2).
        // SAFETY: the call takes no pointer.
        let number = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 900) }).expect("a copy");
        let found = Inherited::find(number).expect("it is open").expect("it is inherited");
        assert!(Inherited::find(number).expect("it is open").is_none(), "it has an owner soon");
        let owned = found.take().expect("it is open");
        assert_eq!(owned.as_raw_fd(), number);
        assert!(Inherited::find(number).expect("it is open").is_none(), "it has an owner");
    }
}
