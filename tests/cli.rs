//! The command line, as its users meet it: what it says, what it refuses, and with which status.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use support::client::{connect, echo, finish, read_to_fin, reset};
use support::{Killed, Process, Server, eventually, run, skip};

const PROGRAM: &str = env!("CARGO_BIN_EXE_edgecho");

fn edgecho(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    command
}

/// Runs a command that must fail, and gives what it said on stderr: never a panic, and never without a reason.
fn refused(command: &mut Command, status: i32) -> String {
    let (ended, stdout, stderr) = run(command);
    assert_eq!(ended.code(), Some(status), "{stderr}");
    assert_eq!(stdout, "", "it is not listening");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{stderr}");
    stderr
}

#[test]
fn help_names_every_flag_its_default_and_its_environment_variable() {
    let (status, help, _) = run(&mut edgecho(&["serve", "--help"]));
    assert!(status.success());
    for word in ["--listen", "127.0.0.1:7777", "EDGECHO_LISTEN", "--drain-timeout", "5s", "EDGECHO_DRAIN_TIMEOUT"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    for word in ["--verbose", "EDGECHO_VERBOSE", "--quiet", "EDGECHO_QUIET", "--log", "EDGECHO_LOG"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
}

#[test]
fn no_command_is_an_error_that_shows_what_there_is() {
    let (status, _, stderr) = run(&mut edgecho(&[]));
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("serve"), "{stderr}");
}

#[test]
fn an_address_in_use_is_refused_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let stderr = refused(&mut edgecho(&["serve", "--listen", &address]), 1);
    assert!(stderr.contains(&format!("cannot listen on {address}: Address already in use (os error 98)")), "{stderr}");
    assert!(stderr.contains("--listen"), "{stderr}");
}

#[test]
fn an_address_that_no_interface_has_is_refused() {
    // TEST-NET-1 (RFC 5737): nobody has it.
    let stderr = refused(&mut edgecho(&["serve", "--listen", "192.0.2.1:7777"]), 1);
    assert!(stderr.contains("cannot listen on 192.0.2.1:7777: Cannot assign requested address"), "{stderr}");
    assert!(stderr.contains("no interface of this host has that address"), "{stderr}");
}

#[test]
fn a_port_under_1024_without_the_capability_is_refused() {
    let test = "a_port_under_1024_without_the_capability_is_refused";
    let lowest = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if lowest.trim() != "1024" {
        return skip(test, "this host lets anybody have a port under 1024");
    }
    let mut command = if nix::unistd::geteuid().is_root() {
        // Root gets at execve(2) what its bounding set allows.
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-net_bind_service", PROGRAM]);
        command
    } else {
        Command::new(PROGRAM)
    };
    let stderr = refused(command.args(["serve", "--listen", "127.0.0.1:7"]), 1);
    assert!(stderr.contains("cannot listen on 127.0.0.1:7: Permission denied (os error 13)"), "{stderr}");
    assert!(stderr.contains("CAP_NET_BIND_SERVICE"), "{stderr}");
}

#[test]
fn malformed_addresses_are_refused_before_anything_is_opened() {
    for address in ["7777", "127.0.0.1", "127.0.0.1:65536", "::1:7777:", "127.0.0.1:http", "300.0.0.1:80", ""] {
        let stderr = refused(&mut edgecho(&["serve", "--listen", address]), 2);
        assert!(stderr.contains("expected HOST:PORT"), "{address}: {stderr}");
    }
    let stderr = refused(&mut edgecho(&["serve", "--listen", "no-such-host.invalid:7777"]), 2);
    assert!(stderr.contains("cannot look up 'no-such-host.invalid'"), "{stderr}");
}

#[test]
fn flags_out_of_their_bounds_are_refused() {
    for value in ["-1s", "5", "soon", "25h", "99999999999years", ""] {
        let stderr = refused(&mut edgecho(&["serve", &format!("--drain-timeout={value}")]), 2);
        assert!(stderr.contains("--drain-timeout"), "{value}: {stderr}");
    }
    refused(&mut edgecho(&["serve", "--no-such-flag"]), 2);
    refused(edgecho(&["serve"]).env("EDGECHO_DRAIN_TIMEOUT", "soon"), 2);
    refused(edgecho(&["serve"]).env("EDGECHO_LOG", "edgecho=loud"), 2);
}

#[test]
fn too_few_descriptors_to_start_is_an_error_that_names_the_call() {
    let script = "ulimit -n 4; exec \"$0\" serve --listen 127.0.0.1:0";
    let stderr = refused(Command::new("sh").args(["-c", script, PROGRAM]), 1);
    assert!(stderr.contains("Too many open files"), "{stderr}");
}

#[test]
fn the_environment_stands_in_for_flags_and_flags_win() {
    let mut command = Command::new("sh");
    command.args(["-c", "EDGECHO_LISTEN=127.0.0.1:0,127.0.0.2:0 EDGECHO_VERBOSE=1 exec \"$0\" serve", PROGRAM]);
    let mut process = Process::spawn(&mut command);
    assert_eq!(process.address.ip().to_string(), "127.0.0.1");
    drop(connect(process.address));
    eventually("debug lines", || process.stderr().contains("opened").then_some(()));
    process.signal(Signal::SIGTERM);
    assert!(process.wait().success());

    let mut command = Command::new("sh");
    command.args(["-c", "EDGECHO_LISTEN=127.0.0.2:0 exec \"$0\" serve --listen 127.0.0.3:0", PROGRAM]);
    let process = Process::spawn(&mut command);
    assert_eq!(process.address.ip().to_string(), "127.0.0.3");
    process.terminate();
}

/// Starts a server whose whole stdout is wanted, and gives the addresses that it announces.
fn announced(arguments: &[&str], count: usize) -> (Killed, Vec<SocketAddr>) {
    use std::io::BufRead;
    let mut child = Killed(edgecho(&["serve"]).args(arguments).stdout(Stdio::piped()).spawn().expect("the program"));
    let lines = std::io::BufReader::new(child.0.stdout.take().expect("piped")).lines();
    let address = |line: String| line.strip_prefix("listening on ").expect("an announcement").parse().expect("an address");
    let addresses = lines.take(count).map(|line| address(line.expect("a line"))).collect();
    (child, addresses)
}

#[test]
fn several_addresses_of_both_families_are_served_by_one_loop() {
    let (child, addresses) =
        announced(&["-q", "--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--listen", "[::1]:0"], 3);
    assert!(addresses[2].is_ipv6() && addresses.iter().all(|address| address.port() != 0), "{addresses:?}");
    let streams: Vec<_> = addresses.iter().map(|&address| connect(address)).collect();
    for stream in streams.iter().rev() {
        echo(stream, b"hello from either family");
    }
    drop(streams);
    drop(child);
}

#[test]
fn a_name_may_stand_for_an_address() {
    let (child, addresses) = announced(&["-q", "--listen", "localhost:0"], 1);
    assert!(addresses[0].ip().is_loopback());
    echo(&connect(addresses[0]), b"hello, localhost");
    drop(child);
}

#[test]
fn log_lines_say_who_came_how_much_and_why_it_ended() {
    let mut process = Process::start(Server::Rust, &["-v"]).expect("the program");
    let stream = connect(process.address);
    let peer = stream.local_addr().expect("an address");
    echo(&stream, b"hello");
    finish(&stream);
    read_to_fin(&stream);
    let other = connect(process.address);
    echo(&other, b"bye");
    reset(other);
    eventually("two lines of a close", || (process.stderr().matches("closed: ").count() == 2).then_some(()));
    process.signal(Signal::SIGTERM);
    assert!(process.wait().success());
    let log = process.stderr();
    assert!(log.contains(&format!("DEBUG opened peer={peer}")), "{log}");
    assert!(
        log.contains(&format!("DEBUG closed: the peer closed peer={peer} received_bytes=5 sent_bytes=5 lasted_ms=")),
        "{log}"
    );
    assert!(log.contains("closed: Connection reset by peer (os error 104): the peer ended it with a reset"), "{log}");
    assert!(log.contains("INFO SIGTERM: draining"), "{log}");
}

#[test]
fn quiet_is_quiet_and_the_default_does_not_grow_with_the_number_of_connections() {
    for (arguments, lines) in [(&["-q"] as &[_], 0), (&[], 2)] {
        let mut process = Process::start(Server::Rust, arguments).expect("the program");
        for _ in 0..20 {
            drop(connect(process.address));
        }
        process.signal(Signal::SIGTERM);
        assert!(process.wait().success());
        assert_eq!(process.stderr().lines().count(), lines, "{}", process.stderr());
    }
}

#[test]
fn out_of_descriptors_is_said_once_not_each_time() {
    // A descriptor that was inherited above the server's own: the server cannot know of it, and runs out one short of its limit.
    let process = Process::start_after(Server::Rust, "ulimit -n 16; exec 9</dev/null", &[]).expect("the program");
    let clients: Vec<_> = (0..40).map(|_| connect(process.address)).collect();
    eventually("a warning", || process.stderr().contains("Too many open files").then_some(()));
    // Each that leaves makes the server try again, take one in, and run out again.
    let served = 16 - process.descriptors_below(16).min(16);
    assert_eq!(served, 0, "all places are taken");
    for client in clients {
        drop(client);
    }
    eventually("all have left", || (process.descriptors_below(16) < 16).then_some(()));
    assert_eq!(process.stderr().matches("Too many open files").count(), 1, "{}", process.stderr());
    process.terminate();
}

#[test]
fn nobody_reading_its_output_does_not_stop_the_server() {
    let mut command = edgecho(&["serve", "--listen", "127.0.0.1:0", "-v"]);
    let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program"));
    let address = {
        use std::io::BufRead;
        let mut line = String::new();
        std::io::BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        line.trim().strip_prefix("listening on ").expect("an announcement").parse::<SocketAddr>().expect("an address")
    };
    drop(child.0.stderr.take()); // and every log line from here on is a broken pipe
    for _ in 0..5 {
        echo(&connect(address), b"still there?");
    }
    drop(child);
}

#[test]
fn a_stdout_that_takes_nothing_is_a_warning_not_the_end() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let free = TcpListener::bind("127.77.0.1:0").expect("a port"); // where no other test looks for a port
    let address = free.local_addr().expect("an address");
    drop(free);
    let mut command = edgecho(&["serve", "--listen", &address.to_string(), "-qq"]);
    let child = Killed(command.stdout(full).spawn().expect("the program"));
    let mut stream = eventually("it listens", || TcpStream::connect(address).ok());
    stream.write_all(b"hello").expect("send");
    finish(&stream);
    assert_eq!(read_to_fin(&stream), b"hello");
    drop(child);
}
