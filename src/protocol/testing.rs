//! A test double for [`Reply`]: unit tests of a protocol need no sockets and no server.
//!
//! ```
//! use std::time::Duration;
//!
//! use edgecho::protocol::testing::{Posted, TestReply};
//! use edgecho::protocol::{Decoder, Lines, Protocol, Recipients, Reply, Timer};
//!
//! /// Announces each line to the others. Closes after a minute of silence.
//! struct Announcer;
//!
//! impl Protocol for Announcer {
//!     type Session = Lines;
//!
//!     fn open(&mut self, reply: &mut impl Reply) -> Lines {
//!         reply.send(b"hello\n");
//!         reply.set_timer(Timer::once(1, Duration::from_secs(60)));
//!         Lines::new(80)
//!     }
//!
//!     fn receive(&mut self, lines: &mut Lines, input: &[u8], reply: &mut impl Reply) {
//!         reply.set_timer(Timer::once(1, Duration::from_secs(60)));
//!         let result = lines.decode(input, |line| {
//!             let others = Recipients::Others(reply.id());
//!             reply.post().send(others, line);
//!             true
//!         });
//!         if result.is_err() {
//!             reply.close();
//!         }
//!     }
//!
//!     fn on_timer(&mut self, _lines: &mut Lines, _timer: u32, reply: &mut impl Reply) {
//!         reply.close();
//!     }
//! }
//!
//! let mut reply = TestReply::new(7);
//! let mut session = Announcer.open(&mut reply);
//! assert_eq!(reply.take_sent(), b"hello\n");
//! assert_eq!(reply.timer(1), Some(Timer::once(1, Duration::from_secs(60))));
//!
//! Announcer.receive(&mut session, b"one\ntw", &mut reply);
//! let [Posted::Mail(mail)] = &reply.take_posted()[..] else { panic!("one line is whole") };
//! assert_eq!((mail.to, &*mail.bytes), (Recipients::Others(TestReply::new(7).id()), &b"one\n"[..]));
//! assert_eq!(reply.sent(), b"", "nothing goes back");
//!
//! Announcer.on_timer(&mut session, 1, &mut reply);
//! assert!(reply.is_closed());
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use slotmap::KeyData;

use super::post::{Mail, Post, Request, SessionId, Timer};
use super::reply::Reply;

/// A request that a protocol has made through [`Post`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Posted {
    /// [`Post::send`].
    Mail(Mail),
    /// [`Post::set_timer`].
    ServerTimer(Timer),
    /// [`Post::cancel_timer`].
    ServerTimerCancelled(u32),
    /// [`Post::resume`].
    Resumed(SessionId),
    /// [`Post::close`].
    Closed(SessionId),
    /// [`Post::cut`].
    Cut(SessionId),
    /// [`Post::fail`].
    Failed(String),
}

/// A [`Reply`] that records what a protocol does with it.
///
/// It plays a kernel that takes all bytes at once. With [`set_pending_bytes`](Self::set_pending_bytes) it plays one that takes none.
#[derive(Debug)]
pub struct TestReply {
    id: SessionId,
    peer: SocketAddr,
    sent: Vec<u8>,
    pending_bytes: usize,
    left_bytes: usize,
    is_closed: bool,
    timers: BTreeMap<u32, Timer>,
    post: Post,
    posted: Vec<Posted>,
}

impl TestReply {
    /// Returns a reply to connection `number`, from 1 on. Its peer is 192.0.2.1 (RFC 5737) with the port `number`. Replies with equal
    /// numbers have equal [`id`](Reply::id)s.
    #[must_use]
    pub fn new(number: u16) -> Self {
        Self {
            // The version of a key that is in use is odd.
            id: KeyData::from_ffi((1 << 32) | u64::from(number)).into(),
            peer: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), number)),
            sent: Vec::new(),
            pending_bytes: 0,
            left_bytes: 0,
            is_closed: false,
            timers: BTreeMap::new(),
            post: Post::default(),
            posted: Vec::new(),
        }
    }

    /// Returns the bytes that were sent, pending or not, since the last [`take_sent`](Self::take_sent).
    #[must_use]
    pub fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// Takes the bytes that were sent.
    #[must_use]
    pub fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    /// Sets [`pending_bytes`](Reply::pending_bytes). While it is above 0, all that is sent is added to it, as if the peer took nothing.
    pub fn set_pending_bytes(&mut self, bytes: usize) {
        self.pending_bytes = bytes;
    }

    /// Takes the number of bytes that the last call left unread, see [`Reply::leave`].
    pub fn left_bytes(&mut self) -> usize {
        std::mem::take(&mut self.left_bytes)
    }

    /// Returns whether the connection was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Returns the timer of the connection with a number, if it is set. Time does not pass: call
    /// [`on_timer`](super::Protocol::on_timer) where it would come.
    #[must_use]
    pub fn timer(&mut self, number: u32) -> Option<Timer> {
        self.sort();
        self.timers.get(&number).copied()
    }

    /// Takes the requests that were made through [`Reply::post`], in order, without timers of this connection.
    #[must_use]
    pub fn take_posted(&mut self) -> Vec<Posted> {
        self.sort();
        std::mem::take(&mut self.posted)
    }

    /// Sorts new requests.
    fn sort(&mut self) {
        for request in self.post.take() {
            self.posted.push(match request {
                Request::SetTimer(Some(_), timer) => {
                    self.timers.insert(timer.number, timer);
                    continue;
                }
                Request::CancelTimer(Some(_), number) => {
                    self.timers.remove(&number);
                    continue;
                }
                Request::SetTimer(None, timer) => Posted::ServerTimer(timer),
                Request::CancelTimer(None, number) => Posted::ServerTimerCancelled(number),
                Request::Deliver(mail) => Posted::Mail(mail),
                Request::Resume(id) => Posted::Resumed(id),
                Request::Close(id) => Posted::Closed(id),
                Request::Cut(id) => Posted::Cut(id),
                Request::Fail(reason) => Posted::Failed(reason),
            });
        }
    }
}

impl Reply for TestReply {
    fn send(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        if self.pending_bytes > 0 {
            self.pending_bytes += bytes.len();
        }
    }

    fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    fn leave(&mut self, count: usize) {
        self.left_bytes = count;
    }

    fn close(&mut self) {
        self.is_closed = true;
    }

    fn id(&self) -> SessionId {
        self.id
    }

    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn post(&mut self) -> &mut Post {
        &mut self.post
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Line, Protocol, Recipients};
    use std::time::Duration;

    #[test]
    fn a_reply_records_what_a_protocol_does() {
        let mut reply = TestReply::new(9);
        assert_eq!((reply.peer().port(), reply.id()), (9, TestReply::new(9).id()));
        assert_ne!(reply.id(), TestReply::new(8).id());
        reply.send(b"taken at once");
        assert_eq!(reply.pending_bytes(), 0);
        reply.set_pending_bytes(1);
        reply.send_owned(b"pending".to_vec());
        assert_eq!((reply.pending_bytes(), &reply.take_sent()[..]), (8, &b"taken at oncepending"[..]));
        reply.leave(3);
        assert_eq!((reply.left_bytes(), reply.left_bytes()), (3, 0));
    }

    #[test]
    fn timers_and_requests_are_told_apart() {
        let mut reply = TestReply::new(1);
        let timer = Timer::once(1, Duration::from_secs(1));
        reply.set_timer(timer);
        reply.set_timer(Timer { number: 2, ..timer });
        reply.cancel_timer(2);
        let id = reply.id();
        reply.post().set_timer(timer);
        reply.post().cancel_timer(3);
        reply.post().send(Recipients::All, b"all");
        reply.post().resume(id);
        reply.post().close(id);
        reply.post().fail("full".to_owned());
        assert_eq!((reply.timer(1), reply.timer(2)), (Some(timer), None));
        assert_eq!(
            reply.take_posted(),
            [
                Posted::ServerTimer(timer),
                Posted::ServerTimerCancelled(3),
                Posted::Mail(Mail { to: Recipients::All, bytes: (*b"all").into() }),
                Posted::Resumed(id),
                Posted::Closed(id),
                Posted::Failed("full".to_owned()),
            ]
        );
        assert_eq!(reply.take_posted(), []);
    }

    #[test]
    fn a_protocol_of_the_crate_is_tested_without_sockets() {
        let (mut reply, mut line) = (TestReply::new(1), Line::new(10));
        let mut session = line.open(&mut reply);
        line.receive(&mut session, b"one\ntw", &mut reply);
        assert_eq!((&reply.take_sent()[..], line.held_bytes(&session)), (&b"one\n"[..], 2));
        line.receive(&mut session, b"o\nquit\nthree\n", &mut reply);
        assert_eq!(reply.take_sent(), b"two\nquit\n");
        assert!(reply.is_closed());
    }
}
