//! Opening the connections of a thread, and closing them.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Link, Worker, ns};
use crate::client::Pattern;
use crate::client::backoff::Backoff;
use crate::client::connect_error::ConnectError;
use crate::client::connector::{Connector, HANDSHAKE_BYTES, Handshake, INTEREST, State};
use crate::client::dial::dial;
use crate::client::flood::Load;
use crate::client::flood::conversation::Conversation;
use crate::client::wire::Wire;
use crate::event::Token;

/// How many connections may be on their way at the same time: well under the backlog of any server.
const CONNECTING_AT_ONCE: usize = 256;

/// How often a connection that was once open is tried to be opened again, at least, before it is given up.
const REOPENINGS: u32 = 5;

impl Worker<'_> {
    /// Opens those that have not been tried yet, as fast as is wanted.
    pub(super) fn open_more(&mut self, now_ns: u64) {
        let ramp_ns = ns(self.options.ramp_up);
        while self.opened < self.places.len() && self.connecting < CONNECTING_AT_ONCE {
            let due_ns = ramp_ns as f64 * self.opened as f64 / self.places.len() as f64;
            if now_ns < due_ns as u64 {
                break;
            }
            self.opened += 1;
            self.open(self.opened - 1);
        }
    }

    /// Where the connections of a place come from.
    pub(super) fn source(&self, index: usize) -> Option<IpAddr> {
        let sources = &self.options.sources;
        (!sources.is_empty()).then(|| sources[(self.thread + index * self.options.threads) % sources.len()])
    }

    pub(super) fn open(&mut self, index: usize) {
        let (now, source) = (Instant::now(), self.source(index));
        let place = &mut self.places[index];
        place.number = self.shared.next_number.fetch_add(1, Ordering::Relaxed);
        place.dialed_ns = ns(now - self.shared.epoch);
        if let Some(length_ns) = place.pauses.end(place.dialed_ns, self.schedule.is_some()) {
            self.tally.counts.pauses += 1;
            self.tally.counts.paused_ns += length_ns;
        }
        let watched = dial(&self.shared.address, source).and_then(|stream| {
            let key = self.keys.insert(index);
            self.places[index].key = key;
            match self.event_loop.watch(&stream, Token::of_key(key), INTEREST) {
                Ok(()) => Ok(stream),
                Err(error) => {
                    self.keys.remove(key);
                    Err(ConnectError::of(error, State::Initiated, Duration::ZERO))
                }
            }
        });
        match watched {
            Ok(stream) => {
                let handshake = self.options.has_handshake().then(|| Handshake::new(&mut self.random, self.options.framing));
                let connector = Connector::new(stream, handshake, self.options.connect, now);
                self.places[index].link = Link::Connecting(Box::new(connector));
                self.connecting += 1;
            }
            Err(error) => self.on_connect_error(index, &error),
        }
    }

    pub(super) fn on_connect_error(&mut self, index: usize, error: &ConnectError) {
        self.close(index);
        let place = &mut self.places[index];
        let is_refused = matches!(error, ConnectError::Refused);
        let attempts = if place.was_open { self.options.retry.max(REOPENINGS) } else { self.options.retry };
        if !self.has_ended && (is_refused || place.was_open) && place.backoff.attempts() < attempts {
            let pause_ns = ns(place.backoff.pause(&mut self.random));
            place.link = Link::Down { until_ns: self.shared.now_ns() + pause_ns };
            if is_refused && !place.was_open {
                return; // it is only early
            }
        } else {
            place.link = Link::Done;
        }
        self.tally.counts.failed += 1;
        let number = place.number;
        self.tally.trouble(error.name(), 1, self.shared.now_ns(), || format!("connection {number}: {error}"));
    }

    /// Closes the connection of a place, if there is one.
    pub(super) fn close(&mut self, index: usize) {
        let place = &mut self.places[index];
        match &place.link {
            Link::Connecting(_) => self.connecting -= 1,
            Link::Talking(conversation) => {
                let (sent, received) = conversation.bytes();
                self.tally.counts.sent_bytes += sent;
                self.tally.counts.received_bytes += received;
            }
            Link::Down { .. } | Link::Done => {}
        }
        place.link = Link::Done; // close(2)
        self.keys.remove(place.key);
    }

    pub(super) fn on_connected(&mut self, index: usize) {
        let place = &mut self.places[index];
        let Link::Connecting(connector) = std::mem::replace(&mut place.link, Link::Done) else { return };
        self.connecting -= 1;
        self.tally.connect.saturating_record(ns(connector.connect_time()));
        self.tally.counts.opened += 1;
        if self.options.has_handshake() {
            self.tally.counts.handshake_bytes += HANDSHAKE_BYTES as u64;
        }
        let (stream, is_ended) = connector.into_stream();
        let pattern = Pattern::new(self.options.seed, place.number);
        let size = self.options.sizes.get(0, &mut self.random);
        let wire = Wire::new(pattern, self.options.framing, size);
        place.link = Link::Talking(Conversation::new(stream, wire, is_ended));
        place.was_open = true;
        place.backoff = Backoff::default();
        if self.is_on {
            self.begin(index, self.shared.now_ns());
        }
    }

    /// Has a connection that is open start with what it is there for.
    pub(super) fn begin(&mut self, index: usize, now_ns: u64) {
        let place = &mut self.places[index];
        if let Link::Talking(conversation) = &mut place.link {
            if self.has_ended {
                return self.finish(index, now_ns);
            }
            if self.options.load == Load::Bulk {
                conversation.stream(true);
            }
            self.issue(index, now_ns);
            self.advance(index);
        }
    }
}
