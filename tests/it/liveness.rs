//! No live peer is cut off, and no peer that is stuck keeps the others from being served. Each test is named after the promise that it
//! checks.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{assert_same, connect, echo, finish, pattern, read_to_fin, reset, stuff};
use crate::support::{Process, Server, eventually};
use nix::sys::signal::Signal;
use socket2::SockRef;

fn start(arguments: &[&str]) -> Process {
    Process::start(Server::Rust, arguments).expect("the program was built")
}

fn figure(process: &Process, name: &str) -> u64 {
    let before = process.stderr().len();
    process.signal(Signal::SIGUSR1);
    eventually(name, || {
        let report = process.stderr().split_off(before);
        let is_whole = report.lines().any(|line| line.starts_with("longest_turn_us "));
        let line = report.lines().find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()));
        if is_whole { line } else { None }
    })
    .parse()
    .expect("a number")
}

/// Clients that have room for little, and do not block.
fn small_receivers(process: &Process, count: usize) -> Vec<TcpStream> {
    let client = |_| {
        let stream = connect(process.address);
        SockRef::from(&stream).set_recv_buffer_size(4 << 10).expect("SO_RCVBUF");
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        stream
    };
    (0..count).map(client).collect()
}

/// Reads at a rate: so many bytes each 50 ms, for a time.
fn read_slowly(mut stream: &TcpStream, bytes_each: usize, time: Duration, received: &mut Vec<u8>) {
    let start = Instant::now();
    let mut buffer = vec![0; bytes_each];
    while start.elapsed() < time {
        let count = stream.read(&mut buffer).expect("the connection is open");
        assert_ne!(count, 0, "closed after {:?}, with {} bytes received", start.elapsed(), received.len());
        received.extend_from_slice(&buffer[..count]);
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// The send buffer has grown to megabytes, of which Linux wants a third to be free before it reports room: that takes ten times the
/// timeout at this rate.
#[test]
fn a_peer_that_reads_slowly_after_a_fast_start_is_not_cut_off() {
    let process = start(&["--write-timeout", "1s"]);
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
    let process = start(&["--write-timeout", "2s"]);
    let stream = connect(process.address);
    let stuffed = stuff(&stream, &pattern(1, 64 << 20));
    let last_taken = Instant::now(); // at the earliest 300 ms ago, for so long nothing was taken
    eventually("the server cuts it off", || SockRef::from(&stream).take_error().expect("SO_ERROR"));
    let passed = last_taken.elapsed();
    assert!(passed > Duration::from_millis(1_600), "{passed:?} after {stuffed} bytes");
    // Half as long again as the timeout, and room for a busy machine.
    assert!(passed < Duration::from_secs(5), "{passed:?} after {stuffed} bytes");
    assert_eq!(figure(&process, "closed_write_stalled"), 1);
}

/// The outbox is empty, and no event comes while the peer takes what is in the send buffer.
#[test]
fn a_peer_that_takes_bytes_is_not_idle() {
    let process = start(&["--idle-timeout", "700ms"]);
    let stream = connect(process.address);
    SockRef::from(&stream).set_recv_buffer_size(16 << 10).expect("SO_RCVBUF");
    let bytes = pattern(2, 1 << 20);
    (&stream).write_all(&bytes).expect("send");
    let mut received = Vec::new();
    read_slowly(&stream, 8 << 10, Duration::from_millis(2_500), &mut received);
    assert!(received.len() < bytes.len(), "all has gone, and the test shows nothing");
    let rest = received.len();
    received.resize(bytes.len(), 0);
    (&stream).read_exact(&mut received[rest..]).expect("the rest");
    assert_same(&received, &bytes);
    echo(&stream, b"still served\n");
    process.terminate();
}

#[test]
fn clients_that_sent_during_a_pause_are_served_and_not_closed() {
    let process = start(&["--idle-timeout", "500ms"]);
    let streams: Vec<_> = (0..5).map(|_| connect(process.address)).collect();
    streams.iter().for_each(|stream| echo(stream, b"before\n"));
    process.freeze();
    let frozen = Instant::now();
    for mut stream in &streams {
        stream.write_all(b"during the pause\n").expect("send");
    }
    eventually("the timeout has passed", || (frozen.elapsed() > Duration::from_millis(1_300)).then_some(()));
    process.thaw();
    for mut stream in &streams {
        let mut back = [0; 17];
        stream.read_exact(&mut back).expect("the echo");
        assert_eq!(&back, b"during the pause\n");
    }
    assert_eq!(figure(&process, "closed_idle"), 0);
}

#[test]
fn a_reader_that_went_on_during_a_pause_is_not_cut_off() {
    let process = start(&["--write-timeout", "2s"]);
    let stream = connect(process.address);
    let bytes = pattern(3, 64 << 20);
    let sent = stuff(&stream, &bytes);
    process.freeze();
    let frozen = Instant::now();
    let mut received = Vec::new();
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let paused = (&stream).read_to_end(&mut received).expect_err("it reads all that the kernel has");
    assert_eq!(paused.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a timeout");
    eventually("the timeout has passed", || (frozen.elapsed() > Duration::from_millis(3_500)).then_some(()));
    process.thaw();
    finish(&stream);
    (&stream).read_to_end(&mut received).expect("bytes and then a FIN");
    assert_same(&received, &bytes[..sent]);
    process.terminate();
}

/// The output of collect is a FIFO that nobody reads for longer than the idle timeout.
#[test]
fn a_sender_that_waits_for_the_queue_of_collect_is_not_idle() {
    const FRAMES: u32 = 1_600;
    let directory = std::env::temp_dir().join(format!("edgecho-liveness-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let fifo = directory.join("out");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let mut reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&fifo)
        .expect("the FIFO");
    let path = fifo.to_str().expect("a name");
    let process = start(&[
        "--protocol",
        "collect",
        "--output",
        path,
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
    let stalled = Instant::now();
    eventually("three timeouts have passed", || (stalled.elapsed() > Duration::from_millis(1_300)).then_some(()));
    let mut lines = 0;
    let mut buffer = [0; 65_536];
    eventually("every frame has been written", || {
        let count = reader.read(&mut buffer).unwrap_or_default(); // nothing there yet
        lines += buffer[..count].iter().filter(|&&byte| byte == b'\n').count();
        (lines == FRAMES as usize).then_some(())
    });
    drop(sender.join().expect("the sender"));
    assert_eq!(figure(&process, "closed_idle"), 0);
    process.terminate();
    std::fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn peers_that_do_not_read_do_not_stop_the_others_at_the_memory_limit() {
    let process = start(&["--memory-limit", "1MiB", "--write-timeout", "off", "--send-buffer", "16KiB"]);
    let bytes = pattern(4, 4 << 20);
    let stuck = small_receivers(&process, 80);
    eventually("the limit is reached", || {
        stuck.iter().for_each(|mut stream| drop(stream.write(&bytes)));
        (figure(&process, "pending_bytes") >= 1 << 20).then_some(())
    });
    let well = connect(process.address);
    for number in 0..200 {
        echo(&well, &pattern(number, 1 + number as usize * 20));
    }
    let newcomer = connect(process.address);
    echo(&newcomer, b"and a newcomer\n");
    assert!(figure(&process, "pending_bytes") >= 1 << 20, "the limit was reached all the time");
    assert!(figure(&process, "most_pending_bytes") <= (1 << 20) + (64 << 10), "and not passed by more than a read");
}

/// Each has sent half of a frame, and together they hold all the memory there is.
#[test]
fn frames_that_never_become_whole_do_not_stop_the_others_at_the_memory_limit() {
    let arguments = ["--protocol", "frame", "--memory-limit", "256KiB", "--write-timeout", "1s"];
    let process = start(&arguments);
    let frame = |length: u32| [&length.to_be_bytes()[..], &pattern(u64::from(length), length as usize)].concat();
    let whole = frame(60_000);
    let stuck: Vec<_> = (0..20).map(|_| connect(process.address)).collect();
    for mut stream in &stuck {
        stream.write_all(&whole[..30_000]).expect("send");
    }
    eventually("the limit is reached", || (figure(&process, "pending_bytes") >= 256 << 10).then_some(()));
    let well = connect(process.address);
    for length in 0..50 {
        echo(&well, &frame(length * 20));
    }
    // Each becomes whole in the end, though halves that stay halves hold the memory first.
    for mut stream in &stuck[10..] {
        stream.write_all(&whole[30_000..]).expect("send");
    }
    for stream in &stuck[10..] {
        let mut back = vec![0; whole.len()];
        let mut stream: &TcpStream = stream;
        stream.read_exact(&mut back).expect("the frame");
        assert_same(&back, &whole);
    }
    let most = figure(&process, "most_pending_bytes");
    assert!(most <= (256 << 10) + (64 << 10) + 20 * (20 << 10), "{most} bytes of memory");
}

/// The peers send frames, and do not read what comes back.
#[test]
fn frames_that_come_together_are_served_at_the_memory_limit() {
    let arguments = ["--protocol", "frame", "--memory-limit", "64KiB", "--write-timeout", "off", "--send-buffer", "4KiB"];
    let process = start(&arguments);
    let frame = [&1_000_u32.to_be_bytes()[..], &pattern(1, 1_000)].concat();
    let stuck = small_receivers(&process, 30);
    eventually("the limit is reached", || {
        stuck.iter().for_each(|mut stream| drop(stream.write(&frame.repeat(20))));
        (figure(&process, "pending_bytes") >= 64 << 10).then_some(())
    });
    let well = connect(process.address);
    for _ in 0..5 {
        echo(&well, &frame.repeat(10));
    }
}

#[test]
fn a_reset_is_noticed_while_the_connection_is_held_back() {
    let process = start(&["--memory-limit", "64KiB", "--write-timeout", "off", "--send-buffer", "16KiB"]);
    let before = process.descriptors();
    let bytes = pattern(5, 1 << 20);
    let stuck = small_receivers(&process, 60);
    for _ in 0..50 {
        stuck.iter().for_each(|mut stream| drop(stream.write(&bytes)));
        process.settle();
    }
    assert!(figure(&process, "pending_bytes") >= 64 << 10, "none is held back, and the test shows nothing");
    // The connections whose bytes are pending stay, so that memory stays short.
    let mut stuck = stuck;
    let others = stuck.split_off(20);
    assert_eq!(process.descriptors(), before + stuck.len() + others.len());
    others.into_iter().for_each(reset);
    eventually("the descriptors are closed", || (process.descriptors() == before + stuck.len()).then_some(()));
    assert!(figure(&process, "pending_bytes") >= 64 << 10, "memory has come free, and the test shows nothing");
}

/// As with a consumer that has stalled: nothing is read from any connection, for ever.
#[test]
fn a_reset_is_noticed_while_collect_holds_its_senders_back() {
    let directory = std::env::temp_dir().join(format!("edgecho-liveness-reset-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let fifo = directory.join("out");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).expect("the FIFO");
    let process = start(&["--protocol", "collect", "--output", fifo.to_str().expect("a name"), "--queue", "1"]);
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
    eventually("the descriptors are closed", || (process.descriptors() == before).then_some(()));
    drop(reader);
    std::fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn at_the_connection_limit_listeners_take_turns() {
    // An address that no other test listens on: the port stays free.
    let taken = TcpListener::bind("127.0.0.77:0").expect("a free port");
    let second = taken.local_addr().expect("an address");
    drop(taken);
    let process = start(&["--listen", &second.to_string(), "--max-connections", "1"]);
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
            has_had_place.store(true, Ordering::SeqCst); // before it leaves the place to another
        }
    });
    // Each place that comes free goes to the next listener.
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
    let mut process = start(&["--max-connections", "2", "--drain-timeout", "20s"]);
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
    eventually("newcomers are refused", || TcpStream::connect(process.address).is_err().then_some(()));
    inside.iter().chain(&queued).for_each(|stream| {
        echo(stream, b"until the end\n");
        finish(stream);
        assert_eq!(read_to_fin(stream), b"");
    });
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

#[test]
fn a_reset_on_close_that_destroys_bytes_is_counted_as_aborted() {
    let mut process = start(&["--linger", "0s", "--send-buffer", "1MiB"]);
    let stream = connect(process.address);
    SockRef::from(&stream).set_recv_buffer_size(4 << 10).expect("SO_RCVBUF");
    (&stream).write_all(&pattern(6, 200_000)).expect("send");
    finish(&stream);
    eventually("the server closes", || (figure(&process, "open") == 0).then_some(()));
    assert_eq!(figure(&process, "closed_aborted"), 1);
    let well = connect(process.address);
    echo(&well, b"nothing is lost here\n");
    finish(&well);
    eventually("the server closes", || (figure(&process, "open") == 0).then_some(()));
    assert_eq!(figure(&process, "closed_aborted"), 1);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
}

#[test]
fn the_memory_of_a_peak_is_given_back() {
    const STUCK: usize = 1_500;
    let process = start(&["--write-timeout", "off", "--send-buffer", "8KiB"]);
    let bytes = pattern(7, 256 << 10);
    // Small objects between the large ones, as they come and go.
    let crowd = |address: SocketAddr| -> Vec<_> {
        (0..STUCK)
            .map(|_| {
                let stream = TcpStream::connect(address).expect("connect");
                SockRef::from(&stream).set_recv_buffer_size(4 << 10).expect("SO_RCVBUF");
                stream.set_nonblocking(true).expect("O_NONBLOCK");
                stream
            })
            .collect()
    };
    crate::support::raise_descriptor_limit();
    drop(crowd(process.address));
    eventually("all have left", || (figure(&process, "open") == 0).then_some(()));
    let before = process.rss_bytes();
    let stuck = crowd(process.address);
    eventually("a peak", || {
        stuck.iter().for_each(|mut stream| drop(stream.write(&bytes)));
        (figure(&process, "pending_bytes") > 20 << 20).then_some(())
    });
    let peak = process.rss_bytes();
    assert!(peak > before + (16 << 20), "{before} bytes before, {peak} at the peak");
    // Every second one leaves, and comes back empty-handed: what is left lies between what was freed.
    for stream in &stuck {
        let _ = stream.shutdown(Shutdown::Both);
    }
    drop(stuck);
    let witness = connect(process.address);
    echo(&witness, b"still here\n");
    eventually("memory is given back", || (process.rss_bytes() < before + (4 << 20)).then_some(()));
}
