//! Every fault: the server under `strace --inject`, for each system call that it makes after start-up and each errno in the call's
//! man page, at the first, the second and the hundredth call, while three clients echo. The table has the outcomes.
//!
//! An injected errno misstates the kernel's state. Where the server then rightly waits for the next edge (`EAGAIN` with unread bytes,
//! a signal that is not read), the clients go on as real clients do, and cause that edge.

mod stages;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::strace::{Tracer, has_strace};
use crate::support::client::{assert_same, connect, finish, pattern, read_to_fin, receive, stuff};
use crate::support::{Process, Server, pause, run_test, wait_until};

/// The outcome of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// No client loses a byte.
    NothingIsLost,
    /// At most one connection ends, after a prefix of its echo. The others lose nothing.
    OneEnds,
    /// The server ends with a message that names the call, and status 1.
    ServerEnds,
}
use Outcome::{NothingIsLost, OneEnds, ServerEnds};

/// One row: a call, some of the errnos of its man page, and the outcome.
type Row = (&'static str, &'static [&'static str], Outcome);

const TABLE: &[Row] = &[
    // accept(2), also about errors pending on the new socket
    ("accept4", &["EAGAIN", "EINTR", "ECONNABORTED", "EPERM", "EPROTO", "EOPNOTSUPP"], NothingIsLost),
    ("accept4", &["ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "ENETUNREACH"], NothingIsLost),
    ("accept4", &["ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "ETIMEDOUT"], NothingIsLost),
    ("accept4", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOSR"], NothingIsLost),
    ("accept4", &["EBADF", "EFAULT", "EINVAL", "ENOTSOCK"], ServerEnds),
    // epoll_wait(2)
    ("epoll_wait", &["EINTR"], NothingIsLost),
    ("epoll_wait", &["EBADF", "EFAULT", "EINVAL"], ServerEnds),
    // epoll_ctl(2): the server keeps a connection that it cannot watch, and tries again after a pause
    ("epoll_ctl", &["EBADF", "EEXIST", "EINVAL", "ELOOP", "ENOENT", "ENOMEM", "ENOSPC", "EPERM"], NothingIsLost),
    // recv(2), tcp(7)
    ("recvfrom", &["EAGAIN", "EINTR"], NothingIsLost),
    ("recvfrom", &["EBADF", "ECONNREFUSED", "EFAULT", "EINVAL", "ENOMEM", "ENOTCONN", "ENOTSOCK"], OneEnds),
    ("recvfrom", &["ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH"], OneEnds),
    // send(2), tcp(7)
    ("sendto", &["EAGAIN", "EINTR"], NothingIsLost),
    ("sendto", &["EACCES", "EALREADY", "EBADF", "ECONNRESET", "EDESTADDRREQ", "EFAULT", "EINVAL", "EISCONN"], OneEnds),
    ("sendto", &["EMSGSIZE", "ENOBUFS", "ENOMEM", "ENOTCONN", "ENOTSOCK", "EOPNOTSUPP", "EPIPE", "ETIMEDOUT"], OneEnds),
    // splice(2): after an errno about the call the server uses recv and send; an errno about the connection ends it
    ("splice", &["EAGAIN", "EINTR", "EINVAL", "ENOMEM"], NothingIsLost),
    ("splice", &["EBADF", "ESPIPE", "ECONNRESET", "EPIPE", "ETIMEDOUT"], OneEnds),
    // close(2): the descriptor is closed whatever close returns
    ("close", &["EBADF", "EINTR", "EIO", "ENOSPC", "EDQUOT"], NothingIsLost),
    // read(2), on the signalfd
    ("read", &["EAGAIN", "EINTR"], NothingIsLost),
    ("read", &["EBADF", "EFAULT", "EINVAL", "EIO", "EISDIR"], ServerEnds),
    // write(2), on stderr, by the thread that logs
    ("write", &["EAGAIN", "EBADF", "EDESTADDRREQ", "EDQUOT", "EFAULT", "EFBIG", "EINVAL", "EIO"], NothingIsLost),
    ("write", &["EINTR", "ENOSPC", "EPERM", "EPIPE"], NothingIsLost),
];

/// The other calls of the server: memory and the exit, where nothing is injected, and calls that other tests cover.
const NOT_IN_THE_TABLE: &[&str] = &[
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "madvise",
    "exit_group",
    "sigaltstack",
    "restart_syscall",
    // They start and wake the thread that logs. `logging.rs` tests a thread that cannot start.
    "clone3",
    "rt_sigaction",
    "rt_sigprocmask",
    "mprotect",
    "futex",
    // In a debug build, the standard library checks that a descriptor is open before it closes it.
    "fcntl",
    // In `the_drain_survives_its_own_faults` and `the_cut_off_survives_its_own_faults`:
    "shutdown",
    "ioctl",
    "listen",
];

/// The number of conversations per client that makes every call at least a hundred times.
const MANY: u64 = 40;

/// Echoes some messages over one connection. Returns whether every byte came back; what came back is always a prefix.
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
                    // The server waits for an edge. Another connection and our FIN are two edges.
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

/// Lets three clients connect again and again, while signals ask for the statistics. Returns how many conversations failed.
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

/// Sends three streams at the same time, which the server echoes with splice(2). Returns how many failed.
fn stream_through(process: &Process) -> usize {
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..3 {
            let failed = &failed;
            scope.spawn(move || {
                let (stream, bytes) = (connect(process.address), pattern(client, 4 << 20));
                let mut back = Vec::new();
                // The server resets a connection that the fault ends, because it has unread bytes.
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

/// Ends the server, unless the fault has ended it.
fn end(process: &mut Process) -> ExitStatus {
    process.signal_if_running(Signal::SIGTERM);
    process.wait()
}

fn check(server: Server, call: &str, errno: &str, when: u32, outcome: Outcome) {
    let cell = format!("{server:?}: {call} {errno} at call {when}");
    let mut process = Process::start(server, &["--drain-timeout", "500ms"]).expect("the program");
    let inject = format!("inject={call}:error={errno}:when={when}");
    // The log has its own thread, which the first line starts.
    let threads: &[&str] = if call == "write" { &["-f"] } else { &[] };
    let tracer = Tracer::attach(&process, &[threads, &["-e", &format!("trace={call}"), "-e", &inject]].concat());
    let failed = match call {
        "splice" => stream_through(&process),
        _ => three_clients(&process, if when > 2 { MANY } else { 4 }),
    };
    // Pending signals of one kind count once, so it may take more signals to reach the call's number.
    for _ in 0..1_000 {
        if tracer.has_injected() || process.has_ended() {
            break;
        }
        process.signal_if_running(Signal::SIGUSR1);
        pause(Duration::from_millis(1));
    }
    let status = end(&mut process);
    let stderr = process.stderr();
    wait_until("the trace", || tracer.has_injected());
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

/// Checks all cells of one call.
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

/// The C reference must pass the cells of epoll_ctl(2), too.
#[test]
fn epoll_ctl_in_the_c_reference() {
    run_test(Server::C, "epoll_ctl_in_the_c_reference", |server| check_all(server, "epoll_ctl"));
}

#[test]
fn the_table_has_every_call_that_the_server_makes() {
    if !has_strace("the_table_has_every_call_that_the_server_makes") {
        return;
    }
    let mut process = Process::rust(&["--drain-timeout", "100ms"]);
    let mut tracer = Tracer::attach(&process, &[]);
    assert_eq!(three_clients(&process, MANY), 0);
    // A client stalls, reads on, and stays until the end of the drain.
    let stream = connect(process.address);
    let bytes = pattern(1, 16 << 20);
    let sent = stuff(&stream, &bytes);
    receive(&stream, sent);
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
            let mut process = Process::rust(&[]);
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
    let process = Process::rust(&["--send-buffer", "4KiB", "--recv-buffer", "4KiB"]);
    let stream = connect(process.address);
    let bytes = pattern(1, 1 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&bytes).expect("send");
            finish(&stream);
        });
        assert_same(&read_to_fin(&stream), &bytes);
    });
    drop(stream);
    process.terminate();
}
