//! One connection that shows whether a far end is an echo service, and at which of its addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::connector::{Connector, INTEREST, Step};
use super::dial::dial;
use super::error::ConnectError;
use super::handshake::Handshake;
use super::proxy::{ProxyHeader, ProxyVersion};
use super::state::{State, Timeouts};
use crate::client::bytes::Framing;
use crate::event::{EventLoop, Events, Token, Wait};

/// The interval at which the caller is asked whether to continue.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// A search for the first address that accepts a connection.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The source address, or `None` for the system's choice.
    pub(crate) source: Option<IpAddr>,
    /// The framing of the handshake, or `None` for no handshake.
    pub(crate) handshake: Option<Framing>,
    /// The version of the PROXY header to begin with, or `None` for no header.
    pub(crate) send_proxy: Option<ProxyVersion>,
    /// The limits for each attempt.
    pub(crate) timeouts: Timeouts,
    /// The number of retries when all addresses refuse.
    pub(crate) retry: u32,
}

/// The address that a probe found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The address.
    pub(crate) address: SocketAddr,
    /// The time that connect(2) took.
    pub(crate) connect_time: Duration,
    /// The number of bytes of the PROXY header that were sent.
    pub(crate) header_bytes: usize,
}

impl Probe {
    /// Connects to the first of `addresses` that accepts, closes that connection, and returns the address. Asks `is_wanted` about
    /// 10 times a second whether to continue.
    ///
    /// # Errors
    /// The error of the first address that did not merely refuse, or [`ConnectError::Stopped`].
    pub(crate) fn run(&self, addresses: &[SocketAddr], is_wanted: &mut dyn FnMut() -> bool) -> Result<Found, ConnectError> {
        let mut random = fastrand::Rng::new();
        let mut backoff = Backoff::default();
        loop {
            match self.try_each(addresses, &mut random, is_wanted) {
                Err(ConnectError::Refused) if backoff.attempts() < self.retry => {
                    let until = Instant::now() + backoff.pause(&mut random);
                    while let left = until.saturating_duration_since(Instant::now())
                        && !left.is_zero()
                    {
                        if !is_wanted() {
                            return Err(ConnectError::Stopped);
                        }
                        std::thread::sleep(left.min(ASK_INTERVAL));
                    }
                }
                result => return result,
            }
        }
    }

    fn try_each(
        &self,
        addresses: &[SocketAddr],
        random: &mut fastrand::Rng,
        is_wanted: &mut dyn FnMut() -> bool,
    ) -> Result<Found, ConnectError> {
        let mut failure = ConnectError::Refused;
        for &address in addresses {
            let handshake = self.handshake.map(|framing| Handshake::new(random, framing));
            match self.connect(address, handshake, is_wanted) {
                Ok((connect_time, header_bytes)) => return Ok(Found { address, connect_time, header_bytes }),
                Err(ConnectError::Stopped) => return Err(ConnectError::Stopped),
                // The first address that answered at all says more than one that refused.
                Err(error) if matches!(failure, ConnectError::Refused) => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    fn connect(
        &self,
        address: SocketAddr,
        handshake: Option<Handshake>,
        is_wanted: &mut dyn FnMut() -> bool,
    ) -> Result<(Duration, usize), ConnectError> {
        let local = |error| ConnectError::of(error, State::Initiated, Duration::ZERO);
        let start = Instant::now();
        let stream = dial(&address, self.source)?;
        let event_loop = EventLoop::new().map_err(local)?;
        event_loop.watch(&stream, Token::fixed(0), INTEREST).map_err(local)?;
        let header = self.send_proxy.map(|version| ProxyHeader::of(version, &stream, address)).transpose()?;
        let mut connector = Connector::new(stream, handshake, self.timeouts, start);
        if let Some(header) = header {
            connector = connector.with_header(&header);
        }
        let mut events = Events::with_capacity(1);
        loop {
            let ask_at = Instant::now() + ASK_INTERVAL;
            event_loop.wait(&mut events, Wait::Until(connector.deadline().min(ask_at))).map_err(local)?;
            let now = Instant::now();
            for (_, flags) in events.iter() {
                match connector.on_event(flags, now) {
                    Step::Waiting => {}
                    Step::Connected => return Ok((connector.connect_time(), connector.header_bytes())),
                    Step::Failed(error) => return Err(error),
                }
            }
            if connector.deadline() <= now {
                return Err(connector.time_out());
            }
            if events.is_empty() && !is_wanted() {
                return Err(ConnectError::Stopped);
            }
        }
    }
}
