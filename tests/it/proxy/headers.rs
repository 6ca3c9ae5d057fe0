//! Headers of the PROXY protocol, encoded by an implementation of others.

use std::net::SocketAddr;

use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};

/// The address behind which all clients in headers say to have reached the proxy.
fn destination(source: SocketAddr) -> SocketAddr {
    let text = if source.is_ipv4() { "198.51.100.1:7777" } else { "[2001:db8::1]:7777" };
    text.parse().expect("an address")
}

fn with_source(source: SocketAddr) -> ProxyHeader<'static> {
    ProxyHeader::with_address(ProxiedAddress::stream(source, destination(source)))
}

fn encode(header: &ProxyHeader<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes).expect("memory");
    bytes
}

/// Returns a header of version 1.
pub fn v1(source: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    with_source(source).encode_v1(&mut bytes).expect("memory");
    bytes
}

/// Returns a header of version 2.
pub fn v2(source: SocketAddr) -> Vec<u8> {
    encode(&with_source(source))
}

/// Returns a header of version 2 with vectors behind the addresses.
pub fn v2_with_vectors(source: SocketAddr) -> Vec<u8> {
    let mut header = with_source(source);
    for vector in [Tlv::Authority("example.com".into()), Tlv::Noop(9), Tlv::UniqueId(b"0123"[..].into())] {
        header.append_tlv(vector);
    }
    encode(&header)
}

/// Returns a header of version 2 with a checksum that is one off, or right. The checksum is computed bit by bit.
pub fn v2_with_checksum(source: SocketAddr, is_right: bool) -> Vec<u8> {
    let mut header = with_source(source);
    header.append_tlv(Tlv::Crc32c(0));
    let mut bytes = encode(&header);
    let mut sum = u32::MAX;
    for byte in &bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    let place = bytes.len() - 4;
    bytes[place..].copy_from_slice(&(!sum ^ u32::from(!is_right)).to_be_bytes());
    bytes
}

/// Returns a header with the command LOCAL.
pub fn local() -> Vec<u8> {
    encode(&ProxyHeader::with_local())
}

/// Returns a header of version 2 as its parts say, whether they are valid or not.
pub fn raw_v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length");
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length.to_be_bytes(), rest].concat()
}
