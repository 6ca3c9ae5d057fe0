//! The connections that wait for their header, and the decision about each.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::header::{Header, HeaderError, MAX_HEADER_BYTES, Parsed};
use super::parse::parse;
use super::trusted::Trusted;
use crate::server::config::{Config, ProxyMode};
use crate::server::statistics::Reason;
use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;
use crate::throttle::Throttle;

/// The number of names for waiting connections. A name is used again after as many connections, far more than can come within the
/// longest timeout.
const NAMES: u64 = 1 << 31;

/// A connection that waits for its header.
struct Newcomer<S> {
    stream: S,
    via: SocketAddr,
    deadline: Instant,
    /// A whole signature has come: the peer speaks the PROXY protocol.
    is_announced: bool,
    /// The start of the header, if it had to be read to see the rest. Nearly always empty.
    begun: Vec<u8>,
}

/// Repeats a call that a signal interrupts.
fn repeat(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The connections that wait for their header, and what the decisions about them depend on.
pub(in crate::server) struct Waiting<S> {
    mode: ProxyMode,
    trusted: Trusted,
    timeout: Duration,
    /// By their serial numbers, so that the first one has the first deadline.
    newcomers: BTreeMap<u64, Newcomer<S>>,
    next_serial: u64,
    /// The deadline that the server was asked to set.
    alarm: Option<Instant>,
    buffer: Box<[u8; MAX_HEADER_BYTES]>,
    invalid: Throttle,
    late: Throttle,
    untrusted: Throttle,
}

/// The decision about a connection at its arrival.
pub(in crate::server) enum Admission {
    /// It waits for its header.
    Wait,
    /// It is an ordinary connection.
    Open,
    /// It is closed.
    Refuse,
}

/// The decision about a connection that has waited.
pub(in crate::server) enum Decision<S> {
    /// An ordinary connection of the client in the header.
    Proxied(S, SocketAddr, Header),
    /// An ordinary connection of the peer itself.
    Direct(S, SocketAddr),
    /// Closed, for a reason, and with the fault of its header.
    Close(S, SocketAddr, Reason, Option<HeaderError>),
}

impl<S: Stream> Waiting<S> {
    /// Returns an empty table, if a configuration asks for it.
    pub(in crate::server) fn from_config(config: &Config) -> Option<Self> {
        let options = config.proxy.as_ref()?;
        Some(Self {
            mode: options.mode,
            trusted: Trusted::new(&options.from),
            timeout: options.timeout,
            newcomers: BTreeMap::new(),
            next_serial: 0,
            alarm: None,
            buffer: Box::new([0; MAX_HEADER_BYTES]),
            invalid: Throttle::default(),
            late: Throttle::default(),
            untrusted: Throttle::default(),
        })
    }

    /// Returns the number of connections that wait for their header.
    pub(in crate::server) fn len(&self) -> usize {
        self.newcomers.len()
    }

    /// Decides about a connection of `peer` at its arrival.
    pub(in crate::server) fn admit(&self, peer: SocketAddr) -> Admission {
        match self.mode {
            _ if self.trusted.contains(peer) => Admission::Wait,
            ProxyMode::Require => Admission::Refuse,
            ProxyMode::Optional => Admission::Open,
        }
    }

    /// Returns the name of the next connection that waits.
    pub(in crate::server) fn next_name(&self) -> u32 {
        (self.next_serial % NAMES) as u32
    }

    /// Lets a connection wait that was accepted at `now`, under the [next name](Self::next_name).
    pub(in crate::server) fn wait(&mut self, stream: S, via: SocketAddr, now: Instant) {
        let newcomer = Newcomer { stream, via, deadline: now + self.timeout, is_announced: false, begun: Vec::new() };
        self.newcomers.insert(self.next_serial, newcomer);
        self.next_serial += 1;
    }

    /// Returns the serial number behind a name, of the last [`NAMES`] ones.
    fn serial(&self, name: u32) -> u64 {
        let age = (self.next_serial + NAMES - 1 - u64::from(name)) % NAMES;
        self.next_serial.wrapping_sub(1 + age)
    }

    /// Looks at what has come for a connection. Returns the decision about it, or `None` if it waits on, or is gone.
    ///
    /// An event costs one peek of at most 4 KiB, even if the header comes byte by byte. `SO_RCVLOWAT` would save these events, but costs two
    /// calls for each connection, and nearly every header comes as a whole.
    pub(in crate::server) fn look(&mut self, name: u32, flags: EpollFlags) -> Option<Decision<S>> {
        let serial = self.serial(name);
        let newcomer = self.newcomers.get_mut(&serial)?;
        let is_optional = self.mode == ProxyMode::Optional;
        let is_broken = flags.contains(EpollFlags::ERR);
        let is_finished = is_broken || flags.intersects(EpollFlags::RDHUP | EpollFlags::HUP);
        let mut may_stop_early = flags.contains(EpollFlags::PRI);
        let (count, fault) = loop {
            let start = newcomer.begun.len();
            self.buffer[..start].copy_from_slice(&newcomer.begun);
            let end = match repeat(|| newcomer.stream.peek(&mut self.buffer[start..])) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => return self.take(serial, |stream, via| Decision::Close(stream, via, Reason::Reset, None)),
                Ok(count) => start + count,
            };
            let part = match parse(&self.buffer[..end]) {
                Ok(Parsed::Whole(header)) => return self.take_header(serial, header),
                Ok(part) => part,
                Err(error) => break (end, error),
            };
            newcomer.is_announced = part == Parsed::PartOfHeader;
            if end > start && std::mem::take(&mut may_stop_early) {
                // A peek stops in front of an urgent byte (tcp(7)). Once what is in front of it was read, a peek begins with the urgent byte,
                // and passes it.
                if is_optional && !newcomer.is_announced {
                    return self.take(serial, Decision::Direct); // data is not read here, and load balancers send nothing urgent
                }
                match repeat(|| newcomer.stream.recv(&mut self.buffer[start..end])) {
                    Ok(count) => newcomer.begun.extend_from_slice(&self.buffer[start..start + count]),
                    Err(_) => return self.take(serial, |stream, via| Decision::Close(stream, via, Reason::Reset, None)),
                }
                continue;
            }
            let is_over = end == start || is_finished; // nothing follows a FIN
            match is_over {
                false => return None,
                true if newcomer.is_announced => break (end, HeaderError::CutShort),
                true => break (end, HeaderError::NoSignature),
            }
        };
        self.take(serial, |stream, via| match fault {
            HeaderError::NoSignature if is_optional => Decision::Direct(stream, via),
            _ if is_broken => Decision::Close(stream, via, Reason::Reset, None),
            // A check that only connects sends nothing.
            _ if count == 0 => Decision::Close(stream, via, Reason::Peer, None),
            fault => Decision::Close(stream, via, Reason::ProxyInvalid, Some(fault)),
        })
    }

    /// Takes a connection out of the table, and decides about it.
    fn take(&mut self, serial: u64, decide: impl FnOnce(S, SocketAddr) -> Decision<S>) -> Option<Decision<S>> {
        self.newcomers.remove(&serial).map(|newcomer| decide(newcomer.stream, newcomer.via))
    }

    /// Takes a connection out of the table, and its header out of the socket.
    fn take_header(&mut self, serial: u64, header: Header) -> Option<Decision<S>> {
        let Newcomer { mut stream, via, begun, .. } = self.newcomers.remove(&serial)?;
        // All of it is there. Still, a read may stop early: in front of an urgent byte (tcp(7)).
        let mut left = header.length - begun.len();
        while left > 0 {
            match repeat(|| stream.recv(&mut self.buffer[..left])) {
                Ok(0) | Err(_) => return Some(Decision::Close(stream, via, Reason::Reset, None)),
                Ok(count) => left -= count,
            }
        }
        Some(Decision::Proxied(stream, via, header))
    }

    /// Takes the next connection whose time is over at `now`. In optional mode it is a client, unless it has begun a header.
    pub(in crate::server) fn take_late(&mut self, now: Instant) -> Option<Decision<S>> {
        let entry = self.newcomers.first_entry().filter(|entry| entry.get().deadline <= now)?;
        let Newcomer { stream, via, is_announced, .. } = entry.remove();
        if self.mode == ProxyMode::Optional && !is_announced {
            return Some(Decision::Direct(stream, via));
        }
        Some(Decision::Close(stream, via, Reason::ProxyTimeout, None))
    }

    /// Takes the next connection, whose time is over because the server closes all connections in order. What it has sent of a header is discarded,
    /// so that close(2) sends a FIN and no reset.
    pub(in crate::server) fn take_last(&mut self) -> Option<Decision<S>> {
        let (_, Newcomer { mut stream, via, is_announced, .. }) = self.newcomers.pop_first()?;
        if self.mode == ProxyMode::Optional && !is_announced {
            return Some(Decision::Direct(stream, via));
        }
        let _ = stream.recv(&mut self.buffer[..]);
        Some(Decision::Close(stream, via, Reason::Drained, None))
    }

    /// Takes the next connection, to be cut off as it is.
    pub(in crate::server) fn cut_next(&mut self) -> Option<Decision<S>> {
        let (_, Newcomer { stream, via, .. }) = self.newcomers.pop_first()?;
        let loses_bytes = stream.unread_bytes().is_ok_and(|count| count > 0);
        Some(Decision::Close(stream, via, if loses_bytes { Reason::Aborted } else { Reason::Drained }, None))
    }

    /// Returns the deadline to take back, and the one to set, so that one is set while connections wait.
    pub(in crate::server) fn change_alarm(&mut self) -> (Option<Instant>, Option<Instant>) {
        match (self.alarm, self.newcomers.first_key_value()) {
            (None, Some((_, newcomer))) => {
                self.alarm = Some(newcomer.deadline);
                (None, self.alarm)
            }
            (Some(_), None) => (self.alarm.take(), None),
            _ => (None, None),
        }
    }

    /// Ends the deadline that has passed, and returns it.
    pub(in crate::server) fn end_alarm(&mut self) -> Option<Instant> {
        self.alarm.take()
    }

    /// Logs that a connection is closed before it was opened. A fault of a peer is a warning, for the load balancer may be configured wrong; each
    /// kind is logged once in a while.
    pub(in crate::server) fn log_closed(
        &mut self,
        peer: SocketAddr,
        reason: Reason,
        fault: Option<HeaderError>,
        now: Instant,
    ) {
        let throttle = match reason {
            Reason::ProxyInvalid => &mut self.invalid,
            Reason::ProxyTimeout => &mut self.late,
            Reason::ProxyUntrusted => &mut self.untrusted,
            _ => return debug!(%peer, "closed: {reason}"),
        };
        let detail = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
        match throttle.admit(now) {
            Some(suppressed) => warn!(%peer, suppressed, "closed: {reason}{detail}"),
            None => debug!(%peer, "closed: {reason}{detail}"),
        }
    }
}
