//! Limits and the drain of connections that wait for their header.

use nix::sys::signal::Signal;

use super::{client, client_v6, closed, headers, require, send, start};
use crate::support::client::{connect, echo, finish, read_to_fin};
use crate::support::wait_until;

#[test]
fn the_limit_per_address_goes_by_the_client_in_the_header() {
    let process = require(&["--max-per-ip", "2"]);
    let open = |header: &[u8]| {
        let stream = connect(process.address);
        send(&stream, header);
        stream
    };
    let (one, two) = (open(&headers::v1(client(1))), open(&headers::v2(client(2))));
    echo(&one, b"first");
    echo(&two, b"second");
    closed(&open(&headers::v2(client(3))));
    assert_eq!(process.figure("closed_limit"), 1);
    let others: Vec<_> = (0..2).map(|number| open(&headers::v1(client_v6(number)))).collect();
    let checks: Vec<_> = (0..2).map(|_| open(&headers::local())).collect();
    for stream in others.iter().chain(&checks) {
        echo(stream, b"another address");
    }
    closed(&open(&headers::local()));
    drop(one);
    wait_until("the place is free", || process.figure("open") == 5);
    echo(&open(&headers::v1(client(4))), b"in its place");
    drop((two, others, checks));
    process.terminate();
}

#[test]
fn connections_that_wait_for_a_header_count_towards_the_connection_limit() {
    let process = require(&["--max-connections", "2"]);
    let waiting: Vec<_> = (0..2).map(|_| connect(process.address)).collect();
    wait_until("both wait", || process.figure("proxy_waiting") == 2);
    let third = connect(process.address);
    send(&third, &headers::v1(client(3)));
    process.settle();
    assert_eq!((process.figure("proxy_waiting"), process.figure("accepted")), (2, 0));
    send(&waiting[0], &headers::v1(client(1)));
    echo(&waiting[0], b"open");
    assert_eq!((process.figure("proxy_waiting"), process.figure("open")), (1, 1));
    send(&waiting[1], b"not a header");
    closed(&waiting[1]);
    echo(&third, b"the place is free");
    drop((waiting, third));
    process.terminate();
}

#[test]
fn a_drain_waits_for_headers_until_its_deadline() {
    let mut process = require(&["--drain-timeout", "20s", "--proxy-timeout", "1h"]);
    let (late, queued) = (connect(process.address), connect(process.address));
    send(&late, b"PROXY TC");
    wait_until("they wait", || process.figure("proxy_waiting") == 2);
    process.signal(Signal::SIGTERM);
    wait_until("the drain has begun", || process.stderr().contains("SIGTERM: draining"));
    assert!(process.stderr().contains("open=0 waiting=2"), "{}", process.stderr());
    send(&late, &headers::v1(client(1))[8..]);
    echo(&late, b"served in the drain");
    send(&queued, &[&headers::v2(client(2))[..], b"served in the drain"].concat());
    finish(&queued);
    assert_eq!(read_to_fin(&queued), b"served in the drain");
    drop(late);
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());

    for mode in ["require", "optional"] {
        let mut process = start(mode, &["--drain-timeout", "300ms", "--proxy-timeout", "1h"]);
        let (silent, part) = (connect(process.address), connect(process.address));
        send(&part, b"PROXY");
        wait_until("they wait", || process.figure("proxy_waiting") == 2);
        process.settle();
        process.signal(Signal::SIGTERM);
        assert_eq!(read_to_fin(&silent), b"", "a FIN, and no reset");
        let answer: &[u8] = if mode == "optional" { b"PROXY" } else { b"" };
        assert_eq!(read_to_fin(&part), answer, "a FIN, and no reset");
        drop((silent, part));
        assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
        assert!(process.stderr().contains("closed: the drain timeout was over"), "{}", process.stderr());
    }
}
