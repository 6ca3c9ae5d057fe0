//! The rules for connections that wait for their header: when they may be opened or closed, and by when they must be.

use std::net::SocketAddr;

use edgecho::server::{ProxyMode, Reason};

use super::head::Head;
use super::kernel::own_address;
use super::moments::At;
use super::rules::{LINGER, nanos};
use super::world::World;

impl World {
    /// A connection that waits for its header: nothing decides about it yet, and its time is not over.
    pub(super) fn check_waiting(&self, number: usize, until: u64) {
        let socket = &self.sockets[number];
        let proxy = self.config.proxy.as_ref().expect("only a header is waited for");
        let is_decided = socket.head.has_ended()
            || socket.unread() > 0
            || socket.is_finished
            || socket.is_reset
            || (!socket.head.is_valid() && proxy.mode == ProxyMode::Require && socket.head.unread().first() == Some(&0x80));
        assert!(!is_decided, "{number} waits, though nothing is missing: {socket:?}");
        let latest = self.late(socket.opened, nanos(proxy.timeout));
        assert!(until <= latest, "{number} waits for its header for too long");
    }

    /// The server has opened a connection: it goes by the address of the header, or by its own.
    pub fn opened(&mut self, number: usize, peer: SocketAddr, via: Option<SocketAddr>) {
        self.note(|| format!("{number} opened"));
        let socket = &mut self.sockets[number];
        assert!(!socket.is_open && !socket.is_closed, "{number} was opened twice");
        socket.is_open = true;
        let is_read = socket.head.is_whole() && socket.head.read == socket.head.len();
        let own = own_address(number);
        let source = socket.head.source.filter(|_| is_read);
        assert_eq!((peer, via), (source.unwrap_or(own), source.map(|_| own)), "the address of {number}");
        if let Some(proxy) = self.config.proxy.as_ref().filter(|_| socket.head.is_awaited) {
            assert!(is_read || proxy.mode == ProxyMode::Optional, "{number} was opened without a header");
            socket.begun = self.at;
            // The server read the clock after its last call, or when the time for the header was over. It may have been stopped since.
            let is_late = self.at.time - socket.opened.time >= nanos(proxy.timeout);
            let due = socket.opened.time + if is_late && !is_read { nanos(proxy.timeout) } else { 0 };
            socket.opened = At { time: due.max(socket.touched.time), ..socket.touched };
            if !is_read {
                socket.head = Head::default(); // from now on it would be data: this peer sends none
            }
        }
    }

    /// The server has closed a connection before it was open, for a reason.
    pub(super) fn closed_waiting(&mut self, number: usize, reason: Reason) {
        let proxy = self.config.proxy.as_ref().expect("only a header is waited for");
        let socket = &self.sockets[number];
        let head = &socket.head;
        let drained = |time: u64| {
            self.drain.is_some_and(|since| self.at.time - since.time >= nanos(self.config.timeouts.drain) + time)
        };
        let is_right = match reason {
            Reason::ProxyUntrusted => proxy.mode == ProxyMode::Require && head.is_empty(),
            Reason::ProxyInvalid => !head.is_whole() && (!head.is_valid() || socket.is_finished),
            Reason::ProxyTimeout => self.at.time - socket.opened.time >= nanos(proxy.timeout),
            Reason::Peer => socket.is_finished && head.sent == 0,
            Reason::Reset => socket.is_reset,
            Reason::Drained => self.signals > 1 || drained(0),
            Reason::Aborted => self.signals > 1 || drained(LINGER),
            _ => false,
        };
        assert!(is_right, "{number} was closed before it was open: {reason}, {socket:?}");
        self.sockets[number].is_closed = true;
    }
}
