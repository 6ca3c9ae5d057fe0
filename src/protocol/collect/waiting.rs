//! The connections that wait because the queue is full.

use std::collections::{HashSet, VecDeque};

use crate::protocol::post::SessionId;

/// The connections that are not read because the queue is full, in the order in which they found it full.
#[derive(Default)]
pub(super) struct Waiting {
    order: VecDeque<SessionId>,
    members: HashSet<SessionId>,
}

impl Waiting {
    /// Adds a connection, once.
    pub(super) fn add(&mut self, id: SessionId) {
        if self.members.insert(id) {
            self.order.push_back(id);
        }
    }

    /// Forgets a closed connection. Places are freed together, so this takes O(1), amortised.
    pub(super) fn remove(&mut self, id: SessionId) {
        if self.members.remove(&id) && self.order.len() > 2 * self.members.len() {
            self.order.retain(|id| self.members.contains(id));
        }
    }

    /// Takes all connections, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = SessionId> + '_ {
        self.members.clear();
        self.order.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn connections_that_go_while_they_wait_leave_nothing_behind() {
        let mut ids = SlotMap::<SessionId, ()>::with_key();
        let mut waiting = Waiting::default();
        let stays = [ids.insert(()), ids.insert(())];
        waiting.add(stays[0]);
        for _ in 0..10_000 {
            let id = ids.insert(());
            waiting.add(id);
            waiting.remove(id);
            waiting.remove(id);
        }
        waiting.add(stays[1]);
        waiting.add(stays[0]);
        assert!(waiting.order.len() <= 4, "{}", waiting.order.len());
        assert_eq!(waiting.take().filter(|id| stays.contains(id)).collect::<Vec<_>>(), stays);
        assert!(waiting.order.is_empty() && waiting.members.is_empty());
    }
}
