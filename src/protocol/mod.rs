//! What is done with the bytes of a connection. The server is compiled anew for each protocol, so that echo pays nothing for
//! what others need.
//!
//! A protocol is one value for the whole server, which has state of its own if it likes, and a [`Session`](Protocol::Session) for
//! each connection. All of its methods are called from the one thread of the loop, one after the other, and none may block.
//!
//! ```
//! use edgecho::protocol::{Protocol, Reply};
//!
//! /// Returns what it is sent in upper case.
//! struct Shout;
//!
//! impl Protocol for Shout {
//!     type Session = ();
//!
//!     fn open(&mut self, _reply: &mut impl Reply) {}
//!
//!     fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
//!         reply.send(&input.to_ascii_uppercase());
//!     }
//! }
//! ```

#[cfg(feature = "collect")]
mod collect;
mod decode;
mod echo;
mod frame;
mod line;
pub(crate) mod memory;
mod post;

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

#[cfg(feature = "collect")]
pub use collect::Collect;
pub use decode::{DecodeError, Decoder, Frames, Lines};
pub use echo::Echo;
pub use frame::Frame;
pub use line::Line;
pub(crate) use post::Request;
pub use post::{Mail, Post, Recipients, Timer};

use crate::sys::epoll::EpollFlags;

slotmap::new_key_type! {
    /// The name of a connection, for as long as it is open. It is never given to another: what is sent to one that has gone goes
    /// nowhere.
    pub struct SessionId;
}

/// A protocol: what to answer to what was received, and what to do of one's own accord.
pub trait Protocol {
    /// What a connection remembers between two calls.
    type Session;

    /// Whether [`Reply::send`] is all that is ever used, in [`receive`](Self::receive) alone. The server then leaves out what only the
    /// rest needs.
    const ONLY_ANSWERS: bool = false;

    /// Whether all that [`receive`](Self::receive) ever does is to send its input back. The server may then leave it out, and have the
    /// kernel return what comes in without a copy.
    const RETURNS_INPUT: bool = false;

    /// A connection has been accepted.
    fn open(&mut self, reply: &mut impl Reply) -> Self::Session;

    /// Takes all of `input`, the next bytes of the stream, cut wherever the kernel cut them. Called only while nothing that was
    /// answered before is still pending.
    fn receive(&mut self, session: &mut Self::Session, input: &[u8], reply: &mut impl Reply);

    /// The peer has sent its FIN: nothing more will be received, and what is sent now is the last. Not called with
    /// [`ONLY_ANSWERS`](Self::ONLY_ANSWERS).
    fn finish(&mut self, session: &mut Self::Session, reply: &mut impl Reply) {
        let _ = (session, reply);
    }

    /// The connection is closed, in whatever way.
    fn close(&mut self, session: Self::Session, id: SessionId, post: &mut Post) {
        let _ = (session, id, post);
    }

    /// A timer of the connection, set by [`Reply::set_timer`], has come.
    fn on_timer(&mut self, session: &mut Self::Session, timer: u32, reply: &mut impl Reply) {
        let _ = (session, timer, reply);
    }

    /// The server is about to serve: the time to set timers of its own.
    fn start(&mut self, post: &mut Post) {
        let _ = post;
    }

    /// A timer of the server, set by [`Post::set_timer`], has come.
    fn on_server_timer(&mut self, timer: u32, post: &mut Post) {
        let _ = (timer, post);
    }

    /// Whether `session` may be given input now. If not, the connection is not read, so that TCP slows the peer, until
    /// [`Post::resume`] is called for it.
    fn can_receive(&mut self, session: &mut Self::Session, id: SessionId) -> bool {
        let _ = (session, id);
        true
    }

    /// Returns the number of bytes that `session` holds of a piece that is not whole yet.
    fn held_bytes(&self, session: &Self::Session) -> usize {
        let _ = session;
        0
    }

    /// How a line that the server itself has to say, such as a heartbeat, is put for the peer.
    fn notice(&self, text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    /// A descriptor of the protocol's own, which the loop is to watch, edge-triggered, for reading and writing.
    fn source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Something has happened to the [`source`](Self::source).
    fn on_source(&mut self, flags: EpollFlags, post: &mut Post) {
        let _ = (flags, post);
    }

    /// Finishes what is left to be done before the server ends. Called in a drain, after the last connection has gone, in every turn of
    /// the loop until it returns true: nothing is left. It may not block; the [`source`](Self::source) or a timer of the server brings
    /// about the next turn. The drain's deadline and a second signal end the wait.
    fn finish_work(&mut self) -> bool {
        true
    }

    /// The server ends: this is the last call. It may not block, either.
    ///
    /// # Errors
    /// What could not be done, in words.
    fn end(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// The way back to the peer whose turn it is, and on to everybody else.
///
/// ```
/// use edgecho::protocol::{Protocol, Reply};
///
/// /// Tells who comes from where, and closes.
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
    /// Sends `bytes` behind all that was sent before. Nothing is lost: what the peer is not ready to take waits in memory until
    /// it is.
    fn send(&mut self, bytes: &[u8]);

    /// Sends `bytes` as [`send`](Self::send) does. What waits in memory is then `bytes` itself, and not a copy.
    fn send_owned(&mut self, bytes: Vec<u8>) {
        self.send(&bytes);
    }

    /// Closes the connection in order: what was sent before still goes out, then our FIN. Nothing more is received.
    fn close(&mut self);

    /// Whose turn it is.
    fn id(&self) -> SessionId;

    /// The peer's address.
    fn peer(&self) -> SocketAddr;

    /// What goes elsewhere than to this peer, or happens later than now.
    fn post(&mut self) -> &mut Post;

    /// Has a timer of this connection come, which replaces one that it has under the same number. It goes with the connection.
    fn set_timer(&mut self, timer: Timer) {
        let id = self.id();
        self.post().set(Some(id), timer);
    }

    /// Takes a timer of this connection back.
    fn cancel_timer(&mut self, timer: u32) {
        let id = self.id();
        self.post().cancel(Some(id), timer);
    }
}
