//! Notification over a real socket.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Manager, serve, serve_on};
use crate::scratch::Scratch;
use crate::support::client::{connect, echo};
use crate::support::{Process, Program, pause, proc, signal, wait_until};
use crate::tools::tool;

/// Starts a server that notifies `manager`.
fn start(manager: &Manager, variables: &[(&str, &str)]) -> Process {
    let mut command = serve(&["--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", manager.address()).envs(variables.iter().copied());
    Process::spawn(&mut command)
}

#[test]
fn ready_comes_before_the_first_client_is_accepted() {
    let Some(strace) = tool("ready_comes_before_the_first_client_is_accepted", "strace") else { return };
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let client = connect(socket.local_addr().expect("its address"));
    let (manager, scratch) = (Manager::new(), Scratch::new());
    let (inner, stdin) = serve_on(&socket, &[]);
    let mut command = Command::new(strace);
    command.args(["-f", "-e", "trace=accept4,sendto", "-o", &scratch.file("trace")]);
    command.arg(inner.get_program()).args(inner.get_args()).env("NOTIFY_SOCKET", manager.address());
    let mut program = Program::with_stdin(&mut super::clean(command), stdin);
    assert_eq!(manager.wait_for("READY=1").0, "READY=1\nSTATUS=serving 0 connections");
    echo(&client, b"hello");
    drop(client);
    // strace passes no signal on.
    signal(proc::only_child(program.pid()).expect("the server"), Signal::SIGTERM);
    program.wait();
    let trace = std::fs::read_to_string(scratch.file("trace")).expect("a trace");
    let place = |part: &str| trace.find(part).unwrap_or_else(|| panic!("no {part} in {trace}"));
    assert!(place("READY=1") < place("accept4("), "{trace}");
}

/// The socket for notifications was connected before, and the options of a queued client are on the list.
#[test]
fn the_sandbox_allows_inherited_sockets_and_notifications() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let queued = connect(socket.local_addr().expect("its address"));
    let manager = Manager::new();
    let options = ["--sandbox", "kill", "--keepalive", "60s,10s,6", "--user-timeout", "9s", "--recv-buffer", "64KiB"];
    let (mut command, stdin) =
        serve_on(&socket, &[&options as &[_], &["--send-buffer", "64KiB", "--linger", "0s"]].concat());
    let variables = [("NOTIFY_SOCKET", manager.address()), ("WATCHDOG_USEC", "200000".to_owned())];
    let mut program = Program::with_stdin(command.envs(variables), stdin);
    manager.wait_for("READY=1");
    echo(&queued, b"hello");
    for part in ["WATCHDOG=1", "STATUS=serving 1 connection", "WATCHDOG=1"] {
        manager.wait_for(part);
    }
    drop(queued);
    program.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    let (status, _, stderr) = program.finish();
    assert!(status.success(), "{status}: {stderr}");
}

#[test]
fn the_status_follows_the_connections_at_most_once_a_second() {
    let manager = Manager::new();
    let server = start(&manager, &[]);
    let (_, ready) = manager.wait_for("READY=1");
    let mut clients = Vec::new();
    let mut times = vec![ready];
    for count in 1..=3 {
        for _ in 0..7 {
            let client = connect(server.address);
            echo(&client, b"hello");
            clients.push(client);
        }
        times.push(manager.wait_for(&format!("STATUS=serving {} connections", 7 * count)).1);
    }
    // The receiver may be late, by the time that this machine is busy.
    let span = times[3] - times[0];
    assert!(span >= Duration::from_millis(2_500), "3 statuses within {span:?}");
    assert_eq!(manager.next_within(Duration::from_millis(1_200)), None, "nothing has changed");
    server.signal(Signal::SIGTERM);
    assert_eq!(manager.wait_for("STOPPING=1").0, "STOPPING=1");
    drop(clients);
    let mut server = server;
    assert!(server.wait().success());
}

#[test]
fn an_abstract_name_works() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("edgecho-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a receiver");
    let manager = Manager { socket, scratch: Scratch::new() };
    let mut command = serve(&["--listen", "127.0.0.1:0"]);
    let server = Process::spawn(command.env("NOTIFY_SOCKET", format!("@{name}")));
    manager.wait_for("READY=1");
    server.terminate();
}

#[test]
fn a_receiver_that_never_reads_holds_up_nobody_and_gets_ready_when_it_reads() {
    let manager = Manager::new();
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("non-blocking");
    while filler.send_to(b"in the way", manager.address()).is_ok() {}
    let server = start(&manager, &[("WATCHDOG_USEC", "100000")]);
    for _ in 0..50 {
        echo(&connect(server.address), b"hello");
    }
    assert_eq!(manager.wait_for("READY=1").0.lines().next(), Some("READY=1"));
    while filler.send_to(b"in the way", manager.address()).is_ok() {}
    let stopped = Instant::now();
    server.terminate();
    assert!(stopped.elapsed() < Duration::from_secs(4), "the drain had nothing to wait for");
}

#[test]
fn a_process_that_is_stopped_does_not_feed_the_watchdog() {
    let manager = Manager::new();
    let server = start(&manager, &[("WATCHDOG_USEC", "200000")]);
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    server.signal(Signal::SIGSTOP);
    wait_until("it stops", || proc::state(server.pid()) == 'T');
    while manager.next_within(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.next_within(Duration::from_secs(1)), None, "ten times half the interval");
    server.signal(Signal::SIGCONT);
    manager.wait_for("WATCHDOG=1");
    server.terminate();
}

/// Returns how often the server goes to sleep in `time`, when nothing happens.
fn sleeps_in(server: &Process, time: Duration) -> u64 {
    wait_until("it is asleep", || proc::state(server.pid()) == 'S');
    let before = proc::sleeps(server.pid());
    pause(time);
    proc::sleeps(server.pid()) - before
}

#[test]
fn without_a_watchdog_an_idle_server_sleeps_and_with_one_it_wakes_at_half_the_interval() {
    let manager = Manager::new();
    let server = start(&manager, &[]);
    let client = connect(server.address);
    echo(&client, b"hello");
    manager.wait_for("STATUS=serving 1 connection");
    pause(Duration::from_millis(100));
    assert_eq!(sleeps_in(&server, Duration::from_millis(2_500)), 0, "without a watchdog");
    drop(client);
    server.terminate();

    let server = start(&manager, &[("WATCHDOG_USEC", "1000000")]);
    manager.wait_for("WATCHDOG=1");
    // Half a second each, and a wait for what happened before the deadline.
    let sleeps = sleeps_in(&server, Duration::from_millis(2_700));
    assert!((4..=14).contains(&sleeps), "{sleeps} times in 2.7 s");
    server.terminate();
}
