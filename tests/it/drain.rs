//! Signals: the drain, its deadline, and the second signal. Each test runs against the Rust server and the C reference.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::for_both_servers;
use crate::support::client::{
    assert_same, connect, connect_with_receive_buffer, echo, finish, pattern, read_to_fin, receive, stuff,
};
use crate::support::{Process, Server, pause, raise_descriptor_limit, wait_until};

for_both_servers!(
    each_signal_ends_an_idle_server,
    sighup_drains,
    a_sighup_that_was_ignored_from_the_start_stays_ignored,
    sixty_clients_with_1_mib_in_flight_get_every_byte_then_fin,
    clients_in_the_accept_queue_at_the_signal_are_served,
    connected_clients_are_served_as_before_during_a_drain,
    nobody_can_connect_once_a_drain_has_begun,
    the_deadline_flushes_then_sends_fin,
    the_deadline_discards_what_still_comes_without_a_reset,
    a_client_that_never_reads_is_cut_off_and_the_status_says_so,
    a_second_signal_ends_at_once,
    a_drain_without_time_still_closes_in_order,
    a_pause_longer_than_the_drain_timeout_discards_nothing,
    a_pause_does_not_count_against_clients_that_are_being_closed,
    input_that_is_discarded_at_the_deadline_counts_as_aborted,
    a_drain_at_the_descriptor_limit_serves_the_queue_and_no_newcomer,
    clients_still_queued_when_the_time_is_up_get_their_echo_and_a_fin,
    clients_still_queued_at_the_cut_off_count_as_aborted,
    an_echo_that_is_not_acknowledged_counts_as_aborted_at_the_cut_off,
    a_client_that_has_its_whole_echo_and_stays_does_not_count_as_aborted,
);

fn start(server: Server, arguments: &[&str]) -> Process {
    Process::start(server, arguments).expect("it was compiled")
}

fn each_signal_ends_an_idle_server(server: Server) {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut process = start(server, &[]);
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0), "{signal}");
    }
}

fn sighup_drains(server: Server) {
    let mut process = start(server, &["--drain-timeout", "20s"]);
    let stream = connect(process.address);
    echo(&stream, b"before");
    process.signal(Signal::SIGHUP);
    refused(&process);
    echo(&stream, b"during the drain");
    drop(stream);
    assert_eq!(process.wait().code(), Some(0));
}

/// As under nohup(1).
fn a_sighup_that_was_ignored_from_the_start_stays_ignored(server: Server) {
    let process = Process::start_after(server, "trap '' HUP", &["--drain-timeout", "20s"]).expect("it was compiled");
    let stream = connect(process.address);
    echo(&stream, b"before");
    process.signal(Signal::SIGHUP);
    echo(&stream, b"after");
    echo(&connect(process.address), b"a new client");
    drop(stream);
    process.terminate();
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
                // Half of the clients send a FIN first, half wait for the server's.
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

fn clients_in_the_accept_queue_at_the_signal_are_served(server: Server) {
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

fn connected_clients_are_served_as_before_during_a_drain(server: Server) {
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
    assert!(start.elapsed() < Duration::from_secs(15), "it waited for the deadline though all had left");
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

/// Waits until the listener has closed. Until then, the server resets or serves the connections made here, which are closed at once.
fn refused(process: &Process) {
    wait_until("the listener closes", || TcpStream::connect(process.address).is_err());
}

fn the_deadline_flushes_then_sends_fin(server: Server) {
    let mut process = start(server, &["--drain-timeout", "100ms"]);
    let stream = connect_with_receive_buffer(process.address, 256 << 10);
    let bytes = pattern(1, 8 << 20);
    let sent = stuff(&stream, &bytes);
    process.signal(Signal::SIGTERM);
    refused(&process);
    // The client gets what was echoed until the deadline, a prefix of what it sent, and then a FIN, not a reset.
    let back = read_to_fin(&stream);
    assert!(back.len() >= 32 * 1024 && back.len() <= sent, "{} of {sent} bytes", back.len());
    assert_same(&back, &bytes[..back.len()]);
    drop(stream);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

/// After the server's FIN the peer goes on sending. The server reads and discards that: closing with unread bytes would send a reset
/// (RFC 9293, section 3.10.4).
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

fn a_client_that_never_reads_is_cut_off_and_the_status_says_so(server: Server) {
    let mut process = start(server, &["--drain-timeout", "0s"]);
    let stream = connect_with_receive_buffer(process.address, 256 << 10);
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

/// The deadline passes while the server is stopped with bytes unread, from more clients than one call of epoll_wait(2) reports.
fn a_pause_longer_than_the_drain_timeout_discards_nothing(server: Server) {
    raise_descriptor_limit();
    // On a busy machine the pause may begin after the deadline. Then the test is repeated with a longer timeout.
    let begin = |timeout: Duration| {
        let process = start(server, &["--drain-timeout", &format!("{}ms", timeout.as_millis())]);
        let streams: Vec<_> = (0..600).map(|_| connect(process.address)).collect();
        for stream in &streams {
            echo(stream, b"here");
        }
        let begun = Instant::now();
        process.signal(Signal::SIGTERM);
        refused(&process);
        process.freeze();
        (begun.elapsed() < timeout / 2).then_some((process, streams, timeout))
    };
    let (mut process, streams, timeout) =
        [300, 2_000, 20_000].into_iter().find_map(|millis| begin(Duration::from_millis(millis))).expect("a pause in time");
    for (seed, stream) in (0..).zip(&streams) {
        let mut stream = stream;
        stream.write_all(&pattern(seed, 1_000)).expect("send");
    }
    pause(timeout); // the pause itself
    process.thaw();
    for (seed, stream) in (0..).zip(&streams) {
        assert_same(&read_to_fin(stream), &pattern(seed, 1_000));
    }
    drop(streams);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

/// The server is stopped for longer than the two seconds in which clients may receive their last bytes.
fn a_pause_does_not_count_against_clients_that_are_being_closed(server: Server) {
    let mut process = start(server, &["--drain-timeout", "0s"]);
    let (stalled, finished) = (connect_with_receive_buffer(process.address, 256 << 10), connect(process.address));
    let bytes = pattern(1, 16 << 20);
    let sent = stuff(&stalled, &bytes);
    echo(&finished, b"here");
    process.signal(Signal::SIGTERM);
    assert_eq!(read_to_fin(&finished), b""); // all are being closed
    process.freeze();
    pause(Duration::from_millis(2_200)); // the pause itself
    process.thaw();
    let back = read_to_fin(&stalled);
    assert!(back.len() <= sent);
    assert_same(&back, &bytes[..back.len()]);
    drop((stalled, finished));
    // The client has all that was pending, and no reset. What the server had not read is lost, and the status says so.
    assert_eq!(process.wait().code(), Some(i32::from(back.len() < sent)), "{}", process.stderr());
}

/// At the deadline the server has not read all that the client sent in time.
fn input_that_is_discarded_at_the_deadline_counts_as_aborted(server: Server) {
    let mut process = start(server, &["--drain-timeout", "0s"]);
    let stalled = connect_with_receive_buffer(process.address, 256 << 10);
    let sent = stuff(&stalled, &pattern(1, 16 << 20));
    process.signal(Signal::SIGTERM);
    refused(&process); // the deadline has passed
    let back = read_to_fin(&stalled);
    assert!(back.len() < sent, "all came back, and the test shows nothing");
    drop(stalled);
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
}

/// Starts a server that has no descriptor left: some clients are connected, and as many have sent a line and wait in the accept queue.
fn start_at_the_descriptor_limit(server: Server, arguments: &[&str]) -> (Process, Vec<TcpStream>, Vec<TcpStream>) {
    const LIMIT: u32 = 16;
    let process = Process::start_after(server, &format!("ulimit -n {LIMIT}"), arguments).expect("it was compiled");
    let places = LIMIT as usize - process.descriptors_below(LIMIT);
    let connected: Vec<_> = (0..places).map(|_| connect(process.address)).collect();
    for stream in &connected {
        echo(stream, b"here");
    }
    let queued: Vec<_> = (0..places).map(|_| connect(process.address)).collect();
    for mut stream in &queued {
        stream.write_all(b"let me in\n").expect("send");
    }
    (process, connected, queued)
}

fn a_drain_at_the_descriptor_limit_serves_the_queue_and_no_newcomer(server: Server) {
    let (mut process, connected, queued) = start_at_the_descriptor_limit(server, &["--drain-timeout", "20s"]);
    process.signal(Signal::SIGTERM);
    // Far fewer than the backlog has room for.
    let is_shut_out = || TcpStream::connect_timeout(&process.address, Duration::from_millis(100)).is_err();
    assert!((0..300).any(|_| is_shut_out()), "newcomers still join the queue that is being emptied");
    drop(connected);
    for stream in &queued {
        assert_eq!(receive(stream, 10), b"let me in\n");
        echo(stream, b"and more");
    }
    drop(queued);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

fn clients_still_queued_when_the_time_is_up_get_their_echo_and_a_fin(server: Server) {
    let (mut process, connected, queued) = start_at_the_descriptor_limit(server, &["--drain-timeout", "50ms"]);
    process.signal(Signal::SIGTERM);
    for stream in connected {
        assert_eq!(read_to_fin(&stream), b"");
    }
    for stream in queued {
        assert_eq!(read_to_fin(&stream), b"let me in\n");
    }
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

fn clients_still_queued_at_the_cut_off_count_as_aborted(server: Server) {
    let (mut process, connected, queued) = start_at_the_descriptor_limit(server, &["--drain-timeout", "0s"]);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    for stream in &connected {
        assert_eq!(read_to_fin(stream), b"");
    }
    for mut stream in &queued {
        let error = stream.read(&mut [0; 1]).expect_err("its bytes were not returned");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// The kernel has taken the whole echo from the server, and the client has no room for it.
fn an_echo_that_is_not_acknowledged_counts_as_aborted_at_the_cut_off(server: Server) {
    let mut process = start(server, &["--drain-timeout", "0s"]);
    let mut stream = connect_with_receive_buffer(process.address, 4096);
    stream.write_all(&pattern(1, 30_000)).expect("send");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    drop(stream);
}

fn a_client_that_has_its_whole_echo_and_stays_does_not_count_as_aborted(server: Server) {
    let mut process = start(server, &["--drain-timeout", "0s"]);
    let stream = connect(process.address);
    echo(&stream, &pattern(1, 30_000));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
    drop(stream);
}
