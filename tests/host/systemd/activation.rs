//! The real systemd-socket-activate passes sockets on.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::signal::Signal;

use super::{clean, serve_on};
use crate::addresses::{free_address, free_ipv6_address};
use crate::scratch::Scratch;
use crate::support::client::{connect, echo};
use crate::support::{PROGRAM, Program, announced, eventually};
use crate::tools::tool;

const ACTIVATE: &str = "systemd-socket-activate";

/// Runs systemd-socket-activate with these options and edgecho.
fn activate(test: &str, options: &[&str], arguments: &[&str]) -> Option<Program> {
    let mut command = Command::new(tool(test, ACTIVATE)?);
    command.args(options).args([PROGRAM, "serve"]).args(arguments);
    Some(Program::piped(&mut clean(command)))
}

/// Connects as soon as a socket listens.
fn connect_when_ready(address: SocketAddr) -> TcpStream {
    eventually("systemd-socket-activate listens", || TcpStream::connect(address).ok());
    connect(address)
}

#[test]
fn one_socket_is_served_and_no_other() {
    let address = free_address();
    let options = ["-l", &address.to_string()];
    let Some(mut program) = activate("one_socket_is_served_and_no_other", &options, &[]) else { return };
    echo(&connect_when_ready(address), b"hello");
    program.signal(Signal::SIGTERM);
    let (status, stdout, stderr) = program.finish();
    assert!(status.success(), "{stderr}");
    assert_eq!(stdout, format!("listening on {address}\n"));
}

#[test]
fn several_sockets_with_names_are_served_and_an_address_that_is_asked_for() {
    let (four, six) = (free_address(), free_ipv6_address());
    let options = ["-l", &four.to_string(), "-l", &six.to_string(), "--fdname=four:six"];
    let test = "several_sockets_with_names_are_served_and_an_address_that_is_asked_for";
    let Some(mut program) = activate(test, &options, &["--listen", "127.0.0.1:0"]) else { return };
    echo(&connect_when_ready(six), b"over IPv6");
    let lines = BufReader::new(program.take_stdout()).lines();
    let addresses: Vec<_> = lines.take(3).filter_map(|line| announced(&line.expect("stdout"))).collect();
    assert_eq!(addresses[..2], [four, six]);
    for address in addresses {
        echo(&connect(address), b"hello");
    }
    program.signal(Signal::SIGTERM);
    assert!(program.wait().success());
}

#[test]
fn a_descriptor_of_another_kind_is_refused_by_number_and_name() {
    let test = "a_descriptor_of_another_kind_is_refused_by_number_and_name";
    let scratch = Scratch::new();
    let path = scratch.file("socket");
    let Some(mut unix) = activate(test, &["-l", &path, "--fdname=web"], &[]) else { return };
    let _client = eventually("systemd-socket-activate listens", || UnixStream::connect(&path).ok());
    let (status, _, stderr) = unix.finish();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: cannot serve the inherited descriptor 3 (\"web\"): it is a UNIX socket;"), "{stderr}");

    let address = free_address();
    let Some(mut udp) = activate(test, &["-d", "-l", &address.to_string()], &[]) else { return };
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.connect(address).expect("connect");
    let status = eventually("a datagram wakes it", || {
        let _ = client.send(b"hello");
        udp.status()
    });
    assert_eq!(status.code(), Some(1));
    let (_, _, stderr) = udp.finish();
    assert!(stderr.contains("it is a UDP socket;"), "{stderr}");
}

/// With Accept=yes, systemd passes on a connection.
#[test]
fn a_connection_is_refused_with_the_setting_to_change() {
    let address = free_address();
    let options = ["-a", "-l", &address.to_string()];
    let test = "a_connection_is_refused_with_the_setting_to_change";
    let Some(mut program) = activate(test, &options, &[]) else { return };
    let _client = connect_when_ready(address);
    let lines = BufReader::new(program.take_stderr()).lines();
    let error = lines.map(|line| line.expect("stderr")).find(|line| line.starts_with("error: ")).expect("an error");
    assert!(error.contains("it is a TCP socket that does not listen; in systemd.socket(5), use Accept=no"), "{error}");
}

#[test]
fn wrong_variables_and_options_of_the_opener_are_errors_that_say_what_to_do() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("its address");
    let fail = |variable: &str, value: &str, arguments: &[&str]| {
        let (mut command, stdin) = serve_on(&socket, arguments);
        if !variable.is_empty() {
            // The script sets the others.
            command = clean({
                let mut wrong = Command::new("sh");
                let script =
                    format!("exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 {variable}={value} exec \"$0\" serve");
                wrong.args(["-c", &script, PROGRAM]);
                wrong
            });
        }
        let (status, _, stderr) = Program::with_stdin(&mut command, stdin).finish();
        assert_eq!(status.code(), Some(1), "{stderr}");
        stderr
    };
    for (variable, value, arguments, message) in [
        ("LISTEN_FDS", "many", &[] as &[&str], "error: LISTEN_FDS is \"many\", which is not a number of descriptors;"),
        ("LISTEN_FDS", "2", &[], "error: cannot take descriptor 4 of the 2 in LISTEN_FDS (fcntl): Bad file descriptor"),
        ("LISTEN_FDNAMES", "a:b", &[], "error: LISTEN_FDNAMES is \"a:b\", which is not 1 names;"),
        ("", "", &["--reuse-port"], &format!("error: cannot set --reuse-port on the inherited socket {address}, ")),
        ("NOTIFY_SOCKET", "vsock:2:9", &[], "error: NOTIFY_SOCKET is \"vsock:2:9\": vsock(7) addresses are not supported"),
        ("NOTIFY_SOCKET", "/none", &[], "error: cannot connect to NOTIFY_SOCKET \"/none\": No such file"),
    ] {
        let stderr = fail(variable, value, arguments);
        assert!(stderr.starts_with(message), "{stderr}");
    }
}

/// A program that was started by an activated one inherits the variables, but not the sockets.
#[test]
fn the_variables_of_another_process_are_ignored() {
    let mut command = super::serve(&["--listen", "127.0.0.1:0"]);
    command.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a:b")]);
    let mut program = Program::piped(&mut command);
    let mut line = String::new();
    program.take_lines().read_line(&mut line).expect("stdout");
    echo(&connect(announced(&line).expect("an address")), b"hello");
    program.signal(Signal::SIGTERM);
    assert!(program.wait().success());
}
