//! Every fault tried: the real server under `strace --inject`, for each system call that it makes after start-up and each errno
//! that the call's man page lists, at the first, the second and the hundredth call, while three clients echo. The table says what
//! must come of it.
//!
//! A faked errno lies about the kernel's state. Where the server believes, rightly, that there is nothing to do until the next edge
//! (an `EAGAIN` with bytes there, a signal that is not read), the clients go on as real ones do, and bring that edge about.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::for_both_servers;
use crate::support::client::pattern;
use crate::support::{Killed, Process, Server, eventually, run, skip};
use nix::sys::signal::Signal;

/// What must come of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// No client loses a byte.
    NothingIsLost,
    /// One connection ends at the most, and what it got is a prefix of what it is owed; the others lose nothing.
    OneEnds,
    /// The server ends with a message that names the call, and status 1.
    ServerEnds,
}
use Outcome::{NothingIsLost, OneEnds, ServerEnds};

/// One row: a call, some of the errnos of its man page, and the outcome.
type Row = (&'static str, &'static [&'static str], Outcome);

const TABLE: &[Row] = &[
    // accept(2), and what it says of errors that were pending on the new socket.
    ("accept4", &["EAGAIN", "EINTR", "ECONNABORTED", "EPERM", "EPROTO", "EOPNOTSUPP"], NothingIsLost),
    ("accept4", &["ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "ENETUNREACH"], NothingIsLost),
    ("accept4", &["ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "ETIMEDOUT"], NothingIsLost),
    ("accept4", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOSR"], NothingIsLost),
    ("accept4", &["EBADF", "EFAULT", "EINVAL", "ENOTSOCK"], ServerEnds),
    // epoll_wait(2)
    ("epoll_wait", &["EINTR"], NothingIsLost),
    ("epoll_wait", &["EBADF", "EFAULT", "EINVAL"], ServerEnds),
    // epoll_ctl(2): a connection that cannot be watched is kept, and tried again after a pause.
    ("epoll_ctl", &["EBADF", "EEXIST", "EINVAL", "ELOOP", "ENOENT", "ENOMEM", "ENOSPC", "EPERM"], NothingIsLost),
    // recv(2), tcp(7)
    ("recvfrom", &["EAGAIN", "EINTR"], NothingIsLost),
    ("recvfrom", &["EBADF", "ECONNREFUSED", "EFAULT", "EINVAL", "ENOMEM", "ENOTCONN", "ENOTSOCK"], OneEnds),
    ("recvfrom", &["ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH"], OneEnds),
    // send(2), tcp(7)
    ("sendto", &["EAGAIN", "EINTR"], NothingIsLost),
    ("sendto", &["EACCES", "EALREADY", "EBADF", "ECONNRESET", "EDESTADDRREQ", "EFAULT", "EINVAL", "EISCONN"], OneEnds),
    ("sendto", &["EMSGSIZE", "ENOBUFS", "ENOMEM", "ENOTCONN", "ENOTSOCK", "EOPNOTSUPP", "EPIPE", "ETIMEDOUT"], OneEnds),
    // splice(2): what is about the call, a recv or a send that follows may still do; what is about the connection is told only once.
    ("splice", &["EAGAIN", "EINTR", "EINVAL", "ENOMEM"], NothingIsLost),
    ("splice", &["EBADF", "ESPIPE", "ECONNRESET", "EPIPE", "ETIMEDOUT"], OneEnds),
    // close(2): whatever it says, there is nothing to be done about it.
    ("close", &["EBADF", "EINTR", "EIO", "ENOSPC", "EDQUOT"], NothingIsLost),
    // read(2), on the signalfd
    ("read", &["EAGAIN", "EINTR"], NothingIsLost),
    ("read", &["EBADF", "EFAULT", "EINVAL", "EIO", "EISDIR"], ServerEnds),
    // write(2), on stderr, by the thread that logs
    ("write", &["EAGAIN", "EBADF", "EDESTADDRREQ", "EDQUOT", "EFAULT", "EFBIG", "EINVAL", "EIO"], NothingIsLost),
    ("write", &["EINTR", "ENOSPC", "EPERM", "EPIPE"], NothingIsLost),
];

/// What the server calls besides, and why there is nothing to inject: memory, which is out of scope, and its very end.
const NOT_IN_THE_TABLE: &[&str] = &[
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "madvise",
    "exit_group",
    "sigaltstack",
    "restart_syscall",
    // To start the thread that logs, and to wake it; what comes of it if it cannot be started is in `logging.rs`.
    "clone3",
    "rt_sigaction",
    "rt_sigprocmask",
    "mprotect",
    "futex",
    // Of a debug build only: the standard library looks whether a descriptor is open before it closes it.
    "fcntl",
    // In `the_drain_survives_its_own_faults` and `the_cut_off_survives_its_own_faults`:
    "shutdown",
    "ioctl",
    "listen",
];

/// So many conversations of each client make every call at least a hundred times.
const MANY: u64 = 40;

/// strace, attached to a server. It is taken off when it goes out of scope.
struct Tracer {
    child: Killed,
    output: PathBuf,
}

impl Tracer {
    fn attach(process: &Process, arguments: &[&str]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let output = std::env::temp_dir().join(format!("edgecho-faults-{}-{number}", std::process::id()));
        let mut command = Command::new("strace");
        command.args(["-qq", "-o"]).arg(&output).args(arguments).args(["-p", &process.pid().to_string()]);
        let child = Killed(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace"));
        let tracer = Self { child, output };
        // Being attached to interrupts epoll_wait(2), which is then called again: a fault that ends the server may have done so.
        let is_attached = || process.has_ended() || process.tracer() == tracer.child.0.id();
        eventually("strace is attached", || is_attached().then_some(()));
        tracer
    }

    /// Whether the fault has been injected.
    fn has_injected(&self) -> bool {
        std::fs::read_to_string(&self.output).is_ok_and(|trace| trace.contains("(INJECTED)"))
    }

    /// The calls that it has seen, once the server has ended.
    fn calls(&mut self) -> BTreeSet<String> {
        eventually("strace ends", || self.child.0.try_wait().expect("our own child"));
        let trace = std::fs::read_to_string(&self.output).expect("the trace");
        trace.lines().filter_map(|line| line.split_once('(')).map(|(call, _)| call.to_owned()).collect()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.output);
    }
}

fn has_strace(test: &str) -> bool {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        skip(test, "strace is missing");
    }
    found
}

/// Some messages over one connection. Gives whether every byte came back; what came is a prefix in any case.
fn converse(address: SocketAddr, seed: u64) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let (mut sent, mut back) = (Vec::new(), Vec::new());
    'messages: for number in 0..3 {
        let message = pattern(seed * 3 + number, 100);
        sent.extend_from_slice(&message);
        if stream.write_all(&message).is_err() {
            break;
        }
        let mut buffer = [0; 100];
        while back.len() < sent.len() {
            match stream.read(&mut buffer) {
                Ok(0) => break 'messages,
                Ok(count) => back.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    // The server was told a lie. Another client comes, and this one has nothing more to say: two edges.
                    drop(TcpStream::connect(address));
                    let _ = stream.shutdown(Shutdown::Write);
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest);
                    back.extend(rest);
                    break 'messages;
                }
                Err(_) => break 'messages,
            }
        }
    }
    assert!(sent.starts_with(&back), "what came back is not what was sent");
    sent.len() == back.len()
}

/// Three clients, each of which comes again and again, and somebody who asks for the statistics now and then. Gives how many
/// conversations failed.
fn three_clients(process: &Process, conversations: u64) -> usize {
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..3 {
            let failed = &failed;
            scope.spawn(move || {
                for number in 0..conversations {
                    if process.has_ended() {
                        return;
                    }
                    process.signal_if_running(Signal::SIGUSR1);
                    if !converse(process.address, client * conversations + number) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    failed.into_inner()
}

/// Three streams at the same time, which the server returns without looking at them. Gives how many failed.
fn stream_through(process: &Process) -> usize {
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..3 {
            let failed = &failed;
            scope.spawn(move || {
                let (stream, bytes) = (crate::support::client::connect(process.address), pattern(client, 4 << 20));
                let mut back = Vec::new();
                // A connection that the fault ends is reset, for what it still sends is not read.
                std::thread::scope(|scope| {
                    scope.spawn(|| (&stream).write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write)));
                    let _ = (&stream).read_to_end(&mut back);
                });
                assert!(bytes.starts_with(&back), "what came back is not what was sent");
                failed.fetch_add(usize::from(back.len() < bytes.len()), Ordering::Relaxed);
            });
        }
    });
    failed.into_inner()
}

/// Ends the server, if the fault has not.
fn end(process: &mut Process) -> std::process::ExitStatus {
    process.signal_if_running(Signal::SIGTERM);
    process.wait()
}

fn check(server: Server, call: &str, errno: &str, when: u32, outcome: Outcome) {
    let cell = format!("{server:?}: {call} {errno} at call {when}");
    let mut process = Process::start(server, &["--drain-timeout", "500ms"]).expect("the program");
    let inject = format!("inject={call}:error={errno}:when={when}");
    // The log has a thread of its own, which is started with the first line.
    let threads: &[&str] = if call == "write" { &["-f"] } else { &[] };
    let tracer = Tracer::attach(&process, &[threads, &["-e", &format!("trace={call}"), "-e", &inject]].concat());
    let failed = match call {
        "splice" => stream_through(&process),
        _ => three_clients(&process, if when > 2 { MANY } else { 4 }),
    };
    // Signals that come while one is pending are one: it may take some more until the call was made so often.
    for _ in 0..1_000 {
        if tracer.has_injected() || process.has_ended() {
            break;
        }
        process.signal_if_running(Signal::SIGUSR1);
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let status = end(&mut process);
    let stderr = process.stderr();
    eventually("the trace", || tracer.has_injected().then_some(()));
    assert!(!stderr.contains("panicked"), "{cell}: {stderr}");
    match outcome {
        NothingIsLost => {
            assert_eq!(failed, 0, "{cell}: {stderr}");
            assert_eq!(status.code(), Some(0), "{cell}: {stderr}");
        }
        OneEnds => {
            assert!(failed <= 1, "{cell}: {failed} conversations failed: {stderr}");
            assert_eq!(status.code(), Some(0), "{cell}: {stderr}");
        }
        ServerEnds => {
            assert_eq!(status.code(), Some(1), "{cell}, signal {:?}: {stderr}", status.signal());
            let message = stderr.lines().find(|line| line.starts_with("error: "));
            assert!(message.is_some_and(|message| message.contains(&format!("({call})"))), "{cell}: {stderr}");
        }
    }
}

/// All the cells of one call.
fn check_all(server: Server, call: &str) {
    if !has_strace(call) {
        return;
    }
    let mut cells = 0;
    for &(_, errnos, outcome) in TABLE.iter().filter(|row| row.0 == call) {
        for errno in errnos {
            for when in [1, 2, 100] {
                check(server, call, errno, when, outcome);
                cells += 1;
            }
        }
    }
    assert!(cells > 0, "the table has no {call}");
}

macro_rules! cells_of {
    ($($call:ident),*) => { mod cells_of { $( #[test] fn $call() { super::check_all(super::Server::Rust, stringify!($call)); } )* } };
}

cells_of!(accept4, epoll_wait, epoll_ctl, recvfrom, sendto, splice, close, read, write);

for_both_servers!(
    connections_that_epoll_cannot_watch_for_now_are_served_later,
    a_connection_that_epoll_cannot_watch_when_a_drain_begins_is_served,
    a_stalled_connection_that_epoll_cannot_watch_for_room_gets_every_byte,
    the_drain_survives_its_own_faults,
    the_cut_off_survives_its_own_faults,
);

/// The cells of epoll_ctl(2) are the one part of the table that the C reference is held to, too: it retries what it used to give up.
#[test]
fn epoll_ctl_in_the_c_reference() {
    crate::support::run_test(Server::C, "epoll_ctl_in_the_c_reference", |server| check_all(server, "epoll_ctl"));
}

/// Lets the n-th calls of epoll_ctl(2) from now on fail, as `when` of strace(1) has it.
fn no_watches(process: &Process, when: &str) -> Tracer {
    let inject = format!("inject=epoll_ctl:error=ENOSPC:when={when}");
    Tracer::attach(process, &["-e", "trace=epoll_ctl", "-e", &inject])
}

fn connections_that_epoll_cannot_watch_for_now_are_served_later(server: Server) {
    if !has_strace("connections_that_epoll_cannot_watch_for_now_are_served_later") {
        return;
    }
    let process = Process::start(server, &[]).expect("it was built");
    let tracer = no_watches(&process, "2..5");
    let streams: Vec<_> = (0..5).map(|_| crate::support::client::connect(process.address)).collect();
    for stream in &streams {
        crate::support::client::echo(stream, b"patience");
    }
    assert!(tracer.has_injected());
    drop(streams);
    process.terminate();
}

fn a_connection_that_epoll_cannot_watch_when_a_drain_begins_is_served(server: Server) {
    if !has_strace("a_connection_that_epoll_cannot_watch_when_a_drain_begins_is_served") {
        return;
    }
    let mut process = Process::start(server, &["--drain-timeout", "20s"]).expect("it was built");
    let tracer = no_watches(&process, "1..6");
    let stream = crate::support::client::connect(process.address);
    eventually("the first failure", || tracer.has_injected().then_some(()));
    process.signal(Signal::SIGTERM);
    crate::support::client::echo(&stream, b"just in time");
    drop(stream);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

fn a_stalled_connection_that_epoll_cannot_watch_for_room_gets_every_byte(server: Server) {
    if !has_strace("a_stalled_connection_that_epoll_cannot_watch_for_room_gets_every_byte") {
        return;
    }
    let process = Process::start(server, &[]).expect("it was built");
    let stream = crate::support::client::connect(process.address);
    crate::support::client::echo(&stream, b"here");
    let tracer = no_watches(&process, "1..4");
    let bytes = pattern(1, 32 << 20);
    let sent = crate::support::client::stuff(&stream, &bytes);
    assert!(tracer.has_injected());
    crate::support::client::finish(&stream);
    crate::support::client::assert_same(&crate::support::client::read_to_fin(&stream), &bytes[..sent]);
    drop(stream);
    process.terminate();
}

#[test]
fn the_table_has_every_call_that_the_server_makes() {
    if !has_strace("the_table_has_every_call_that_the_server_makes") {
        return;
    }
    let mut process = Process::start(Server::Rust, &["--drain-timeout", "100ms"]).expect("the program");
    let mut tracer = Tracer::attach(&process, &[]);
    assert_eq!(three_clients(&process, MANY), 0);
    // One who stalls and reads on, and one who stays to the end of the drain.
    let stream = crate::support::client::connect(process.address);
    let bytes = pattern(1, 16 << 20);
    let sent = crate::support::client::stuff(&stream, &bytes);
    let mut back = vec![0; sent];
    (&stream).read_exact(&mut back).expect("every byte comes back");
    assert_eq!(end(&mut process).code(), Some(0));
    let known: BTreeSet<&str> = TABLE.iter().map(|row| row.0).chain(NOT_IN_THE_TABLE.iter().copied()).collect();
    let unknown: Vec<String> = tracer.calls().into_iter().filter(|call| !known.contains(call.as_str())).collect();
    assert_eq!(unknown, [] as [&str; 0], "calls without a place in the table");
}

#[test]
fn delays_lose_nothing() {
    if !has_strace("delays_lose_nothing") {
        return;
    }
    for call in ["accept4", "recvfrom", "sendto", "splice", "epoll_wait"] {
        for place in ["delay_enter", "delay_exit"] {
            let mut process = Process::start(Server::Rust, &[]).expect("the program");
            let inject = format!("inject={call}:{place}=500:when=1+7");
            let _tracer = Tracer::attach(&process, &["-e", &format!("trace={call}"), "-e", &inject]);
            assert_eq!(three_clients(&process, 10), 0, "{call} {place}");
            assert_eq!(if call == "splice" { stream_through(&process) } else { 0 }, 0, "{call} {place}");
            assert_eq!(end(&mut process).code(), Some(0), "{call} {place}");
        }
    }
}

#[test]
fn short_counts_lose_nothing() {
    let process = Process::start(Server::Rust, &["--send-buffer", "4KiB", "--recv-buffer", "4KiB"]).expect("the program");
    let stream = crate::support::client::connect(process.address);
    let bytes = pattern(1, 1 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&bytes).expect("send");
            crate::support::client::finish(&stream);
        });
        crate::support::client::assert_same(&crate::support::client::read_to_fin(&stream), &bytes);
    });
    drop(stream);
    process.terminate();
}

fn the_drain_survives_its_own_faults(server: Server) {
    if !has_strace("the_drain_survives_its_own_faults") {
        return;
    }
    for errno in ["EBADF", "EINVAL", "ENOTCONN", "ENOTSOCK"] {
        let mut process = Process::start(server, &["--drain-timeout", "0s"]).expect("it was built");
        let _tracer =
            Tracer::attach(&process, &["-e", "trace=shutdown", "-e", &format!("inject=shutdown:error={errno}:when=1")]);
        let streams: Vec<_> = (0..3).map(|_| crate::support::client::connect(process.address)).collect();
        for stream in &streams {
            crate::support::client::echo(stream, b"here to stay");
        }
        process.signal(Signal::SIGTERM);
        for stream in &streams {
            assert_eq!(crate::support::client::read_to_fin(stream), b"", "{errno}");
        }
        drop(streams);
        assert_eq!(process.wait().code(), Some(0), "{errno}: {}", process.stderr());
    }
}

/// With no descriptor left, the kernel neither shuts out newcomers nor tells what a connection loses.
fn the_cut_off_survives_its_own_faults(server: Server) {
    const LIMIT: u32 = 16;
    if !has_strace("the_cut_off_survives_its_own_faults") {
        return;
    }
    let preparation = format!("ulimit -n {LIMIT}");
    let mut process = Process::start_after(server, &preparation, &["--drain-timeout", "0s"]).expect("it was built");
    let inject = ["-e", "inject=ioctl:error=EINVAL", "-e", "inject=listen:error=EADDRINUSE"];
    let tracer = Tracer::attach(&process, &[&["-e", "trace=ioctl,listen"], &inject[..]].concat());
    let places = LIMIT as usize - process.descriptors_below(LIMIT);
    let streams: Vec<_> = (0..=places).map(|_| crate::support::client::connect(process.address)).collect();
    for stream in &streams[..places] {
        crate::support::client::echo(stream, b"here to stay");
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1), "one waited in the accept queue: {}", process.stderr());
    assert!(tracer.has_injected());
    drop(streams);
}

#[test]
fn each_start_up_call_that_fails_gives_its_message() {
    if !has_strace("each_start_up_call_that_fails_gives_its_message") {
        return;
    }
    for (call, errno, when, message) in [
        ("rt_sigprocmask", "EINVAL", 1, "cannot read signals (signalfd4)"),
        ("signalfd4", "EMFILE", 1, "(signalfd4)"),
        ("epoll_create1", "ENFILE", 1, "(epoll_create1)"),
        ("epoll_ctl", "ENOSPC", 1, "cannot watch for signals (epoll_ctl)"),
        ("epoll_ctl", "ENOMEM", 2, "cannot watch for connections (epoll_ctl)"),
        ("socket", "EAFNOSUPPORT", 1, "cannot listen on 127.0.0.1:0: Address family not supported"),
        ("socket", "ENOBUFS", 1, "cannot listen on 127.0.0.1:0: No buffer space"),
        ("setsockopt", "ENOPROTOOPT", 1, "cannot set SO_REUSEADDR"),
        ("setsockopt", "EINVAL", 2, "cannot set TCP_NODELAY"),
        ("setsockopt", "ENOMEM", 3, "cannot set SO_OOBINLINE"),
        ("bind", "EACCES", 1, "CAP_NET_BIND_SERVICE"),
        ("bind", "EADDRINUSE", 1, "choose another port"),
        ("bind", "EADDRNOTAVAIL", 1, "no interface of this host"),
        ("listen", "EADDRINUSE", 1, "cannot listen on 127.0.0.1:0"),
        ("getsockname", "ENOBUFS", 1, "cannot listen on 127.0.0.1:0"),
    ] {
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:error={errno}:when={when}")]);
        command.args([env!("CARGO_BIN_EXE_edgecho"), "serve", "--listen", "127.0.0.1:0"]);
        let (status, stdout, stderr) = run(&mut command);
        assert_eq!(status.code(), Some(1), "{call} {errno}: {stderr}");
        assert_eq!(stdout, "", "{call} {errno}: it is not listening");
        assert!(stderr.starts_with("error: ") && stderr.contains(message), "{call} {errno}: {stderr}");
    }
}
