//! The other end of the wire: what the peers of a server do.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::PATIENCE;

/// Connects. No read or write on it waits for ever.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// Bytes that differ at each place and from one `seed` to another, so that a shift, a repeat or a mix-up shows.
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
pub fn assert_same(received: &[u8], sent: &[u8]) {
    let differs = received.iter().zip(sent).position(|(received, sent)| received != sent);
    assert_eq!(differs, None, "the first byte that differs");
    assert_eq!(received.len(), sent.len(), "bytes");
}

/// Sends `message`, and takes as many bytes back, which must be the same.
pub fn echo(mut stream: &TcpStream, message: &[u8]) {
    stream.write_all(message).expect("send");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("receive");
    assert_same(&back, message);
}

/// Takes everything up to the peer's FIN.
pub fn read_to_fin(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("bytes and then a FIN");
    bytes
}

/// Our FIN.
pub fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("shutdown");
}

/// Closes with a reset (RFC 9293, ABORT).
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Sends without ever reading, until neither side takes any more: the server's outbox is full, and so are the kernel's
/// buffers. Gives how many bytes have gone.
pub fn stuff(mut stream: &TcpStream, bytes: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("send: {error}"),
        }
    }
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    sent
}
