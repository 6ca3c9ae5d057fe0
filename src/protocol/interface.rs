//! The trait of a protocol.

use super::background::Background;
use super::post::{Post, SessionId};
use super::reply::Reply;

/// A protocol: decides what a server answers, and what it does without being asked.
///
/// Only [`open`](Self::open) and [`receive`](Self::receive) are required. The server calls all methods from one thread; none may block.
/// A panic in any of them ends the server: [`Server::run`](crate::server::Server::run) returns an error that names it.
///
/// # Back pressure
/// The server reads a connection only while nothing is pending for its peer. One read is at most 32 KiB, but the answers to it may be
/// much longer. A protocol with long answers bounds them: it stops when it has sent enough, and leaves the rest of the input with
/// [`Reply::leave`]. The server offers that input again when the peer has taken what was sent.
///
/// ```
/// use edgecho::protocol::testing::TestReply;
/// use edgecho::protocol::{Decoder, Lines, Protocol, Reply};
///
/// /// Answers each line with a megabyte.
/// struct Generous;
///
/// impl Protocol for Generous {
///     type Session = Lines;
///
///     fn open(&mut self, _reply: &mut impl Reply) -> Lines {
///         Lines::new(100)
///     }
///
///     fn receive(&mut self, lines: &mut Lines, input: &[u8], reply: &mut impl Reply) {
///         let taken = lines.decode(input, |_line| {
///             reply.send(&vec![b'x'; 1 << 20]);
///             false // one answer at a time
///         });
///         match taken {
///             Ok(taken) => reply.leave(input.len() - taken),
///             Err(_) => reply.close(),
///         }
///     }
///
///     fn held_bytes(&self, lines: &Lines) -> usize {
///         lines.rest().len()
///     }
/// }
///
/// let mut reply = TestReply::new(1);
/// let mut session = Generous.open(&mut reply);
/// Generous.receive(&mut session, b"one\ntwo\nthree\n", &mut reply);
/// assert_eq!((reply.sent().len(), reply.left_bytes()), (1 << 20, "two\nthree\n".len()));
/// ```
pub trait Protocol {
    /// State of one connection.
    type Session;

    /// True if the protocol only ever calls [`Reply::send`], and only in [`receive`](Self::receive). The server then compiles without
    /// everything else: [`finish`](Self::finish), [`drained`](Self::drained), [`close`](Self::close), timers, [`Reply::leave`] and the
    /// [background](Self::background) are never used.
    const ONLY_ANSWERS: bool = false;

    /// True if [`receive`](Self::receive) always sends its input back, and does nothing else. The server may then skip the call and let
    /// the kernel return input without copying it (splice(2)).
    const RETURNS_INPUT: bool = false;

    /// Begins a connection that was accepted, and returns its state.
    fn open(&mut self, reply: &mut impl Reply) -> Self::Session;

    /// Takes `input`, the next bytes of the stream: from 1 to 32,768 bytes, cut anywhere. Called only while nothing is pending for the
    /// peer. [`Reply::leave`] leaves the end of the input for later.
    fn receive(&mut self, session: &mut Self::Session, input: &[u8], reply: &mut impl Reply);

    /// Ends the input: the peer has sent its FIN, and the protocol has taken all input before it. What is sent now, and from
    /// [`drained`](Self::drained), is the last; then the connection closes.
    fn finish(&mut self, session: &mut Self::Session, reply: &mut impl Reply) {
        let _ = (session, reply);
    }

    /// Tells that the kernel has taken the last pending byte. Called once each time that [`Reply::pending_bytes`] returns to 0, not
    /// while it stays there: bytes that the kernel takes at once never become pending. Called before input that was
    /// [left](Reply::leave) is offered again, and also after [`finish`](Self::finish), until nothing more is sent. Not called once the
    /// server or the protocol closes the connection.
    fn drained(&mut self, session: &mut Self::Session, reply: &mut impl Reply) {
        let _ = (session, reply);
    }

    /// Ends the state of a connection that is closed, for any reason. Input that was [left](Reply::leave) is dropped.
    fn close(&mut self, session: Self::Session, id: SessionId, post: &mut Post) {
        let _ = (session, id, post);
    }

    /// Acts on a timer of the connection, set by [`Reply::set_timer`]. Not called after [`finish`](Self::finish), or once
    /// the connection closes.
    fn on_timer(&mut self, session: &mut Self::Session, timer: u32, reply: &mut impl Reply) {
        let _ = (session, timer, reply);
    }

    /// Begins to serve: called once, before the first connection. Timers of the server can be set here.
    fn start(&mut self, post: &mut Post) {
        let _ = post;
    }

    /// Acts on a timer of the server, set by [`Post::set_timer`].
    fn on_server_timer(&mut self, timer: u32, post: &mut Post) {
        let _ = (timer, post);
    }

    /// Returns the number of bytes that `session` keeps of an unfinished message. They count towards
    /// [`memory_limit`](crate::server::Limits::memory_limit).
    fn held_bytes(&self, session: &Self::Session) -> usize {
        let _ = session;
        0
    }

    /// Returns the bytes that tell a peer a line of the server's own, such as a heartbeat.
    fn notice(&self, text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    /// Returns the protocol's work outside of its connections. Most protocols have none. Must return the same thing at every call.
    fn background(&mut self) -> Option<&mut dyn Background> {
        None
    }
}
