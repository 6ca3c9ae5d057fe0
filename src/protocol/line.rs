//! Echo line by line.

use super::decode::echo_whole;
use super::{DecodeError, Decoder, Lines, Protocol, Reply, memory};

/// Returns whole lines, as they came, with LF or CRLF; what stands behind the last line end is returned when the peer sends its
/// FIN. `quit` alone on a line is returned, and then the connection is closed; so it is after a line that is too long, which is
/// answered by a line that says so.
///
/// ```
/// use edgecho::protocol::Line;
/// use edgecho::server::Server;
///
/// let server = Server::builder().listen("127.0.0.1:0".parse()?).bind(Line::new(1024))?;
/// # let _ = server;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Line {
    max: usize,
}

impl Line {
    /// How long a line may be by default, in bytes without its end.
    pub const MAX: usize = 64 * 1024;

    /// With lines of up to `max` bytes, not counting their ends.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new(Self::MAX)
    }
}

impl Protocol for Line {
    type Session = Lines;

    fn open(&mut self, _reply: &mut impl Reply) -> Lines {
        Lines::new(self.max)
    }

    fn receive(&mut self, session: &mut Lines, input: &[u8], reply: &mut impl Reply) {
        let mut has_quit = false;
        let result = echo_whole(session, input, reply, |line| {
            has_quit = matches!(line, b"quit\n" | b"quit\r\n");
            !has_quit
        });
        match result {
            Ok(()) => {}
            Err(DecodeError::TooLong { .. }) => {
                reply.send(format!("error: line longer than {} bytes\n", self.max).as_bytes());
            }
            Err(DecodeError::OutOfMemory { length }) => memory::warn(Some(reply.peer()), length),
        }
        if has_quit || result.is_err() {
            reply.close();
        }
    }

    fn finish(&mut self, session: &mut Lines, reply: &mut impl Reply) {
        reply.send_owned(session.take_rest());
    }

    fn held_bytes(&self, session: &Lines) -> usize {
        session.rest().len()
    }
}
