//! The drain delay: the server goes on as before for a time after the first signal, and then drains.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use edgecho::protocol::Echo;
use edgecho::server::{Server, Stage, Timeouts};
use nix::sys::signal::Signal;

use crate::support::client::{connect, echo};
use crate::support::{Process, eventually, pause, wait_until};

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
    let (mut process, stream) = leaving("1s", &["--max-connections", "1"]);
    let begun = Instant::now();
    let waits = connect(process.address);
    echo(&stream, b"the only one");
    if process.figure("accepted") == 2 {
        assert!(begun.elapsed() > Duration::from_millis(900), "the limit did not hold");
    }
    echo(&waits, b"the drain has begun");
    wait_until("the listener closes", || TcpStream::connect(process.address).is_err());
    wait_until("the log line", || process.stderr().contains("the drain delay is over: draining"));
    echo(&stream, b"and serves");
    drop((stream, waits));
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
}

#[test]
fn a_handle_drains_after_the_delay_too() {
    let mut timeouts = Timeouts::default();
    timeouts.drain_delay = Duration::from_millis(300);
    let listen = "127.0.0.1:0".parse().expect("an address");
    let mut server = Server::builder().listen(listen).timeouts(timeouts).signals(false).bind(Echo).expect("a server");
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
