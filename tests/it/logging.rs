//! The log: whatever happens to stderr, it neither stops the server nor delays its end nor changes its status.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::process_1::child_of;
use crate::scratch::Scratch;
use crate::strace::has_strace;
use crate::support::client::{connect, echo, read_to_fin};
use crate::support::{PROGRAM, Process, Program, edgecho, eventually, pause, proc, run, signal, wait_until};

/// The text between the time and the count in a line that counts dropped lines.
const DROPPED: &str = "  WARN log lines were dropped: stderr was blocked or failed lines=";

/// Longer than any exit takes, and far shorter than a wait for a stderr that nobody reads.
const SOON: Duration = Duration::from_secs(20);

fn serve(arguments: &[&str]) -> Command {
    let mut command = edgecho(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(arguments);
    command
}

/// Echoes a message over one connection after the other. At `-v` each connection gives two log lines.
fn converse(process: &Process, connections: usize) {
    for _ in 0..connections {
        echo(&connect(process.address), b"hello");
    }
}

/// Sends a signal that makes the loop log its statistics, many times, each after the loop has read the one before.
fn ask_for_statistics(process: &Process, times: usize) {
    let stream = connect(process.address);
    for _ in 0..times {
        process.signal(Signal::SIGUSR1);
        echo(&stream, b"still there?");
    }
}

/// Returns a stderr that is full of `x`, and its other end.
fn full_stderr() -> (OwnedFd, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a flag");
    for size in [64 * 1024, 1] {
        while (&near).write(&vec![b'x'; size]).is_ok() {}
    }
    assert_eq!((&near).write(b"x").expect_err("it is full").kind(), ErrorKind::WouldBlock);
    near.set_nonblocking(false).expect("a flag");
    (near.into(), far)
}

#[test]
fn a_stderr_that_nobody_reads_stops_neither_the_echo_nor_the_signals() {
    for (arguments, connections) in [(&["-v"] as &[_], 2_000), (&[], 1)] {
        let mut server = Process::spawn_without_reader(serve(arguments).stderr(Stdio::piped()));
        converse(&server, connections);
        ask_for_statistics(&server, 300);
        converse(&server, 10);
        let start = Instant::now();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0), "{arguments:?}");
        assert!(start.elapsed() < SOON, "{arguments:?}: it took {:?} to end", start.elapsed());
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once_though_nobody_reads_stderr() {
    let (stderr, _far) = full_stderr();
    let mut server = Process::spawn_without_reader(serve(&["-v", "--drain-timeout", "1h"]).stderr(stderr));
    let stream = connect(server.address);
    echo(&stream, b"here to stay");
    server.signal(Signal::SIGTERM);
    echo(&stream, b"served to the end");
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().signal(), Some(Signal::SIGTERM as i32));
    assert!(start.elapsed() < SOON, "it took {:?} to end", start.elapsed());
}

/// Until the server has given up its rights it writes without a thread.
#[test]
fn a_line_that_finds_stderr_full_before_the_thread_may_start_is_written_later() {
    let (stderr, mut far) = full_stderr();
    let user = match nix::unistd::geteuid() {
        root if root.is_root() => "4242:4243".to_owned(),
        user => format!("{user}:{}", nix::unistd::getegid()),
    };
    let mut command = serve(&["--user", &user]);
    let _server = Process::spawn_without_reader(command.env_remove("EDGECHO_SANDBOX").stderr(stderr));
    far.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        let mut buffer = [0; 64 * 1024];
        let count = far.read(&mut buffer).expect("the line comes while the server runs, without another event");
        text.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8(text).expect("text");
    assert!(text.trim_start_matches('x').contains("rights of root"), "{:?}", text.trim_start_matches('x'));
}

#[test]
fn what_could_not_be_logged_is_counted_and_the_count_adds_up() {
    const CONNECTIONS: usize = 2_500;
    let mut server = Process::spawn_without_reader(serve(&["-v"]).stderr(Stdio::piped()));
    converse(&server, CONNECTIONS);
    let stderr = server.take_stderr();
    let mut lines = BufReader::new(stderr).lines().map(|line| line.expect("a whole line"));
    let mut log: Vec<String> = Vec::new();
    while !log.last().is_some_and(|line| line.contains("dropped")) {
        log.push(lines.next().expect("the count comes while the server runs, without another event"));
    }
    assert!(log.len() > 500, "there is room for {} lines only", log.len());
    // From here on stderr is read, and no line is dropped.
    converse(&server, 10);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    log.extend(lines);

    let count = |words: &str| log.iter().filter(|line| line.contains(words)).count();
    let dropped = log.iter().filter_map(|line| line.split_once(DROPPED)).map(|(time, count)| {
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        count.parse::<usize>().expect("a number")
    });
    let dropped: usize = dropped.sum();
    assert!(dropped > 1_000, "{dropped} were dropped");
    assert_eq!(count("DEBUG opened") + count("DEBUG closed") + dropped, 2 * (CONNECTIONS + 10));
    assert!(count("INFO drained accepted=2510") == 1, "{:?}", log.last());
}

#[test]
fn lines_that_are_read_slowly_come_whole_and_in_order() {
    let mut server = Process::spawn_without_reader(serve(&["-v"]).stderr(Stdio::piped()));
    let mut stderr = server.take_stderr();
    let address = server.address;
    let reader = std::thread::spawn(move || {
        let (mut text, mut buffer) = (Vec::new(), [0; 333]);
        loop {
            match stderr.read(&mut buffer).expect("read") {
                0 => break,
                count => text.extend_from_slice(&buffer[..count]),
            }
        }
        String::from_utf8(text).expect("text")
    });
    let peers: Vec<_> = (0..300)
        .map(|_| {
            let stream = connect(address);
            echo(&stream, b"hello");
            stream.local_addr().expect("an address").to_string()
        })
        .collect();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let log = reader.join().expect("the reader");
    let opened: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("DEBUG opened peer=").map(|(_, peer)| peer)).collect();
    assert_eq!(opened, peers);
}

#[test]
fn statistics_come_whatever_the_log_level_and_without_a_time() {
    for arguments in [&["-qq"] as &[_], &["--log", "off"], &["--log", "edgecho::statistics=off"], &["-vv"]] {
        let process = Process::rust(arguments);
        process.signal(Signal::SIGUSR1);
        let is_there = |text: &str| text.lines().any(|line| line.starts_with("longest_turn_us "));
        let text = eventually("the statistics", || Some(process.stderr()).filter(|text| is_there(text)));
        assert!(text.starts_with("accepted 0\nopen 0\nclosed_peer 0\n"), "{arguments:?}: {text}");
        process.terminate();
    }
}

#[test]
fn warnings_that_were_suppressed_are_counted_at_the_end() {
    let mut process = Process::rust(&["--protocol", "frame"]);
    for _ in 0..3 {
        let stream = connect(process.address);
        (&stream).write_all(&u32::MAX.to_be_bytes()).expect("send");
        read_to_fin(&stream);
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0));
    let log = process.stderr();
    assert_eq!(log.matches(" WARN closed for a frame longer than 65536 bytes").count(), 1, "{log}");
    assert!(log.contains(" WARN repeated warnings were not logged suppressed=2"), "{log}");
}

#[test]
fn an_error_reaches_stderr_whatever_the_log_level() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for arguments in [&["-qq"] as &[_], &["--log", "off"]] {
        let (status, _, stderr) = run(edgecho(&["serve", "--listen", &address]).args(arguments));
        assert_eq!(status.code(), Some(1));
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with(&format!("error: cannot listen on {address}: Address already in use")), "{stderr}");
    }
}

#[test]
fn no_error_waits_for_a_stderr_that_nobody_reads() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let refused = "127.0.0.1:1";
    for (arguments, expected) in [
        (&["serve", "--listen", &address] as &[_], 1),
        (&["serve", "--listen", "nonsense"], 2),
        (&["serve", "--protocol", "collect", "--output", "/no/such/directory/file"], 1),
        (&["send", refused], 2),
        (&[], 2),
    ] {
        let (stderr, mut far) = full_stderr();
        let start = Instant::now();
        // The command goes out of scope with our own copy of its stderr.
        let status = Program::spawn(edgecho(arguments).stdout(Stdio::null()).stderr(stderr)).wait();
        assert!(start.elapsed() < SOON, "{arguments:?}: it took {:?} to end", start.elapsed());
        assert_eq!(status.code(), Some(expected), "{arguments:?}");
        let mut text = Vec::new();
        far.read_to_end(&mut text).expect("the program has ended");
        assert!(text.iter().all(|&byte| byte == b'x'), "{arguments:?}: there was no room");
    }
}

#[test]
fn a_stderr_that_is_slow_gets_the_error_all_the_same() {
    let (stderr, mut far) = full_stderr();
    let mut child = Program::spawn(edgecho(&["serve", "--listen", "192.0.2.1:7777"]).stdout(Stdio::null()).stderr(stderr));
    // The program waits for room by now, or soon will: in both cases what is read lets its message through.
    let mut text = Vec::new();
    far.read_to_end(&mut text).expect("the program has ended");
    assert_eq!(child.wait().code(), Some(1));
    let text = String::from_utf8(text).expect("text");
    assert!(text.trim_start_matches('x').starts_with("error: cannot listen on 192.0.2.1:7777"), "its message is missing");
}

#[test]
fn a_stderr_that_does_not_block_gets_every_line() {
    // As a parent leaves it that uses O_NONBLOCK on what it shares with its children.
    let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a flag");
    while (&near).write(&[b'x'; 4096]).is_ok() {}
    let mut command = serve(&["-v"]);
    command.stderr(OwnedFd::from(near));
    let mut server = Process::spawn_without_reader(&mut command);
    drop(command);
    converse(&server, 100);
    server.signal(Signal::SIGTERM);
    let mut text = Vec::new();
    far.read_to_end(&mut text).expect("the program has ended");
    assert_eq!(server.wait().code(), Some(0));
    let text = String::from_utf8(text).expect("text");
    assert_eq!((text.matches("DEBUG opened").count(), text.matches("dropped").count()), (100, 0));
}

#[test]
fn a_stderr_that_is_closed_or_broken_stops_nothing() {
    for preparation in ["exec 2>&-", "exec 2>/dev/full", "exec 2</dev/null"] {
        let script = format!("{preparation}; exec \"$0\" serve --listen 127.0.0.1:0 -v");
        let mut server = Process::spawn_without_reader(Command::new("sh").args(["-c", &script, PROGRAM]));
        converse(&server, 20);
        ask_for_statistics(&server, 10);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0), "{preparation}");
    }
}

#[test]
fn a_limit_on_the_size_of_files_does_not_end_the_server() {
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let script = "ulimit -f 1; exec \"$0\" serve --listen 127.0.0.1:0 -v 2>\"$1\"";
    let mut server = Process::spawn_without_reader(Command::new("sh").args(["-c", script, PROGRAM]).arg(&log));
    converse(&server, 100);
    server.signal(Signal::SIGTERM);
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "signal {:?}", status.signal());
    let length = fs::metadata(&log).expect("the log").len();
    assert!((512..=1024).contains(&length), "the log has {length} bytes");
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_signal() {
    let process = Process::rust(&["-q"]);
    let address = process.address.to_string();
    let scratch = Scratch::new();
    for arguments in ["ping -c 1 $1", "flood -n 10 -c 1 $1", "send $1"] {
        let script = format!("ulimit -f 0; echo hello | exec \"$0\" {arguments} >\"$2\"");
        let mut command = Command::new("bash");
        let (status, _, stderr) = run(command.args(["-c", &script, PROGRAM, &address]).arg(scratch.file("output")));
        assert_eq!(status.code(), Some(2), "{arguments}, signal {:?}: {stderr}", status.signal());
        assert!(stderr.contains("File too large"), "{arguments}: {stderr}");
    }
    process.terminate();
}

/// A full log cuts a line off. When there is room again, the next line starts on a line of its own.
#[test]
fn a_line_that_was_cut_off_by_an_error_stays_alone() {
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let script = "ulimit -S -f 1; exec \"$0\" serve --listen 127.0.0.1:0 -v 2>\"$1\"";
    let mut server = Process::spawn_without_reader(Command::new("sh").args(["-c", script, PROGRAM]).arg(&log));
    converse(&server, 50);
    let length = || fs::metadata(&log).expect("the log").len();
    wait_until("the log is full", || length() >= 512 && length() % 512 == 0);
    // There is room again, as after a rotation.
    File::options().write(true).open(&log).expect("the log").set_len(0).expect("ftruncate");
    let mut prlimit = Command::new("prlimit");
    let (status, _, stderr) = run(prlimit.args(["--fsize=unlimited:", "--pid", &server.pid().to_string()]));
    assert!(status.success(), "{stderr}");
    converse(&server, 10);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let text = fs::read(&log).expect("the log");
    let text = String::from_utf8_lossy(&text).trim_start_matches('\0').to_owned();
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.is_empty()).take_while(|line| !line.contains("accepted ")).collect();
    assert!(lines[0].contains(DROPPED), "{text}");
    assert!(lines.iter().all(|line| line.starts_with("20")), "{text}");
}

/// Returns the proc(5) folders of the threads other than the first.
fn other_threads(pid: u32) -> Vec<PathBuf> {
    proc::threads(pid).into_iter().filter(|thread| !thread.ends_with(pid.to_string())).collect()
}

#[test]
fn the_thread_that_logs_holds_no_socket_takes_no_signal_and_sleeps() {
    let server = Process::spawn_without_reader(serve(&["-v"]).stderr(Stdio::null()));
    assert!(other_threads(server.pid()).is_empty(), "there is none before the first line");
    let streams: Vec<_> = (0..10).map(|_| connect(server.address)).collect();
    streams.iter().for_each(|stream| echo(stream, b"hello"));
    let thread = eventually("a thread", || other_threads(server.pid()).pop());

    let descriptors = || fs::read_dir(thread.join("fd")).expect("proc(5)").count();
    wait_until("it has the standard streams only", || descriptors() <= 3);
    let field = |name: &str| {
        let status = fs::read_to_string(thread.join("status")).expect("proc(5)");
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).expect("a field of proc(5)").to_owned()
    };
    // SIGKILL and SIGSTOP cannot be blocked, and the C library keeps the first two real-time signals for itself.
    let blocked = u64::from_str_radix(&field("SigBlk"), 16).expect("a set");
    assert_eq!(blocked & 0x7fff_ffff, 0x7fff_ffff & !(1 << 8 | 1 << 18), "{blocked:x}");

    wait_until("it sleeps", || field("State").starts_with('S'));
    let before = field("voluntary_ctxt_switches");
    // That nothing happens can only be seen by letting time go by.
    pause(Duration::from_millis(200));
    assert_eq!(field("voluntary_ctxt_switches"), before);
    drop(streams);
}

#[test]
fn a_quiet_server_has_one_thread() {
    let mut server = Process::spawn_without_reader(serve(&["-qq"]).stderr(Stdio::piped()));
    converse(&server, 20);
    assert!(other_threads(server.pid()).is_empty());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn without_a_thread_lines_are_written_as_far_as_there_is_room() {
    if !has_strace("without_a_thread_lines_are_written_as_far_as_there_is_room") {
        return;
    }
    let inject = |command: &mut Command| {
        command.args(["-qq", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=clone,clone3"]);
        command.args(["-e", "inject=clone,clone3:error=EAGAIN", PROGRAM, "serve", "--listen"]);
    };
    let mut command = Command::new("strace");
    inject(&mut command);
    let (status, _, stderr) = run(command.arg("192.0.2.1:7777"));
    assert_eq!(status.code(), Some(1));
    assert!(stderr.starts_with("error: cannot listen on 192.0.2.1:7777"), "{stderr}");

    let mut command = Command::new("strace");
    inject(&mut command);
    let mut server = Process::spawn_without_reader(command.args(["127.0.0.1:0", "-v"]).stderr(Stdio::piped()));
    converse(&server, 2_000);
    let stderr = server.take_stderr();
    let pid = child_of(server.pid());
    let log = Arc::new(Mutex::new(String::new()));
    let reader = std::thread::spawn({
        let log = Arc::clone(&log);
        move || {
            for line in BufReader::new(stderr).lines() {
                let mut log = log.lock().expect("a log");
                *log += &line.expect("text");
                log.push('\n');
            }
        }
    });
    // Each line is written as far as there is room: the gap is reported once the reader has made some.
    let mut connections = 2_000;
    wait_until("the gap is reported", || {
        converse(&server, 1);
        connections += 1;
        log.lock().expect("a log").contains(DROPPED)
    });
    signal(pid, Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    reader.join().expect("the reader");
    let log = log.lock().expect("a log");
    assert!(log.contains(&format!("INFO drained accepted={connections}")), "{log}");
}
