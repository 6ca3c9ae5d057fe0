//! What a protocol is given to answer with.

use std::io;
use std::net::SocketAddr;

use super::{Phase, Turn};
use crate::protocol::{Post, Reply, SessionId, memory};
use crate::stream::{Outbox, Readiness, Stream};

/// The way back to the peer, during one call of the protocol.
pub(super) struct Answer<'a, 't, S> {
    pub(super) turn: &'a mut Turn<'t>,
    pub(super) phase: &'a mut Phase,
    pub(super) stream: &'a mut S,
    pub(super) readiness: &'a mut Readiness,
    pub(super) outbox: &'a mut Outbox,
    pub(super) sent_bytes: &'a mut u64,
    pub(super) failure: Option<io::Error>,
}

impl<S: Stream> Reply for Answer<'_, '_, S> {
    // For echo, all of the answer then lives in registers, and what the other protocols need of it is gone.
    #[expect(clippy::inline_always, reason = "47 instructions a message, of 174")]
    #[inline(always)]
    fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.outbox.is_empty() && self.readiness.contains(Readiness::WRITABLE) {
            match self.readiness.offer(self.stream, bytes) {
                Ok(count) => {
                    *self.sent_bytes += count as u64;
                    if count == bytes.len() {
                        return;
                    }
                    rest = &bytes[count..];
                }
                // The connection is over as soon as the protocol returns: there is nobody left to keep bytes for.
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

    fn close(&mut self) {
        match self.phase {
            Phase::Open => {
                *self.phase = Phase::Quitting;
                self.turn.post.close(self.turn.id);
            }
            // What the peer has finished needs no closing: the connection ends when everything has gone out.
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
/// address is not passed: it would take a register from the path on which the socket has room.
#[cold]
#[inline(never)]
fn keep(outbox: &mut Outbox, rest: &[u8]) -> Option<io::Error> {
    let error = outbox.try_push(rest).err()?;
    memory::warn(None, rest.len() as u64);
    Some(error)
}
