//! The PROXY protocol as real load balancers speak it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::haproxy::Haproxy;
use crate::nginx::Nginx;
use crate::support::client::{assert_same, connect, connect_from, echo, free_address, pattern, receive};
use crate::support::{Process, wait_until};
use crate::tools::tool;

fn start(arguments: &[&str]) -> Process {
    let first = ["--proxy-protocol", "require", "--proxy-from", "127.0.0.1", "-v"];
    Process::rust(&[&first, arguments].concat())
}

/// Sends enough that the server splices, and checks the echo. Without a FIN: nginx does not pass on half of a close.
fn exchange(mut stream: &TcpStream) {
    let bytes = pattern(u64::from(stream.local_addr().expect("an address").port()), 300_000);
    let echo = std::thread::scope(|scope| {
        let reader = scope.spawn(|| receive(stream, bytes.len()));
        stream.write_all(&bytes).expect("send");
        reader.join().expect("the echo")
    });
    assert_same(&echo, &bytes);
}

/// Checks that a client is known to the server by its own address.
fn check_client(process: &Process, stream: &TcpStream) {
    exchange(stream);
    let line = format!("opened peer={} via=127.0.0.1:", stream.local_addr().expect("an address"));
    wait_until(&line, || process.stderr().contains(&line));
}

/// Checks that a server with `--max-per-ip 1` serves one client of an address at a time, and clients of other addresses.
fn check_limit(process: &Process, front: SocketAddr) {
    let one = connect_from("127.0.0.3", front);
    echo(&one, b"the only one");
    let before = process.figure("closed_limit");
    let two = connect_from("127.0.0.3", front);
    assert!((&two).read(&mut [0]).map_or(true, |count| count == 0), "a second one was served");
    assert_eq!(process.figure("closed_limit"), before + 1);
    echo(&connect_from("127.0.0.4", front), b"another address");
    drop(one);
    wait_until("the place is free", || process.figure("open") == 0);
    exchange(&connect_from("127.0.0.3", front));
}

#[test]
fn nginx_passes_on_the_address_of_each_client() {
    let Some(path) = tool("nginx_passes_on_the_address_of_each_client", "nginx") else { return };
    let process = start(&["--max-per-ip", "1"]);
    let front = free_address();
    let v6 = format!("[::1]:{}", front.port());
    let servers = format!("server {{ listen {front}; listen {v6}; proxy_pass {}; proxy_protocol on; }}", process.address);
    let _nginx = Nginx::start(&path, front, &servers);
    wait_until("the client that waited for nginx has gone", || process.figure("closed_peer") > 0);
    for source in ["127.0.0.1", "127.0.0.2", "127.0.0.9"] {
        check_client(&process, &connect_from(source, front));
    }
    check_client(&process, &connect(v6.parse().expect("an address")));
    check_limit(&process, front);
    assert_eq!(process.figure("closed_proxy_invalid"), 0);
    process.terminate();
}

#[test]
fn haproxy_passes_on_the_address_of_each_client_and_its_checks_are_local() {
    let Some(path) = tool("haproxy_passes_on_the_address_of_each_client_and_its_checks_are_local", "haproxy") else {
        return;
    };
    for (options, figure) in [
        ("send-proxy", "proxy_v1"),
        ("send-proxy-v2", "proxy_v2"),
        ("send-proxy-v2 proxy-v2-options crc32c,unique-id", "proxy_v2"),
    ] {
        let process = start(&["--max-per-ip", "1"]);
        let front = free_address();
        let v6 = format!("[::1]:{}", front.port());
        let sections = format!(
            "listen echo\n    bind {front}\n    bind {v6}\n    unique-id-format %pid-%rt\n    server only {} {options}\n",
            process.address
        );
        let haproxy = Haproxy::start(&path, &sections);
        for source in ["127.0.0.1", "127.0.0.2", "127.0.0.9"] {
            check_client(&process, &connect_from(source, front));
        }
        check_client(&process, &connect(v6.parse().expect("an address")));
        check_limit(&process, front);
        assert_eq!(process.figure("closed_proxy_invalid"), 0, "{options}");
        assert_eq!(process.figure(figure), process.figure("accepted"), "{options}");
        assert_eq!(haproxy.figure("echo", "only", "econ"), "0", "{options}");
        process.terminate();
    }
}

#[test]
fn health_checks_of_haproxy_with_and_without_a_header_find_the_server_up() {
    let Some(path) = tool("health_checks_of_haproxy_with_and_without_a_header_find_the_server_up", "haproxy") else {
        return;
    };
    let process = start(&["--proxy-timeout", "20s"]);
    let front = free_address();
    let server = process.address;
    // The ports of the checks are given, so that HAProxy sends a header with the first two only.
    let check = format!("check inter 50ms port {}", server.port());
    let sections = format!(
        "backend local\n    server s {server} send-proxy-v2 {check} check-send-proxy\n\
         backend line\n    server s {server} send-proxy {check} check-send-proxy\n\
         backend plain\n    server s {server} send-proxy {check}\n\
         listen echo\n    bind {front}\n    server s {server} send-proxy-v2 {check} check-send-proxy\n"
    );
    let haproxy = Haproxy::start(&path, &sections);
    for backend in ["local", "line", "plain", "echo"] {
        haproxy.wait_until_server_is("UP", backend, "s");
    }
    let (locals, lines) = (process.figure("proxy_local"), process.figure("proxy_v1"));
    wait_until("more checks of each kind", || {
        process.figure("proxy_local") > locals + 10 && process.figure("proxy_v1") > lines + 5
    });
    check_client(&process, &connect_from("127.0.0.5", front));
    for backend in ["local", "line", "plain", "echo"] {
        assert_eq!(
            (haproxy.figure(backend, "s", "status"), haproxy.figure(backend, "s", "chkfail")),
            ("UP".into(), "0".into())
        );
    }
    assert_eq!(process.figure("closed_proxy_invalid"), 0);
    drop(haproxy);
    process.terminate();
}
