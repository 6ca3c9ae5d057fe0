//! `collect`: every frame that was accepted is written once, in order, or the server says how many were not. Nothing that the output
//! does holds up the loop or the exit.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use edgecho::protocol::Frames;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::start;
use crate::support::client::{connect, finish, read_to_fin, stuff};
use crate::support::{Killed, Process, Server, assert_valid, eventually, proc, skip};

/// A file of this test's own.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("edgecho-{name}-{}", std::process::id()))
}

/// Sends frames of a session, from 1 on, each with its number in it.
fn send_frames(stream: &TcpStream, session: u64, count: u64) {
    let mut out = std::io::BufWriter::new(stream);
    for number in 1..=count {
        let mut payload = format!("{session}:{number}:").into_bytes();
        payload.resize(200, b'.');
        out.write_all(&Frames::encode(&payload)).expect("send");
    }
    out.flush().expect("send");
}

/// Holds what was collected to what was sent: every frame once, and in order for each session.
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
    let path = scratch("collect");
    let mut process = start(&["--protocol", "collect", "--output", path.to_str().expect("text")]);
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
    fs::remove_file(path).expect("our own file");
}

/// Collects to stdout, which is `stdout`.
fn collect_to(stdout: impl Into<Stdio>, arguments: &[&str]) -> Process {
    let (program, first) = Server::Rust.program().expect("the program");
    let mut command = Command::new(program);
    Process::spawn_with_stdout(command.args(first).args(["--protocol", "collect"]).args(arguments), stdout)
}

/// 100,000 frames of 200 bytes from 50 senders, to a consumer that stops for 2 seconds.
#[test]
fn a_consumer_that_stops_slows_the_senders_and_loses_nothing() {
    let mut process = collect_to(Stdio::piped(), &["--write-timeout", "off"]);
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
    // The consumer: it has not read a byte yet, and stands still for 2 seconds.
    std::thread::park_timeout(Duration::from_secs(2));
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

/// Reads lines to their end, in a thread.
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

/// A small tmpfs that the server writes to. A file fills it but for a few KiB.
struct SmallDisk {
    process: Process,
    disk: PathBuf,
    root: PathBuf,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.disk);
    }
}

impl SmallDisk {
    /// Starts a server that collects to a small disk; none where the kernel does not let us have one.
    fn start(name: &str, size_kib: u32, free_kib: u32, arguments: &[&str]) -> Option<Self> {
        let (program, first) = Server::Rust.program().expect("the program");
        let is_allowed = Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
        if !is_allowed {
            skip(name, "no namespace of our own can be had");
            return None;
        }
        let disk = scratch(name);
        fs::create_dir(&disk).expect("our own folder");
        let script = format!(
            "mount -t tmpfs -o size={size_kib}k tmpfs {disk} && head -c {}k /dev/zero >{disk}/filler && exec \"$0\" \"$@\"",
            size_kib - free_kib,
            disk = disk.display(),
        );
        let output = disk.join("out");
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script, program]).args(first).args(["--protocol", "collect", "--output"]);
        let process = Process::spawn(command.arg(&output).args(arguments));
        // The disk is mounted for the server alone; we see it through proc(5).
        let seen = PathBuf::from(format!("/proc/{}/root{}", process.pid(), disk.display()));
        Some(Self { process, disk, root: seen })
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("out")).expect("the output");
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
    }

    /// Waits until the server has said that the disk is full.
    fn wait_for_warning(&self) {
        eventually("a warning", || self.process.stderr().contains("No space left on device").then_some(()));
    }
}

/// The number that stands before some words on stderr.
fn number_before(said: &str, words: &str) -> Option<u64> {
    said.split(words).next().filter(|before| before.len() < said.len())?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_full_disk_holds_the_senders_back_and_is_warned_of_once() {
    let arguments = ["--queue", "16", "--drain-timeout", "100ms"];
    let Some(mut disk) = SmallDisk::start("full-disk", 64, 4, &arguments) else { return };
    let process = &mut disk.process;
    let before = process.rss_bytes();
    let stream = connect(process.address);
    let frames = Frames::encode(&[b'x'; 1_000]).repeat(128 << 10);
    let sent = stuff(&stream, &frames);
    assert!(sent < 64 << 20, "{sent} bytes were taken for a disk that is full");
    let after = process.peak_rss_bytes();
    assert!(after < before + (4 << 20), "{before} bytes resident before, {after} after");
    let said = process.stderr();
    assert_eq!(said.matches("WARN").count(), 1, "{said}");
    process.signal(Signal::SIGTERM);
    let status = process.wait();
    let said = process.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(number_before(&said, " frames were not written").is_some_and(|count| (16..64).contains(&count)), "{said}");
}

#[test]
fn a_full_disk_that_gets_room_again_has_every_frame_once() {
    let Some(mut disk) = SmallDisk::start("room-again", 1_024, 20, &["--queue", "16"]) else { return };
    let address = disk.process.address;
    let senders: Vec<_> = (0..3)
        .map(|session| {
            std::thread::spawn(move || {
                let stream = connect(address);
                send_frames(&stream, session, 500);
                finish(&stream);
                read_to_fin(&stream);
            })
        })
        .collect();
    disk.wait_for_warning();
    fs::remove_file(disk.root.join("filler")).expect("it is there");
    senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
    eventually("all are written", || (disk.lines().len() == 1_500).then_some(()));
    assert_collected(disk.lines().into_iter(), 3, 500);
    disk.process.signal(Signal::SIGTERM);
    assert!(disk.process.wait().success(), "{}", disk.process.stderr());
}

#[test]
fn the_failure_of_the_last_batch_fails_the_run_and_says_how_many_frames_it_held() {
    let Some(mut disk) = SmallDisk::start("last-batch", 64, 0, &["--drain-timeout", "100ms"]) else { return };
    let stream = connect(disk.process.address);
    send_frames(&stream, 0, 3);
    finish(&stream);
    read_to_fin(&stream);
    disk.process.signal(Signal::SIGTERM);
    let status = disk.process.wait();
    let said = disk.process.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device") && said.contains("3 frames were not written"), "{said}");
}

/// A pipe, which the loop itself writes to, or a socket, which cannot be opened anew and so is written to by a thread.
fn stalled_consumer(is_threaded: bool, drain_timeout: &str) -> (Process, Option<UnixStream>, TcpStream) {
    let arguments = ["--queue", "16", "--drain-timeout", drain_timeout];
    let (process, consumer) = if is_threaded {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        (collect_to(Stdio::from(OwnedFd::from(far)), &arguments), Some(near))
    } else {
        (collect_to(Stdio::piped(), &arguments), None)
    };
    let stream = connect(process.address);
    let sent = stuff(&stream, &Frames::encode(&[b'x'; 1_000]).repeat(64 << 10));
    assert!(sent < 32 << 20, "{sent} bytes were taken for a consumer that takes none");
    (process, consumer, stream)
}

#[test]
fn a_consumer_that_stalls_for_ever_ends_the_drain_with_the_number_of_frames_not_written() {
    for is_threaded in [false, true] {
        let (mut process, _consumer, _stream) = stalled_consumer(is_threaded, "100ms");
        process.signal(Signal::SIGTERM);
        let status = process.wait();
        let said = process.stderr();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(number_before(&said, " frames were not written").is_some_and(|count| count >= 1), "{said}");
    }
}

/// Another process that shares a socket may have set it not to block: the thread that writes waits until there is room.
#[test]
fn a_socket_that_does_not_block_gets_every_frame() {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    far.set_nonblocking(true).expect("a flag");
    let process = collect_to(Stdio::from(OwnedFd::from(far)), &[]);
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
        eventually("the drain", || process.stderr().contains("draining").then_some(()));
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
    for process in [start(&["--protocol", "collect", "--output", "/dev/null"]), collect_to(null(), &[])] {
        let stream = connect(process.address);
        send_frames(&stream, 0, 1_000);
        finish(&stream);
        read_to_fin(&stream);
        process.terminate();
    }
}

#[test]
fn dev_full_is_a_full_disk() {
    let mut process = start(&["--protocol", "collect", "--output", "/dev/full", "--drain-timeout", "0s"]);
    let stream = connect(process.address);
    send_frames(&stream, 0, 5);
    eventually("a warning", || process.stderr().contains("No space left on device").then_some(()));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    assert!(process.stderr().contains("5 frames were not written"), "{}", process.stderr());
}

/// A limit on the size of files cuts a write in two: what is left is written when the limit is raised.
#[test]
fn a_file_at_its_size_limit_goes_on_in_the_middle_of_a_line_when_the_limit_is_raised() {
    let path = scratch("size-limit");
    let preparation = "trap '' XFSZ; ulimit -S -f 3";
    let arguments = ["--protocol", "collect", "--output", path.to_str().expect("text")];
    let process = Process::start_after(Server::Rust, preparation, &arguments).expect("the program");
    let stream = connect(process.address);
    send_frames(&stream, 0, 100);
    finish(&stream);
    eventually("a warning", || process.stderr().contains("File too large").then_some(()));
    assert_eq!(fs::metadata(&path).expect("a file").len(), 3 * 512, "up to the limit");
    let mut command = Command::new("prlimit");
    command.args(["--pid", &process.pid().to_string(), "--fsize=unlimited"]);
    assert!(command.status().expect("util-linux").success());
    process.terminate();
    assert_collected(fs::read_to_string(&path).expect("a file").lines().map(str::to_owned), 1, 100);
    fs::remove_file(path).expect("our own file");
}

fn has_strace(test: &str) -> bool {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        skip(test, "strace is missing");
    }
    found
}

/// Starts a server that collects to a file, and has strace inject faults into calls on that file.
fn collect_with_faults(path: &Path, call: &str, fault: &str, arguments: &[&str]) -> (Process, Killed) {
    let process = start(&[&["--protocol", "collect", "--output", path.to_str().expect("text")], arguments].concat());
    let mut tracer = Command::new("strace");
    tracer.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={call}:{fault}"),
        "-P",
    ]);
    let tracer = tracer.arg(path).args(["-p", &process.pid().to_string()]).stderr(Stdio::null()).spawn();
    let tracer = Killed(tracer.expect("strace"));
    eventually("strace is attached", || proc::are_all_traced(process.pid()).then_some(()));
    (process, tracer)
}

/// As a run leaves it that could not write to its end.
#[test]
fn a_file_that_ends_within_a_line_is_given_a_new_line_first() {
    let path = scratch("torn");
    for (before, expected) in [("{\"torn\":", "{\"torn\":\n"), ("whole\n", "whole\n"), ("", "")] {
        fs::write(&path, before).expect("a file");
        let process = start(&["--protocol", "collect", "--output", path.to_str().expect("a name")]);
        let stream = connect(process.address);
        send_frames(&stream, 0, 1);
        finish(&stream);
        read_to_fin(&stream);
        process.terminate();
        let text = fs::read_to_string(&path).expect("a file");
        let lines = text.strip_prefix(expected).unwrap_or_else(|| panic!("{text:?}"));
        assert_collected(lines.lines().map(str::to_owned), 1, 1);
    }
    fs::remove_file(path).expect("our own file");
}

#[test]
fn a_disk_that_does_not_answer_a_sync_does_not_block_the_exit() {
    if !has_strace("a_disk_that_does_not_answer") {
        return;
    }
    let path = scratch("sync");
    let (mut process, tracer) =
        collect_with_faults(&path, "fdatasync", "delay_enter=60000000", &["--drain-timeout", "100ms"]);
    let stream = connect(process.address);
    send_frames(&stream, 0, 3);
    finish(&stream);
    read_to_fin(&stream);
    process.signal(Signal::SIGTERM);
    eventually("the end", || process.stderr().contains("all frames were written, but it is not certain").then_some(()));
    drop(tracer); // it would hold on to the thread that it delays
    assert_eq!(process.wait().code(), Some(1), "{}", process.stderr());
    assert_collected(fs::read_to_string(&path).expect("a file").lines().map(str::to_owned), 1, 3);
    fs::remove_file(path).expect("our own file");
}

/// Injects two failures of write(2) for each row, and checks that it is tried again, or that the server ends.
#[test]
fn each_errno_of_write_is_tried_again_or_ends_the_server_as_the_table_says() {
    if !has_strace("each_errno_of_write") {
        return;
    }
    for (errno, words, is_retried) in [
        ("ENOSPC", "No space left on device", true),
        ("EDQUOT", "Disk quota exceeded", true),
        ("EFBIG", "File too large", true),
        ("EIO", "Input/output error", false),
        ("EPIPE", "Broken pipe", false),
        ("EBADF", "Bad file descriptor", false),
    ] {
        let path = scratch(errno);
        let (mut process, _tracer) = collect_with_faults(&path, "write", &format!("error={errno}:when=1..2"), &[]);
        let stream = connect(process.address);
        send_frames(&stream, 0, 4);
        finish(&stream);
        eventually("a word about it", || process.stderr().contains(words).then_some(()));
        if is_retried {
            process.signal(Signal::SIGTERM);
            assert_eq!(process.wait().code(), Some(0), "{errno}: {}", process.stderr());
            assert_collected(fs::read_to_string(&path).expect("a file").lines().map(str::to_owned), 1, 4);
        } else {
            assert_eq!(process.wait().code(), Some(1), "{errno}: {}", process.stderr());
            assert!(process.stderr().contains("4 frames were not written"), "{errno}: {}", process.stderr());
        }
        fs::remove_file(path).expect("our own file");
    }
}

/// The time that the loop takes to see a connection come and go.
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
    // Text of which every byte is escaped, and bytes that are no text.
    for (payload, encoding) in [(vec![b'"'; LENGTH], "text"), (vec![0xff; LENGTH], "base64")] {
        let mut process = collect_to(Stdio::piped(), &["--max-frame", "64MiB"]);
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
            peak < before + LENGTH as u64 / 4 * 5 && cpu < Duration::from_secs(4) && longest < Duration::from_secs(1),
            "{costs}"
        );
    }
}

#[test]
fn the_thread_that_writes_has_a_descriptor_table_of_its_own() {
    let process = start(&["--protocol", "collect", "--output", "/dev/null"]);
    let stream = connect(process.address);
    send_frames(&stream, 0, 1);
    let tasks = format!("/proc/{}/task", process.pid());
    let thread = fs::read_dir(&tasks).expect("proc(5)").map(|task| task.expect("proc(5)").path()).find(|task| {
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        name.trim() == "output"
    });
    let descriptors = thread.expect("a thread").join("fd");
    eventually("the output, and what wakes the loop", || {
        (fs::read_dir(&descriptors).expect("proc(5)").count() == 2).then_some(())
    });
    assert!(fs::read_dir(Path::new(&tasks).join(process.pid().to_string()).join("fd")).expect("proc(5)").count() > 5);
    process.terminate();
}
