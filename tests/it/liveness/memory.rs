//! The memory limit: peers that hold all the memory do not stop the others, and memory is given back.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use socket2::SockRef;

use crate::scratch::Scratch;
use crate::support::client::{assert_same, connect, echo, pattern, receive, reset};
use crate::support::{Process, quiet, raise_descriptor_limit, wait_until};

/// Connects clients that have small receive buffers and do not block.
fn small_receivers(process: &Process, count: usize) -> Vec<TcpStream> {
    let client = |_| {
        let stream = connect(process.address);
        SockRef::from(&stream).set_recv_buffer_size(4 << 10).expect("SO_RCVBUF");
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        stream
    };
    (0..count).map(client).collect()
}

#[test]
fn peers_that_do_not_read_do_not_stop_the_others_at_the_memory_limit() {
    let process = Process::rust(&["--memory-limit", "1MiB", "--write-timeout", "off", "--send-buffer", "16KiB"]);
    let bytes = pattern(4, 4 << 20);
    let stuck = small_receivers(&process, 80);
    wait_until("the limit is reached", || {
        stuck.iter().for_each(|mut stream| drop(stream.write(&bytes)));
        process.figure("pending_bytes") >= 1 << 20
    });
    let well = connect(process.address);
    for number in 0..200 {
        echo(&well, &pattern(number, 1 + number as usize * 20));
    }
    let newcomer = connect(process.address);
    echo(&newcomer, b"and a newcomer\n");
    assert!(process.figure("pending_bytes") >= 1 << 20, "the limit was reached all the time");
    assert!(process.figure("most_pending_bytes") <= (1 << 20) + (64 << 10), "and not passed by more than a read");
}

/// Each client has sent half of a frame, and together the halves reach the memory limit.
#[test]
fn frames_that_never_become_whole_do_not_stop_the_others_at_the_memory_limit() {
    let arguments = ["--protocol", "frame", "--memory-limit", "256KiB", "--write-timeout", "1s"];
    let process = Process::rust(&arguments);
    let frame = |length: u32| [&length.to_be_bytes()[..], &pattern(u64::from(length), length as usize)].concat();
    let whole = frame(60_000);
    let stuck: Vec<_> = (0..20).map(|_| connect(process.address)).collect();
    for mut stream in &stuck {
        stream.write_all(&whole[..30_000]).expect("send");
    }
    wait_until("the limit is reached", || process.figure("pending_bytes") >= 256 << 10);
    let well = connect(process.address);
    for length in 0..50 {
        echo(&well, &frame(length * 20));
    }
    // Half of the frames are completed in the end, though the others hold the memory first.
    for mut stream in &stuck[10..] {
        stream.write_all(&whole[30_000..]).expect("send");
    }
    for stream in &stuck[10..] {
        assert_same(&receive(stream, whole.len()), &whole);
    }
    let most = process.figure("most_pending_bytes");
    assert!(most <= (256 << 10) + (64 << 10) + 20 * (20 << 10), "{most} bytes of memory");
}

/// The peers send frames, and do not read the echo.
#[test]
fn frames_that_come_together_are_served_at_the_memory_limit() {
    let arguments = ["--protocol", "frame", "--memory-limit", "64KiB", "--write-timeout", "off", "--send-buffer", "4KiB"];
    let process = Process::rust(&arguments);
    let frame = [&1_000_u32.to_be_bytes()[..], &pattern(1, 1_000)].concat();
    let stuck = small_receivers(&process, 30);
    wait_until("the limit is reached", || {
        stuck.iter().for_each(|mut stream| drop(stream.write(&frame.repeat(20))));
        process.figure("pending_bytes") >= 64 << 10
    });
    let well = connect(process.address);
    for _ in 0..5 {
        echo(&well, &frame.repeat(10));
    }
}

#[test]
fn a_reset_is_noticed_while_the_connection_is_held_back() {
    let process = Process::rust(&["--memory-limit", "64KiB", "--write-timeout", "off", "--send-buffer", "16KiB"]);
    let before = process.descriptors();
    let bytes = pattern(5, 1 << 20);
    let stuck = small_receivers(&process, 60);
    for _ in 0..50 {
        stuck.iter().for_each(|mut stream| drop(stream.write(&bytes)));
        process.settle();
    }
    assert!(process.figure("pending_bytes") >= 64 << 10, "none is held back, and the test shows nothing");
    // The connections whose bytes are pending stay, so that memory stays short.
    let mut stuck = stuck;
    let others = stuck.split_off(20);
    assert_eq!(process.descriptors(), before + stuck.len() + others.len());
    others.into_iter().for_each(reset);
    wait_until("the descriptors are closed", || process.descriptors() == before + stuck.len());
    assert!(process.figure("pending_bytes") >= 64 << 10, "memory is free, and the test shows nothing");
}

/// The consumer of the output has stalled: the server reads from no connection.
#[test]
fn a_reset_is_noticed_while_collect_holds_its_senders_back() {
    let scratch = Scratch::new();
    let (path, reader) = scratch.fifo("out");
    let process = Process::rust(&["--protocol", "collect", "--output", &path, "--queue", "1"]);
    let before = process.descriptors();
    let frame = [60_000_u32.to_be_bytes().to_vec(), vec![b'x'; 60_000]].concat();
    let stuck: Vec<_> = (0..30)
        .map(|_| {
            let stream = connect(process.address);
            stream.set_nonblocking(true).expect("O_NONBLOCK");
            stream
        })
        .collect();
    for _ in 0..20 {
        stuck.iter().for_each(|mut stream| drop(stream.write(&frame)));
        process.settle();
    }
    assert_eq!(process.descriptors(), before + stuck.len());
    stuck.into_iter().for_each(reset);
    wait_until("the descriptors are closed", || process.descriptors() == before);
    drop(reader);
}

#[test]
fn the_memory_of_a_peak_is_given_back() {
    const STUCK: usize = 1_500;
    let _guard = quiet();
    let process = Process::rust(&["--write-timeout", "off", "--send-buffer", "8KiB"]);
    let bytes = pattern(7, 256 << 10);
    raise_descriptor_limit();
    drop(small_receivers(&process, STUCK));
    wait_until("all have left", || process.figure("open") == 0);
    let before = process.rss_bytes();
    let stuck = small_receivers(&process, STUCK);
    wait_until("a peak", || {
        stuck.iter().for_each(|mut stream| drop(stream.write(&bytes)));
        process.figure("pending_bytes") > 20 << 20
    });
    let peak = process.rss_bytes();
    assert!(peak > before + (16 << 20), "{before} bytes before, {peak} at the peak");
    for stream in &stuck {
        let _ = stream.shutdown(Shutdown::Both);
    }
    drop(stuck);
    let witness = connect(process.address);
    echo(&witness, b"still here\n");
    wait_until("memory is given back", || process.rss_bytes() < before + (4 << 20));
}
