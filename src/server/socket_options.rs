//! The options of sockets: of a listener before it listens, of an inherited one, and of connections that were queued before.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::config::{Keepalive, SocketOptions};
use super::error::Error;
use super::inherited;
use crate::sys::socket::{self, SocketOption};

/// A socket and its address, whose options are set.
struct Target<'a> {
    fd: BorrowedFd<'a>,
    address: &'a SocketAddr,
}

/// Sets the options of a socket that does not listen yet. Its connections inherit them, which saves a call for each.
///
/// # Errors
/// Returns [`Error::Option`].
pub(super) fn set_before_listening(fd: BorrowedFd<'_>, address: &SocketAddr, options: &SocketOptions) -> Result<(), Error> {
    let target = Target { fd, address };
    // A restarted server must not wait until the connections of its predecessor leave TIME_WAIT.
    target.set("SO_REUSEADDR", SocketOption::REUSEADDR, 1)?;
    if options.nodelay {
        target.set_nodelay(true)?;
    }
    target.set_for_connections(options)?;
    if options.reuse_port {
        target.set("sockets.reuse_port", SocketOption::REUSEPORT, 1)?;
    }
    if options.ipv6_only && address.is_ipv6() {
        target.set("sockets.ipv6_only", SocketOption::V6ONLY, 1)?;
    }
    target.set_for_listener(options)
}

/// Sets the options of an inherited socket, which listens already. Clients that connect from now on inherit them. An option that is not given
/// stays as the opener has set it.
///
/// # Errors
/// Returns [`Error::Option`], and [`Error::TooLate`] for an option that takes effect only at bind(2).
pub(super) fn set_while_listening(fd: BorrowedFd<'_>, address: &SocketAddr, options: &SocketOptions) -> Result<(), Error> {
    let target = Target { fd, address };
    if options.reuse_port {
        inherited::require(fd, address, ("sockets.reuse_port", "ReusePort=yes"), SocketOption::REUSEPORT)?;
    }
    if options.ipv6_only && address.is_ipv6() {
        inherited::require(fd, address, ("sockets.ipv6_only", "BindIPv6Only=ipv6-only"), SocketOption::V6ONLY)?;
    }
    set_on_connection(fd, address, options)?;
    target.set_for_listener(options)
}

/// Sets the options of a connection that was queued before its listener had them.
///
/// # Errors
/// Returns [`Error::Option`].
pub(super) fn set_on_connection(fd: BorrowedFd<'_>, peer: &SocketAddr, options: &SocketOptions) -> Result<(), Error> {
    let target = Target { fd, address: peer };
    target.set_nodelay(options.nodelay)?;
    target.set_for_connections(options)
}

impl Target<'_> {
    fn set(&self, option: &'static str, kernel_option: SocketOption, value: i32) -> Result<(), Error> {
        let failed = |error| Error::Option { option, address: *self.address, error };
        socket::set_option(self.fd, kernel_option, value).map_err(failed)
    }

    /// Nagle's algorithm would delay answers.
    fn set_nodelay(&self, is_on: bool) -> Result<(), Error> {
        self.set("TCP_NODELAY", SocketOption::NODELAY, is_on.into())
    }

    /// Sets the options that a listener passes on to its connections.
    fn set_for_connections(&self, options: &SocketOptions) -> Result<(), Error> {
        // An urgent byte is a byte of the stream, and is echoed at its place (RFC 6093, 2.1).
        self.set("SO_OOBINLINE", SocketOption::OOBINLINE, 1)?;
        if let Some(Keepalive { idle, interval, count }) = options.keepalive {
            self.set("sockets.keepalive", SocketOption::KEEPALIVE, 1)?;
            self.set("sockets.keepalive", SocketOption::KEEPIDLE, seconds(idle))?;
            if let Some(interval) = interval {
                self.set("sockets.keepalive", SocketOption::KEEPINTVL, seconds(interval))?;
            }
            if let Some(count) = count {
                self.set("sockets.keepalive", SocketOption::KEEPCNT, i32::try_from(count).unwrap_or(i32::MAX))?;
            }
        }
        if options.reset_on_close {
            let failed = |error| Error::Option { option: "sockets.reset_on_close", address: *self.address, error };
            socket::set_linger(self.fd, Some(0)).map_err(failed)?;
        }
        for (name, option, size) in [
            ("sockets.recv_buffer", SocketOption::RCVBUF, options.recv_buffer),
            ("sockets.send_buffer", SocketOption::SNDBUF, options.send_buffer),
        ] {
            if let Some(size) = size {
                self.set(name, option, i32::try_from(size).unwrap_or(i32::MAX))?;
            }
        }
        if let Some(time) = options.user_timeout {
            let time_ms = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
            self.set("sockets.user_timeout", SocketOption::USER_TIMEOUT, time_ms)?;
        }
        Ok(())
    }

    /// Sets the options that concern the listener itself.
    fn set_for_listener(&self, options: &SocketOptions) -> Result<(), Error> {
        if let Some(time) = options.defer_accept {
            self.set("sockets.defer_accept", SocketOption::DEFER_ACCEPT, seconds(time))?;
        }
        if let Some(interface) = &options.bind_device {
            let failed = |error| Error::Option { option: "sockets.bind_device", address: *self.address, error };
            socket::bind_to_device(self.fd, interface).map_err(failed)?;
        }
        Ok(())
    }
}

fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn options() -> SocketOptions {
        SocketOptions {
            nodelay: false,
            keepalive: Some(Keepalive { idle: 31 * SECOND, interval: Some(7 * SECOND), count: Some(5) }),
            reset_on_close: true,
            recv_buffer: Some(40_000),
            send_buffer: Some(50_000),
            defer_accept: Some(3 * SECOND),
            user_timeout: Some(9 * SECOND),
            bind_device: Some("lo".to_owned()),
            ..SocketOptions::default()
        }
    }

    fn assert_set(stream: &TcpStream) {
        let stream = socket2::SockRef::from(stream);
        assert!(stream.out_of_band_inline().expect("SO_OOBINLINE"));
        assert!(!stream.tcp_nodelay().expect("TCP_NODELAY"));
        assert!(stream.keepalive().expect("SO_KEEPALIVE"));
        assert_eq!(stream.tcp_keepalive_time().expect("TCP_KEEPIDLE"), 31 * SECOND);
        assert_eq!(stream.tcp_keepalive_interval().expect("TCP_KEEPINTVL"), 7 * SECOND);
        assert_eq!(stream.tcp_keepalive_retries().expect("TCP_KEEPCNT"), 5);
        assert_eq!(stream.linger().expect("SO_LINGER"), Some(Duration::ZERO));
        assert_eq!(stream.recv_buffer_size().expect("SO_RCVBUF"), 80_000);
        assert_eq!(stream.send_buffer_size().expect("SO_SNDBUF"), 100_000);
        assert_eq!(stream.tcp_user_timeout().expect("TCP_USER_TIMEOUT"), Some(9 * SECOND));
    }

    #[test]
    fn options_of_a_socket_that_listens_already_reach_the_clients_that_connect_afterwards() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a listener");
            let address = listener.local_addr().expect("its address");
            // The opener's value, and a client that was queued with it.
            socket2::SockRef::from(&listener).set_tcp_nodelay(true).expect("TCP_NODELAY");
            let _queued = TcpStream::connect(address).expect("connect");
            let (queued, _) = listener.accept().expect("accept");
            assert!(queued.nodelay().expect("TCP_NODELAY"));

            set_while_listening(listener.as_fd(), &address, &options()).expect("all of them can still be set");
            let mut client = TcpStream::connect(address).expect("connect");
            std::io::Write::write_all(&mut client, b"TCP_DEFER_ACCEPT waits for this").expect("send");
            assert_set(&listener.accept().expect("accept").0);
            let device = socket2::SockRef::from(&listener).device().expect("SO_BINDTODEVICE");
            assert_eq!(device.as_deref(), Some(b"lo" as &[u8]));

            set_on_connection(queued.as_fd(), &address, &options()).expect("a connection");
            assert_set(&queued);
        }
    }

    #[test]
    fn an_option_that_is_not_given_stays_as_the_opener_has_set_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let socket = socket2::SockRef::from(&listener);
        socket.set_keepalive(true).expect("SO_KEEPALIVE");
        set_while_listening(listener.as_fd(), &address, &SocketOptions::default()).expect("the default options");
        assert!(socket.keepalive().expect("SO_KEEPALIVE") && socket.tcp_nodelay().expect("TCP_NODELAY"));
    }
}
