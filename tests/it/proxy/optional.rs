//! Headers that are optional: clients with a header and without one.

use std::time::{Duration, Instant};

use super::{client, closed, headers, refused, send, send_urgent, start};
use crate::support::client::{assert_same, connect, echo, finish, read_to_fin, receive};

#[test]
fn where_a_header_is_optional_a_client_without_one_is_served() {
    let process = start("optional", &["--proxy-timeout", "20s"]);
    // As soon as the bytes cannot be a header, they are data.
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"X", b"PROXYTCP4", b"\r\nhello", b"\r\n\r\n\0\r\nQUIT!"] {
        echo(&connect(process.address), bytes);
    }
    // Bytes that are no header at the end are data, too.
    for bytes in [&b""[..], b"P", b"PROXY", b"\r\n\r\n\0\r\nQUIT"] {
        let stream = connect(process.address);
        send(&stream, bytes);
        finish(&stream);
        assert_same(&read_to_fin(&stream), bytes);
    }
    let stream = connect(process.address);
    send(&stream, &headers::v2(client(1)));
    echo(&stream, b"behind a header");
    assert_eq!((process.figure("proxy_v2"), process.figure("closed_proxy_invalid")), (1, 0));
    // A whole signature is the beginning of a header. The rest must be valid.
    for bytes in [&b"PROXY hello\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x12"] {
        refused(&process, bytes);
    }
    assert_eq!(process.figure("closed_proxy_invalid"), 2);
    drop(stream);
    process.terminate();
}

#[test]
fn where_a_header_is_optional_a_client_that_waits_is_served_after_the_timeout() {
    let process = start("optional", &["--proxy-timeout", "300ms"]);
    let start = Instant::now();
    let (silent, part, announced) = (connect(process.address), connect(process.address), connect(process.address));
    send(&part, b"PROXY");
    send(&announced, b"PROXY TCP4 192.0.2.7");
    assert_eq!(receive(&part, 5), b"PROXY", "it was no header");
    assert!(start.elapsed() >= Duration::from_millis(300), "served early, after {:?}", start.elapsed());
    echo(&silent, b"PROXY TCP4 192.0.2.7 192.0.2.1 1 1\r\n");
    closed(&announced);
    assert_eq!((process.figure("closed_proxy_timeout"), process.figure("proxy_v1")), (1, 0));
    drop((silent, part));
    process.terminate();
}

#[test]
fn where_a_header_is_optional_an_urgent_byte_in_a_signature_makes_it_data() {
    let process = start("optional", &["--proxy-timeout", "1h"]);
    let header = headers::v1(client(1));
    for (bytes, place) in [(&b"PX"[..], 2), (b"PROXhello", 3), (b"\r\nhello", 2), (b"hello", 3), (&header, 3), (&header, 6)]
    {
        let stream = connect(process.address);
        send_urgent(&stream, &bytes[..place]);
        send(&stream, &bytes[place..]);
        assert_eq!(receive(&stream, bytes.len()), bytes);
    }
    // Behind a whole signature it is a byte of the header.
    for place in [7, header.len()] {
        let stream = connect(process.address);
        send_urgent(&stream, &header[..place]);
        send(&stream, &header[place..]);
        echo(&stream, b"behind the header");
    }
    assert_eq!((process.figure("proxy_v1"), process.figure("closed_proxy_invalid")), (2, 0));
    process.terminate();
}
