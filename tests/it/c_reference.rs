//! The C reference alone. `echo`, `drain` and `faults` test what it shares with the Rust server.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::for_both_servers;
use crate::process_1::{child_of, unshare_pids};
use crate::scratch::Scratch;
use crate::support::client::{connect, echo, pattern, receive};
use crate::support::{PATIENCE, Process, Server, proc, run, run_test, signal, wait_until};

macro_rules! for_the_c_reference {
    ($($test:ident),* $(,)?) => {
        mod alone {
            use super::{Server, run_test};
            $( #[test] fn $test() { run_test(Server::C, stringify!($test), super::$test); } )*
        }
    };
}

for_the_c_reference!(
    addresses_and_durations_out_of_bounds_are_refused_with_what_is_expected,
    statistics_that_nobody_reads_do_not_stop_the_server,
    a_limit_on_file_sizes_does_not_end_the_server,
    as_process_1_a_second_signal_shows_in_the_exit_status,
    without_memory_for_a_connection_the_client_waits_and_is_then_served,
);
for_both_servers!(without_memory_for_an_outbox_one_connection_is_reset_and_the_others_are_served);

fn program() -> &'static str {
    Server::C.program().expect("it was compiled").0
}

#[test]
fn the_header_says_what_is_left_out() {
    let source = std::fs::read_to_string("c_reference/edgecho.c").expect("the source");
    let header = source.split("*/").next().expect("a comment").replace("\n *", "");
    for word in ["no write timeout", "no idle timeout", "IPv6", "every limit", "logs", "keeps its connection", "--copy"] {
        assert!(header.contains(word), "{word}");
    }
}

fn addresses_and_durations_out_of_bounds_are_refused_with_what_is_expected(_: Server) {
    let refused = |option: &str, value: &str, expected: &str| {
        let (status, stdout, stderr) = run(Command::new(program()).args([option, value]));
        assert_eq!((status.code(), stdout.as_str()), (Some(2), ""), "{option} {value}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(expected), "{option} {value}: {stderr}");
    };
    for port in [":99999", ":65536", ":abc", ":", ":-1", ":80x", ":+80", ": 80", ":0x50", ":99999999999999999999", ""] {
        refused("--listen", &format!("127.0.0.1{port}"), "expected IPV4:PORT, with a port from 0 to 65535");
    }
    for address in ["", ":80", "localhost:80", "[::1]:80", "300.0.0.1:80", "127.0.0.1.127.0.0.1:80", "255.255.255.2550:80"] {
        refused("--listen", address, "expected IPV4:PORT");
    }
    for value in ["86401s", "86400001ms", "99999999999999999999s", "9223372036854775807s", "18446744073709551617ms"] {
        refused("--drain-timeout", value, "expected a duration from 0s to 86400s");
    }
    for value in ["", "5", "s", "-1s", " 5s", "5sec", "soon"] {
        refused("--drain-timeout", value, "expected a duration");
    }
    refused("--no-such-option", "", "expected [--listen IPV4:PORT]");
}

/// Stderr is a socket, as under systemd, and it is full.
fn statistics_that_nobody_reads_do_not_stop_the_server(_: Server) {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a flag");
    while (&near).write(&[b'.'; 4096]).is_ok() {}
    while (&near).write(b".").is_ok() {}
    near.set_nonblocking(false).expect("a flag");

    let mut command = Command::new(program());
    command.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::from(OwnedFd::from(near)));
    let process = Process::spawn_without_reader(&mut command);
    let stream = connect(process.address);
    for _ in 0..3 {
        process.signal(Signal::SIGUSR1);
        echo(&stream, b"still there?");
    }
    // As soon as there is room, the reports go on.
    far.set_nonblocking(true).expect("a flag");
    let mut log = Vec::new();
    wait_until("a report", || {
        let _ = (&far).read_to_end(&mut log);
        process.signal(Signal::SIGUSR1);
        log.ends_with(b"accepted 1\nopen 1\n")
    });
}

/// A write(2) to a file at its limit raises SIGXFSZ (setrlimit(2), `RLIMIT_FSIZE`).
fn a_limit_on_file_sizes_does_not_end_the_server(server: Server) {
    let scratch = Scratch::new();
    let preparation = format!("exec 2>'{}'; ulimit -f 0", scratch.file("stderr"));
    let process = Process::start_after(server, &preparation, &[]).expect("it was compiled");
    let stream = connect(process.address);
    process.signal(Signal::SIGUSR1);
    echo(&stream, b"still there?");
    drop(stream);
    process.terminate();
}

/// The kernel lets no signal without a handler end process 1 of a PID namespace (pid_namespaces(7)).
fn as_process_1_a_second_signal_shows_in_the_exit_status(_: Server) {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let Some(mut command) = unshare_pids("as_process_1_a_second_signal_shows_in_the_exit_status") else { return };
        let mut process = Process::spawn(command.arg(program()).args(["--listen", "127.0.0.1:0"]));
        let server = child_of(process.pid());
        let stream = connect(process.address);
        echo(&stream, b"here to stay");
        signal(server, Signal::SIGTERM);
        wait_until("the drain begins", || TcpStream::connect(process.address).is_err());
        signal(server, second);
        assert_eq!(process.wait().code(), Some(128 + second as i32), "{second}");
    }
}

/// Sets the limit on the address space of a server, in bytes or `unlimited`, with prlimit(1).
fn limit_address_space(process: &Process, limit: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &process.pid().to_string(), &format!("--as={limit}:unlimited")]);
    assert!(command.status().expect("prlimit").success());
}

/// Lets a server have no more memory than it has.
fn take_memory_from(process: &Process) {
    limit_address_space(process, &proc::address_space_bytes(process.pid()).to_string());
}

fn without_memory_for_a_connection_the_client_waits_and_is_then_served(server: Server) {
    let process = Process::start(server, &[]).expect("it was compiled");
    take_memory_from(&process);
    let mut stream = connect(process.address);
    stream.write_all(b"patience").expect("send");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let error = stream.read_exact(&mut [0; 8]).expect_err("there is no memory for it");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    limit_address_space(&process, "unlimited");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(receive(&stream, 8), b"patience");
    drop(stream);
    process.terminate();
}

fn without_memory_for_an_outbox_one_connection_is_reset_and_the_others_are_served(server: Server) {
    // The C library has some memory left for the first connections. An outbox takes up to 32 KiB of that.
    const CLIENTS: usize = 200;
    let mut process = Process::start(server, &["--drain-timeout", "0s"]).expect("it was compiled");
    let other = connect(process.address);
    echo(&other, b"here");
    let streams: Vec<_> = (0..CLIENTS).map(|_| connect(process.address)).collect();
    for stream in &streams {
        echo(stream, b"here, too");
    }
    take_memory_from(&process);
    // One after the other stalls with an outbox, until there is no memory for one more.
    let bytes = pattern(1, 32 << 20);
    let is_reset = |mut stream: &TcpStream| {
        stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let error = stream.write_all(&bytes).expect_err("it does not read");
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
    };
    let first_reset = streams.iter().position(is_reset).expect("memory does not last for all of them");
    assert!(first_reset > 0, "there was memory for some");
    assert!(!process.has_ended());
    echo(&other, b"unharmed");
    limit_address_space(&process, "unlimited");
    drop((streams, other));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(1), "bytes were lost");
}
