//! Echo line by line.

use super::decode::{DecodeError, Decoder, Lines, echo_whole};
use super::interface::Protocol;
use super::memory;
use super::reply::Reply;

/// Returns whole lines as they came, with LF or CRLF. The bytes behind the last line end are returned when the peer sends its FIN.
///
/// A line `quit` is returned, and ends the connection. A line that is too long is answered with
/// `error: line longer than 65536 bytes`, and ends the connection, too.
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
    /// The default of the longest line, in bytes without its end.
    pub const MAX: usize = 64 * 1024;

    /// Returns the protocol for lines of up to `max` bytes, without their ends.
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
            Ok(_) => {}
            Err(DecodeError::OutOfMemory { length }) => memory::warn(Some(reply.peer()), length),
            Err(_) => reply.send(format!("error: line longer than {} bytes\n", self.max).as_bytes()),
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
