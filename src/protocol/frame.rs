//! Echo frame by frame.

use std::time::Instant;

use tracing::{debug, warn};

use super::decode::echo_whole;
use super::{Decoder, Frames, Protocol, Reply};
use crate::throttle::Throttle;

/// Returns whole frames: a length, as an unsigned number of 4 bytes with the most significant first, and as many bytes. A length that
/// is too large is a warning, and the connection is closed.
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
    /// How long a frame may be by default, in bytes without its length.
    pub const MAX: usize = 64 * 1024;

    /// With frames of up to `max` bytes, not counting their lengths.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, complaints: Throttle::default() }
    }

    pub(super) fn complain(&mut self, length: u64, reply: &mut impl Reply) {
        // Any peer can cause it, as often as it likes.
        if let Some(held_back) = self.complaints.admit(Instant::now()) {
            warn!(peer = %reply.peer(), length, held_back, "closed for a frame longer than {} bytes", self.max);
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
        if let Err(too_long) = echo_whole(session, input, reply, |_| true) {
            self.complain(too_long.length, reply);
        }
    }

    fn finish(&mut self, session: &mut Frames, reply: &mut impl Reply) {
        let rest = session.rest().len();
        if rest > 0 {
            debug!(peer = %reply.peer(), "the peer ended within a frame, {rest} bytes after it began");
        }
    }

    fn notice(&self, text: &str) -> Vec<u8> {
        Frames::encode(text.as_bytes())
    }
}
