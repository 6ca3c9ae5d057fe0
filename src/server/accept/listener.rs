//! A listening socket: its options, and the meaning of each error of accept4(2).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use tracing::debug;

use crate::server::config::SocketOptions;
use crate::server::error::Error;
use crate::server::kernel::Kernel;
use crate::server::socket_options;
use crate::sys::socket::{self, Domain, SocketFlags};

/// The pause of accepting after the first error that needs one; each further error doubles it, up to the longest pause.
pub(in crate::server) const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The remedy for an error of accept4(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// The backlog is empty. The next connection makes a new edge.
    Wait,
    /// The error concerns one connection, which is gone from the backlog, or none: go on with the next one at once.
    Retry,
    /// Descriptors or memory have run out. The connection stays in the backlog; try again later.
    Pause,
    /// The call itself is wrong, and would always fail.
    GiveUp,
}

/// The errors that accept4(2) names, and the remedy for each.
///
/// The network's errors are those that were pending on the new socket: "for reliable operation the application should detect
/// the network errors defined for the protocol after accept() and treat them like EAGAIN by retrying" (accept(2), Error
/// handling). An error that is not in the table asks for a pause: it is not known to pass at once, so it must not spin.
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

/// The result of one try to accept.
#[derive(Debug)]
pub(in crate::server) enum Accepted<S> {
    /// A connection, and its peer's address.
    Connection(S, SocketAddr),
    /// Nothing: the backlog is empty.
    Nothing,
    /// An error that concerned one connection. The backlog may hold more.
    Failed(io::Error),
    /// Descriptors or memory have run out. The connection is still in the backlog.
    Exhausted(io::Error),
    /// Another process has shut down the inherited socket, which can accept no more.
    ShutDown(io::Error),
}

/// A listening socket, whose connections are streams of type `S`.
#[derive(Debug)]
pub(in crate::server) struct Listener<L, S> {
    socket: L,
    origin: Origin,
    /// A connection that was accepted and could not be watched. It is the next one to be accepted.
    kept: Option<(S, SocketAddr)>,
    address: SocketAddr,
    pause: Duration,
    paused: Option<Pause>,
    is_queued: bool,
}

/// The opener of a listening socket.
#[derive(Debug)]
enum Origin {
    /// This server.
    Own,
    /// Another process, which keeps the socket or passes it on again: its queue is not ours to discard.
    Inherited {
        /// The options for connections that were queued before the socket had them. None once the queue was empty: it is first in, first out.
        options_of_queued: Option<Box<SocketOptions>>,
        /// The queue is left to the next process.
        is_left: bool,
    },
}

/// The reason why a listener does not accept, although its backlog may hold clients.
#[derive(Debug, Clone, Copy)]
enum Pause {
    /// Descriptors or memory have run out; it tries again at this moment.
    Until(Instant),
    /// The connection limit is reached; it tries again when a connection closes.
    UntilClose,
}

impl Listener<OwnedFd, OwnedFd> {
    /// Listens on `address`. The connections inherit the options of this socket, which saves a call for each.
    pub(in crate::server) fn bind(address: &SocketAddr, options: &SocketOptions) -> Result<Self, Error> {
        let listen_error = |error| Error::Listen { address: *address, error };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket::socket(Domain::from(address), flags).map_err(listen_error)?;
        socket_options::set_before_listening(fd.as_fd(), address, options)?;
        socket::bind(fd.as_fd(), address).map_err(listen_error)?;
        socket::listen(fd.as_fd(), options.backlog).map_err(listen_error)?;
        let address = socket::getsockname(fd.as_fd()).map_err(listen_error)?;
        Ok(Self::new(fd, address))
    }

    /// Goes on listening on a socket that another process has opened. Sets its options as far as that is still possible, and its backlog.
    pub(in crate::server) fn inherit(fd: OwnedFd, address: SocketAddr, options: &SocketOptions) -> Result<Self, Error> {
        socket_options::set_while_listening(fd.as_fd(), &address, options)?;
        socket::listen(fd.as_fd(), options.backlog).map_err(|error| Error::Listen { address, error })?;
        Ok(Self::inherited(fd, address, options))
    }
}

impl<L, S> Listener<L, S> {
    /// Returns the listener of a socket that listens on `address`.
    pub(in crate::server) fn new(socket: L, address: SocketAddr) -> Self {
        let origin = Origin::Own;
        Self { socket, origin, kept: None, address, pause: Duration::ZERO, paused: None, is_queued: false }
    }

    /// Returns the listener of a socket that another process has opened.
    pub(in crate::server) fn inherited(socket: L, address: SocketAddr, options: &SocketOptions) -> Self {
        let origin = Origin::Inherited { options_of_queued: Some(Box::new(options.clone())), is_left: false };
        Self { origin, ..Self::new(socket, address) }
    }

    /// Returns the address, with the port that the kernel chose for port 0.
    pub(in crate::server) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether accepting is paused.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Pauses until a connection closes.
    pub(super) fn pause_until_close(&mut self) {
        self.paused = Some(Pause::UntilClose);
    }

    /// Ends the pause: its time is up, or a connection has closed. Returns the deadline of the pause, if it has one.
    pub(super) fn resume(&mut self) -> Option<Instant> {
        match self.paused.take() {
            Some(Pause::Until(until)) => Some(until),
            Some(Pause::UntilClose) | None => None,
        }
    }

    /// Returns whether the listener is in the ready queue, so that an edge need not put it there again.
    pub(super) fn is_queued(&self) -> bool {
        self.is_queued
    }

    /// Notes that the listener is in the ready queue. Returns false if it was there before.
    pub(super) fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.is_queued, true)
    }

    /// Notes that the listener was taken from the ready queue.
    pub(super) fn unqueue(&mut self) {
        self.is_queued = false;
    }

    /// Keeps a connection that could not be watched, to be accepted again.
    pub(in crate::server) fn keep(&mut self, stream: S, peer: SocketAddr) {
        self.kept = Some((stream, peer));
    }

    /// Stops queueing new clients, and keeps the queued ones. The queue of an inherited socket is left as it is.
    ///
    /// # Errors
    /// Returns the errors of listen(2).
    pub(in crate::server) fn stop_queueing<K: Kernel<Listener = L>>(&mut self, kernel: &mut K) -> io::Result<()> {
        match self.origin {
            Origin::Own => kernel.stop_queueing(&self.socket),
            Origin::Inherited { .. } => Ok(()),
        }
    }

    /// Leaves the queue of an inherited socket to the next process. Returns whether the listener can be closed: a connection that could not be
    /// watched was accepted before, and is ours to serve.
    ///
    /// The event loop stops watching the socket: another process has it open, so that each new client would still wake this loop after it
    /// is closed (epoll(7)).
    pub(super) fn leave_queue<K: Kernel<Listener = L>>(&mut self, kernel: &mut K) -> bool {
        let Origin::Inherited { is_left, .. } = &mut self.origin else { return false };
        *is_left = true;
        if let Err(error) = kernel.unwatch(&self.socket) {
            debug!("new clients may still wake the loop (epoll_ctl): {error}");
        }
        self.kept.is_none()
    }

    /// Tries once to accept a connection.
    ///
    /// # Errors
    /// Returns the errors that no further try can mend.
    pub(in crate::server) fn accept<K: Kernel<Listener = L, Stream = S>>(
        &mut self,
        kernel: &mut K,
    ) -> io::Result<Accepted<S>> {
        if let Some((stream, peer)) = self.kept.take() {
            return Ok(Accepted::Connection(stream, peer));
        }
        if matches!(self.origin, Origin::Inherited { is_left: true, .. }) {
            return Ok(Accepted::Nothing);
        }
        let is_inherited = matches!(self.origin, Origin::Inherited { .. });
        match kernel.accept(&self.socket) {
            Ok((stream, peer)) => {
                if let Origin::Inherited { options_of_queued: Some(options), .. } = &self.origin
                    && let Err(error) = kernel.set_options(&stream, &peer, options)
                {
                    debug!("{error}");
                }
                Ok(Accepted::Connection(stream, peer))
            }
            Err(error) => match remedy(&error) {
                Remedy::Wait => {
                    if let Origin::Inherited { options_of_queued, .. } = &mut self.origin {
                        *options_of_queued = None;
                        // The call may have blocked for a moment, because another process has made the socket blocking. The next one does not.
                        if let Err(error) = kernel.set_nonblocking(&self.socket) {
                            debug!("accepting may block for a moment (ioctl): {error}");
                        }
                    }
                    Ok(Accepted::Nothing)
                }
                Remedy::Retry => Ok(Accepted::Failed(error)),
                Remedy::Pause => Ok(Accepted::Exhausted(error)),
                Remedy::GiveUp if is_inherited && error.raw_os_error() == Some(libc::EINVAL) => {
                    Ok(Accepted::ShutDown(error))
                }
                Remedy::GiveUp => Err(error),
            },
        }
    }

    /// Notes that a connection was opened: descriptors or memory are there again.
    pub(in crate::server) fn on_success(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// Starts a pause at `now`, twice as long as the one before in a row, and returns its end.
    pub(in crate::server) fn pause(&mut self, now: Instant) -> Instant {
        self.pause = (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let until = now + self.pause;
        self.paused = Some(Pause::Until(until));
        until
    }
}

impl AsFd for Listener<OwnedFd, OwnedFd> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventLoop;
    use crate::server::config::Keepalive;
    use crate::server::kernel::Linux;

    fn kernel() -> Linux {
        Linux { event_loop: EventLoop::new().expect("epoll"), signals: None }
    }

    fn listener(address: &str, options: &SocketOptions) -> Listener<OwnedFd, OwnedFd> {
        Listener::bind(&address.parse().expect("an address"), options).expect("a listener")
    }

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
        let mut listener = listener("127.0.0.1:0", &SocketOptions::default());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            listener.pause(Instant::now());
            pauses.push(listener.pause.as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    }

    /// The other end of a connection, as a listener with these options has accepted it.
    fn accepted(address: &str, options: &SocketOptions) -> OwnedFd {
        let mut listener = listener(address, options);
        let mut client = std::net::TcpStream::connect(listener.address()).expect("connect");
        std::io::Write::write_all(&mut client, b"for those who wait for bytes").expect("send");
        loop {
            match listener.accept(&mut kernel()) {
                Ok(Accepted::Connection(stream, _)) => return stream,
                Ok(Accepted::Nothing) => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn by_default_an_accepted_socket_sends_at_once_and_keeps_urgent_bytes_in_line() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let stream = accepted(address, &SocketOptions::default());
            let stream = socket2::SockRef::from(&stream);
            assert!(stream.tcp_nodelay().expect("TCP_NODELAY"));
            assert!(stream.out_of_band_inline().expect("SO_OOBINLINE"));
            assert!(stream.nonblocking().expect("O_NONBLOCK"));
            assert!(!stream.keepalive().expect("SO_KEEPALIVE"));
            assert_eq!(stream.linger().expect("SO_LINGER"), None);
        }
    }

    #[test]
    fn every_option_reaches_the_accepted_socket() {
        let second = Duration::from_secs(1);
        let options = SocketOptions {
            nodelay: false,
            keepalive: Some(Keepalive { idle: 31 * second, interval: Some(7 * second), count: Some(5) }),
            reset_on_close: true,
            recv_buffer: Some(40_000),
            send_buffer: Some(50_000),
            reuse_port: true,
            defer_accept: Some(3 * second),
            user_timeout: Some(9 * second),
            bind_device: Some("lo".to_owned()),
            ..SocketOptions::default()
        };
        let stream = accepted("127.0.0.1:0", &options);
        let stream = socket2::SockRef::from(&stream);
        assert!(!stream.tcp_nodelay().expect("TCP_NODELAY"));
        assert!(stream.keepalive().expect("SO_KEEPALIVE"));
        assert_eq!(stream.tcp_keepalive_time().expect("TCP_KEEPIDLE"), 31 * second);
        assert_eq!(stream.tcp_keepalive_interval().expect("TCP_KEEPINTVL"), 7 * second);
        assert_eq!(stream.tcp_keepalive_retries().expect("TCP_KEEPCNT"), 5);
        assert_eq!(stream.linger().expect("SO_LINGER"), Some(Duration::ZERO));
        assert_eq!(stream.recv_buffer_size().expect("SO_RCVBUF"), 80_000);
        assert_eq!(stream.send_buffer_size().expect("SO_SNDBUF"), 100_000);
        assert_eq!(stream.tcp_user_timeout().expect("TCP_USER_TIMEOUT"), Some(9 * second));
        assert_eq!(stream.device().expect("SO_BINDTODEVICE").as_deref(), Some(b"lo" as &[u8]));
    }

    #[test]
    fn what_concerns_the_listener_is_set_on_the_listener() {
        let options = SocketOptions { reuse_port: true, ipv6_only: true, ..SocketOptions::default() };
        let one = listener("[::1]:0", &options);
        let other = Listener::bind(&one.address(), &options).expect("the port is shared");
        assert!(socket2::SockRef::from(&other).only_v6().expect("IPV6_V6ONLY"));
        let wrong = SocketOptions { bind_device: Some("no-such-device".to_owned()), ..SocketOptions::default() };
        let error = Listener::bind(&one.address(), &wrong).expect_err("there is no such device").to_string();
        assert!(error.starts_with("cannot set sockets.bind_device on [::1]:"), "{error}");
    }

    #[test]
    fn an_empty_queue_is_no_error() {
        let mut listener = listener("127.0.0.1:0", &SocketOptions::default());
        assert!(matches!(listener.accept(&mut kernel()), Ok(Accepted::Nothing)));
        let client = std::net::TcpStream::connect(listener.address()).expect("connect");
        match listener.accept(&mut kernel()) {
            Ok(Accepted::Connection(_, peer)) => assert_eq!(peer, client.local_addr().expect("an address")),
            other => panic!("{other:?}"),
        }
    }
}
