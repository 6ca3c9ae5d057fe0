//! The policy of accepting: how a listening socket is set up, and what each error of accept4(2) means.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys::socket::{self, Domain, SocketFlags, SocketOption};

/// How many connections may wait in the kernel to be accepted, where `/proc/sys/net/core/somaxconn` allows as many.
const BACKLOG: i32 = 4096;

/// How long accepting pauses at the first error that asks for it; each one that follows doubles the pause, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What to do about an error of accept4(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// The queue is empty. The next connection makes a new edge.
    Wait,
    /// It concerns one connection, which is gone from the queue, or nothing at all: go on with the next at once.
    Retry,
    /// Something has run out. The connection stays in the queue; try again later.
    Pause,
    /// The call itself is wrong, and would fail for ever.
    GiveUp,
}

/// Every error that accept4(2) names, and what is done about it.
///
/// The network's errors are those that were pending on the new socket: "for reliable operation the application should detect
/// the network errors defined for the protocol after accept() and treat them like EAGAIN by retrying" (accept(2), Error
/// handling). An error that is not in the table is treated as a want: it is not known to pass at once, so it must not spin.
const REMEDIES: &[(i32, Remedy)] = &[
    (libc::EAGAIN, Remedy::Wait),
    (libc::ECONNABORTED, Remedy::Retry),
    (libc::EINTR, Remedy::Retry),
    (libc::EPERM, Remedy::Retry), // a firewall rule forbids this one connection
    (libc::EPROTO, Remedy::Retry),
    (libc::ENETDOWN, Remedy::Retry),
    (libc::ENOPROTOOPT, Remedy::Retry),
    (libc::EHOSTDOWN, Remedy::Retry),
    (libc::ENONET, Remedy::Retry),
    (libc::EHOSTUNREACH, Remedy::Retry),
    (libc::EOPNOTSUPP, Remedy::Retry), // the network's: a socket that is not a stream cannot have got here
    (libc::ENETUNREACH, Remedy::Retry),
    (libc::ESOCKTNOSUPPORT, Remedy::Retry),
    (libc::EPROTONOSUPPORT, Remedy::Retry),
    (libc::ETIMEDOUT, Remedy::Retry),
    (libc::EMFILE, Remedy::Pause),
    (libc::ENFILE, Remedy::Pause),
    (libc::ENOBUFS, Remedy::Pause),
    (libc::ENOMEM, Remedy::Pause),
    (libc::ENOSR, Remedy::Pause),
    (libc::EBADF, Remedy::GiveUp),
    (libc::EFAULT, Remedy::GiveUp),
    (libc::EINVAL, Remedy::GiveUp),
    (libc::ENOTSOCK, Remedy::GiveUp),
];

fn remedy(error: &io::Error) -> Remedy {
    let listed = REMEDIES.iter().find(|(errno, _)| error.raw_os_error() == Some(*errno));
    listed.map_or(Remedy::Pause, |&(_, remedy)| remedy)
}

/// What one try to accept has brought.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection, and its peer's address.
    Connection(OwnedFd, SocketAddr),
    /// Nothing: the queue is empty.
    Nothing,
    /// An error that is over with. The queue may hold more.
    Failed(io::Error),
    /// An error that needs time: something has run out, and the connection is still in the queue.
    Exhausted(io::Error),
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    address: SocketAddr,
    pause: Duration,
    paused_until: Option<Instant>,
    /// It stands in the ready queue, so that an edge need not put it there again.
    pub(super) is_queued: bool,
}

impl Listener {
    /// Listens on `address`. What is set on this socket is inherited by all that it accepts, which saves a call for each.
    pub(super) fn bind(address: &SocketAddr) -> io::Result<Self> {
        let fd = socket::socket(Domain::from(address), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        // A restart must not have to wait for the connections of its predecessor to leave TIME_WAIT.
        socket::set_option(fd.as_fd(), SocketOption::REUSEADDR, 1)?;
        // An answer is never held back in the hope of more.
        socket::set_option(fd.as_fd(), SocketOption::NODELAY, 1)?;
        // An urgent byte is a byte of the stream, and is echoed at its place (RFC 6093, 2.1).
        socket::set_option(fd.as_fd(), SocketOption::OOBINLINE, 1)?;
        socket::bind(fd.as_fd(), address)?;
        socket::listen(fd.as_fd(), BACKLOG)?;
        let address = socket::getsockname(fd.as_fd())?;
        Ok(Self { fd, address, pause: Duration::ZERO, paused_until: None, is_queued: false })
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Until when accepting pauses, if it does.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Ends a pause: its time is up, or something has come free.
    pub(super) fn resume(&mut self) {
        self.paused_until = None;
    }

    /// Tries once to accept a connection.
    ///
    /// # Errors
    /// What no further try can mend.
    pub(super) fn accept(&mut self) -> io::Result<Accepted> {
        match socket::accept4(self.fd.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((stream, peer)) => {
                self.pause = Duration::ZERO;
                Ok(Accepted::Connection(stream, peer))
            }
            Err(error) => match remedy(&error) {
                Remedy::Wait => Ok(Accepted::Nothing),
                Remedy::Retry => Ok(Accepted::Failed(error)),
                Remedy::Pause => Ok(Accepted::Exhausted(error)),
                Remedy::GiveUp => Err(error),
            },
        }
    }

    /// Starts a pause at `now`, twice as long as the last one in a row, and gives its end.
    pub(super) fn pause(&mut self, now: Instant) -> Instant {
        self.pause = (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let until = now + self.pause;
        self.paused_until = Some(until);
        until
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_one_place_in_the_table() {
        for (index, (errno, _)) in REMEDIES.iter().enumerate() {
            assert!(!REMEDIES[..index].iter().any(|(earlier, _)| earlier == errno), "errno {errno} stands twice");
        }
        assert_eq!(libc::EAGAIN, libc::EWOULDBLOCK, "the table would need both");
        assert_eq!(remedy(&io::Error::from_raw_os_error(libc::EMFILE)), Remedy::Pause);
        assert_eq!(remedy(&io::Error::from_raw_os_error(libc::EXDEV)), Remedy::Pause, "the unknown must not spin");
    }

    #[test]
    fn a_pause_doubles_to_a_second_and_no_further() {
        let mut listener = Listener::bind(&"127.0.0.1:0".parse().expect("an address")).expect("a listener");
        let mut pauses = Vec::new();
        for _ in 0..9 {
            listener.pause(Instant::now());
            pauses.push(listener.pause.as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    }

    #[test]
    fn what_is_set_on_the_listener_is_inherited_by_what_it_accepts() {
        let mut listener = Listener::bind(&"[::1]:0".parse().expect("an address")).expect("a listener");
        let _client = std::net::TcpStream::connect(listener.address()).expect("connect");
        let Ok(Accepted::Connection(stream, _)) = listener.accept() else { panic!("nobody came") };
        let stream = socket2::SockRef::from(&stream);
        assert!(stream.tcp_nodelay().expect("TCP_NODELAY"));
        assert!(stream.out_of_band_inline().expect("SO_OOBINLINE"));
        assert!(stream.nonblocking().expect("O_NONBLOCK"));
    }

    #[test]
    fn an_empty_queue_is_no_error() {
        let mut listener = Listener::bind(&"127.0.0.1:0".parse().expect("an address")).expect("a listener");
        assert!(matches!(listener.accept(), Ok(Accepted::Nothing)));
        let client = std::net::TcpStream::connect(listener.address()).expect("connect");
        match listener.accept() {
            Ok(Accepted::Connection(_, peer)) => assert_eq!(peer, client.local_addr().expect("an address")),
            other => panic!("{other:?}"),
        }
    }
}
