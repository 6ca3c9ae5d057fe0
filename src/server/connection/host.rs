//! A protocol, and the input that it has left for later.

use std::collections::TryReserveError;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::{Deref, DerefMut};

use slotmap::SparseSecondaryMap;

use crate::protocol::{Post, Protocol, SessionId};

/// A protocol, and the input that it has [left](crate::protocol::Reply::leave) for later. That input is kept here and not in the
/// connection: with a protocol that takes everything, an idle connection does not pay for it.
#[derive(Debug)]
pub struct Host<P> {
    protocol: P,
    /// The keys are the server's own, so that hashing needs no secret, and no call of getrandom(2) for one.
    left: SparseSecondaryMap<SessionId, Vec<u8>, BuildHasherDefault<DefaultHasher>>,
}

impl<P: Protocol> Host<P> {
    /// Returns the host of a protocol that has not served yet.
    pub fn new(protocol: P) -> Self {
        Self { protocol, left: SparseSecondaryMap::default() }
    }

    /// Ends the session of a closed connection, and drops the input that was left.
    pub fn close(&mut self, session: P::Session, id: SessionId, post: &mut Post) {
        self.left.remove(id);
        self.protocol.close(session, id, post);
    }

    /// Returns the number of bytes that were left.
    pub(super) fn left_bytes(&self, id: SessionId) -> usize {
        self.left.get(id).map_or(0, Vec::len)
    }

    /// Keeps input that was just left.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn keep(&mut self, id: SessionId, input: &[u8]) -> Result<(), TryReserveError> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(input.len())?;
        copy.extend_from_slice(input);
        self.left.insert(id, copy);
        Ok(())
    }

    /// Takes the input that was left, to be offered again.
    pub(super) fn take_left(&mut self, id: SessionId) -> Vec<u8> {
        self.left.remove(id).unwrap_or_default()
    }

    /// Keeps the last `count` bytes of input that was offered again. Frees memory once more than half is taken.
    pub(super) fn keep_again(&mut self, id: SessionId, mut input: Vec<u8>, count: usize) {
        input.drain(..input.len() - count);
        if count < input.capacity() / 2 {
            input.shrink_to_fit();
        }
        self.left.insert(id, input);
    }
}

impl<P> Deref for Host<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.protocol
    }
}

impl<P> DerefMut for Host<P> {
    fn deref_mut(&mut self) -> &mut P {
        &mut self.protocol
    }
}
