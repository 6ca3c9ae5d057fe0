//! Urgent bytes in the middle of an echo: flood and ping read on behind them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, send};

use crate::support::{Program, edgecho};

fn send_urgent(stream: &TcpStream) {
    assert_eq!(send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB), Ok(1), "an urgent byte");
}

/// Runs a client that sends messages of 64 bytes after its handshake. Returns each in two halves with an urgent byte between them,
/// after an urgent byte alone. The client is stopped meanwhile, so that one event reports all: a read stops at the urgent byte (tcp(7)),
/// and no further event reports the bytes behind it.
fn run_against_urgent_bytes(arguments: &[&str], messages: usize) -> (Option<i32>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut client = Program::piped(edgecho(&[arguments[0], &address]).args(&arguments[1..]));
    let (mut stream, _) = listener.accept().expect("a client");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    for length in std::iter::once(16).chain(std::iter::repeat_n(64, messages)) {
        let mut message = vec![0; length];
        if stream.read_exact(&mut message).is_err() {
            break; // the client has given up, and says why
        }
        send_urgent(&stream); // alone: an event without a byte to read
        client.freeze();
        let (first, second) = message.split_at(length / 2);
        stream.write_all(first).expect("send");
        send_urgent(&stream);
        stream.write_all(second).expect("send");
        client.thaw();
    }
    let (status, stdout, stderr) = client.finish();
    (status.code(), stdout + &stderr)
}

#[test]
fn bytes_behind_an_urgent_byte_are_read_at_once() {
    let flood = ["flood", "-c", "1", "-n", "3", "--timeout", "500ms"];
    let (status, said) = run_against_urgent_bytes(&flood, 3);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("3 returned"), "{said}");

    let (status, said) = run_against_urgent_bytes(&["ping", "-c", "3", "-i", "0", "-W", "500ms"], 3);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("3 sent, 3 received, 0 lost") && !said.contains("late"), "{said}");
}
