//! What is done with the bytes of a connection. The server is compiled anew for each protocol, so that echo pays nothing for
//! what others need.

mod echo;

pub use echo::Echo;

/// A protocol: what to answer to what was received.
pub trait Protocol {
    /// What a connection remembers between two calls.
    type Session;

    /// A connection has been accepted.
    fn open(&self) -> Self::Session;

    /// Takes all of `input`, the next bytes of the stream, cut wherever the kernel cut them. Called only while nothing that was
    /// answered before is still pending.
    fn receive(&self, session: &mut Self::Session, input: &[u8], reply: &mut impl Reply);
}

/// The way back to the peer.
pub trait Reply {
    /// Sends `bytes` behind all that was sent before. Nothing is lost: what the peer is not ready to take waits in memory until
    /// it is.
    fn send(&mut self, bytes: &[u8]);
}
