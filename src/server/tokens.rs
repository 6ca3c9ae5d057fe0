//! The fixed tokens: what an event or a deadline is for when it is not for a connection.

use crate::event::Token;

pub(super) const SIGNALS: u32 = 0;
pub(super) const DRAIN: u32 = 1;
pub(super) const STATISTICS: u32 = 2;
pub(super) const STATUS: u32 = 3;
pub(super) const HANDLE: u32 = 4;
/// The protocol's own descriptor.
pub(super) const PROTOCOL: u32 = 5;
pub(super) const MEMORY: u32 = 6;
pub(super) const TRIM: u32 = 7;
/// The time at which the observer is called next.
pub(super) const OBSERVER: u32 = u32::MAX;
const FIRST_LISTENER: u32 = 8;

/// Returns the token of a listener: for its events, its pauses, and its place in the ready queue.
pub(super) fn of_listener(index: usize) -> Token {
    Token::fixed(FIRST_LISTENER + u32::try_from(index).expect("fewer listeners than ports"))
}

/// Returns the index of the listener with this fixed name.
pub(super) fn listener_index(name: u32) -> usize {
    (name - FIRST_LISTENER) as usize
}
