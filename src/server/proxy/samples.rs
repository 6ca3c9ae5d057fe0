//! Headers for the tests.

use std::net::SocketAddr;

use super::header::HeaderError;
use crate::signatures::PROXY_V2;

/// Returns a binary header with a correct length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length");
    [PROXY_V2, &[command, family][..], &length.to_be_bytes(), rest].concat()
}

/// Returns a vector (TLV).
fn vector(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a length");
    [&[kind][..], &length.to_be_bytes(), value].concat()
}

/// 192.0.2.7:40000 to 192.0.2.1:7777.
const TCP4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x9c, 0x40, 0x1e, 0x61];
/// [2001:db8::7]:40000 to [2001:db8::1]:7777.
const TCP6: [u8; 36] = [
    0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x9c,
    0x40, 0x1e, 0x61,
];

/// The CRC32C of the header below with zeros in its place, by another implementation.
const CHECKSUM: u32 = 0x37bd_6793;

/// Returns an IPv4 header with a checksum, changed by `change`.
fn with_checksum(change: u32) -> Vec<u8> {
    let checksum = (CHECKSUM ^ change).to_be_bytes();
    v2(0x21, 0x11, &[&TCP4[..], &vector(4, b"pad"), &vector(3, &checksum)].concat())
}

/// Returns valid headers, each with the source that it names.
pub(super) fn valid() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
    let v4 = Some("192.0.2.7:40000".parse().expect("an address"));
    let v6 = Some("[2001:db8::7]:40000".parse().expect("an address"));
    let line = |text: &str| text.as_bytes().to_vec();
    vec![
        (line("PROXY TCP4 192.0.2.7 192.0.2.1 40000 7777\r\n"), v4),
        (line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), "255.255.255.255:65535".parse().ok()),
        (line("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), "0.0.0.0:0".parse().ok()),
        (line("PROXY TCP6 2001:db8::7 2001:DB8::1 40000 7777\r\n"), v6),
        (line("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"), "[::ffff:192.0.2.7]:1".parse().ok()),
        (line("PROXY UNKNOWN\r\n"), None),
        (line("PROXY UNKNOWN \r\n"), None),
        (line(&format!("PROXY UNKNOWN {}\r\n", "f".repeat(91))), None),
        ([b"PROXY UNKNOWN \0\xff any bytes".as_slice(), b"\r\n"].concat(), None),
        (v2(0x21, 0x11, &TCP4), v4),
        (v2(0x21, 0x21, &TCP6), v6),
        (v2(0x21, 0x11, &[&TCP4[..], &vector(4, b""), &vector(0xe0, &[7; 300])].concat()), v4),
        (v2(0x21, 0x21, &[&TCP6[..], &vector(2, b"example.com"), &vector(5, b"id")].concat()), v6),
        (with_checksum(0), v4),
        (v2(0x21, 0x11, &[&TCP4[..], &vector(4, &[0; 4096 - 16 - 12 - 3])].concat()), v4), // the longest
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, &TCP4), None),             // LOCAL: the block is discarded
        (v2(0x20, 0xff, b"whatever it is"), None), // with its family
        (v2(0x21, 0x00, b""), None),               // UNSPEC
        (v2(0x21, 0x00, b"is not looked at"), None),
        (v2(0x21, 0x10, b"?"), None),  // UNSPEC transport
        (v2(0x21, 0x12, &TCP4), None), // UDP
        (v2(0x21, 0x22, &TCP6), None),
        (v2(0x21, 0x31, &[1; 216]), None), // Unix sockets
        (v2(0x21, 0x32, &[1; 216]), None),
    ]
}

/// Returns invalid headers, each with its error.
pub(super) fn invalid() -> Vec<(Vec<u8>, HeaderError)> {
    use HeaderError::{
        Address, Checksum, Command, Family, Fields, LineEnd, LineTooLong, NoSignature, Port, Protocol, TooLong, TooShort,
        Vectors, Version,
    };
    let lines = [
        ("GET / HTTP/1.1\r\n", NoSignature),
        ("PROXY\r\n", NoSignature),
        ("PROXYTCP4 1.1.1.1 1.1.1.1 1 1\r\n", NoSignature),
        ("proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n", NoSignature),
        ("\r\n\r\n\0\r\nQUIT\r\n", NoSignature),
        ("PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n", Protocol),
        ("PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n", Protocol),
        ("PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", Protocol),
        ("PROXY UNKNOWNS\r\n", Protocol),
        ("PROXY TCP4\r\n", Protocol),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", LineEnd),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r \n", LineEnd),
        ("PROXY UNKNOWN a\rb\r\n", LineEnd),
        ("PROXY UNKNOWN a\nb\r\n", LineEnd),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", Fields),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", Fields),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n", Fields),
        ("PROXY TCP4 1.1.1.1  1.1.1.1 1\r\n", Address),
        ("PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", Address),
        ("PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n", Address),
        ("PROXY TCP4 1.1.1.1 1.1.1.256 1 1\r\n", Address),
        ("PROXY TCP4 ::1 ::1 1 1\r\n", Address),
        ("PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", Address),
        ("PROXY TCP6 ::1%1 ::1 1 1\r\n", Address),
        ("PROXY TCP6 1::2::3 ::1 1 1\r\n", Address),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 00 1\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n", Port),
    ];
    let mut invalid: Vec<_> = lines.map(|(line, error)| (line.as_bytes().to_vec(), error)).into();
    let twice = {
        let mut bytes = with_checksum(0);
        bytes.extend_from_within(bytes.len() - 7..);
        let length = u16::try_from(bytes.len() - 16).expect("a length").to_be_bytes();
        bytes[14..16].copy_from_slice(&length);
        bytes
    };
    invalid.extend([
        (format!("PROXY UNKNOWN {}\r\n", "f".repeat(92)).into_bytes(), LineTooLong),
        (format!("PROXY UNKNOWN {}", "f".repeat(1000)).into_bytes(), LineTooLong),
        (v2(0x11, 0x11, &TCP4), Version),
        (v2(0x31, 0x11, &TCP4), Version),
        (v2(0x22, 0x11, &TCP4), Command),
        (v2(0x2f, 0x00, b""), Command),
        (v2(0x21, 0x41, &TCP4), Family),
        (v2(0x21, 0x13, &TCP4), Family),
        (v2(0x21, 0x11, &TCP4[..11]), TooShort),
        (v2(0x21, 0x22, &TCP6[..35]), TooShort),
        (v2(0x21, 0x31, &[1; 215]), TooShort),
        (v2(0x21, 0x11, &[0; 4081]), TooLong),
        (v2(0x20, 0x00, &[0; 65_535]), TooLong),
        (v2(0x21, 0x11, &[&TCP4[..], b"\x04"].concat()), Vectors),
        (v2(0x21, 0x11, &[&TCP4[..], b"\x04\0\x01"].concat()), Vectors),
        (v2(0x21, 0x11, &[&TCP4[..], b"\x04\0\x01aa"].concat()), Vectors),
        (with_checksum(1), Checksum),
        (with_checksum(1 << 31), Checksum),
        (v2(0x21, 0x11, &[&TCP4[..], &vector(3, b"abc")].concat()), Checksum),
        (twice, Checksum),
    ]);
    invalid
}
