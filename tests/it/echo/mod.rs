//! Bytes come back: each test runs against the Rust server and the C reference, over real sockets.

mod cost;
mod file;

use std::io::Write;

use nix::sys::socket::{setsockopt, sockopt};

use crate::for_both_servers;
use crate::support::client::{
    assert_same, connect, connect_with_receive_buffer, echo, finish, pattern, read_to_fin, receive, reset, stuff,
};
use crate::support::{Process, Server, skip, wait_until};

fn start(server: Server) -> Process {
    Process::start(server, &[]).expect("it was compiled")
}

for_both_servers!(
    every_byte_comes_back_in_order,
    many_small_messages_in_one_segment_come_back,
    half_close_returns_everything_then_fin,
    data_with_a_fin_behind_it_comes_back,
    a_late_reader_gets_32_mib_then_fin,
    urgent_bytes_come_back_at_their_place,
    a_reset_ends_one_connection_only,
    a_reset_in_the_middle_of_a_stream_harms_nobody,
    a_peer_that_vanishes_with_bytes_unread_is_forgotten,
    connecting_and_leaving_leaks_nothing,
    two_hundred_clients_at_once_get_their_own_bytes,
    stop_and_continue_do_no_harm,
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

/// Data and FIN arrive before the server looks: one event reports both, and the read is short.
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
    // With CAP_NET_ADMIN the send buffer holds it all, and all is sent before the first byte is read. Without, the writer waits
    // until the reader starts.
    let can_hold_all = setsockopt(&stream, sockopt::SndBufForce, &(LENGTH * 2)).is_ok();
    let sent = stuff(&stream, &bytes);
    assert!(process.rss_bytes() < before + (1 << 20), "the server holds what only the kernel should");
    if can_hold_all {
        assert_eq!(sent, LENGTH);
    } else {
        skip("32 MiB sent before the first is read", "CAP_NET_ADMIN is missing; the test sent what the buffers hold");
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

fn urgent_bytes_come_back_at_their_place(server: Server) {
    let process = start(server);
    // The server is stopped until the bytes before the urgent mark, the urgent byte and the bytes after it have arrived: a read
    // stops before the mark.
    let stream = connect(process.address);
    echo(&stream, b"first");
    for round in 0..3 {
        process.freeze();
        (&stream).write_all(b"before").expect("send");
        socket2::SockRef::from(&stream).send_out_of_band(b"!").expect("urgent");
        (&stream).write_all(b"behind").expect("send");
        process.thaw();
        assert_eq!(receive(&stream, 13), b"before!behind", "round {round}");
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
    wait_until("all but one are gone", || process.descriptors() == open);
    drop(other);
    process.terminate();
}

/// A peer resets its connection while its echo is in the pipe of splice(2). That causes no SIGPIPE, and no other client gets the bytes.
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
    wait_until("all but one are gone", || process.descriptors() == open);
    drop(other);
    process.terminate();
}

/// Closing with unread bytes sends a reset (RFC 9293, section 3.10.4). The server has an outbox for a peer that is gone.
fn a_peer_that_vanishes_with_bytes_unread_is_forgotten(server: Server) {
    let process = start(server);
    let before = process.descriptors();
    let bytes = pattern(9, 64 << 20); // more than the kernel's buffers hold
    for _ in 0..3 {
        let stream = connect_with_receive_buffer(process.address, 64 << 10);
        assert!(stuff(&stream, &bytes) < bytes.len());
        drop(stream);
    }
    wait_until("they are gone", || process.descriptors() == before);
    process.terminate();
}

fn connecting_and_leaving_leaks_nothing(server: Server) {
    let process = start(server);
    let before = process.descriptors();
    for _ in 0..500 {
        drop(connect(process.address));
    }
    wait_until("all are gone", || process.descriptors() == before);
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
            assert_same(&receive(stream, 512), &pattern(seed * 1_000 + round, 512));
        }
    }
    drop(streams);
    process.terminate();
}

fn stop_and_continue_do_no_harm(server: Server) {
    let process = start(server);
    let stream = connect(process.address);
    for round in 0..20 {
        process.freeze();
        (&stream).write_all(&pattern(round, 1_000)).expect("send");
        process.thaw();
        assert_same(&receive(&stream, 1_000), &pattern(round, 1_000));
        process.settle();
        process.freeze(); // with nothing to do: epoll_wait(2) is interrupted
        process.thaw();
    }
    drop(stream);
    process.terminate();
}
