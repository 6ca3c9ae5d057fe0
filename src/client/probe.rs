//! One connection that shows whether, and at which of its addresses, a far end is an echo service.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::connect_error::ConnectError;
use super::connector::{Connector, Handshake, INTEREST, State, Step, Timeouts};
use super::dial::dial;
use super::wire::Framing;
use crate::event::{EventLoop, Events, Token, Wait};

/// How often it is asked whether a connection is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Connects to the first of `addresses` that lets itself be connected to, and closes the connection. Gives its index, and how long
/// connect(2) took. When all refuse, they are asked again up to `retry` times, for as long as `is_wanted`.
pub(super) fn probe(
    addresses: &[SocketAddr],
    source: Option<IpAddr>,
    handshake: Option<Framing>,
    timeouts: Timeouts,
    retry: u32,
    random: &mut fastrand::Rng,
    is_wanted: &mut dyn FnMut() -> bool,
) -> Result<(usize, Duration), ConnectError> {
    let mut backoff = Backoff::default();
    loop {
        let mut failure = None;
        for (index, address) in addresses.iter().enumerate() {
            let handshake = handshake.map(|framing| Handshake::new(random, framing));
            match connect(address, source, handshake, timeouts, is_wanted) {
                Ok(connect_time) => return Ok((index, connect_time)),
                Err(ConnectError::Stopped) => return Err(ConnectError::Stopped),
                // What the first that answered at all has said is worth more than that another refused.
                Err(error) if matches!(failure, None | Some(ConnectError::Refused)) => failure = Some(error),
                Err(_) => {}
            }
        }
        match failure {
            Some(ConnectError::Refused) if backoff.attempts() < retry => {
                let until = Instant::now() + backoff.pause(random);
                while let left = until.saturating_duration_since(Instant::now())
                    && !left.is_zero()
                {
                    if !is_wanted() {
                        return Err(ConnectError::Stopped);
                    }
                    std::thread::sleep(left.min(LOOK));
                }
            }
            Some(error) => return Err(error),
            None => return Err(ConnectError::Refused),
        }
    }
}

fn connect(
    address: &SocketAddr,
    source: Option<IpAddr>,
    handshake: Option<Handshake>,
    timeouts: Timeouts,
    is_wanted: &mut dyn FnMut() -> bool,
) -> Result<Duration, ConnectError> {
    let local = |error| ConnectError::of(error, State::Initiated, Duration::ZERO);
    let start = Instant::now();
    let stream = dial(address, source)?;
    let event_loop = EventLoop::new().map_err(local)?;
    event_loop.watch(&stream, Token::fixed(0), INTEREST).map_err(local)?;
    let mut connector = Connector::new(stream, handshake, timeouts, start);
    let mut events = Events::with_capacity(1);
    loop {
        let look = Instant::now() + LOOK;
        event_loop.wait(&mut events, Wait::Until(connector.deadline().min(look))).map_err(local)?;
        let now = Instant::now();
        for (_, flags) in events.iter() {
            match connector.on_event(flags, now) {
                Step::Waiting => {}
                Step::Connected => return Ok(connector.connect_time()),
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
