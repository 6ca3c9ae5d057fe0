//! A client of HTTP.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::client::connect;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and the fields, each with its line end.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads the next answer. `is_head` tells that it has no body.
    pub fn read(mut stream: impl Read, is_head: bool) -> Self {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream
                .read_exact(&mut byte)
                .unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        let status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {head:?}"));
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; if is_head { 0 } else { length }];
        stream.read_exact(&mut body).expect("a body");
        Self { status, head, body: String::from_utf8(body).expect("text") }
    }

    /// Returns whether the server closes the connection after this answer.
    pub fn is_last(&self) -> bool {
        self.head.contains("\r\nConnection: close\r\n")
    }
}

/// Asks for a path on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    let stream = connect(address);
    write!(&stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("send");
    let answer = Answer::read(&stream, false);
    assert!(answer.is_last(), "{answer:?}");
    answer
}

/// Sends bytes and a FIN, and returns all that comes back.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The endpoint may have answered and closed before it has read everything.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    read_all(&mut stream)
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answers, and then a FIN");
    answer
}

/// Returns a sample of a page of metrics.
pub fn sample(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing:\n{metrics}")).parse().expect("a whole number")
}
