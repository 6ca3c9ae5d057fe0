//! The Echo Protocol of RFC 862: returns its input unchanged.

use super::interface::Protocol;
use super::reply::Reply;

/// The Echo Protocol of RFC 862, over TCP.
///
/// ```
/// use edgecho::protocol::Echo;
/// use edgecho::server::Server;
///
/// let server = Server::builder().listen("127.0.0.1:0".parse()?).bind(Echo)?;
/// assert!(server.local_addresses().all(|address| address.port() != 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Protocol for Echo {
    type Session = ();

    const ONLY_ANSWERS: bool = true;
    const RETURNS_INPUT: bool = true;

    fn open(&mut self, _reply: &mut impl Reply) {}

    #[expect(clippy::inline_always, reason = "the answer then lives in registers")]
    #[inline(always)]
    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        reply.send(input);
    }
}
