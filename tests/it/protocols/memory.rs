//! The memory of lines and frames, and what happens when there is none.

use std::io::{Read, Write};
use std::net::TcpStream;

use edgecho::protocol::Frames;

use crate::support::client::{assert_same, connect, pattern, receive};
use crate::support::{Process, Server, wait_until};

/// Starts a server with a limit on its address space.
fn start_within(kib: u32, arguments: &[&str]) -> Process {
    Process::start_after(Server::Rust, &format!("ulimit -v {kib}"), arguments).expect("cargo compiles it before the tests")
}

/// Sends more than the server can hold, and returns what comes back before the server closes.
fn send_too_much(mut stream: &TcpStream, first: &[u8]) -> Vec<u8> {
    let chunk = vec![b'x'; 1 << 20];
    let mut back = Vec::new();
    if stream.write_all(first).is_ok() {
        let _ = (0..256).try_for_each(|_| stream.write_all(&chunk));
    }
    let _ = stream.read_to_end(&mut back); // a reset may follow, because we sent on
    back
}

#[test]
fn a_frame_returned_costs_no_more_than_itself_at_the_peak() {
    const LENGTH: usize = 32 << 20;
    let process = Process::rust(&["--protocol", "frame", "--max-frame", "64MiB", "--write-timeout", "off"]);
    let before = process.rss_bytes();
    let stream = connect(process.address);
    // The next frame begins in the last segment.
    let frame = Frames::encode(&pattern(1, LENGTH));
    let sent = [&frame[..], &Frames::encode(b"next")].concat();
    (&stream).write_all(&sent).expect("send");
    assert_same(&receive(&stream, sent.len()), &sent);
    let peak = process.peak_rss_bytes();
    assert!(peak < before + LENGTH as u64 / 4 * 5, "{before} bytes before, {peak} at the peak");
    drop(stream);
    process.terminate();
}

#[test]
fn a_frame_that_is_announced_takes_no_room_before_it_comes() {
    let process = start_within(1 << 20, &["--protocol", "frame", "--max-frame", "1GiB"]);
    let streams: Vec<_> = (0..50).map(|_| connect(process.address)).collect();
    for mut stream in &streams {
        stream.write_all(&[&(1_u32 << 30).to_be_bytes()[..], b"a few bytes"].concat()).expect("send");
    }
    let stream = connect(process.address);
    let frame = Frames::encode(b"hello");
    (&stream).write_all(&frame).expect("send");
    assert_eq!(receive(&stream, frame.len()), frame);
    drop((stream, streams));
    process.terminate();
}

#[test]
fn memory_that_cannot_be_had_ends_one_connection_and_not_the_server() {
    for (protocol, flags) in [
        ("line", &["--max-line", "1GiB"] as &[_]),
        ("frame", &["--max-frame", "1GiB"]),
        ("collect", &["--max-frame", "1GiB", "--output", "/dev/null"]),
    ] {
        let process = start_within(192 << 10, &[&["--protocol", protocol], flags].concat());
        let other = connect(process.address);
        for _ in 0..2 {
            let stream = connect(process.address);
            let first = if protocol == "line" { vec![] } else { (1_u32 << 30).to_be_bytes().to_vec() };
            assert_eq!(send_too_much(&stream, &first), b"", "{protocol}");
        }
        wait_until("a warning", || process.stderr().contains("out of memory"));
        assert_eq!(process.stderr().matches("WARN").count(), 1, "{protocol}: {}", process.stderr());
        let message = if protocol == "line" { b"hello\n".to_vec() } else { Frames::encode(b"hello") };
        (&other).write_all(&message).expect("send");
        if protocol != "collect" {
            assert_eq!(receive(&other, message.len()), message);
        }
        drop(other);
        process.terminate();
    }
}
