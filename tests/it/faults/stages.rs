//! Faults at one stage of the server's life: when it starts, when it watches a connection, and when it drains.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::for_both_servers;
use crate::strace::{Tracer, has_strace};
use crate::support::client::{assert_same, connect, echo, finish, pattern, read_to_fin, stuff};
use crate::support::{PROGRAM, Process, Server, run, wait_until};

for_both_servers!(
    connections_that_epoll_cannot_watch_for_now_are_served_later,
    a_connection_that_epoll_cannot_watch_when_a_drain_begins_is_served,
    a_stalled_connection_that_epoll_cannot_watch_for_room_gets_every_byte,
    the_drain_survives_its_own_faults,
    the_cut_off_survives_its_own_faults,
);

/// Makes epoll_ctl(2) fail at the calls that `when` of strace(1) selects, counted from now.
fn no_watches(process: &Process, when: &str) -> Tracer {
    let inject = format!("inject=epoll_ctl:error=ENOSPC:when={when}");
    Tracer::attach(process, &["-e", "trace=epoll_ctl", "-e", &inject])
}

fn connections_that_epoll_cannot_watch_for_now_are_served_later(server: Server) {
    if !has_strace("connections_that_epoll_cannot_watch_for_now_are_served_later") {
        return;
    }
    let process = Process::start(server, &[]).expect("it was compiled");
    let tracer = no_watches(&process, "2..5");
    let streams: Vec<_> = (0..5).map(|_| connect(process.address)).collect();
    for stream in &streams {
        echo(stream, b"patience");
    }
    assert!(tracer.has_injected());
    drop(streams);
    process.terminate();
}

fn a_connection_that_epoll_cannot_watch_when_a_drain_begins_is_served(server: Server) {
    if !has_strace("a_connection_that_epoll_cannot_watch_when_a_drain_begins_is_served") {
        return;
    }
    let mut process = Process::start(server, &["--drain-timeout", "20s"]).expect("it was compiled");
    let tracer = no_watches(&process, "1..6");
    let stream = connect(process.address);
    wait_until("the first failure", || tracer.has_injected());
    process.signal(Signal::SIGTERM);
    echo(&stream, b"just in time");
    drop(stream);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

fn a_stalled_connection_that_epoll_cannot_watch_for_room_gets_every_byte(server: Server) {
    if !has_strace("a_stalled_connection_that_epoll_cannot_watch_for_room_gets_every_byte") {
        return;
    }
    let process = Process::start(server, &[]).expect("it was compiled");
    let stream = connect(process.address);
    echo(&stream, b"here");
    let tracer = no_watches(&process, "1..4");
    let bytes = pattern(1, 32 << 20);
    let sent = stuff(&stream, &bytes);
    assert!(tracer.has_injected());
    finish(&stream);
    assert_same(&read_to_fin(&stream), &bytes[..sent]);
    drop(stream);
    process.terminate();
}

fn the_drain_survives_its_own_faults(server: Server) {
    if !has_strace("the_drain_survives_its_own_faults") {
        return;
    }
    for errno in ["EBADF", "EINVAL", "ENOTCONN", "ENOTSOCK"] {
        let mut process = Process::start(server, &["--drain-timeout", "0s"]).expect("it was compiled");
        let _tracer =
            Tracer::attach(&process, &["-e", "trace=shutdown", "-e", &format!("inject=shutdown:error={errno}:when=1")]);
        let streams: Vec<_> = (0..3).map(|_| connect(process.address)).collect();
        for stream in &streams {
            echo(stream, b"here to stay");
        }
        process.signal(Signal::SIGTERM);
        for stream in &streams {
            assert_eq!(read_to_fin(stream), b"", "{errno}");
        }
        drop(streams);
        assert_eq!(process.wait().code(), Some(0), "{errno}: {}", process.stderr());
    }
}

/// No descriptor is left, the kernel lets new clients into the backlog, and does not report what a connection loses.
fn the_cut_off_survives_its_own_faults(server: Server) {
    const LIMIT: u32 = 16;
    if !has_strace("the_cut_off_survives_its_own_faults") {
        return;
    }
    let preparation = format!("ulimit -n {LIMIT}");
    let mut process = Process::start_after(server, &preparation, &["--drain-timeout", "0s"]).expect("it was compiled");
    let inject = ["-e", "inject=ioctl:error=EINVAL", "-e", "inject=listen:error=EADDRINUSE"];
    let tracer = Tracer::attach(&process, &[&["-e", "trace=ioctl,listen"], &inject[..]].concat());
    let places = LIMIT as usize - process.descriptors_below(LIMIT);
    let streams: Vec<_> = (0..=places).map(|_| connect(process.address)).collect();
    for stream in &streams[..places] {
        echo(stream, b"here to stay");
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
        command.args([PROGRAM, "serve", "--listen", "127.0.0.1:0"]);
        let (status, stdout, stderr) = run(&mut command);
        assert_eq!(status.code(), Some(1), "{call} {errno}: {stderr}");
        assert_eq!(stdout, "", "{call} {errno}: it is not listening");
        assert!(stderr.starts_with("error: ") && stderr.contains(message), "{call} {errno}: {stderr}");
    }
}
