//! Thin wrappers over the system calls that the server is made of: one file a kernel object, one function a system call.
//!
//! A wrapper takes and gives owned or borrowed descriptors and typed flags, makes exactly one system call, and decides
//! nothing: no retry at `EINTR`, no default, no fallback. What a result means is the business of the layers above. Signal
//! masks, signalfd(2), unshare(2) and resource limits come from the `nix` crate; the rest goes to `libc`.
//!
//! All `unsafe` code of the crate is in this folder. What each block relies on stands above it.

pub mod address;
pub mod epoll;
pub mod eventfd;
pub mod limits;
pub mod signal;
pub mod socket;
pub mod thread;

use std::io;

/// The result of a system call that returns an `int`: -1 stands for the error in `errno` (intro(2)).
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The result of a system call that returns a count of bytes, or -1 for the error in `errno`.
fn check_count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
