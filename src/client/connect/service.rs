//! Recognises services that are not echo services by the first bytes they send.

use super::error::ConnectError;

/// First bytes, and the service that sends them.
const SERVICES: [(&[u8], &str); 13] = [
    (b"HTTP/", "an HTTP server"),
    (b"<!DOCTYPE", "an HTTP server"),
    (b"<html", "an HTTP server"),
    (b"SSH-", "an SSH server (RFC 4253)"),
    (b"220", "an SMTP or FTP server (RFC 5321, RFC 959)"),
    (b"+OK", "a POP3 server (RFC 1939)"),
    (b"* OK", "an IMAP server (RFC 9051)"),
    (b"-ERR", "a Redis server"),
    (b"ERROR\r\n", "a memcached server"),
    (b"RFB ", "a VNC server (RFC 6143)"),
    (b"\x15\x03", "a TLS server (RFC 8446)"),
    (b"\xff\xfb", "a Telnet server (RFC 854)"),
    (b"\xff\xfd", "a Telnet server (RFC 854)"),
];

/// Returns the error for a handshake that came back wrong: an echo service that changes bytes, or another service.
pub(super) fn not_echo(expected: &[u8], received: &[u8]) -> ConnectError {
    let looks_like = SERVICES.iter().find(|(first, _)| received.starts_with(first)).map(|&(_, service)| service);
    let same = expected.iter().zip(received).filter(|(sent, received)| sent == received).count();
    match expected.iter().zip(received).enumerate().find(|(_, (sent, received))| sent != received) {
        // In 16 random bytes, 4 match by chance once in 2 million times.
        Some((at, (&sent, &received))) if looks_like.is_none() && same >= 4 => ConnectError::Mangled { at, sent, received },
        _ => ConnectError::NotEcho { bytes: received.to_vec(), looks_like },
    }
}
