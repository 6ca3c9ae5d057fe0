//! The reply: the connection that the server calls a protocol for.

use std::net::SocketAddr;

use super::post::{Post, SessionId, Timer};

/// The connection that the server is calling a protocol for.
///
/// Tests use [`TestReply`](super::testing::TestReply) in its place.
///
/// ```
/// use edgecho::protocol::{Protocol, Reply};
///
/// /// Tells each client its address, and closes.
/// struct WhoAmI;
///
/// impl Protocol for WhoAmI {
///     type Session = ();
///
///     fn open(&mut self, reply: &mut impl Reply) {
///         let answer = format!("{}\n", reply.peer());
///         reply.send(answer.as_bytes());
///         reply.close();
///     }
///
///     fn receive(&mut self, (): &mut (), _input: &[u8], _reply: &mut impl Reply) {}
/// }
/// ```
pub trait Reply {
    /// Sends `bytes` after all that was sent before. What the kernel does not take now is pending: it stays in memory until the peer
    /// makes room. Nothing limits that but the protocol, see [`leave`](Self::leave).
    fn send(&mut self, bytes: &[u8]);

    /// Sends `bytes` as [`send`](Self::send) does. If some must wait, the server keeps the vector instead of a copy.
    fn send_owned(&mut self, bytes: Vec<u8>) {
        self.send(&bytes);
    }

    /// Returns the number of sent bytes that the kernel has not taken yet. [`Protocol::drained`](super::Protocol::drained) is called
    /// when this returns to 0.
    fn pending_bytes(&self) -> usize;

    /// Leaves the last `count` bytes of the input for later, at most all of it. Only for [`receive`](super::Protocol::receive);
    /// elsewhere it does nothing. The last call counts.
    ///
    /// The server keeps the bytes, counts them towards [`memory_limit`](crate::server::Limits::memory_limit), and reads no more from
    /// the connection until they are taken. It offers them again, in front of all later input:
    ///
    /// - once all pending bytes are sent, if there are any;
    /// - otherwise in the next turn of the loop, if the protocol has taken at least one byte;
    /// - otherwise after [`Post::resume`].
    ///
    /// It may also offer them sooner.
    fn leave(&mut self, count: usize);

    /// Closes the connection in order: the peer is sent all pending bytes, then our FIN. The protocol receives nothing more, and input that
    /// was left is dropped.
    fn close(&mut self);

    /// Returns the name of the connection.
    fn id(&self) -> SessionId;

    /// Returns the address of the peer.
    fn peer(&self) -> SocketAddr;

    /// Returns the requests to the server: bytes for other connections, and timers of the server.
    fn post(&mut self) -> &mut Post;

    /// Sets a timer of this connection. It replaces the timer with the same number, and ends with the connection.
    fn set_timer(&mut self, timer: Timer) {
        let id = self.id();
        self.post().set(Some(id), timer);
    }

    /// Cancels a timer of this connection.
    fn cancel_timer(&mut self, timer: u32) {
        let id = self.id();
        self.post().cancel(Some(id), timer);
    }
}
