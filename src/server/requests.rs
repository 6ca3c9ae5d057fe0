//! The requests of a protocol (bytes for other connections, timers, closing) and of handles, and the server's own lines: statuses and
//! heartbeats.

use super::connection::{Ending, Turn};
use super::error::Error;
use super::handle::Ask;
use super::kernel::Kernel;
use super::run::{End, Server};
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
    fn do_all_requests(&mut self) {
        while !self.post.is_empty() {
            self.time.read(&self.kernel);
            for request in self.post.take() {
                match request {
                    Request::Deliver(mail) => self.deliver(&mail),
                    Request::SetTimer(owner, timer) => {
                        if !P::ONLY_ANSWERS && owner.is_none_or(|id| self.connections.contains(id)) {
                            self.time.set_protocol_timer(owner, timer);
                        }
                    }
                    Request::CancelTimer(owner, number) => self.time.cancel_protocol_timer(owner, number),
                    Request::Resume(id) => self.connections.queue(id),
                    Request::Fail(reason) => self.end_with(End::Failed(reason)),
                    Request::Cut(id) => self.cut(id, Reason::Protocol),
                    Request::Close(id) => {
                        self.begin_close(id, Reason::Protocol);
                        self.schedule_check(id);
                        self.connections.queue(id);
                    }
                }
            }
        }
    }

    /// Carries out the requests of handles.
    #[cold]
    pub(super) fn on_handle(&mut self) -> Result<(), Error> {
        for ask in self.handle_end.take().map_err(Error::system("read the requests of a handle (read)"))? {
            match ask {
                Ask::Drain => self.begin_drain("asked by a handle"),
                Ask::Stop => self.end_with(End::Stopped),
                Ask::Statistics(answer) => answer(self.statistics()),
                Ask::Stage(answer) => answer(self.drain.stage()),
                Ask::Post(make) => {
                    make(&mut self.post);
                    self.do_all_requests(); // of a protocol that only answers, too
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, mail: &Mail) {
        let but = match mail.to {
            Recipients::One(id) => return self.deliver_to(id, &mail.bytes),
            Recipients::Others(id) => Some(id),
            Recipients::All => None,
        };
        for id in self.connections.keys() {
            if Some(id) != but {
                self.deliver_to(id, &mail.bytes);
            }
        }
    }

    /// Sends bytes to a connection, if it is open and has room for them.
    pub(super) fn deliver_to(&mut self, id: SessionId, bytes: &[u8]) {
        let Some(slot) = self.connections.get_mut(id) else { return };
        match slot.connection.deliver(bytes, self.options.outbox_limit) {
            Ok(true) => self.after_delivery(id),
            Ok(false) => self.statistics.skipped += 1,
            Err(error) => self.close(id, &Ending::Failed(error)),
        }
    }

    /// Counts the pending bytes of a connection that was sent bytes or closed outside of its turn. Queues it if it needs a turn.
    fn after_delivery(&mut self, id: SessionId) {
        let Some(slot) = self.connections.get(id) else { return };
        let needs_turn = slot.connection.needs_turn();
        self.note_memory(id);
        self.watch_for_room(id);
        if needs_turn {
            self.connections.queue(id);
        }
    }

    /// Runs the protocol's timers that were due when the last events were processed.
    pub(super) fn run_protocol_timers(&mut self) {
        while let Some((owner, number)) = self.time.take_due_timer() {
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
            Ok(()) => self.after_delivery(id),
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
