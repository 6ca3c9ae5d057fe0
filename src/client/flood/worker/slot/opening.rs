//! Opening the connection of a slot.

use std::time::{Duration, Instant};

use super::{Key, Link, Next, Slot};
use crate::client::bytes::{Pattern, Wire};
use crate::client::connect::{
    Backoff, ConnectError, Connector, HANDSHAKE_BYTES, Handshake, INTEREST, ProxyHeader, State, dial,
};
use crate::client::flood::conversation::Conversation;
use crate::client::flood::options::Load;
use crate::client::flood::worker::context::Context;
use crate::client::latency::ns;
use crate::event::{EventLoop, Token};

/// The minimum number of attempts to reopen a connection before it is given up.
const REOPENINGS: u32 = 5;

impl Slot {
    /// Opens the next connection, under a new key.
    pub(in crate::client::flood::worker) fn open(
        &mut self,
        key: Key,
        event_loop: &EventLoop,
        context: &mut Context<'_>,
    ) -> Next {
        let now = Instant::now();
        self.key = key;
        self.number = context.shared.take_number();
        self.dialed_ns = context.shared.since_start_ns(now);
        if let Some(length_ns) = self.pauses.end(self.dialed_ns, context.schedule.is_some()) {
            context.tally.paused(length_ns);
        }
        let address = context.shared.address();
        let watched = dial(address, context.source(self.connection)).and_then(|stream| {
            let version = context.options.send_proxy;
            let header = version.map(|version| ProxyHeader::of(version, &stream, *address)).transpose()?;
            match event_loop.watch(&stream, Token::of_key(key), INTEREST) {
                Ok(()) => Ok((stream, header)),
                Err(error) => Err(ConnectError::of(error, State::Initiated, Duration::ZERO)),
            }
        });
        match watched {
            Ok((stream, header)) => {
                let options = context.options;
                let handshake = options.has_handshake().then(|| Handshake::new(&mut context.random, options.framing));
                let connector = Connector::new(stream, handshake, options.connect, now);
                self.link = Link::Connecting(Box::new(match header {
                    Some(header) => connector.with_header(&header),
                    None => connector,
                }));
                context.connecting += 1;
                Next::Wait
            }
            Err(error) => self.on_connect_error(error, context),
        }
    }

    /// Retries later, or gives up.
    pub(super) fn on_connect_error(&mut self, error: ConnectError, context: &mut Context<'_>) -> Next {
        self.close(context);
        let is_refused = matches!(error, ConnectError::Refused);
        let retry = context.options.retry;
        let attempts = if self.was_open { retry.max(REOPENINGS) } else { retry };
        let may_retry = (is_refused || self.was_open) && self.backoff.attempts() < attempts;
        if may_retry && !context.timeline.has_ended() {
            let pause_ns = ns(self.backoff.pause(&mut context.random));
            self.link = Link::Down { until_ns: context.now_ns() + pause_ns };
            if is_refused && !self.was_open {
                return Next::Wait; // the far end is not up yet, and the caller asked to wait for it
            }
        }
        context.tally.failed(self.number, error, context.shared.now_ns());
        Next::Wait
    }

    pub(super) fn on_connected(&mut self, context: &mut Context<'_>) -> Next {
        let Link::Connecting(connector) = std::mem::replace(&mut self.link, Link::Done) else { return Next::Wait };
        context.connecting -= 1;
        let options = context.options;
        let handshake_bytes = if options.has_handshake() { HANDSHAKE_BYTES as u64 } else { 0 };
        context.tally.opened(connector.connect_time(), handshake_bytes, connector.header_bytes() as u64);
        let (stream, readiness) = connector.into_stream();
        let pattern = Pattern::new(options.seed, self.number);
        let size = options.sizes.get(0, &mut context.random);
        let wire = Wire::new(pattern, options.framing, size);
        self.link = Link::Talking(Conversation::new(stream, wire, readiness));
        self.was_open = true;
        self.backoff = Backoff::default();
        if context.timeline.is_on() { self.begin(context.now_ns(), context) } else { Next::Wait }
    }

    /// Starts the traffic of an open connection.
    pub(in crate::client::flood::worker) fn begin(&mut self, now_ns: u64, context: &mut Context<'_>) -> Next {
        let Link::Talking(conversation) = &mut self.link else { return Next::Wait };
        if context.timeline.has_ended() {
            return self.finish(now_ns, context);
        }
        if context.options.load == Load::Bulk {
            conversation.start_stream();
        }
        self.issue(now_ns, context);
        self.advance(context)
    }
}
