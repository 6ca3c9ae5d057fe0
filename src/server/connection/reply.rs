//! The reply that a protocol is given.

use std::io;
use std::net::SocketAddr;

use super::peer::Peer;
use super::phase::Phase;
use crate::protocol::{Post, Reply, SessionId, memory};
use crate::stream::{Outbox, Pipe, Readiness, Stream};

/// A connection's turn: its name and address, and what the server lends it.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The name of the connection.
    pub id: SessionId,
    /// The address of its peer.
    pub peer: &'a Peer,
    /// Requests of the protocol to the server.
    pub post: &'a mut Post,
    /// An empty pipe for zero-copy echo, if there is one.
    pub pipe: Option<&'a mut Pipe>,
}

/// The reply during one call of the protocol.
pub(super) struct Answer<'a, 't, S> {
    pub(super) turn: &'a mut Turn<'t>,
    pub(super) phase: &'a mut Phase,
    pub(super) stream: &'a mut S,
    pub(super) readiness: &'a mut Readiness,
    pub(super) outbox: &'a mut Outbox,
    pub(super) sent_bytes: &'a mut u64,
    /// Bytes at the end of the input that the protocol leaves.
    pub(super) left_bytes: usize,
    pub(super) failure: Option<io::Error>,
}

impl<S: Stream> Reply for Answer<'_, '_, S> {
    // For echo, the whole answer then lives in registers, and what other protocols need is compiled away.
    #[expect(clippy::inline_always, reason = "47 instructions per message, of 174")]
    #[inline(always)]
    fn send(&mut self, bytes: &[u8]) {
        if self.failure.is_some() {
            return; // bytes behind a gap are not sent
        }
        let mut rest = bytes;
        if self.outbox.is_empty() && self.readiness.contains(Readiness::WRITABLE) {
            match self.readiness.offer(self.stream, bytes) {
                Ok(count) if count == bytes.len() => {
                    *self.sent_bytes += count as u64;
                    return;
                }
                Ok(count) => {
                    *self.sent_bytes += count as u64;
                    rest = &bytes[count..];
                }
                // The connection ends when the protocol returns. No bytes need to be kept.
                Err(error) => {
                    self.failure = Some(error);
                    return;
                }
            }
        }
        if !rest.is_empty() {
            self.failure = keep(self.outbox, rest);
        }
    }

    fn send_owned(&mut self, bytes: Vec<u8>) {
        if self.failure.is_some() {
            return;
        }
        let mut start = 0;
        if self.outbox.is_empty() && self.readiness.contains(Readiness::WRITABLE) {
            match self.readiness.offer(self.stream, &bytes) {
                Ok(count) => {
                    *self.sent_bytes += count as u64;
                    start = count;
                }
                Err(error) => {
                    self.failure = Some(error);
                    return;
                }
            }
        }
        let length = (bytes.len() - start) as u64;
        if length > 0
            && let Err(error) = self.outbox.try_push_owned(bytes, start)
        {
            memory::warn(Some(self.peer()), length);
            self.failure = Some(error);
        }
    }

    fn pending_bytes(&self) -> usize {
        self.outbox.len()
    }

    fn leave(&mut self, count: usize) {
        self.left_bytes = count;
    }

    fn close(&mut self) {
        match self.phase {
            Phase::Open => {
                *self.phase = Phase::Quitting;
                self.turn.post.close(self.turn.id);
            }
            // The peer has finished: the connection ends by itself when nothing is pending.
            Phase::PeerFinished => *self.phase = Phase::BothFinished,
            Phase::BothFinished | Phase::Quitting | Phase::Closing | Phase::Lingering => {}
        }
    }

    fn id(&self) -> SessionId {
        self.turn.id
    }

    fn peer(&self) -> SocketAddr {
        (*self.turn.peer).into()
    }

    fn post(&mut self) -> &mut Post {
        self.turn.post
    }
}

/// Keeps bytes for which the socket has no room. Returns the error that ends the connection if there is no memory for them. The peer's
/// address is not passed: it would take a register from the path of a socket that has room.
#[cold]
#[inline(never)]
fn keep(outbox: &mut Outbox, rest: &[u8]) -> Option<io::Error> {
    let error = outbox.try_push(rest).err()?;
    memory::warn(None, rest.len() as u64);
    Some(error)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Connection, Host};
    use super::*;
    use crate::protocol::Protocol;
    use crate::protocol::testing::TestReply;

    /// A stream whose first send fails, and no later one.
    #[derive(Default)]
    struct FailsOnce {
        has_failed: bool,
        sent: Vec<u8>,
    }

    impl Stream for FailsOnce {
        fn recv(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !std::mem::replace(&mut self.has_failed, true) {
                return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
            }
            self.sent.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn shutdown_write(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Answers in two parts.
    struct InTwoParts;

    impl Protocol for InTwoParts {
        type Session = ();

        fn open(&mut self, _reply: &mut impl Reply) {}

        fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
            match input {
                b"owned" => reply.send_owned(b"one ".to_vec()),
                _ => reply.send(b"one "),
            }
            reply.send(b"two");
            reply.send_owned(b" three".to_vec());
        }
    }

    #[test]
    fn after_a_failed_send_nothing_that_follows_the_gap_is_sent() {
        for input in [&b"owned"[..], b"borrowed"] {
            let mut connection = Connection::new(FailsOnce::default(), ());
            let (peer, mut post) = (Peer::from(SocketAddr::from(([127, 0, 0, 1], 9))), Post::default());
            let mut turn = Turn { id: TestReply::new(1).id(), peer: &peer, post: &mut post, pipe: None };
            let result = connection.respond(&mut Host::new(InTwoParts), input, &mut turn);
            assert_eq!(result.expect_err("the first send failed").raw_os_error(), Some(libc::ENOBUFS));
            assert_eq!((&*connection.stream().sent, connection.pending_bytes()), (&b""[..], 0));
        }
    }
}
