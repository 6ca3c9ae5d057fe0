//! `collect`: the server writes each frame once and in order, or reports how many it did not write. Whatever the output does, it delays
//! neither the loop nor the exit.

mod disk;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use edgecho::protocol::Frames;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::schema::assert_valid;
use crate::scratch::Scratch;
use crate::support::client::{connect, connect_with_receive_buffer, finish, read_to_fin, stuff};
use crate::support::{Process, Server, pause, proc, quiet, wait_until};

/// Sends `count` frames of a session. Each payload begins with the session and the number of the frame, from 1.
fn send_frames(stream: &TcpStream, session: u64, count: u64) {
    let mut out = std::io::BufWriter::new(stream);
    for number in 1..=count {
        let mut payload = format!("{session}:{number}:").into_bytes();
        payload.resize(200, b'.');
        out.write_all(&Frames::encode(&payload)).expect("send");
    }
    out.flush().expect("send");
}

/// Checks what was collected: every frame once, and in order for each session.
fn assert_collected(lines: impl Iterator<Item = String>, sessions: usize, count: u64) {
    let mut next = std::collections::BTreeMap::<String, (u64, String)>::new();
    for line in lines {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let name = line["session"].as_str().expect("a session").to_owned();
        assert!(name.starts_with("gs-") && name.contains("@127.0.0.1:"), "{name}");
        let payload = line["payload"].as_str().expect("text");
        let mut parts = payload.split(':');
        let (sender, number) = (parts.next().expect("a sender").to_owned(), parts.next().expect("a number"));
        let entry = next.entry(name).or_insert((1, sender.clone()));
        assert_eq!((number, &sender), (entry.0.to_string().as_str(), &entry.1), "in order, and of one sender");
        assert_eq!((line["sequence"].as_u64(), line["length"].as_u64()), (Some(entry.0), Some(200)));
        assert_eq!(line["encoding"], "text");
        assert!(line["received_at"].as_str().expect("a time").ends_with('Z'));
        entry.0 += 1;
    }
    assert_eq!(next.len(), sessions);
    assert!(next.values().all(|&(next, _)| next == count + 1), "{next:?}");
}

#[test]
fn what_is_collected_is_in_the_file_when_the_server_has_ended() {
    let scratch = Scratch::new();
    let path = scratch.file("output");
    let mut process = Process::rust(&["--protocol", "collect", "--output", &path]);
    let binary = connect(process.address);
    (&binary).write_all(&Frames::encode(&[0xff, 0xfe])).expect("send");
    finish(&binary);
    assert_eq!(read_to_fin(&binary), b"", "nothing is echoed");
    let streams: Vec<_> = (0..5).map(|_| connect(process.address)).collect();
    for (session, stream) in (0..).zip(&streams) {
        send_frames(stream, session, 1_000);
        finish(stream);
    }
    for stream in &streams {
        read_to_fin(stream);
    }
    process.signal(Signal::SIGTERM);
    assert!(process.wait().success(), "{}", process.stderr());
    let text = fs::read_to_string(&path).expect("a file");
    let (first, rest) = text.split_once('\n').expect("a line");
    for line in [first, rest.lines().next().expect("a second line")] {
        assert_valid(&serde_json::from_str(line).expect("JSON"), "collect-record");
    }
    let first: Value = serde_json::from_str(first).expect("JSON");
    assert_eq!((first["encoding"].as_str(), first["payload"].as_str()), (Some("base64"), Some("//4=")));
    assert_collected(rest.lines().map(str::to_owned), 5, 1_000);
}

/// Starts a server that collects to `stdout`.
fn collect_to(stdout: impl Into<Stdio>, arguments: &[&str]) -> Process {
    let (program, first) = Server::Rust.program().expect("the program");
    let mut command = Command::new(program);
    Process::spawn_with_stdout(command.args(first).args(["--protocol", "collect"]).args(arguments), stdout)
}

/// 50 senders send 100,000 frames of 200 bytes, and the consumer reads nothing for 2 seconds.
#[test]
fn a_consumer_that_stops_slows_the_senders_and_loses_nothing() {
    let _guard = quiet();
    let mut process = collect_to(Stdio::piped(), &["--write-timeout", "off", "--drain-timeout", "60s"]);
    let address = process.address;
    let senders: Vec<_> = (0..50)
        .map(|session| {
            std::thread::spawn(move || {
                let stream = connect(address);
                send_frames(&stream, session, 2_000);
                finish(&stream);
                read_to_fin(&stream);
            })
        })
        .collect();
    pause(Duration::from_secs(2)); // the consumer has not read a byte yet
    let rss = process.rss_bytes();
    let consumer = read_lines(process.take_stdout());
    for sender in senders {
        sender.join().expect("a sender");
    }
    let later = process.rss_bytes();
    assert!(rss.max(later) < 32 << 20, "{rss} and {later} bytes resident");
    process.terminate();
    assert_collected(consumer.join().expect("a consumer").into_iter(), 50, 2_000);
}

/// Reads all lines, in a thread.
fn read_lines(from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || BufReader::new(from).lines().map(|line| line.expect("text")).collect())
}

#[test]
fn a_consumer_that_goes_away_ends_the_server_with_a_reason() {
    let mut process = collect_to(Stdio::piped(), &[]);
    drop(process.take_stdout());
    let stream = connect(process.address);
    send_frames(&stream, 0, 10);
    let status = process.wait();
    let said = process.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("error: cannot write what was collected: Broken pipe"), "{said}");
    assert!(said.contains("10 frames were not written"), "{said}");
}

/// Returns the number before some words on stderr.
fn number_before(said: &str, words: &str) -> Option<u64> {
    said.split(words).next().filter(|before| before.len() < said.len())?.rsplit(' ').next()?.parse().ok()
}

/// Starts a server with a consumer that reads nothing: of a pipe, which the loop writes to, or of a socket, which a thread writes to
/// because it cannot be opened again.
fn stalled_consumer(is_threaded: bool, drain_timeout: &str) -> (Process, Option<UnixStream>, TcpStream) {
    let arguments = ["--queue", "16", "--drain-timeout", drain_timeout];
    let (process, consumer) = if is_threaded {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        (collect_to(Stdio::from(OwnedFd::from(far)), &arguments), Some(near))
    } else {
        (collect_to(Stdio::piped(), &arguments), None)
    };
    let stream = connect_with_receive_buffer(process.address, 64 << 10);
    let sent = stuff(&stream, &Frames::encode(&[b'x'; 1_000]).repeat(64 << 10));
    assert!(sent < 32 << 20, "{sent} bytes were taken for a consumer that takes none");
    (process, consumer, stream)
}

#[test]
fn a_consumer_that_stalls_for_ever_ends_the_drain_with_the_number_of_frames_not_written() {
    let end = |is_threaded| {
        let (mut process, _consumer, _stream) = stalled_consumer(is_threaded, "100ms");
        process.signal(Signal::SIGTERM);
        let status = process.wait();
        let said = process.stderr();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(number_before(&said, " frames were not written").is_some_and(|count| count >= 1), "{said}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| end(false));
        end(true);
    });
}

/// A process that shares the socket has set O_NONBLOCK. The thread that writes waits until there is room.
#[test]
fn a_socket_that_does_not_block_gets_every_frame() {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    far.set_nonblocking(true).expect("a flag");
    let process = collect_to(Stdio::from(OwnedFd::from(far)), &["--drain-timeout", "60s"]);
    let stream = connect(process.address);
    let sender = std::thread::spawn(move || {
        send_frames(&stream, 0, 5_000);
        finish(&stream);
        read_to_fin(&stream);
    });
    process.settle(); // nothing has been read yet
    let consumer = read_lines(near);
    sender.join().expect("a sender");
    process.terminate();
    assert_collected(consumer.join().expect("a consumer").into_iter(), 1, 5_000);
}

#[test]
fn a_second_signal_ends_the_server_though_the_consumer_stalls() {
    for is_threaded in [false, true] {
        let (mut process, _consumer, _stream) = stalled_consumer(is_threaded, "1day");
        process.signal(Signal::SIGTERM);
        wait_until("the drain", || process.stderr().contains("draining"));
        process.signal(Signal::SIGTERM);
        let status = process.wait();
        let said = process.stderr();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{status:?} {said}");
        assert!(number_before(&said, " frames were not written").is_some_and(|count| count >= 1), "{said}");
    }
}

#[test]
fn devices_that_cannot_be_polled_are_written_to() {
    let null = || fs::OpenOptions::new().write(true).open("/dev/null").expect("it is always there");
    for process in [Process::rust(&["--protocol", "collect", "--output", "/dev/null"]), collect_to(null(), &[])] {
        let stream = connect(process.address);
        send_frames(&stream, 0, 1_000);
        finish(&stream);
        read_to_fin(&stream);
        process.terminate();
    }
}

/// Returns the time that the loop takes to accept and close a connection.
fn round_trip(process: &Process) -> Duration {
    let start = Instant::now();
    let stream = connect(process.address);
    finish(&stream);
    read_to_fin(&stream);
    start.elapsed()
}

#[test]
fn a_large_frame_holds_up_nobody_and_costs_no_more_than_itself() {
    const LENGTH: usize = 32 << 20;
    let _guard = quiet();
    // Text of which every byte is escaped, and bytes that are no text.
    for (payload, encoding) in [(vec![b'"'; LENGTH], "text"), (vec![0xff; LENGTH], "base64")] {
        let mut process = collect_to(Stdio::piped(), &["--max-frame", "64MiB", "--drain-timeout", "60s"]);
        let before = process.rss_bytes();
        let mut consumer = process.take_stdout();
        let stream = connect(process.address);
        let frame = Frames::encode(&payload);
        let sender = std::thread::spawn(move || {
            (&stream).write_all(&frame).expect("send");
            finish(&stream);
            read_to_fin(&stream);
        });
        let consumer = std::thread::spawn(move || {
            let mut text = Vec::new();
            consumer.read_to_end(&mut text).map(|_| text)
        });
        let mut longest = Duration::ZERO;
        while !sender.is_finished() {
            longest = longest.max(round_trip(&process));
        }
        sender.join().expect("a sender");
        let (peak, cpu) = (process.peak_rss_bytes(), process.cpu_time());
        process.terminate();
        let text = consumer.join().expect("a consumer").expect("text");
        let line: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!((line["length"].as_u64(), line["encoding"].as_str()), (Some(LENGTH as u64), Some(encoding)));
        if encoding == "text" {
            assert!(line["payload"].as_str().expect("text").as_bytes() == payload, "the payload");
        }
        let costs =
            format!("{before} bytes before, {peak} at the peak; {cpu:?} of CPU; somebody else waited for {longest:?}");
        assert!(
            peak < before + LENGTH as u64 / 4 * 5 && cpu < Duration::from_secs(4) && longest < Duration::from_secs(5),
            "{costs}"
        );
    }
}

#[test]
fn the_thread_that_writes_has_a_descriptor_table_of_its_own() {
    let process = Process::rust(&["--protocol", "collect", "--output", "/dev/null"]);
    let stream = connect(process.address);
    send_frames(&stream, 0, 1);
    let thread = proc::threads(process.pid()).into_iter().find(|thread| {
        let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
        name.trim() == "output"
    });
    let descriptors = thread.expect("a thread").join("fd");
    wait_until("the output, and what wakes the loop", || fs::read_dir(&descriptors).expect("proc(5)").count() == 2);
    assert!(process.descriptors() > 5);
    drop(stream);
    process.terminate();
}
