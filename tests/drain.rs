//! What both servers promise about signals: the drain, its deadline, and the second signal. Every test here runs against the
//! Rust server and against the C reference.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::client::{assert_same, connect, echo, finish, pattern, read_to_fin, stuff};
use support::{Process, Server, eventually};

for_both_servers!(
    either_signal_ends_an_idle_server,
    sixty_clients_with_1_mib_in_flight_get_every_byte_then_fin,
    who_is_in_the_accept_queue_at_the_signal_is_served,
    who_is_connected_is_served_as_before_during_a_drain,
    nobody_can_connect_once_a_drain_has_begun,
    the_deadline_flushes_then_sends_fin,
    the_deadline_discards_what_still_comes_without_a_reset,
    who_never_reads_is_cut_off_and_the_status_says_so,
    a_second_signal_ends_at_once,
    a_drain_without_time_still_closes_in_order,
);

fn start(server: Server, arguments: &[&str]) -> Process {
    Process::start(server, arguments).expect("it was built")
}

fn either_signal_ends_an_idle_server(server: Server) {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut process = start(server, &[]);
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0), "{signal}");
    }
}

fn sixty_clients_with_1_mib_in_flight_get_every_byte_then_fin(server: Server) {
    let mut process = start(server, &["--drain-timeout", "2s"]);
    let streams: Vec<_> = (0..60).map(|_| connect(process.address)).collect();
    std::thread::scope(|scope| {
        for (seed, stream) in (0..).zip(&streams) {
            scope.spawn(move || {
                let mut stream = stream;
                let bytes = pattern(seed, 1 << 20);
                stream.write_all(&bytes).expect("send");
                // Half of them say that they are done, half wait for the server to.
                if seed % 2 == 0 {
                    finish(stream);
                }
                assert_same(&read_to_fin(stream), &bytes);
                finish_if_open(stream);
            });
        }
        process.signal(Signal::SIGTERM);
    });
    drop(streams);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

fn finish_if_open(stream: &TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

fn who_is_in_the_accept_queue_at_the_signal_is_served(server: Server) {
    let mut process = start(server, &[]);
    process.freeze();
    let streams: Vec<_> = (0..100).map(|_| connect(process.address)).collect();
    process.signal(Signal::SIGTERM);
    process.thaw();
    for (seed, stream) in (0..).zip(&streams) {
        let mut stream = stream;
        let bytes = pattern(seed, 10_000);
        stream.write_all(&bytes).expect("send");
        finish(stream);
        assert_same(&read_to_fin(stream), &bytes);
    }
    drop(streams);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

fn who_is_connected_is_served_as_before_during_a_drain(server: Server) {
    let mut process = start(server, &["--drain-timeout", "20s"]);
    let stream = connect(process.address);
    echo(&stream, b"before");
    process.signal(Signal::SIGTERM);
    refused(&process);
    for round in 0..100 {
        echo(&stream, &pattern(round, 5_000));
    }
    drop(stream);
    let start = Instant::now();
    assert_eq!(process.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "it waited for the deadline though all had left");
}

fn nobody_can_connect_once_a_drain_has_begun(server: Server) {
    let mut process = start(server, &["--drain-timeout", "20s"]);
    let stream = connect(process.address);
    echo(&stream, b"here");
    process.signal(Signal::SIGTERM);
    refused(&process);
    // The port is free for a successor while the old one still drains.
    drop(TcpListener::bind(process.address).expect("the port is free"));
    drop(stream);
    assert_eq!(process.wait().code(), Some(0));
}

/// Waits until the listener has closed. A connection that comes before is reset or served, and closed here at once.
fn refused(process: &Process) {
    eventually("the listener closes", || TcpStream::connect(process.address).is_err().then_some(()));
}

fn the_deadline_flushes_then_sends_fin(server: Server) {
    let mut process = start(server, &["--drain-timeout", "100ms"]);
    let stream = connect(process.address);
    let bytes = pattern(1, 8 << 20);
    let sent = stuff(&stream, &bytes);
    process.signal(Signal::SIGTERM);
    refused(&process);
    // What was echoed until the deadline comes, a prefix of what was sent, and a FIN behind it: no reset.
    let back = read_to_fin(&stream);
    assert!(back.len() >= 32 * 1024 && back.len() <= sent, "{} of {sent} bytes", back.len());
    assert_same(&back, &bytes[..back.len()]);
    drop(stream);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

/// Our FIN is out, and the peer sends on: it is read and discarded, for closing with bytes unread would send a reset.
fn the_deadline_discards_what_still_comes_without_a_reset(server: Server) {
    let mut process = start(server, &["--drain-timeout", "0s"]);
    let stream = connect(process.address);
    echo(&stream, b"hello");
    process.signal(Signal::SIGTERM);
    assert_eq!(read_to_fin(&stream), b"");
    for _ in 0..50 {
        (&stream).write_all(&pattern(1, 50_000)).expect("the server still reads");
    }
    finish(&stream);
    assert_eq!((&stream).read(&mut [0; 1]).expect("no reset"), 0);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

fn who_never_reads_is_cut_off_and_the_status_says_so(server: Server) {
    let mut process = start(server, &["--drain-timeout", "0s"]);
    let stream = connect(process.address);
    stuff(&stream, &pattern(1, 16 << 20));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1));
    if server == Server::Rust {
        assert!(process.stderr().contains("cut off"), "{}", process.stderr());
    }
}

fn a_second_signal_ends_at_once(server: Server) {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGINT), (Signal::SIGINT, Signal::SIGTERM)] {
        let mut process = start(server, &["--drain-timeout", "1000s"]);
        let stream = connect(process.address);
        echo(&stream, b"here to stay");
        process.signal(first);
        refused(&process);
        process.signal(second);
        assert_eq!(process.wait().signal(), Some(second as i32), "its parent sees which signal it was");
    }
}

fn a_drain_without_time_still_closes_in_order(server: Server) {
    let mut process = start(server, &["--drain-timeout", "0s"]);
    let streams: Vec<_> = (0..50).map(|_| connect(process.address)).collect();
    for stream in &streams {
        echo(stream, b"one line\n");
    }
    process.signal(Signal::SIGTERM);
    for stream in &streams {
        assert_eq!(read_to_fin(stream), b"");
    }
    drop(streams);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}
