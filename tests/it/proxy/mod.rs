//! The PROXY protocol: headers on real sockets, whole and in pieces, valid and not, from trusted peers and from others.

pub mod headers;
mod limits;
mod optional;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::strace::{Tracer, has_strace};
use crate::support::client::{assert_same, connect, connect_from, echo, finish, pattern, read_to_fin, receive, reset};
use crate::support::{Process, edgecho, run, wait_until};

/// Starts a server that trusts 127.0.0.1, and logs each connection.
fn start(mode: &str, arguments: &[&str]) -> Process {
    let first = ["--proxy-protocol", mode, "--proxy-from", "127.0.0.1/32", "-v"];
    Process::rust(&[&first, arguments].concat())
}

fn require(arguments: &[&str]) -> Process {
    start("require", arguments)
}

/// The address of a client behind the proxy. Each number has another port.
fn client(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], number))
}

fn client_v6(number: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], number))
}

fn send(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("send");
}

/// Sends bytes of which the last is urgent.
fn send_urgent(stream: &TcpStream, bytes: &[u8]) {
    assert_eq!(SockRef::from(stream).send_out_of_band(bytes).expect("send"), bytes.len());
}

/// Waits until the server has closed a connection without a byte, in order or with a reset.
fn closed(mut stream: &TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?} instead of the end"),
    }
}

/// Connects to a server that closes the connection.
fn refused(process: &Process, bytes: &[u8]) {
    let stream = connect(process.address);
    let _ = (&stream).write_all(bytes); // it may be closed by then
    closed(&stream);
}

/// Returns a header of each kind that names a client, and whether it names the address.
fn kinds(number: u16) -> [(Vec<u8>, Option<SocketAddr>); 8] {
    let (v4, v6) = (client(number), client_v6(number));
    [
        (headers::v1(v4), Some(v4)),
        (headers::v1(v6), Some(v6)),
        (b"PROXY UNKNOWN and more\r\n".to_vec(), None),
        (headers::v2(v4), Some(v4)),
        (headers::v2(v6), Some(v6)),
        (headers::v2_with_vectors(v4), Some(v4)),
        (headers::v2_with_checksum(v4, true), Some(v4)),
        (headers::local(), None),
    ]
}

#[test]
fn a_header_cut_at_any_byte_names_the_client_and_the_data_behind_it_comes_back() {
    let process = require(&[]);
    let mut parts = Vec::new();
    let mut number = 1000;
    for kind in 0..kinds(0).len() {
        for cut in 0..kinds(0)[kind].0.len() + 4 {
            let (header, source) = kinds(number)[kind].clone();
            let bytes = [&header[..], b"data behind it"].concat();
            let stream = connect(process.address);
            send(&stream, &bytes[..cut]);
            parts.push((stream, bytes[cut..].to_vec(), source));
            number += 1;
        }
    }
    process.settle();
    for (stream, rest, _) in &parts {
        send(stream, rest);
    }
    let mut lines = BTreeSet::new();
    for (stream, _, source) in &parts {
        assert_eq!(receive(stream, 14), b"data behind it");
        let own = stream.local_addr().expect("an address");
        lines.insert(match source {
            Some(source) => format!("opened peer={source} via={own}"),
            None => format!("opened peer={own}"),
        });
    }
    wait_until("all are logged", || {
        let log = process.stderr();
        let logged: BTreeSet<_> = log.lines().filter_map(|line| Some(line[line.find("opened ")?..].to_owned())).collect();
        logged == lines
    });
    drop(parts);
    wait_until("all have ended", || process.figure("closed_peer") == process.figure("accepted"));
    let figures = ["proxy_v1", "proxy_v2", "proxy_local", "proxy_waiting"].map(|name| process.figure(name));
    assert!(figures[..3].iter().all(|&count| count > 0) && figures[3] == 0, "{figures:?}");
    assert_eq!(figures.iter().sum::<u64>(), process.figure("accepted"));
    assert_eq!(process.figure("received_bytes"), 14 * process.figure("accepted"), "headers are no data");
    process.terminate();
}

#[test]
fn a_header_that_comes_byte_by_byte_is_a_header() {
    let process = require(&[]);
    let streams: Vec<_> = kinds(1).into_iter().map(|(header, _)| (connect(process.address), header)).collect();
    for place in 0..streams.iter().map(|(_, header)| header.len()).max().unwrap_or_default() {
        for (stream, header) in &streams {
            if let Some(byte) = header.get(place) {
                send(stream, &[*byte]);
            }
        }
        process.settle();
    }
    for (stream, _) in &streams {
        echo(stream, b"after the header");
    }
    assert_eq!(process.figure("proxy_waiting"), 0);
    drop(streams);
    process.terminate();
}

#[test]
fn a_header_with_an_urgent_byte_is_a_header() {
    let process = require(&["--proxy-timeout", "1h"]);
    for (header, _) in kinds(1) {
        for place in 1..header.len() + 2 {
            let stream = connect(process.address);
            let bytes = [&header[..], b"data behind it"].concat();
            send_urgent(&stream, &bytes[..place]);
            send(&stream, &bytes[place..]);
            finish(&stream);
            assert_eq!(read_to_fin(&stream), b"data behind it", "urgent byte at {place} of {header:?}");
        }
    }
    let stream = connect(process.address);
    let header = headers::v2_with_vectors(client(1));
    for piece in header.chunks(5) {
        send_urgent(&stream, piece);
        process.settle();
    }
    echo(&stream, b"after several urgent bytes");
    send_urgent(&connect(process.address), b"PROXY TCP9");
    drop(stream);
    wait_until("all have ended", || process.figure("closed_peer") + 1 == process.figure("accepted"));
    assert_eq!(process.figure("closed_proxy_invalid"), 1);
    process.terminate();
}

#[test]
fn a_stream_behind_a_header_is_echoed_without_a_copy() {
    let process = require(&[]);
    let tracer = has_strace("a_stream_behind_a_header_is_echoed_without_a_copy")
        .then(|| Tracer::attach(&process, &["-e", "trace=splice"]));
    let bytes = pattern(5, 1 << 20);
    for header in [headers::v1(client(1)), headers::v2_with_vectors(client(2))] {
        let stream = connect(process.address);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send(&stream, &[&header, &bytes[..]].concat());
                finish(&stream);
            });
            assert_same(&read_to_fin(&stream), &bytes);
        });
    }
    process.terminate();
    if let Some(mut tracer) = tracer {
        assert!(tracer.calls().contains("splice"), "every byte was copied");
    }
}

#[test]
fn a_header_that_does_not_come_in_time_closes_the_connection() {
    let process = require(&["--proxy-timeout", "300ms"]);
    let start = Instant::now();
    let silent = connect(process.address);
    assert_eq!(read_to_fin(&silent), b"", "a FIN");
    assert!(start.elapsed() >= Duration::from_millis(300), "closed early, after {:?}", start.elapsed());
    for part in [&b"PRO"[..], b"PROXY TCP4 192.0.2.7", &headers::v2(client(1))[..20]] {
        let stream = connect(process.address);
        send(&stream, part);
        closed(&stream);
    }
    assert_eq!(process.figure("closed_proxy_timeout"), 4);
    assert_eq!((process.figure("accepted"), process.figure("proxy_waiting")), (4, 0));
    let log = process.stderr();
    assert_eq!(log.matches("WARN closed: no PROXY header in time").count(), 1, "{log}");
    process.terminate();
}

#[test]
fn a_peer_that_ends_or_resets_before_its_header_is_whole_is_counted() {
    let process = require(&[]);
    let connects_only = connect(process.address);
    finish(&connects_only);
    closed(&connects_only);
    assert_eq!(process.figure("closed_peer"), 1, "a check that only connects is no fault");
    for header in [headers::v1(client(1)), headers::v2(client(2))] {
        for cut in [1, 7, header.len() - 1] {
            let stream = connect(process.address);
            send(&stream, &header[..cut]);
            finish(&stream);
            closed(&stream);
        }
    }
    assert_eq!(process.figure("closed_proxy_invalid"), 6);
    for cut in [0, 1, 20] {
        let stream = connect(process.address);
        send(&stream, &headers::v2(client(3))[..cut]);
        wait_until("it is accepted", || process.figure("proxy_waiting") == 1);
        reset(stream);
        wait_until("it is closed", || process.figure("proxy_waiting") == 0);
    }
    assert_eq!(process.figure("closed_reset"), 3);
    process.terminate();
}

#[test]
fn an_invalid_header_closes_the_connection_and_is_logged_once_in_a_while() {
    let process = require(&[]);
    let other = connect(process.address);
    send(&other, &headers::v1(client(1)));
    let addresses = [192, 0, 2, 7, 192, 0, 2, 1, 0, 7, 0, 8];
    let invalid: &[Vec<u8>] = &[
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.07 192.0.2.1 1 1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 1\n".to_vec(),
        b"PROXY TCP9 ".to_vec(),
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
        headers::v2_with_checksum(client(1), false),
        headers::raw_v2(0x11, 0x11, &addresses),
        headers::raw_v2(0x22, 0x11, &addresses),
        headers::raw_v2(0x21, 0x44, &addresses),
        headers::raw_v2(0x21, 0x21, &addresses),
        headers::raw_v2(0x21, 0x11, &[&addresses[..], b"\x04\xff\xff"].concat()),
        headers::raw_v2(0x21, 0x11, &[0; 5000])[..16].to_vec(),
        headers::raw_v2(0x20, 0x00, &[0; 65_535])[..16].to_vec(),
    ];
    for bytes in invalid {
        refused(&process, bytes);
        echo(&other, b"unaffected");
    }
    assert_eq!(process.figure("closed_proxy_invalid"), invalid.len() as u64);
    assert_eq!(process.figure("open"), 1);
    let log = process.stderr();
    assert_eq!(log.matches("WARN closed: no valid PROXY header").count(), 1, "{log}");
    assert!(log.contains("DEBUG closed: no valid PROXY header: the checksum (CRC32C) is wrong"), "{log}");
    drop(other);
    process.terminate();
}

#[test]
fn where_no_address_is_usable_the_connections_own_holds() {
    let process = require(&[]);
    for header in [
        headers::raw_v2(0x21, 0x00, b"whatever"),
        headers::raw_v2(0x20, 0xff, b"whatever"),
        headers::raw_v2(0x21, 0x12, &[7; 12]),
        headers::raw_v2(0x21, 0x31, &[7; 216]),
        headers::raw_v2(0x20, 0x00, &[0; 4080]),
        b"PROXY UNKNOWN\r\n".to_vec(),
    ] {
        let stream = connect(process.address);
        send(&stream, &header);
        echo(&stream, b"an ordinary connection");
        let own = stream.local_addr().expect("an address");
        wait_until("it is logged", || process.stderr().contains(&format!("opened peer={own}\n")));
    }
    process.terminate();
}

#[test]
fn a_peer_that_is_not_trusted_is_closed_or_a_client_itself() {
    let process = require(&[]);
    let header = headers::v1(client(1));
    let other = connect_from("127.0.0.2", process.address);
    let _ = (&other).write_all(&header);
    closed(&other);
    assert_eq!((process.figure("closed_proxy_untrusted"), process.figure("proxy_v1")), (1, 0));
    let log = process.stderr();
    assert!(log.contains("WARN closed: not in the networks that may connect with a PROXY header peer=127.0.0.2:"), "{log}");
    process.terminate();

    let process = start("optional", &["--max-per-ip", "1"]);
    let other = connect_from("127.0.0.2", process.address);
    echo(&other, &header);
    let own = other.local_addr().expect("an address");
    wait_until("it is logged", || process.stderr().contains(&format!("opened peer={own}\n")));
    closed(&connect_from("127.0.0.2", process.address));
    assert_eq!((process.figure("closed_limit"), process.figure("proxy_v1")), (1, 0));
    drop(other);
    process.terminate();
}

#[test]
fn flags_of_the_proxy_protocol_that_do_not_belong_together_are_refused() {
    for (flags, reason) in [
        (&["--proxy-protocol", "require"] as &[_], "needs --proxy-from"),
        (&["--proxy-protocol", "optional"], "0.0.0.0/0,::/0"),
        (&["--proxy-from", "10.0.0.0/8"], "--proxy-from (or EDGECHO_PROXY_FROM) has no effect without --proxy-protocol"),
        (&["--proxy-timeout", "1s"], "--proxy-timeout (or EDGECHO_PROXY_TIMEOUT) has no effect"),
        (&["--proxy-protocol", "require", "--proxy-from", "10.0.0.0/33"], "expected a network or an address"),
        (&["--proxy-protocol", "require", "--proxy-from", "localhost"], "expected a network or an address"),
        (&["--proxy-protocol", "require", "--proxy-from", "::/0", "--proxy-timeout", "1ms"], "from 10ms to 1h"),
    ] {
        let (status, _, stderr) = run(edgecho(&["serve", "--listen", "127.0.0.1:0"]).args(flags));
        assert_eq!(status.code(), Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(reason), "{flags:?}: {stderr}");
    }
}
