//! How a server comes to listen. Apart from `mod.rs`, which is about what it does from then on.

use std::collections::VecDeque;

use slotmap::SlotMap;
use tracing::warn;

use super::config::{Config, ListenAddress};
use super::drain::Drain;
use super::error::Error;
use super::listener::Listener;
use super::throttle::Throttle;
use super::{READ_BUFFER_BYTES, ReadBuffer, SIGNALS, Server, Summary, listener_token};
use crate::event::{Deadlines, EventLoop, Signals, Token};
use crate::protocol::Protocol;
use crate::sys::epoll::EpollFlags;
use crate::sys::limits::{self, Limit};
use crate::sys::signal::Signal;

/// For how many connections there is room in the table from the start, if as many can be open. Room costs address space only,
/// until it is used; growing later would copy the table within a turn, and leave the old one behind as a hole in the heap.
const CONNECTIONS_WITHOUT_GROWTH: usize = 1 << 16;

impl<P: Protocol> Server<P> {
    /// Listens, as `config` says. SIGINT and SIGTERM are blocked in this thread from here on, and read by the loop; the soft
    /// limit on open descriptors is raised to the hard one.
    ///
    /// # Errors
    /// [`Error::Listen`] for an address that cannot be listened on, [`Error::System`] for want of anything else.
    pub fn bind(protocol: P, config: &Config) -> Result<Self, Error> {
        let descriptors = usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX);
        let signals = Signals::new(&[Signal::SIGINT, Signal::SIGTERM]).map_err(Error::system("read signals (signalfd4)"))?;
        let event_loop = EventLoop::new().map_err(Error::system("make an event loop (epoll_create1)"))?;
        let watch = Error::system("watch for signals (epoll_ctl)");
        event_loop.watch(&signals, Token::fixed(SIGNALS), EpollFlags::IN).map_err(watch)?;

        let mut listeners = Vec::new();
        for address in &config.listen {
            for listener in bind_all(address)? {
                let watch = Error::system("watch for connections (epoll_ctl)");
                event_loop.watch(&listener, listener_token(listeners.len()), EpollFlags::IN).map_err(watch)?;
                listeners.push(Some(listener));
            }
        }
        Ok(Self {
            protocol,
            clients: SlotMap::with_capacity_and_key(descriptors.min(CONNECTIONS_WITHOUT_GROWTH)),
            listeners,
            ready: VecDeque::new(),
            deadlines: Deadlines::default(),
            drain: Drain::new(config.drain_timeout.min(Config::MAX_DRAIN_TIMEOUT)),
            read_buffer: Box::new(ReadBuffer([0; READ_BUFFER_BYTES])),
            accept_trouble: Throttle::default(),
            summary: Summary { accepted: 0, aborted: 0, interrupted_by: None },
            event_loop,
            signals,
        })
    }
}

/// Listens on all that an address stands for. A name may stand for an address of a family that this host does not have; that
/// is no reason not to listen on the others.
fn bind_all(address: &ListenAddress) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    let mut failure = None;
    for &address in address.addresses() {
        match Listener::bind(&address) {
            Ok(listener) => listeners.push(listener),
            Err(source) => {
                let is_absent = matches!(source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
                let error = Error::Listen { address, source };
                if !is_absent {
                    return Err(error);
                }
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) if listeners.is_empty() => Err(error),
        Some(error) => {
            warn!("{error}");
            Ok(listeners)
        }
        None => Ok(listeners),
    }
}

/// Raises the soft limit on descriptors to the hard one: each connection takes one. Gives the limit that is then in force. A
/// limit that cannot be raised is no reason not to serve as many as it allows.
fn raise_descriptor_limit() -> u64 {
    let limit = match limits::descriptors() {
        Ok(limit) if limit.soft < limit.hard => limit,
        Ok(limit) => return limit.soft,
        Err(error) => {
            warn!("cannot read the limit on open descriptors (getrlimit): {error}");
            return 0;
        }
    };
    match limits::set_descriptors(Limit { soft: limit.hard, ..limit }) {
        Ok(()) => limit.hard,
        Err(error) => {
            warn!("cannot raise the limit on open descriptors (setrlimit): {error}");
            limit.soft
        }
    }
}
