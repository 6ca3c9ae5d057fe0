//! The log of the program: nothing that happens to stderr stops the server, delays its end or changes its status.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{connect, echo};
use crate::support::{Killed, Process, Server, eventually, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What stands between the time and the count of a line about lines that are missing.
const DROPPED: &str = "  WARN log lines were dropped: stderr was blocked or failed lines=";

const PROGRAM: &str = env!("CARGO_BIN_EXE_edgecho");

/// Longer than any exit takes, and far shorter than a wait for a stderr that nobody reads.
const SOON: Duration = Duration::from_secs(5);

fn serve(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
    command
}

/// A server whose stderr is the test's business.
struct Served {
    child: Killed,
    address: SocketAddr,
}

impl Served {
    fn start(command: &mut Command) -> Self {
        let mut child = Killed(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program"));
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("an announcement").parse().expect("an address");
        Self { child, address }
    }

    fn pid(&self) -> u32 {
        self.child.0.id()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("the server is running");
    }

    fn wait(&mut self) -> ExitStatus {
        eventually("the server ends", || self.child.0.try_wait().expect("our own child"))
    }

    /// Connections that echo a message and close, one after the other: two log lines each at `-v`.
    fn converse(&self, connections: usize) {
        for _ in 0..connections {
            echo(&connect(self.address), b"hello");
        }
    }

    /// Sends a signal that has the loop log something, many times, each of them after the loop has taken the one before.
    fn ask_for_statistics(&self, times: usize) {
        let stream = connect(self.address);
        for _ in 0..times {
            self.signal(Signal::SIGUSR1);
            echo(&stream, b"still there?");
        }
    }
}

/// A stderr that takes nothing, and the other end of it. What has been put into it is `x` only.
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
        let mut server = Served::start(serve(arguments).stderr(Stdio::piped()));
        server.converse(connections);
        server.ask_for_statistics(300);
        server.converse(10);
        let start = Instant::now();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0), "{arguments:?}");
        assert!(start.elapsed() < SOON, "{arguments:?}: it took {:?} to end", start.elapsed());
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once_though_nobody_reads_stderr() {
    let (stderr, _far) = full_stderr();
    let mut server = Served::start(serve(&["-v", "--drain-timeout", "1h"]).stderr(stderr));
    let stream = connect(server.address);
    echo(&stream, b"here to stay");
    server.signal(Signal::SIGTERM);
    echo(&stream, b"served to the end");
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().signal(), Some(Signal::SIGTERM as i32));
    assert!(start.elapsed() < SOON, "it took {:?} to end", start.elapsed());
}

#[test]
fn what_could_not_be_logged_is_counted_and_the_count_adds_up() {
    const CONNECTIONS: usize = 2_500;
    let mut server = Served::start(serve(&["-v"]).stderr(Stdio::piped()));
    server.converse(CONNECTIONS);
    let stderr = server.child.0.stderr.take().expect("piped");
    let mut lines = BufReader::new(stderr).lines().map(|line| line.expect("a whole line"));
    let mut log: Vec<String> = Vec::new();
    while !log.last().is_some_and(|line| line.contains("dropped")) {
        log.push(lines.next().expect("the count comes while the server runs, without another event"));
    }
    assert!(log.len() > 500, "there is room for {} lines only", log.len());
    // From here on somebody reads, and nothing is dropped any more.
    server.converse(10);
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
    let mut server = Served::start(serve(&["-v"]).stderr(Stdio::piped()));
    let mut stderr = server.child.0.stderr.take().expect("piped");
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
        let process = Process::start(Server::Rust, arguments).expect("the program");
        process.signal(Signal::SIGUSR1);
        let is_there = |text: &str| text.lines().any(|line| line.starts_with("longest_turn_us "));
        let text = eventually("the statistics", || Some(process.stderr()).filter(|text| is_there(text)));
        assert!(text.starts_with("accepted 0\nopen 0\nclosed_peer 0\n"), "{arguments:?}: {text}");
        process.terminate();
    }
}

#[test]
fn an_error_reaches_stderr_whatever_the_log_level() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for arguments in [&["-qq"] as &[_], &["--log", "off"]] {
        let (status, _, stderr) = run(Command::new(PROGRAM).args(["serve", "--listen", &address]).args(arguments));
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
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut child = Killed(command.spawn().expect("the program"));
        drop(command); // and with it our own copy of the stderr
        let start = Instant::now();
        let status = eventually("the program ends", || child.0.try_wait().expect("our own child"));
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
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", "192.0.2.1:7777"]).stdout(Stdio::null()).stderr(stderr);
    let mut child = Killed(command.spawn().expect("the program"));
    drop(command);
    // The program waits for room by now, or soon will: in both cases what is read lets its message through.
    let mut text = Vec::new();
    far.read_to_end(&mut text).expect("the program has ended");
    assert_eq!(eventually("the program ends", || child.0.try_wait().expect("our own child")).code(), Some(1));
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
    let mut server = Served::start(&mut command);
    drop(command);
    server.converse(100);
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
        let mut server = Served::start(Command::new("sh").args(["-c", &script, PROGRAM]));
        server.converse(20);
        server.ask_for_statistics(10);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0), "{preparation}");
    }
}

/// A file in the directory for temporary files, removed when it goes out of scope.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("edgecho-logging-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_limit_on_the_size_of_files_does_not_end_the_server() {
    let log = Scratch::new("limited");
    let script = "ulimit -f 1; exec \"$0\" serve --listen 127.0.0.1:0 -v 2>\"$1\"";
    let mut server = Served::start(Command::new("sh").args(["-c", script, PROGRAM]).arg(&log.0));
    server.converse(100);
    server.signal(Signal::SIGTERM);
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "signal {:?}", status.signal());
    let length = fs::metadata(&log.0).expect("the log").len();
    assert!((512..=1024).contains(&length), "the log has {length} bytes");
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_signal() {
    let process = Process::start(Server::Rust, &["-q"]).expect("the program");
    let address = process.address.to_string();
    let out = Scratch::new("output");
    for arguments in ["ping -c 1 $1", "flood -n 10 -c 1 $1", "send $1"] {
        let script = format!("ulimit -f 0; echo hello | exec \"$0\" {arguments} >\"$2\"");
        let mut command = Command::new("bash");
        let (status, _, stderr) = run(command.args(["-c", &script, PROGRAM, &address]).arg(&out.0));
        assert_eq!(status.code(), Some(2), "{arguments}, signal {:?}: {stderr}", status.signal());
        assert!(stderr.contains("File too large"), "{arguments}: {stderr}");
    }
    process.terminate();
}

/// What a log that is full for a while has cut off is made whole again: a line never goes on where another one was cut.
#[test]
fn a_line_that_was_cut_off_by_an_error_stays_alone() {
    let log = Scratch::new("cut");
    let script = "ulimit -S -f 1; exec \"$0\" serve --listen 127.0.0.1:0 -v 2>\"$1\"";
    let mut server = Served::start(Command::new("sh").args(["-c", script, PROGRAM]).arg(&log.0));
    server.converse(50);
    let length = || fs::metadata(&log.0).expect("the log").len();
    eventually("the log is full", || (length() >= 512 && length() % 512 == 0).then_some(()));
    // There is room again, as after a rotation.
    File::options().write(true).open(&log.0).expect("the log").set_len(0).expect("ftruncate");
    let mut prlimit = Command::new("prlimit");
    let (status, _, stderr) = run(prlimit.args(["--fsize=unlimited:", "--pid", &server.pid().to_string()]));
    assert!(status.success(), "{stderr}");
    server.converse(10);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let text = fs::read(&log.0).expect("the log");
    let text = String::from_utf8_lossy(&text).trim_start_matches('\0').to_owned();
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.is_empty()).take_while(|line| !line.contains("accepted ")).collect();
    assert!(lines[0].contains(DROPPED), "{text}");
    assert!(lines.iter().all(|line| line.starts_with("20")), "{text}");
}

/// The numbers of the threads other than the first.
fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the server is running");
    tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).filter(|&thread| thread != pid).collect()
}

#[test]
fn the_thread_that_logs_holds_no_socket_takes_no_signal_and_sleeps() {
    let server = Served::start(serve(&["-v"]).stderr(Stdio::null()));
    assert_eq!(threads(server.pid()), [0_u32; 0], "there is none until there is a line");
    let streams: Vec<_> = (0..10).map(|_| connect(server.address)).collect();
    streams.iter().for_each(|stream| echo(stream, b"hello"));
    let thread = eventually("a thread", || threads(server.pid()).first().copied());
    let path = format!("/proc/{}/task/{thread}", server.pid());

    let descriptors = || fs::read_dir(format!("{path}/fd")).expect("proc(5)").count();
    eventually("it has the standard streams only", || (descriptors() <= 3).then_some(()));
    let status = || fs::read_to_string(format!("{path}/status")).expect("proc(5)");
    let field = |name: &str| {
        let status = status();
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).expect("a field of proc(5)").to_owned()
    };
    // SIGKILL and SIGSTOP cannot be blocked, and the C library keeps the first two real-time signals for itself.
    let blocked = u64::from_str_radix(&field("SigBlk"), 16).expect("a set");
    assert_eq!(blocked & 0x7fff_ffff, 0x7fff_ffff & !(1 << 8 | 1 << 18), "{blocked:x}");

    eventually("it sleeps", || field("State").starts_with('S').then_some(()));
    let before = field("voluntary_ctxt_switches");
    // That nothing happens can only be seen by letting time go by.
    std::thread::park_timeout(Duration::from_millis(200));
    assert_eq!(field("voluntary_ctxt_switches"), before);
    drop(streams);
}

#[test]
fn a_quiet_server_has_one_thread() {
    let server = Served::start(serve(&["-qq"]).stderr(Stdio::piped()));
    server.converse(20);
    assert_eq!(threads(server.pid()), [0_u32; 0]);
    let mut server = server;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn without_a_thread_lines_are_written_as_far_as_there_is_room() {
    if !Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return crate::support::skip("without_a_thread_lines_are_written_as_far_as_there_is_room", "strace is missing");
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
    let mut server = Served::start(command.args(["127.0.0.1:0", "-v"]).stderr(Stdio::piped()));
    server.converse(2_000);
    let mut stderr = server.child.0.stderr.take().expect("piped");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).expect("proc(5)");
    let pid: i32 = children.trim().parse().expect("one child");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    server.converse(10);
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("the server is running");
    assert_eq!(server.wait().code(), Some(0));
    let log = reader.join().expect("the reader").expect("text");
    assert!(log.contains(DROPPED) && log.contains("INFO drained accepted=2010"), "{log}");
}
