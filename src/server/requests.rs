//! The requests of a protocol: bytes for other connections, timers, closing. Also the server's own lines: statuses and heartbeats.

use std::time::Instant;

use super::connection::{Ending, Turn};
use super::kernel::Kernel;
use super::run::Server;
use super::statistics::Reason;
use crate::protocol::{Mail, Protocol, Recipients, Request, SessionId};

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Carries out the requests of the protocol, until none is left. A protocol that only answers makes none.
    #[inline]
    pub(super) fn do_requests(&mut self) {
        if !P::ONLY_ANSWERS && !self.post.is_empty() {
            self.do_all_requests();
        }
    }

    /// Carries out all requests.
    #[cold]
    pub(super) fn do_all_requests(&mut self) {
        while !self.post.is_empty() {
            self.clock.read(&self.kernel);
            let now = self.clock.last_read();
            for request in self.post.take() {
                match request {
                    Request::Deliver(mail) => self.deliver(&mail),
                    Request::SetTimer(owner, timer) => {
                        if owner.is_none_or(|id| self.connections.contains_key(id)) {
                            self.timers.set(owner, timer, now);
                        }
                    }
                    Request::CancelTimer(owner, number) => self.timers.cancel(owner, number),
                    Request::Resume(id) => self.queue_connection(id),
                    Request::Fail(reason) => self.failure = Some(reason),
                    Request::Close(id) => {
                        self.begin_close(id, Reason::Protocol);
                        self.schedule_check(id);
                        self.queue_connection(id);
                    }
                }
            }
        }
    }

    fn deliver(&mut self, mail: &Mail) {
        let but = match mail.to {
            Recipients::One(id) => return self.deliver_to(id, &mail.bytes),
            Recipients::Others(id) => Some(id),
            Recipients::All => None,
        };
        for id in self.connections.keys().collect::<Vec<_>>() {
            if Some(id) != but {
                self.deliver_to(id, &mail.bytes);
            }
        }
    }

    /// Sends bytes to a connection, if it is open and has room for them.
    pub(super) fn deliver_to(&mut self, id: SessionId, bytes: &[u8]) {
        let Some(slot) = self.connections.get_mut(id) else { return };
        match slot.connection.deliver(bytes, self.outbox_limit) {
            Ok(true) => self.after_saying(id),
            Ok(false) => self.statistics.skipped += 1,
            Err(error) => self.close(id, &Ending::Failed(error)),
        }
    }

    /// Counts the pending bytes of a connection that was sent bytes outside of its turn. If the send was interrupted, the connection gets
    /// a turn.
    fn after_saying(&mut self, id: SessionId) {
        let Some(slot) = self.connections.get(id) else { return };
        let can_flush = slot.connection.can_flush();
        if slot.connection.memory_bytes(id, &self.protocol) != slot.counted_bytes as usize {
            self.count_pending(id);
        }
        if can_flush {
            self.queue_connection(id);
        }
    }

    /// Runs the protocol's timers that were due when the last events were processed.
    pub(super) fn run_protocol_timers(&mut self, known_until: Instant) {
        while let Some((owner, number)) = self.timers.take_due(known_until) {
            match owner {
                None => self.protocol.on_server_timer(number, &mut self.post),
                Some(id) => self.on_protocol_timer(id, number),
            }
            self.do_requests();
        }
    }

    fn on_protocol_timer(&mut self, id: SessionId, number: u32) {
        let Some(slot) = self.connections.get_mut(id) else { return };
        let mut turn = Turn { id, peer: &slot.peer, post: &mut self.post, pipe: None };
        match slot.connection.on_timer(&mut self.protocol, number, &mut turn) {
            Ok(()) => self.after_saying(id),
            Err(error) => self.close(id, &Ending::Failed(error)),
        }
    }

    /// Sends every connection the number of connections.
    pub(super) fn send_status(&mut self) {
        let text = format!("Server status: {} active connections\n", self.connections.len());
        let bytes = self.protocol.notice(&text).into();
        self.deliver(&Mail { to: Recipients::All, bytes });
    }

    /// Sends a quiet connection a heartbeat.
    pub(super) fn send_heartbeat(&mut self, id: SessionId) {
        let bytes = self.protocol.notice("HEARTBEAT\n");
        self.deliver_to(id, &bytes);
    }
}
