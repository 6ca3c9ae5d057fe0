//! Thin wrappers for the system calls that edgecho makes: one file per kernel object, one function per system call.
//!
//! A wrapper takes and returns owned or borrowed descriptors and typed flags. It makes one system call and decides nothing: no retry on
//! `EINTR`, no default, no fallback. The layers above interpret the result. [`signal::default_action`] is the one exception. The `nix`
//! crate provides signal masks, unshare(2), resource limits, users and groups; all other calls go through `libc`.
//!
//! ```
//! use std::os::fd::AsFd;
//!
//! use edgecho::sys::epoll::{self, CreateFlags, EpollFlags, Event};
//! use edgecho::sys::socket::{self, Domain, MessageFlags, SocketFlags};
//!
//! let any_port = "127.0.0.1:0".parse().expect("an address");
//! let listener = socket::socket(Domain::Ipv4, SocketFlags::CLOEXEC)?;
//! socket::bind(listener.as_fd(), &any_port)?;
//! socket::listen(listener.as_fd(), 16)?;
//! let epoll = epoll::create(CreateFlags::CLOEXEC)?;
//! epoll::add(epoll.as_fd(), listener.as_fd(), EpollFlags::IN | EpollFlags::ET, 1)?;
//!
//! let near = socket::socket(Domain::Ipv4, SocketFlags::CLOEXEC)?;
//! socket::connect(near.as_fd(), &socket::getsockname(listener.as_fd())?)?;
//! let mut events = [Event::EMPTY; 8];
//! assert_eq!(epoll::wait(epoll.as_fd(), &mut events, -1)?, 1);
//! assert_eq!((events[0].flags(), events[0].data()), (EpollFlags::IN, 1));
//!
//! let (far, _) = socket::accept4(listener.as_fd(), SocketFlags::CLOEXEC)?;
//! socket::send(near.as_fd(), b"hello", MessageFlags::NOSIGNAL)?;
//! let mut buffer = [0; 8];
//! assert_eq!(socket::recv(far.as_fd(), &mut buffer, MessageFlags::empty())?, 5);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! All `unsafe` code of the crate is in this folder. The comment above each block states what the block relies on.

#[cfg(feature = "service")]
pub mod credentials;
pub mod epoll;
pub mod eventfd;
pub mod file;
#[cfg(feature = "service")]
pub(crate) mod inherited;
pub mod limits;
pub mod memory;
pub mod pipe;
pub mod signal;
pub mod socket;
pub mod system;
pub mod thread;

use std::io;

/// Converts the result of a system call that returns an `int`. -1 stands for the error in `errno` (intro(2)).
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Converts the result of a system call that returns a byte count. -1 stands for the error in `errno` (intro(2)).
fn check_count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
