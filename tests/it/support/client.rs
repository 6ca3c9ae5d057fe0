//! The peers of a server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;

/// Connects. No read or write on the connection waits for longer than [`PATIENCE`].
pub fn connect(address: SocketAddr) -> TcpStream {
    with_timeouts(TcpStream::connect(address).expect("connect"))
}

/// Connects with a receive buffer of about `bytes`, which the kernel does not let grow (tcp(7), `SO_RCVBUF`).
pub fn connect_with_receive_buffer(address: SocketAddr, bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(bytes).expect("SO_RCVBUF");
    socket.connect(&address.into()).expect("connect");
    with_timeouts(socket.into())
}

/// Connects from an address of this host, such as `127.0.0.2`.
pub fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket.bind(&source.into()).expect("bind");
    socket.connect(&address.into()).expect("connect");
    with_timeouts(socket.into())
}

fn with_timeouts(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// Returns an address that nothing listens on, for a program that cannot choose a free port, or to be refused. No other test uses
/// its IP address, so the port stays free.
pub fn free_address() -> SocketAddr {
    static HOST: AtomicU8 = AtomicU8::new(1);
    let host = HOST.fetch_add(1, Ordering::Relaxed);
    let listener = TcpListener::bind(SocketAddr::from(([127, 77, 0, host], 0))).expect("a port");
    listener.local_addr().expect("an address")
}

/// Returns bytes that differ from place to place and from one `seed` to another, so that a shift, a repeat or a mix-up shows.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64* (Vigna, 2016)
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Compares without printing a megabyte.
///
/// # Panics
/// With the first byte that differs, or the two lengths.
pub fn assert_same(received: &[u8], sent: &[u8]) {
    let differs = received.iter().zip(sent).position(|(received, sent)| received != sent);
    assert_eq!(differs, None, "the first byte that differs");
    assert_eq!(received.len(), sent.len(), "bytes");
}

/// Sends `message`, and receives its echo.
pub fn echo(mut stream: &TcpStream, message: &[u8]) {
    stream.write_all(message).expect("send");
    assert_same(&receive(stream, message.len()), message);
}

/// Receives exactly `count` bytes.
pub fn receive(mut stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("receive");
    bytes
}

/// Receives everything up to the peer's FIN.
pub fn read_to_fin(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("bytes and then a FIN");
    bytes
}

/// Sends a FIN.
pub fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("shutdown");
}

/// Closes with a reset (RFC 9293, section 3.10.5, ABORT).
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Sends without reading until the server takes nothing for 300 ms: its outbox and the kernel's buffers are full. Returns the number
/// of bytes sent.
pub fn stuff(stream: &TcpStream, bytes: &[u8]) -> usize {
    stuff_and_time(stream, bytes).0
}

/// Does the same as [`stuff`], and returns the time of the last successful write, too.
pub fn stuff_and_time(mut stream: &TcpStream, bytes: &[u8]) -> (usize, Instant) {
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let (mut sent, mut last) = (0, Instant::now());
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {} // with a timeout, send(2) is not restarted: signal(7)
            Err(error) => panic!("send: {error}"),
        }
    }
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    (sent, last)
}
