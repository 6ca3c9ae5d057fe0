//! Descriptors that the parent process has passed on: fcntl(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::check;

/// A descriptor that was open when this program started, and has no owner yet.
///
/// The proof is its flag: a descriptor with `FD_CLOEXEC` does not survive execve(2). The Rust library and this crate open all descriptors with that
/// flag, and [`take`](Self::take) sets it. A program that opens descriptors without it must not look for inherited ones among them.
#[derive(Debug)]
pub struct Inherited {
    number: RawFd,
}

impl Inherited {
    /// Finds a descriptor by its number: fcntl(2), `F_GETFD`. Returns `None` if it has `FD_CLOEXEC`: this process has opened it, or has taken it
    /// before.
    ///
    /// # Errors
    /// `EBADF`: no descriptor with this number is open.
    pub fn find(number: RawFd) -> io::Result<Option<Self>> {
        // SAFETY: the call takes no pointer.
        let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
        Ok((flags & libc::FD_CLOEXEC == 0).then_some(Self { number }))
    }

    /// Takes ownership, and sets `FD_CLOEXEC`: fcntl(2), `F_SETFD`.
    ///
    /// # Errors
    /// `EBADF`: the descriptor was closed meanwhile.
    pub fn take(self) -> io::Result<OwnedFd> {
        // SAFETY: the call takes no pointer.
        check(unsafe { libc::fcntl(self.number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        // SAFETY: the descriptor is open, and nothing else owns it: it has come from the parent process (see above).
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
}
