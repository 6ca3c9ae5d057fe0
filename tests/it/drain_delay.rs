//! The drain delay: the server goes on as before for a time after the first signal, and then drains.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use edgecho::protocol::Echo;
use edgecho::server::{self, Stage, Timeouts};
use nix::sys::signal::Signal;

use crate::support::client::{connect, echo};
use crate::support::{Process, Server, eventually, pause, wait_until};

/// Starts a server with a drain delay, connects a client, sends SIGTERM, and waits until the server has read the signal.
fn leaving(delay: &str, arguments: &[&str]) -> (Process, TcpStream) {
    let process = Process::rust(&[&["--drain-delay", delay, "--drain-timeout", "20s"], arguments].concat());
    let stream = connect(process.address);
    echo(&stream, b"before");
    process.signal(Signal::SIGTERM);
    wait_until("the server reads the signal", || process.stderr().contains("SIGTERM: not ready any more"));
    (process, stream)
}

#[test]
fn during_the_drain_delay_new_clients_are_served_and_a_second_signal_ends_at_once() {
    let (mut process, stream) = leaving("1000s", &[]);
    for round in 0..20 {
        let newcomer = connect(process.address);
        echo(&newcomer, &[round; 5_000]);
        echo(&stream, b"still here");
    }
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait().signal(), Some(Signal::SIGINT as i32));
}

/// The connection limit does not hold in a drain, where the kernel has accepted the clients already.
#[test]
fn limits_hold_during_the_drain_delay_and_the_drain_serves_the_rest() {
    let begun = Instant::now();
    let (mut process, stream) = leaving("1s", &["--max-connections", "2"]);
    let last = connect(process.address);
    echo(&last, b"the last place");
    let waits = connect(process.address);
    echo(&stream, b"the limit is reached");
    if process.figure("accepted") == 3 {
        assert!(begun.elapsed() > Duration::from_secs(1), "the limit did not hold");
    }
    echo(&waits, b"the drain has begun");
    wait_until("the listener closes", || TcpStream::connect(process.address).is_err());
    wait_until("the log line", || process.stderr().contains("the drain delay is over: draining"));
    echo(&stream, b"and serves");
    drop((stream, last, waits));
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
}

/// A load balancer that asked the stopped process heard nothing, and may not know yet that the server is leaving.
#[test]
fn a_server_that_was_stopped_when_the_drain_delay_ended_begins_it_again() {
    let (mut process, stream) = leaving("700ms", &[]);
    process.freeze();
    pause(Duration::from_millis(1_000)); // the pause itself
    let thawed = Instant::now();
    process.thaw();
    echo(&connect(process.address), b"served after the pause");
    wait_until("the listener closes", || TcpStream::connect(process.address).is_err());
    assert!(thawed.elapsed() >= Duration::from_millis(700), "it drained {:?} after the pause", thawed.elapsed());
    drop(stream);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
    assert!(
        process.stderr().contains("paused at the end of the drain delay, which begins again, once"),
        "{}",
        process.stderr()
    );
}

#[test]
fn a_handle_drains_after_the_delay_too() {
    let mut timeouts = Timeouts::default();
    timeouts.drain_delay = Duration::from_millis(300);
    let listen = "127.0.0.1:0".parse().expect("an address");
    let mut server =
        server::Server::builder().listen(listen).timeouts(timeouts).signals(false).bind(Echo).expect("a server");
    let handle = server.handle().expect("a handle");
    let address = server.local_addresses().next().expect("it listens");
    let thread = std::thread::spawn(move || server.run());
    let stage = || handle.statistics().map(|statistics| statistics.stage);
    assert_eq!(stage(), Some(Stage::Serving));
    let begun = Instant::now();
    handle.drain();
    assert_eq!(stage(), Some(Stage::Leaving));
    handle.drain(); // changes nothing
    let stream = connect(address);
    echo(&stream, b"during the delay");
    eventually("the drain", || (stage() != Some(Stage::Leaving)).then_some(()));
    assert!(begun.elapsed() >= Duration::from_millis(300), "it drained after {:?}", begun.elapsed());
    assert_eq!(stage(), Some(Stage::Draining));
    echo(&stream, b"during the drain");
    drop(stream);
    assert_eq!(thread.join().expect("no panic").expect("a good end").aborted, 0);
}

/// A server that drains lets nobody join its queue any more while it has no descriptors.
#[test]
fn a_server_without_descriptors_still_queues_newcomers_during_the_drain_delay() {
    const LIMIT: u32 = 32;
    let arguments = ["--drain-delay", "1000s"];
    let process = Process::start_after(Server::Rust, &format!("ulimit -n {LIMIT}"), &arguments).expect("it was compiled");
    let places = LIMIT as usize - process.descriptors_below(LIMIT);
    let mut streams: Vec<_> = (0..places).map(|_| connect(process.address)).collect();
    for stream in &streams {
        echo(stream, b"here");
    }
    process.signal(Signal::SIGTERM);
    wait_until("the server reads the signal", || process.stderr().contains("SIGTERM: not ready any more"));
    let second = Duration::from_secs(1);
    let queued: Vec<_> =
        (0..20).map(|_| TcpStream::connect_timeout(&process.address, 10 * second).expect("the queue has room")).collect();
    wait_until("the server has no descriptors", || process.stderr().contains("new clients wait in the backlog"));
    for _ in 0..20 {
        TcpStream::connect_timeout(&process.address, 10 * second).expect("the queue still has room");
    }
    streams.clear();
    for stream in &queued {
        echo(stream, b"served in the end");
    }
}
