//! Echo frame by frame.

use std::time::Instant;

use tracing::{debug, warn};

use super::decode::{DecodeError, Decoder, Frames, echo_whole};
use super::interface::Protocol;
use super::memory;
use super::reply::Reply;
use crate::throttle::Throttle;

/// Returns whole frames: a length, as an unsigned number of 4 bytes with the most significant byte first, and as many bytes. A length
/// above the limit closes the connection with a warning.
///
/// ```
/// use edgecho::protocol::Frame;
/// use edgecho::server::Server;
///
/// let server = Server::builder().listen("127.0.0.1:0".parse()?).bind(Frame::new(1 << 20))?;
/// # let _ = server;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Frame {
    max: usize,
    complaints: Throttle,
}

impl Frame {
    /// The default of the longest frame, in bytes without its length.
    pub const MAX: usize = 64 * 1024;

    /// Returns the protocol for frames of up to `max` bytes, without their lengths.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, complaints: Throttle::default() }
    }

    /// Closes a connection whose stream cannot be decoded any further, with a warning.
    pub(super) fn close(&mut self, error: DecodeError, reply: &mut impl Reply) {
        match error {
            DecodeError::OutOfMemory { length } => memory::warn(Some(reply.peer()), length),
            DecodeError::Malformed { .. } => {}
            // Any peer can cause this, at any rate.
            DecodeError::TooLong { length } => {
                if let Some(suppressed) = self.complaints.admit(Instant::now()) {
                    warn!(peer = %reply.peer(), length, suppressed, "closed for a frame longer than {} bytes", self.max);
                }
            }
        }
        reply.close();
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new(Self::MAX)
    }
}

impl Protocol for Frame {
    type Session = Frames;

    fn open(&mut self, _reply: &mut impl Reply) -> Frames {
        Frames::new(self.max)
    }

    fn receive(&mut self, session: &mut Frames, input: &[u8], reply: &mut impl Reply) {
        if let Err(error) = echo_whole(session, input, reply, |_| true) {
            self.close(error, reply);
        }
    }

    fn finish(&mut self, session: &mut Frames, reply: &mut impl Reply) {
        let rest = session.rest().len();
        if rest > 0 {
            debug!(peer = %reply.peer(), "the peer ended within a frame, {rest} bytes after it began");
        }
    }

    fn held_bytes(&self, session: &Frames) -> usize {
        session.rest().len()
    }

    fn notice(&self, text: &str) -> Vec<u8> {
        Frames::encode(text.as_bytes())
    }
}
