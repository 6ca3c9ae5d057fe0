//! The fixed tokens: names for events and deadlines that concern no connection.

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
pub(super) const OBSERVER: u32 = PROXY - 1;
const FIRST_LISTENER: u32 = 8;
/// The deadline of the connections that wait for their header.
pub(super) const PROXY: u32 = FIRST_WAITING - 1;
/// The first of the names for connections that wait for their header. Half of the fixed names are theirs: the keys of a second slot map would look
/// like the keys of open connections.
pub(super) const FIRST_WAITING: u32 = 1 << 31;

/// Returns the token of a listener: for its events, its pauses, and its place in the ready queue.
pub(super) fn of_listener(index: usize) -> Token {
    Token::fixed(FIRST_LISTENER + u32::try_from(index).expect("fewer listeners than ports"))
}

/// Returns the index of the listener with this fixed name.
pub(super) fn listener_index(name: u32) -> usize {
    (name - FIRST_LISTENER) as usize
}

/// Returns the fixed name of a connection that waits for its header, by its own name below 2^31.
#[cfg(feature = "proxy")]
pub(super) fn of_waiting(name: u32) -> u32 {
    FIRST_WAITING + name
}

/// Returns the own name of a connection that waits for its header.
#[cfg(feature = "proxy")]
pub(super) fn waiting_name(fixed: u32) -> u32 {
    fixed - FIRST_WAITING
}
