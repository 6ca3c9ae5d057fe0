//! How connections end: in order, by the far end, for something that came back wrong, or because it is time.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Link, NO_FIN, Shared, Worker, ns};
use crate::client::diagnosis::diagnose;
use crate::client::flood::Load;
use crate::client::flood::conversation::{Conversation, End, Evidence, find_elsewhere};

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
        match end {
            End::InOrder if self.options.load == Load::Churn => return self.renew(index),
            End::InOrder => return self.close(index),
            End::Corrupt(evidence) => {
                let description = describe(&evidence, conversation, number, self.options.seed, self.shared);
                self.tally.counts.corrupt += 1;
                let is_counted = conversation.oldest().is_none_or(|message| message.due_ns >= self.counting_from_ns);
                self.tally.counts.sent += u64::from(!is_counted);
                let behind = conversation.in_flight().saturating_sub(1);
                self.tally.trouble(description.0, 1, || description.1);
                self.abandon(index, behind, "a connection was given up after corruption");
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
                self.tally.trouble(name, 1, || {
                    format!(
                        "connection {number} {what}: {received} of {sent} bytes had come back, {in_flight} messages had not"
                    )
                });
                let is_short = self.options.load == Load::Bulk && received < sent;
                self.tally.counts.lost += u64::from(is_short);
                self.abandon(index, in_flight, "a connection ended before they had come back");
            }
        }
        self.close(index);
        let place = &mut self.places[index];
        if !self.has_ended && place.quota > 0 {
            place.link = Link::Down { until_ns: self.shared.now_ns() + ns(place.backoff.pause(&mut self.random)) };
        }
    }

    /// Counts the last `count` messages of a connection as lost.
    pub(super) fn abandon(&mut self, index: usize, count: usize, why: &'static str) {
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
        self.tally.trouble("lost", lost, || format!("connection {number}: {count} messages: {why}"));
    }

    /// Does for one connection what is due by the clock.
    pub(super) fn look_after(&mut self, index: usize, now_ns: u64) {
        let place = &mut self.places[index];
        match &mut place.link {
            Link::Down { .. } if self.has_ended || now_ns >= self.end_ns => place.link = Link::Done,
            Link::Down { until_ns } if (1..=now_ns).contains(until_ns) => self.open(index),
            Link::Connecting(connector) => {
                if connector.deadline() <= Instant::now() {
                    let error = connector.time_out();
                    self.on_connect_error(index, &error);
                } else if self.has_ended {
                    self.close(index);
                }
            }
            Link::Talking(conversation) => {
                if let Some(end) = conversation.on_time(now_ns) {
                    return self.on_end(index, end);
                }
                let timeout_ns = ns(self.options.timeout);
                let age_ns = conversation.oldest().map_or(0, |message| now_ns.saturating_sub(message.sent_ns));
                if age_ns > 2 * timeout_ns {
                    return self.give_up(index, now_ns, age_ns);
                }
                let since_ns = if self.has_ended { self.end_ns } else { place.dialed_ns };
                if conversation.is_closing() && conversation.is_even() && now_ns > since_ns + 2 * timeout_ns {
                    let number = place.number;
                    self.tally.trouble(NO_FIN, 1, || {
                        format!("connection {number}: everything came back, but the peer did not close after our FIN")
                    });
                    return self.close(index);
                }
                if self.has_ended {
                    self.finish(index, now_ns);
                }
            }
            Link::Down { .. } | Link::Done => {}
        }
    }

    /// A message has not come back, and is no longer waited for.
    pub(super) fn give_up(&mut self, index: usize, now_ns: u64, age_ns: u64) {
        let place = &mut self.places[index];
        let Link::Talking(conversation) = &mut place.link else { return };
        let (number, in_flight) = (place.number, conversation.in_flight());
        let (message, start) = conversation.next_message();
        let (_, received) = conversation.bytes();
        let size = conversation.oldest().map_or(0, |message| message.end - start);
        let missing = format!(
            "message {message} of connection {number}: {} of {size} bytes have come back within {:.1} s",
            received - start,
            age_ns as f64 / 1e9
        );
        if conversation.oldest().is_some_and(|message| message.due_ns < self.counting_from_ns) {
            self.tally.counts.sent += in_flight as u64;
        }
        self.tally.counts.lost += in_flight as u64;
        self.tally.trouble("lost", in_flight as u64, || missing);
        self.close(index);
        let place = &mut self.places[index];
        if !self.has_ended && place.quota > 0 {
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
                if self.options.half_close {
                    conversation.close();
                    self.advance(index);
                } else if conversation.is_even() {
                    self.close(index);
                } else if self.options.load == Load::Bulk {
                    // The bytes on their way are a message that is late or lost like any other.
                    conversation.await_rest(now_ns);
                }
            }
            Link::Talking(_) | Link::Connecting(_) => {}
            Link::Down { .. } => place.link = Link::Done,
            Link::Done => {}
        }
    }

    /// What was due and has never been sent.
    pub(super) fn count_unsent(&mut self) {
        let Some(schedule) = self.schedule else { return };
        for (index, place) in self.places.iter().enumerate() {
            let connection = (self.thread + index * self.options.threads) as u64;
            let unsent =
                (place.issued..place.due).filter(|&count| schedule.due_ns(connection, count) >= self.counting_from_ns);
            self.tally.counts.unsent += (unsent.count() as u64).min(place.quota);
        }
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
