//! The server cuts off no live peer, and a stuck peer does not stop the others.

mod memory;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::SockRef;

use crate::scratch::Scratch;
use crate::support::client::{
    assert_same, connect, connect_with_receive_buffer, echo, finish, free_address, pattern, read_to_fin, receive, stuff,
    stuff_and_time,
};
use crate::support::{PATIENCE, Process, eventually, pause, wait_until};

/// Reads `bytes_each` every 50 ms, for `time`.
fn read_slowly(mut stream: &TcpStream, bytes_each: usize, time: Duration, received: &mut Vec<u8>) {
    let start = Instant::now();
    let mut buffer = vec![0; bytes_each];
    while start.elapsed() < time {
        let count = stream.read(&mut buffer).expect("the connection is open");
        assert_ne!(count, 0, "closed after {:?}, with {} bytes received", start.elapsed(), received.len());
        received.extend_from_slice(&buffer[..count]);
        pause(Duration::from_millis(50));
    }
}

/// The send buffer has grown to megabytes, and Linux reports room when a third of it is free. At this rate that takes ten times the
/// timeout.
#[test]
fn a_peer_that_reads_slowly_after_a_fast_start_is_not_cut_off() {
    let process = Process::rust(&["--write-timeout", "1s"]);
    let stream = connect(process.address);
    // The kernel acknowledges when a sixteenth of this is free.
    SockRef::from(&stream).set_recv_buffer_size(256 << 10).expect("SO_RCVBUF");
    let bytes = pattern(1, 24 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&bytes).expect("send");
            finish(&stream);
        });
        let mut received = vec![0; 8 << 20];
        (&stream).read_exact(&mut received).expect("a fast start");
        read_slowly(&stream, 8 << 10, Duration::from_secs(4), &mut received);
        (&stream).read_to_end(&mut received).expect("bytes and then a FIN");
        assert_same(&received, &bytes);
    });
    process.terminate();
}

#[test]
fn a_peer_that_acknowledges_nothing_is_closed_within_one_and_a_half_timeouts() {
    let process = Process::rust(&["--write-timeout", "2s"]);
    let stream = connect_with_receive_buffer(process.address, 256 << 10);
    let (stuffed, last_taken) = stuff_and_time(&stream, &pattern(1, 64 << 20));
    eventually("the server cuts it off", || SockRef::from(&stream).take_error().expect("SO_ERROR"));
    let passed = last_taken.elapsed();
    assert!(passed > Duration::from_millis(1_600), "{passed:?} after {stuffed} bytes");
    // Half as long again as the timeout, and time for a busy machine.
    assert!(passed < Duration::from_secs(10), "{passed:?} after {stuffed} bytes");
    assert_eq!(process.figure("closed_write_stalled"), 1);
}

/// The outbox is empty, and no event comes while the peer reads what is in the send buffer.
#[test]
fn a_peer_that_takes_bytes_is_not_idle() {
    let process = Process::rust(&["--idle-timeout", "500ms"]);
    let stream = connect(process.address);
    SockRef::from(&stream).set_recv_buffer_size(16 << 10).expect("SO_RCVBUF");
    let bytes = pattern(2, 1 << 20);
    (&stream).write_all(&bytes).expect("send");
    let mut received = Vec::new();
    read_slowly(&stream, 8 << 10, Duration::from_millis(1_500), &mut received);
    SockRef::from(&stream).set_recv_buffer_size(1 << 20).expect("SO_RCVBUF");
    assert!(received.len() < bytes.len(), "all has gone, and the test shows nothing");
    received.extend(receive(&stream, bytes.len() - received.len()));
    assert_same(&received, &bytes);
    echo(&stream, b"still served\n");
    process.terminate();
}

#[test]
fn clients_that_sent_during_a_pause_are_served_and_not_closed() {
    let process = Process::rust(&["--idle-timeout", "500ms"]);
    let streams: Vec<_> = (0..5).map(|_| connect(process.address)).collect();
    streams.iter().for_each(|stream| echo(stream, b"before\n"));
    process.freeze();
    for mut stream in &streams {
        stream.write_all(b"during the pause\n").expect("send");
    }
    pause(Duration::from_millis(1_300)); // longer than the timeout
    process.thaw();
    for stream in &streams {
        assert_eq!(receive(stream, 17), b"during the pause\n");
    }
    assert_eq!(process.figure("closed_idle"), 0);
}

#[test]
fn a_reader_that_went_on_during_a_pause_is_not_cut_off() {
    let process = Process::rust(&["--write-timeout", "2s"]);
    let stream = connect(process.address);
    let bytes = pattern(3, 64 << 20);
    let sent = stuff(&stream, &bytes);
    process.freeze();
    let frozen = Instant::now();
    let mut received = Vec::new();
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let paused = (&stream).read_to_end(&mut received).expect_err("it reads all that the kernel has");
    assert_eq!(paused.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    wait_until("the timeout has passed", || frozen.elapsed() > Duration::from_millis(3_500));
    process.thaw();
    finish(&stream);
    (&stream).read_to_end(&mut received).expect("bytes and then a FIN");
    assert_same(&received, &bytes[..sent]);
    process.terminate();
}

/// The output of collect is a FIFO that is not read for longer than the idle timeout.
#[test]
fn a_sender_that_waits_for_the_queue_of_collect_is_not_idle() {
    const FRAMES: u32 = 1_600;
    let scratch = Scratch::new();
    let (path, mut fifo) = scratch.fifo("out");
    let process = Process::rust(&[
        "--protocol",
        "collect",
        "--output",
        &path,
        "--queue",
        "16",
        "--idle-timeout",
        "400ms",
        "--write-timeout",
        "off",
    ]);
    let stream = connect(process.address);
    let frames: Vec<u8> =
        (0..FRAMES).flat_map(|number| [200_u32.to_be_bytes().to_vec(), vec![(number % 251) as u8; 200]].concat()).collect();
    let sender = std::thread::spawn(move || {
        (&stream).write_all(&frames).expect("send");
        finish(&stream);
        stream
    });
    pause(Duration::from_millis(1_300)); // three timeouts
    let mut lines = 0;
    let mut buffer = [0; 65_536];
    wait_until("every frame has been written", || {
        let count = fifo.read(&mut buffer).expect("lines");
        lines += buffer[..count].iter().filter(|&&byte| byte == b'\n').count();
        lines == FRAMES as usize
    });
    drop(sender.join().expect("the sender"));
    assert_eq!(process.figure("closed_idle"), 0);
    process.terminate();
}

#[test]
fn at_the_connection_limit_listeners_take_turns() {
    let second = free_address();
    let process = Process::rust(&["--listen", &second.to_string(), "--max-connections", "1"]);
    let mut open = connect(process.address);
    echo(&open, b"the only place\n");
    let crowd: Vec<_> = (0..20).map(|_| connect(process.address)).collect();
    let mut lonely = connect(second);
    lonely.write_all(b"hello\n").expect("send");
    let has_had_place = Arc::new(AtomicBool::new(false));
    let served = std::thread::spawn({
        let has_had_place = Arc::clone(&has_had_place);
        move || {
            let mut back = [0; 6];
            lonely.read_exact(&mut back).expect("the echo");
            has_had_place.store(true, Ordering::SeqCst); // before it makes room for another client
        }
    });
    // Each client that leaves makes room for one of the next listener.
    let mut freed = 0;
    for next in crowd {
        drop(open);
        freed += 1;
        if has_had_place.load(Ordering::SeqCst) {
            break;
        }
        (&next).write_all(b"x").expect("send");
        let is_served = |stream: &TcpStream| {
            stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            eventually("a client has the place", || {
                (has_had_place.load(Ordering::SeqCst) || (&*stream).read(&mut [0]).is_ok_and(|count| count == 1))
                    .then_some(())
            });
        };
        is_served(&next);
        open = next;
    }
    served.join().expect("the client of the second listener");
    assert!(freed <= 4, "{freed} clients of the first listener went first");
}

#[test]
fn clients_that_are_queued_at_the_connection_limit_are_served_at_a_drain_and_newcomers_are_not() {
    let mut process = Process::rust(&["--max-connections", "2", "--drain-timeout", "20s"]);
    let inside: Vec<_> = (0..2).map(|_| connect(process.address)).collect();
    inside.iter().for_each(|stream| echo(stream, b"inside\n"));
    let queued: Vec<_> = (0..5).map(|_| connect(process.address)).collect();
    for mut stream in &queued {
        stream.write_all(b"queued\n").expect("send");
    }
    process.signal(Signal::SIGTERM);
    for mut stream in &queued {
        let mut back = [0; 7];
        stream.read_exact(&mut back).expect("the echo, though nobody has left");
    }
    wait_until("newcomers are refused", || TcpStream::connect(process.address).is_err());
    inside.iter().chain(&queued).for_each(|stream| {
        echo(stream, b"until the end\n");
        finish(stream);
        assert_eq!(read_to_fin(stream), b"");
    });
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

#[test]
fn a_reset_on_close_that_destroys_bytes_is_counted_as_aborted() {
    let mut process = Process::rust(&["--linger", "0s", "--send-buffer", "1MiB"]);
    let stream = connect(process.address);
    SockRef::from(&stream).set_recv_buffer_size(4 << 10).expect("SO_RCVBUF");
    (&stream).write_all(&pattern(6, 200_000)).expect("send");
    finish(&stream);
    wait_until("the server closes", || process.figure("open") == 0);
    assert_eq!(process.figure("closed_aborted"), 1);
    let well = connect(process.address);
    echo(&well, b"nothing is lost here\n");
    finish(&well);
    wait_until("the server closes", || process.figure("open") == 0);
    assert_eq!(process.figure("closed_aborted"), 1);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
}
