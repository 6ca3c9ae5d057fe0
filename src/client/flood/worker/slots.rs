//! The slots of a thread, and the queue of slots that have more to do.

use std::collections::VecDeque;

use slotmap::SlotMap;

use super::slot::{Key, Slot};
use crate::client::flood::options::Options;

/// The slots of a thread.
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// The slot of each connection. A new connection has a new key, so a late event for an old one finds nothing.
    keys: SlotMap<Key, usize>,
    queue: VecDeque<usize>,
    /// After the end: the first slot that is not done.
    first_open: usize,
}

impl Slots {
    /// Returns the slots of the connections `thread`, `thread + threads` and so on.
    pub(super) fn new(options: &Options, thread: usize) -> Self {
        let connections = (thread..options.connections).step_by(options.threads);
        let slots: Vec<Slot> = connections.map(|connection| Slot::new(connection, options.quota(connection))).collect();
        let keys = SlotMap::with_capacity_and_key(slots.len());
        Self { slots, keys, queue: VecDeque::new(), first_open: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn get(&mut self, index: usize) -> &mut Slot {
        &mut self.slots[index]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// Returns the slot of a connection, if it is still the present one.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<usize> {
        self.keys.get(key).copied()
    }

    /// Returns a key for the next connection of a slot. The old one is no longer valid.
    pub(super) fn renew_key(&mut self, index: usize) -> Key {
        self.keys.remove(self.slots[index].key());
        self.keys.insert(index)
    }

    /// Queues a slot that has more to do before its next event.
    pub(super) fn queue(&mut self, index: usize) {
        if self.slots[index].set_queued(true) {
            self.queue.push_back(index);
        }
    }

    /// Takes the next queued slot.
    pub(super) fn take_queued(&mut self) -> Option<usize> {
        let index = self.queue.pop_front()?;
        self.slots[index].set_queued(false);
        Some(index)
    }

    /// Returns the number of queued slots.
    #[inline]
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Passes over slots that are done, after the end, when no connection opens any more. Returns whether all are.
    pub(super) fn pass_done(&mut self) -> bool {
        while self.slots.get(self.first_open).is_some_and(Slot::is_done) {
            self.first_open += 1;
        }
        self.first_open == self.slots.len()
    }

    /// Returns the slots that [`pass_done`](Self::pass_done) has not passed.
    pub(super) fn open_slots(&self) -> &[Slot] {
        &self.slots[self.first_open..]
    }
}
