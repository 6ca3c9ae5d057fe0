//! The handshake that tells an echo service from any other.

use crate::client::bytes::Framing;

/// The size of a handshake in bytes.
pub const HANDSHAKE_BYTES: usize = 16;

/// Random bytes that only an echo service returns. The last two are a line end, so that a service that waits for a whole line,
/// such as HTTP, answers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake([u8; HANDSHAKE_BYTES]);

impl Handshake {
    /// Returns a new handshake. For [`Framing::Frame`] it is a frame: the first 4 of its 16 bytes are the length of the rest.
    #[must_use]
    pub fn new(random: &mut fastrand::Rng, framing: Framing) -> Self {
        let mut bytes = [0; HANDSHAKE_BYTES];
        random.fill(&mut bytes);
        match framing {
            Framing::Bytes | Framing::Line => bytes[HANDSHAKE_BYTES - 2..].copy_from_slice(b"\r\n"),
            Framing::Frame => bytes[..4].copy_from_slice(&(HANDSHAKE_BYTES as u32 - 4).to_be_bytes()),
        }
        Self(bytes)
    }

    /// Returns the bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8; HANDSHAKE_BYTES] {
        &self.0
    }
}
