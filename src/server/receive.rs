//! The way from an accepted connection to an open one: it waits for its header, and then the server opens or closes it.

use std::io;
use std::net::SocketAddr;

#[cfg(feature = "proxy")]
use tracing::debug;

#[cfg(feature = "proxy")]
use super::connections::INTEREST;
use super::kernel::Kernel;
#[cfg(feature = "proxy")]
use super::proxy::{Admission, Decision, Header, HeaderError, Version};
use super::run::Server;
use super::serve::Origin;
#[cfg(feature = "proxy")]
use super::statistics::Reason;
#[cfg(feature = "proxy")]
use super::tokens::{self, PROXY};
#[cfg(feature = "proxy")]
use crate::event::Token;
use crate::protocol::Protocol;
use crate::sys::epoll::EpollFlags;

#[cfg(feature = "proxy")]
impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Opens a connection that was accepted, or lets it wait for its header.
    ///
    /// # Errors
    /// Returns the stream if epoll cannot watch it.
    pub(super) fn receive(&mut self, stream: K::Stream, peer: SocketAddr) -> Result<(), (K::Stream, io::Error)> {
        let Some(waiting) = &mut self.proxy else { return self.open(stream, peer, Origin::Direct) };
        match waiting.admit(peer) {
            Admission::Wait => {
                let name = tokens::of_waiting(waiting.next_name());
                if let Err(error) = self.kernel.watch(&stream, Token::fixed(name), INTEREST) {
                    return Err((stream, error));
                }
                waiting.wait(stream, peer, self.kernel.now());
                self.others += 1;
                self.set_alarm();
                if self.drain.is_closing() {
                    // Input that has come by now is answered. The connection waits for nothing more.
                    self.on_waiting_event(name, EpollFlags::IN | EpollFlags::PRI);
                    self.close_waiting();
                }
            }
            Admission::Open => {
                if self.acceptor.admit(peer) {
                    let result = self.open(stream, peer, Origin::Direct);
                    if result.is_err() {
                        self.acceptor.release(peer);
                    }
                    return result;
                }
                self.refuse(Reason::Limit, peer, None);
            }
            Admission::Refuse => self.refuse(Reason::ProxyUntrusted, peer, None),
        }
        Ok(())
    }

    /// Returns the number of connections that wait for their header.
    pub(super) fn waiting(&self) -> usize {
        self.proxy.as_ref().map_or(0, |waiting| waiting.len())
    }

    /// Looks at a connection that waits for its header.
    #[cold]
    #[inline(never)]
    pub(super) fn on_waiting_event(&mut self, name: u32, flags: EpollFlags) {
        // An event of this turn may be for a connection that this turn has closed; its name finds nothing.
        if let Some(decision) = self.proxy.as_mut().and_then(|waiting| waiting.look(tokens::waiting_name(name), flags)) {
            self.decide(decision);
        }
    }

    /// Ends the wait of connections whose time is over.
    pub(super) fn on_proxy_deadline(&mut self) {
        let Some(at) = self.proxy.as_mut().and_then(|waiting| waiting.end_alarm()) else { return };
        while let Some(decision) = self.proxy.as_mut().and_then(|waiting| waiting.take_late(at)) {
            self.decide(decision);
        }
        self.set_alarm();
    }

    /// Closes all connections that wait for their header in order. A connection that may be a client itself is opened first.
    pub(super) fn close_waiting(&mut self) {
        while let Some(decision) = self.proxy.as_mut().and_then(|waiting| waiting.take_last()) {
            self.decide(decision);
        }
    }

    /// Closes all connections that wait for their header as they are.
    pub(super) fn cut_waiting(&mut self) {
        while let Some(decision) = self.proxy.as_mut().and_then(|waiting| waiting.cut_next()) {
            self.decide(decision);
        }
    }

    /// Carries out the decision about a connection that waited until now.
    fn decide(&mut self, decision: Decision<K::Stream>) {
        self.others -= 1;
        match decision {
            Decision::Proxied(stream, via, header) => {
                self.count_header(&header);
                match header.source {
                    Some(source) => self.open_waited(stream, source, Origin::Proxied(via)),
                    None => self.open_waited(stream, via, Origin::Waited),
                }
            }
            Decision::Direct(stream, peer) => self.open_waited(stream, peer, Origin::Waited),
            Decision::Close(stream, peer, reason, fault) => {
                self.refuse(reason, peer, fault);
                drop(stream); // close(2): before the listeners ask for its descriptor
                self.resume_listeners();
            }
        }
        self.set_alarm();
    }

    /// Opens a connection whose source is known now.
    fn open_waited(&mut self, stream: K::Stream, peer: SocketAddr, origin: Origin) {
        if !self.acceptor.admit(peer) {
            self.refuse(Reason::Limit, peer, None);
            drop(stream);
            return self.resume_listeners();
        }
        if let Err((stream, error)) = self.open(stream, peer, origin) {
            debug!(%peer, "epoll cannot watch it any more (epoll_ctl): {error}");
            self.acceptor.release(peer);
            self.refuse(Reason::Reset, peer, None);
            drop(stream);
            self.resume_listeners();
        }
    }

    /// Counts and logs a connection that is closed before it was opened.
    fn refuse(&mut self, reason: Reason, peer: SocketAddr, fault: Option<HeaderError>) {
        self.statistics.accepted += 1;
        self.statistics.count_closed(reason);
        let now = self.kernel.now();
        if let Some(waiting) = &mut self.proxy {
            waiting.log_closed(peer, reason, fault, now);
        }
    }

    fn count_header(&mut self, header: &Header) {
        match (header.is_local, header.version) {
            (true, _) => self.statistics.proxy_local += 1,
            (false, Version::V1) => self.statistics.proxy_v1 += 1,
            (false, Version::V2) => self.statistics.proxy_v2 += 1,
        }
    }

    /// Sets the deadline of the connection that has waited longest, while there is one.
    fn set_alarm(&mut self) {
        let Some(waiting) = &mut self.proxy else { return };
        let (ended, next) = waiting.change_alarm();
        if let Some(at) = ended {
            self.time.cancel_deadline(at, Token::fixed(PROXY));
        }
        if let Some(at) = next {
            self.time.set_deadline(at, Token::fixed(PROXY));
        }
    }
}

/// Without the PROXY protocol every connection is opened at once.
#[cfg(not(feature = "proxy"))]
impl<P: Protocol, K: Kernel> Server<P, K> {
    #[inline]
    pub(super) fn receive(&mut self, stream: K::Stream, peer: SocketAddr) -> Result<(), (K::Stream, io::Error)> {
        self.open(stream, peer, Origin::Direct)
    }

    pub(super) fn waiting(&self) -> usize {
        0
    }

    pub(super) fn on_waiting_event(&mut self, _name: u32, _flags: EpollFlags) {}

    pub(super) fn on_proxy_deadline(&mut self) {}

    pub(super) fn close_waiting(&mut self) {}

    pub(super) fn cut_waiting(&mut self) {}
}
