//! The route to the far end: which address is tried, and the connection to it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::error::Error;
use super::link::Link;
use super::options::Options;
use crate::client::connect::{Backoff, ConnectError, Connector, Handshake, INTEREST, ProxyHeader, dial};
use crate::event::{EventLoop, Token};

/// The name of the first connection. Each has its own, so a late event for an old one finds nothing.
const FIRST_NAME: u32 = 1;

/// The state of the connection.
#[derive(Debug)]
pub(super) enum Way {
    /// None. The next attempt is when a payload is due, and not before this time.
    Down {
        until: Option<Instant>,
    },
    Connecting(Connector<OwnedFd>),
    Up(Link<OwnedFd>),
}

/// The next step after a failed attempt to connect.
#[derive(Debug)]
pub(super) enum Failure {
    /// The next address is tried at once.
    NextAddress,
    /// All addresses are tried again after a pause.
    Retry(Duration),
    /// The far end was never reached, and will not be.
    Unreachable,
    /// The far end was reached before. What waits is lost; the next payload makes another attempt.
    Lost,
}

/// The route to the far end.
#[derive(Debug)]
pub(super) struct Route<'a> {
    options: &'a Options,
    way: Way,
    /// The name of the present connection in the event loop.
    name: u32,
    /// The index of the address that is tried, or used.
    address: usize,
    backoff: Backoff,
    has_been_up: bool,
    /// The duration of connect(2), until it is reported with an echo.
    connect_time: Option<Duration>,
}

impl<'a> Route<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self {
            options,
            way: Way::Down { until: None },
            name: FIRST_NAME,
            address: 0,
            backoff: Backoff::default(),
            has_been_up: false,
            connect_time: None,
        }
    }

    /// Returns the address that is tried, or used.
    pub(super) fn address(&self) -> SocketAddr {
        self.options.target.addresses()[self.address]
    }

    /// Returns whether events with this name belong to the present connection.
    pub(super) fn is_named(&self, name: u32) -> bool {
        name == self.name
    }

    pub(super) fn way(&mut self) -> &mut Way {
        &mut self.way
    }

    /// Returns the open connection, if any.
    pub(super) fn link(&mut self) -> Option<&mut Link<OwnedFd>> {
        match &mut self.way {
            Way::Up(link) => Some(link),
            Way::Down { .. } | Way::Connecting(_) => None,
        }
    }

    /// Returns whether no echo is awaited in time, so that the next payload can be sent with no interval.
    pub(super) fn is_idle(&self) -> bool {
        match &self.way {
            Way::Down { .. } => true,
            Way::Connecting(_) => false,
            Way::Up(link) => link.first_in_time().is_none(),
        }
    }

    /// Returns when the route needs attention, if an echo may take `timeout`.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        match &self.way {
            Way::Down { until } => *until,
            Way::Connecting(connector) => Some(connector.deadline()),
            Way::Up(link) => {
                let first = link.first_in_time().map(|awaited| awaited.sent_at + timeout);
                link.verdict_at().into_iter().chain(first).min()
            }
        }
    }

    /// Returns whether a waiting payload may start a connection.
    pub(super) fn may_connect(&self, now: Instant) -> bool {
        matches!(self.way, Way::Down { until } if until.is_none_or(|until| until <= now))
    }

    /// Starts connecting.
    pub(super) fn connect(
        &mut self,
        event_loop: &EventLoop,
        random: &mut fastrand::Rng,
    ) -> Result<Result<(), ConnectError>, Error> {
        let start = Instant::now();
        let dialed = dial(&self.address(), None).and_then(|stream| {
            let version = self.options.send_proxy;
            let header = version.map(|version| ProxyHeader::of(version, &stream, self.address())).transpose()?;
            Ok((stream, header))
        });
        let (stream, header) = match dialed {
            Ok(dialed) => dialed,
            Err(error) => return Ok(Err(error)),
        };
        self.name += 1;
        event_loop
            .watch(&stream, Token::fixed(self.name), INTEREST)
            .map_err(Error::system("watch the connection (epoll_ctl)"))?;
        let handshake = self.options.handshake.then(|| Handshake::new(random, self.options.framing));
        let connector = Connector::new(stream, handshake, self.options.connect, start);
        self.way = Way::Connecting(match header {
            Some(header) => connector.with_header(&header),
            None => connector,
        });
        Ok(Ok(()))
    }

    /// Turns a connector that has connected into a link whose next payload is `first`. Returns whether there was one.
    pub(super) fn on_connected(&mut self, first: u64) -> bool {
        let Way::Connecting(connector) = self.take() else { return false };
        self.connect_time = Some(connector.connect_time());
        self.has_been_up = true;
        let (stream, readiness) = connector.into_stream();
        self.way = Way::Up(Link::new(stream, readiness, first, self.options.send_proxy));
        true
    }

    /// Decides what follows after a failed attempt.
    pub(super) fn on_connect_error(&mut self, error: &ConnectError, random: &mut fastrand::Rng) -> Failure {
        self.way = Way::Down { until: None };
        if self.has_been_up {
            return Failure::Lost;
        }
        if self.address + 1 < self.options.target.addresses().len() {
            self.address += 1;
            self.way = Way::Down { until: Some(Instant::now()) };
            return Failure::NextAddress;
        }
        if matches!(error, ConnectError::Refused) && self.backoff.attempts() < self.options.retry {
            let pause = self.backoff.pause(random);
            self.address = 0;
            self.way = Way::Down { until: Some(Instant::now() + pause) };
            return Failure::Retry(pause);
        }
        Failure::Unreachable
    }

    /// Takes the duration of connect(2) of a connection that has not been reported yet.
    pub(super) fn take_connect_time(&mut self) -> Option<Duration> {
        self.connect_time.take()
    }

    /// Takes the connection, if any. The next payload makes a new one.
    pub(super) fn take(&mut self) -> Way {
        std::mem::replace(&mut self.way, Way::Down { until: None })
    }
}
