//! What both servers promise about bytes: real processes, real sockets. Every test here runs against the Rust server and
//! against the C reference.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::for_both_servers;
use crate::support::client::{assert_same, connect, echo, finish, pattern, read_to_fin, reset, stuff};
use crate::support::{Process, Server, eventually, raise_descriptor_limit, skip};
use edgecho::sys::socket::unread_bytes;
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

fn start(server: Server) -> Process {
    Process::start(server, &[]).expect("it was built")
}

for_both_servers!(
    every_byte_comes_back_in_order,
    many_small_messages_in_one_segment_come_back,
    half_close_returns_everything_then_fin,
    data_with_a_fin_behind_it_comes_back,
    a_late_reader_gets_32_mib_then_fin,
    sixty_writers_who_never_read_cost_little_and_hold_up_nobody,
    urgent_bytes_come_back_at_their_place,
    a_reset_ends_one_connection_only,
    a_reset_in_the_middle_of_a_stream_harms_nobody,
    a_peer_that_vanishes_with_bytes_unread_is_forgotten,
    connecting_and_leaving_leaks_nothing,
    two_hundred_clients_at_once_get_their_own_bytes,
    out_of_descriptors_nobody_is_dropped_and_the_rest_wait,
    firehoses_do_not_starve_a_ping,
    stop_and_continue_do_no_harm,
    idle_means_asleep,
    an_idle_connection_costs_at_most_128_bytes,
    with_copy_an_echo_does_not_change_when_the_senders_file_does,
    without_copy_an_echo_that_is_not_read_changes_with_the_senders_file,
);

fn every_byte_comes_back_in_order(server: Server) {
    let process = start(server);
    let stream = connect(process.address);
    for (seed, length) in
        [(1, 1), (2, 255), (3, 32 * 1024 - 1), (4, 32 * 1024), (5, 32 * 1024 + 1), (6, 100_000), (7, 300_000)]
    {
        echo(&stream, &pattern(seed, length));
    }
    echo(&stream, &(0..=255).collect::<Vec<u8>>());
    drop(stream);
    process.terminate();
}

fn many_small_messages_in_one_segment_come_back(server: Server) {
    let process = start(server);
    let stream = connect(process.address);
    let lines: String = (0..1_000).map(|number| format!("line {number}\n")).collect();
    echo(&stream, lines.as_bytes());
    drop(stream);
    process.terminate();
}

fn half_close_returns_everything_then_fin(server: Server) {
    let process = start(server);
    for (seed, length) in [(1, 0), (2, 1), (3, 32 * 1024), (4, 1 << 20)] {
        let stream = connect(process.address);
        let bytes = pattern(seed, length);
        (&stream).write_all(&bytes).expect("send");
        finish(&stream);
        assert_same(&read_to_fin(&stream), &bytes);
    }
    process.terminate();
}

/// Data and FIN are there before the server looks, so that one event tells of both, and the read is short.
fn data_with_a_fin_behind_it_comes_back(server: Server) {
    let process = start(server);
    process.freeze();
    let streams: Vec<_> = (0..20).map(|_| connect(process.address)).collect();
    for (seed, stream) in (0..).zip(&streams) {
        let mut stream = stream;
        stream.write_all(&pattern(seed, 1 + 3_000 * seed as usize)).expect("send");
        finish(stream);
    }
    process.thaw();
    for (seed, stream) in (0..).zip(&streams) {
        assert_same(&read_to_fin(stream), &pattern(seed, 1 + 3_000 * seed as usize));
    }
    process.terminate();
}

fn a_late_reader_gets_32_mib_then_fin(server: Server) {
    const LENGTH: usize = 32 << 20;
    let process = start(server);
    let before = process.rss_bytes();
    let stream = connect(process.address);
    let bytes = pattern(32, LENGTH);
    // With the privilege to have a send buffer of any size, all is sent before the first byte is read. Without, it is what the
    // kernel's buffers hold: the writer then waits, as any would, until the reader starts.
    let can_hold_all = setsockopt(&stream, sockopt::SndBufForce, &(LENGTH * 2)).is_ok();
    let sent = stuff(&stream, &bytes);
    assert!(process.rss_bytes() < before + (1 << 20), "the server holds what only the kernel should");
    if can_hold_all {
        assert_eq!(sent, LENGTH);
    } else {
        skip("32 MiB sent before the first is read", "it takes CAP_NET_ADMIN; what the buffers hold was sent instead");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&bytes[sent..]).expect("send");
            finish(&stream);
        });
        assert_same(&read_to_fin(&stream), &bytes);
    });
    drop(stream);
    process.terminate();
}

fn sixty_writers_who_never_read_cost_little_and_hold_up_nobody(server: Server) {
    let process = start(server);
    let pinger = connect(process.address);
    echo(&pinger, b"warm");
    let (before, descriptors) = (process.rss_bytes(), process.descriptors());
    let bytes = pattern(60, 32 << 20);
    let writers: Vec<_> = (0..60).map(|_| connect(process.address)).collect();
    std::thread::scope(|scope| {
        for writer in &writers {
            scope.spawn(|| assert!(stuff(writer, &bytes) < bytes.len(), "it was never stopped"));
        }
    });
    let grown = process.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    // The median of some, since other tests run beside this one; whom the writers held up would wait each time.
    let mut round_trips: Vec<_> = (0..21)
        .map(|_| {
            let start = Instant::now();
            echo(&pinger, b"still there?");
            start.elapsed()
        })
        .collect();
    round_trips.sort();
    assert!(round_trips[10] < Duration::from_millis(50), "{round_trips:?}");
    drop(writers);
    eventually("the writers are forgotten", || (process.descriptors() == descriptors).then_some(()));
    drop(pinger);
    process.terminate();
}

fn urgent_bytes_come_back_at_their_place(server: Server) {
    let process = start(server);
    // While it is stopped, so that the bytes in front of the mark, the urgent one and those behind are there together: a read
    // stops short in front of the mark.
    let stream = connect(process.address);
    echo(&stream, b"first");
    for round in 0..3 {
        process.freeze();
        (&stream).write_all(b"before").expect("send");
        socket2::SockRef::from(&stream).send_out_of_band(b"!").expect("urgent");
        (&stream).write_all(b"behind").expect("send");
        process.thaw();
        let mut back = [0; 13];
        (&stream).read_exact(&mut back).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(&back, b"before!behind");
    }
    socket2::SockRef::from(&stream).send_out_of_band(b"?").expect("urgent");
    finish(&stream);
    assert_eq!(read_to_fin(&stream), b"?");
    process.terminate();
}

fn a_reset_ends_one_connection_only(server: Server) {
    let process = start(server);
    let other = connect(process.address);
    echo(&other, b"here");
    let open = process.descriptors();
    for round in 0..50 {
        let mut stream = connect(process.address);
        match round % 3 {
            0 => {}
            1 => echo(&stream, b"said something"),
            _ => stream.write_all(&pattern(round, 50_000)).expect("send"),
        }
        reset(stream);
        echo(&other, b"unharmed");
    }
    eventually("all but one are gone", || (process.descriptors() == open).then_some(()));
    drop(other);
    process.terminate();
}

/// Bytes are on their way back without having been looked at, and their peer has gone: that is neither a signal (SIGPIPE) nor are they
/// sent to somebody else.
fn a_reset_in_the_middle_of_a_stream_harms_nobody(server: Server) {
    let process = start(server);
    let other = connect(process.address);
    echo(&other, b"here");
    let open = process.descriptors();
    for round in 0..40 {
        let mut stream = connect(process.address);
        stream.write_all(&pattern(round, 1 << 20)).expect("send");
        if round % 2 == 0 {
            finish(&stream);
        }
        reset(stream);
        echo(&other, &pattern(100 + round, 10_000));
    }
    eventually("all but one are gone", || (process.descriptors() == open).then_some(()));
    drop(other);
    process.terminate();
}

/// Closing with unread bytes sends a reset (RFC 9293, 3.10.4): the server has an outbox for a peer that is gone.
fn a_peer_that_vanishes_with_bytes_unread_is_forgotten(server: Server) {
    let process = start(server);
    let before = process.descriptors();
    let bytes = pattern(9, 64 << 20); // more than the kernel's buffers grow to
    for _ in 0..3 {
        let stream = connect(process.address);
        assert!(stuff(&stream, &bytes) < bytes.len());
        drop(stream);
    }
    eventually("they are gone", || (process.descriptors() == before).then_some(()));
    process.terminate();
}

fn connecting_and_leaving_leaks_nothing(server: Server) {
    let process = start(server);
    let before = process.descriptors();
    for _ in 0..500 {
        drop(connect(process.address));
    }
    eventually("all are gone", || (process.descriptors() == before).then_some(()));
    process.terminate();
}

fn two_hundred_clients_at_once_get_their_own_bytes(server: Server) {
    let process = start(server);
    let streams: Vec<_> = (0..200).map(|_| connect(process.address)).collect();
    for round in 0..20 {
        for (seed, stream) in (0..).zip(&streams) {
            let mut stream = stream;
            stream.write_all(&pattern(seed * 1_000 + round, 512)).expect("send");
        }
        for (seed, stream) in (0..).zip(&streams) {
            let mut back = [0; 512];
            let mut stream = stream;
            stream.read_exact(&mut back).expect("receive");
            assert_same(&back, &pattern(seed * 1_000 + round, 512));
        }
    }
    drop(streams);
    process.terminate();
}

fn out_of_descriptors_nobody_is_dropped_and_the_rest_wait(server: Server) {
    let process = Process::start_after(server, "ulimit -n 64", &[]).expect("it was built");
    // What the server itself has open, and what it has inherited: stdin, stdout, stderr, and whatever the test runner left open
    // under a number that counts.
    let taken = process.descriptors_below(64);
    let mut clients: Vec<_> = (0..100).map(|_| connect(process.address)).collect();
    for mut client in &clients {
        client.write_all(b"me, too").expect("send");
    }
    let is_served = |client: &std::net::TcpStream| {
        client.set_nonblocking(true).expect("a flag");
        let found = client.peek(&mut [0; 7]);
        client.set_nonblocking(false).expect("a flag");
        matches!(found, Ok(count) if count > 0)
    };
    let expected = 64 - taken;
    eventually("as many as fit are served", || (clients.iter().filter(|c| is_served(c)).count() == expected).then_some(()));

    // While the rest wait, the server must not spin. 5 % of a CPU is the bar.
    let (start, before) = (Instant::now(), process.cpu_time());
    std::thread::park_timeout(Duration::from_millis(500));
    let load = (process.cpu_time() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(load < 0.05, "{:.1} % of a CPU while others wait", load * 100.0);

    // Places come free as clients leave, and each is taken at once.
    while !clients.is_empty() {
        let index = eventually("somebody is served", || clients.iter().position(is_served));
        let mut client = clients.swap_remove(index);
        let mut back = [0; 7];
        client.read_exact(&mut back).expect("receive");
        assert_eq!(&back, b"me, too");
        echo(&client, b"and again");
    }
    process.terminate();
}

fn firehoses_do_not_starve_a_ping(server: Server) {
    let process = start(server);
    let bytes = pattern(8, 256 * 1024);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let stream = connect(process.address);
                while !stopped() {
                    echo(&stream, &bytes);
                }
            });
        }
        let pinger = connect(process.address);
        let mut slowest = Duration::ZERO;
        for _ in 0..200 {
            let start = Instant::now();
            echo(&pinger, b"ping");
            slowest = slowest.max(start.elapsed());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // Not a measurement: a starved ping would wait for as long as the firehoses run.
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    });
    process.terminate();
}

fn stop_and_continue_do_no_harm(server: Server) {
    let process = start(server);
    let stream = connect(process.address);
    for round in 0..20 {
        process.freeze();
        (&stream).write_all(&pattern(round, 1_000)).expect("send");
        process.thaw();
        let mut back = [0; 1_000];
        (&stream).read_exact(&mut back).expect("receive");
        assert_same(&back, &pattern(round, 1_000));
        process.settle();
        process.freeze(); // with nothing to do: epoll_wait(2) is interrupted
        process.thaw();
    }
    drop(stream);
    process.terminate();
}

fn idle_means_asleep(server: Server) {
    let process = start(server);
    let streams: Vec<_> = (0..100).map(|_| connect(process.address)).collect();
    for stream in &streams {
        echo(stream, b"hello");
    }
    process.settle();
    let before = (process.sleeps(), process.cpu_time());
    // That nothing happens can only be seen by letting time go by.
    std::thread::park_timeout(Duration::from_millis(500));
    assert_eq!((process.sleeps(), process.cpu_time()), before);
    drop(streams);
    process.terminate();
}

fn an_idle_connection_costs_at_most_128_bytes(server: Server) {
    const CONNECTIONS: u64 = 5_000;
    // Both servers may be at it at the same time, and other tests beside them.
    if raise_descriptor_limit() < 3 * CONNECTIONS {
        return skip("an_idle_connection_costs_at_most_128_bytes", "the hard limit on descriptors is too low: ulimit -Hn");
    }
    let process = start(server);
    // Whatever the first few connections bring into memory once and for all is not the price of one.
    for _ in 0..100 {
        echo(&connect(process.address), b"warm");
    }
    process.settle();
    let before = process.rss_bytes();
    let streams: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let stream = connect(process.address);
            echo(&stream, &pattern(1, 64));
            stream
        })
        .collect();
    process.settle();
    let each = process.rss_bytes().saturating_sub(before) / CONNECTIONS;
    assert!(each <= 128, "{each} bytes for each connection");
    drop(streams);
    process.terminate();
}

/// Sends a file (sendfile(2)), overwrites it when all of it has come back and before any of it was read, and gives what is then read. The
/// file held `before`, and holds as many other bytes afterwards.
fn echo_of_a_file_that_changes(process: &Process) -> (Vec<u8>, Vec<u8>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // The echo is to wait in our receive queue as a whole. Without the privilege it gets as large a one as there is.
    if setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).is_err() {
        socket.set_recv_buffer_size(16 << 20).expect("SO_RCVBUF");
    }
    let length = (socket.recv_buffer_size().expect("SO_RCVBUF") / 4).min(2 << 20);
    socket.connect(&process.address.into()).expect("connect");
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a timeout");

    let (before, after) = (pattern(1, length), pattern(2, length));
    let path = std::env::temp_dir().join(format!("edgecho-sent-{}", process.pid()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
    std::fs::remove_file(&path).expect("our own file");
    file.write_all_at(&before, 0).expect("a disk with room");
    let mut sent = 0;
    while sent < length {
        sent += sendfile(&stream, &file, None, length - sent).expect("sendfile");
    }
    eventually("the echo is back", || (unread_bytes(stream.as_fd()).expect("SIOCINQ") == length).then_some(()));
    file.write_all_at(&after, 0).expect("a disk with room");

    let mut back = vec![0; length];
    stream.read_exact(&mut back).expect("receive");
    (back, before)
}

fn with_copy_an_echo_does_not_change_when_the_senders_file_does(server: Server) {
    let process = Process::start(server, &["--copy"]).expect("it was built");
    let (back, before) = echo_of_a_file_that_changes(&process);
    assert_same(&back, &before);
    process.terminate();
}

/// The limit that `--copy` lifts: splice(2) passes the sender's own pages on. Timing decides how much of the stream goes that way.
fn without_copy_an_echo_that_is_not_read_changes_with_the_senders_file(server: Server) {
    let process = start(server);
    let (back, before) = echo_of_a_file_that_changes(&process);
    let changed = back.iter().zip(&before).filter(|(back, before)| back != before).count();
    assert!(changed > 0, "none of {} bytes changed: the limit that is documented is gone", before.len());
    process.terminate();
}
