//! How connections end: in order, by the far end, for something that came back wrong, or because it is time; and how a thread comes
//! to its end with them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{HOUSEKEEPING, Key, Link, NO_FIN, Place, Shared, Worker, ns};
use crate::client::diagnosis::diagnose;
use crate::client::flood::Load;
use crate::client::flood::conversation::{Conversation, End, Evidence, find_elsewhere};
use crate::event::{Events, Name};
use crate::sys::thread;

/// How many of the latest connections are asked whether bytes are theirs.
const SUSPECTS: u64 = 100_000;

impl Worker<'_> {
    /// Of a churn: closes a connection that has done its work, and opens the next.
    pub(super) fn renew(&mut self, index: usize) {
        self.close(index);
        let now_ns = self.shared.now_ns();
        if (self.counting_from_ns..self.end_ns).contains(&now_ns) {
            self.tally.counts.cycles += 1;
        }
        if !self.has_ended && now_ns < self.end_ns && self.places[index].quota > 0 {
            self.open(index);
        }
    }

    pub(super) fn on_end(&mut self, index: usize, end: End) {
        let place = &mut self.places[index];
        let Link::Talking(conversation) = &mut place.link else { return };
        let number = place.number;
        let now_ns = self.shared.now_ns();
        let mut paused_from_ns = now_ns;
        match end {
            End::InOrder if self.options.load == Load::Churn => return self.renew(index),
            End::InOrder => return self.close(index),
            End::Corrupt(evidence) => {
                let description = describe(&evidence, conversation, number, self.options.seed, self.shared);
                paused_from_ns = evidence.since_ns;
                self.tally.counts.corrupt += 1;
                let is_counted = conversation.oldest().is_none_or(|message| message.due_ns >= self.counting_from_ns);
                self.tally.counts.sent += u64::from(!is_counted);
                let behind = conversation.in_flight().saturating_sub(1);
                self.tally.trouble(description.0, 1, now_ns, || description.1);
                self.abandon(index, behind, now_ns, "a connection was given up after corruption");
            }
            End::ByPeer | End::Failed(_) => {
                let in_flight = conversation.in_flight();
                let (sent, received) = conversation.bytes();
                let what = match &end {
                    End::Failed(error) => format!("ended: {error}"),
                    _ if conversation.is_closing() => "was closed by the peer before it had returned everything".to_owned(),
                    _ => "was closed by the peer".to_owned(),
                };
                let name = match &end {
                    End::Failed(error) if error.kind() == io::ErrorKind::ConnectionReset => "reset by the peer",
                    End::Failed(_) => "broken",
                    _ => "closed by the peer",
                };
                self.tally.counts.ended_by_peer += 1;
                self.tally.trouble(name, 1, now_ns, || {
                    format!(
                        "connection {number} {what}: {received} of {sent} bytes had come back, {in_flight} messages had not"
                    )
                });
                let is_short = self.options.load == Load::Bulk && received < sent && in_flight == 0;
                self.tally.counts.lost += u64::from(is_short);
                self.abandon(index, in_flight, now_ns, "a connection ended before they had come back");
            }
        }
        self.close(index);
        let place = &mut self.places[index];
        if !self.has_ended && place.quota > 0 {
            place.pauses.begin(paused_from_ns);
            place.link = Link::Down { until_ns: now_ns + ns(place.backoff.pause(&mut self.random)) };
        }
    }

    /// Counts the last `count` messages of a connection as lost.
    pub(super) fn abandon(&mut self, index: usize, count: usize, now_ns: u64, why: &'static str) {
        let Link::Talking(conversation) = &self.places[index].link else { return };
        if count == 0 {
            return;
        }
        let number = self.places[index].number;
        let lost = count as u64;
        // Those of the warm-up do not count, unless they are lost.
        if conversation.oldest().is_some_and(|message| message.due_ns < self.counting_from_ns) {
            self.tally.counts.sent += lost;
        }
        self.tally.counts.lost += lost;
        self.tally.trouble("lost", lost, now_ns, || format!("connection {number}: {count} messages: {why}"));
    }

    /// Does for one connection what is due by the clock.
    pub(super) fn look_after(&mut self, index: usize, now_ns: u64) {
        let place = &mut self.places[index];
        match &mut place.link {
            Link::Down { .. } if self.has_ended || now_ns >= self.end_ns => place.link = Link::Done,
            Link::Down { until_ns } if (1..=now_ns).contains(until_ns) => self.open(index),
            Link::Connecting(connector) => {
                if connector.deadline() <= self.shared.epoch + Duration::from_nanos(self.judging_ns) {
                    let error = connector.time_out();
                    self.on_connect_error(index, &error);
                } else if self.has_ended {
                    self.close(index);
                }
            }
            Link::Talking(conversation) => {
                // What it was told of is read first.
                let judging_ns = if place.is_queued { 0 } else { self.judging_ns };
                if let Some(end) = conversation.on_time(judging_ns) {
                    return self.on_end(index, end);
                }
                if self.deadline_ns(&self.places[index]) <= judging_ns {
                    return self.give_up(index, now_ns);
                }
                if self.has_ended {
                    self.finish(index, now_ns);
                }
            }
            Link::Down { .. } | Link::Done => {}
        }
    }

    /// Returns when a connection in use is to be given up: a message has not come back, or the peer's FIN has not.
    fn deadline_ns(&self, place: &Place) -> u64 {
        let Link::Talking(conversation) = &place.link else { return u64::MAX };
        match conversation.oldest() {
            Some(message) => (message.sent_ns + 2 * self.timeout_ns).min(self.give_up_ns),
            None if conversation.is_closing() && conversation.is_even() => {
                let since_ns = if self.has_ended { self.end_ns } else { place.dialed_ns };
                since_ns + 2 * self.timeout_ns
            }
            None => u64::MAX,
        }
    }

    /// Returns when something is next to be done by the clock, after the end.
    pub(super) fn next_deadline_ns(&self) -> u64 {
        let deadlines = self.places[self.first_open..].iter().map(|place| {
            let gathers_until_ns = match &place.link {
                Link::Talking(conversation) => conversation.gathers_until_ns(),
                _ => None,
            };
            self.deadline_ns(place).min(gathers_until_ns.unwrap_or(u64::MAX))
        });
        deadlines.fold(self.send_until_ns, u64::min)
    }

    /// A message, or a FIN, has not come back, and is no longer waited for.
    fn give_up(&mut self, index: usize, now_ns: u64) {
        let place = &mut self.places[index];
        let Link::Talking(conversation) = &mut place.link else { return };
        let (number, in_flight) = (place.number, conversation.in_flight());
        let Some(oldest) = conversation.oldest() else {
            self.tally.trouble(NO_FIN, 1, now_ns, || {
                format!("connection {number}: everything came back, but the peer did not close after our FIN")
            });
            return self.close(index);
        };
        let age_ns = now_ns.saturating_sub(oldest.sent_ns);
        let (message, start) = conversation.next_message();
        let (_, received) = conversation.bytes();
        let size = oldest.end - start;
        let missing = format!(
            "message {message} of connection {number}: {} of {size} bytes have come back within {:.1} s",
            received - start,
            age_ns as f64 / 1e9
        );
        if oldest.due_ns < self.counting_from_ns {
            self.tally.counts.sent += in_flight as u64;
        }
        self.tally.counts.lost += in_flight as u64;
        self.tally.trouble("lost", in_flight as u64, now_ns, || missing);
        self.close(index);
        let place = &mut self.places[index];
        if !self.has_ended && place.quota > 0 {
            place.pauses.begin(now_ns);
            place.link = Link::Down { until_ns: now_ns.max(1) };
        }
    }

    /// Brings a connection to its end: what is on its way is waited for, in an open loop what is due is still sent.
    pub(super) fn finish(&mut self, index: usize, now_ns: u64) {
        let place = &mut self.places[index];
        match &mut place.link {
            Link::Talking(conversation) if !conversation.is_closing() => {
                if self.options.load == Load::Bulk {
                    conversation.stream(false);
                }
                if self.schedule.is_some() && place.issued < place.due && place.quota > 0 {
                    return; // its turn comes when those before have come back
                }
                if self.options.load == Load::Bulk && !conversation.is_even() {
                    // The bytes on their way are a message that is late or lost like any other.
                    conversation.await_rest(now_ns);
                }
                if self.options.half_close {
                    conversation.close();
                    self.advance(index);
                } else if conversation.is_even() {
                    self.close(index);
                }
            }
            Link::Talking(_) => {}
            Link::Connecting(_) => self.close(index),
            Link::Down { .. } => place.link = Link::Done,
            Link::Done => {}
        }
    }

    /// Counts what was due and has not been sent, and no longer sends it.
    pub(super) fn drop_backlog(&mut self) {
        let Some(schedule) = self.schedule else { return };
        for (index, place) in self.places.iter_mut().enumerate() {
            let connection = (self.thread + index * self.options.threads) as u64;
            let unsent = schedule.count_since(connection, place.issued, place.due, self.counting_from_ns);
            self.tally.counts.unsent += unsent.min(place.quota);
            place.due = place.issued;
        }
    }

    /// Ends the measured time: what is on its way is waited for.
    pub(super) fn end(&mut self, now_ns: u64) {
        self.has_ended = true;
        self.end_ns = self.end_ns.min(now_ns);
        self.tally.counts.sent_in_time = self.tally.counts.sent;
        if let Some((from, from_ns)) = self.cpu_at_start
            && let Ok(to) = thread::cpu_time()
        {
            self.tally.cpu.user += to.user.saturating_sub(from.user);
            self.tally.cpu.system += to.system.saturating_sub(from.system);
            self.tally.cpu_span += Duration::from_nanos(now_ns.saturating_sub(from_ns));
        }
        for index in 0..self.places.len() {
            self.finish(index, now_ns);
        }
    }

    /// After the end: closes the connections that an event has brought to theirs, and sees to it that what they have changed is looked at soon.
    /// Without an event the thread sleeps until the next deadline.
    pub(super) fn settle(&mut self, events: &Events) {
        if events.is_empty() {
            return;
        }
        let now_ns = self.shared.now_ns();
        for (token, _) in events.iter() {
            if let Name::Key(key) = token.name::<Key>()
                && let Some(&index) = self.keys.get(key)
            {
                self.finish(index, now_ns);
            }
        }
        self.housekeeping_ns = self.housekeeping_ns.min(self.kept_house_ns + ns(HOUSEKEEPING));
    }

    /// Passes over the connections that are closed, and returns whether all are, after the end, when none is opened any longer.
    pub(super) fn pass_closed(&mut self) -> bool {
        while let Some(Place { link: Link::Done, .. }) = self.places.get(self.first_open) {
            self.first_open += 1;
        }
        self.first_open == self.places.len()
    }
}

/// Says what happened to bytes that came back wrong: in a word, and with its place.
#[cold]
fn describe(
    evidence: &Evidence,
    conversation: &Conversation<OwnedFd>,
    number: u64,
    seed: u64,
    shared: &Shared<'_>,
) -> (&'static str, String) {
    let last = shared.next_number.load(Ordering::Relaxed);
    let others = (last.saturating_sub(SUSPECTS)..last).rev().filter(|&other| other != number);
    // The others have come about as far; what is beyond that is a coincidence.
    let end = evidence.sent_bytes.saturating_mul(4).max(1 << 20);
    let other = |bytes: &[u8]| find_elsewhere(bytes, seed, others.clone(), end);
    let corruption = diagnose(&evidence.bytes, conversation.wire(), evidence.position, evidence.sent_bytes, other);
    let (message, start) = conversation.next_message();
    let offset = evidence.position - start;
    let place =
        format!("connection {number}, byte {offset} of message {message} (byte {} of its stream)", evidence.position);
    (corruption.name(), format!("{place}: {corruption}"))
}
