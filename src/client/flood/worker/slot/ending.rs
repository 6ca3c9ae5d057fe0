//! The end of the connection of a slot: in order, by the far end, after corruption, or by a deadline.

use std::io;
use std::os::fd::OwnedFd;

use super::{Link, Next, Slot};
use crate::client::bytes::{Corruption, Evidence, Pattern};
use crate::client::connect::ProxyVersion;
use crate::client::flood::conversation::{Conversation, End};
use crate::client::flood::options::Load;
use crate::client::flood::shared::Shared;
use crate::client::flood::troubles::NO_FIN;
use crate::client::flood::worker::context::Context;
use crate::client::latency::ns;

/// The number of latest connections whose streams are searched for bytes that came back wrong.
const SUSPECTS: u64 = 100_000;

impl Slot {
    /// Closes the connection, if any.
    pub(super) fn close(&mut self, context: &mut Context<'_>) {
        match &self.link {
            Link::Connecting(_) => context.connecting -= 1,
            Link::Talking(conversation) => {
                let (sent, received) = conversation.bytes();
                context.tally.closed(sent, received);
            }
            Link::Down { .. } | Link::Done => {}
        }
        self.link = Link::Done; // close(2)
    }

    /// In a churn: closes a connection that has done its work. The next one follows.
    pub(super) fn renew(&mut self, context: &mut Context<'_>) -> Next {
        self.close(context);
        let now_ns = context.now_ns();
        if context.timeline.is_measured(now_ns) {
            context.tally.cycle();
        }
        let is_wanted = !context.timeline.has_ended() && now_ns < context.timeline.end_ns() && self.quota > 0;
        if is_wanted { Next::Open } else { Next::Wait }
    }

    pub(super) fn on_end(&mut self, end: End, context: &mut Context<'_>) -> Next {
        let Link::Talking(conversation) = &self.link else { return Next::Wait };
        let now_ns = context.now_ns();
        let mut paused_from_ns = now_ns;
        let mut is_hopeless = false;
        match end {
            End::InOrder if context.options.load == Load::Churn => return self.renew(context),
            End::InOrder => {
                self.close(context);
                return Next::Wait;
            }
            End::Corrupt(evidence) => {
                paused_from_ns = evidence.since();
                let (cause, description) =
                    describe(&evidence, conversation, self.number, context.options.seed, context.shared);
                let is_counted = conversation.oldest().is_none_or(|message| context.timeline.counts(message.due_ns));
                context.tally.sent_in_warmup(u64::from(!is_counted));
                context.tally.corrupt(cause, now_ns, description);
                let behind = conversation.in_flight().saturating_sub(1);
                self.abandon(behind, now_ns, "a connection was given up after corruption", context);
                // Bytes that came before any message was sent come on each connection: the flood would never start.
                is_hopeless = !context.timeline.is_on();
            }
            End::ByPeer | End::Failed(_) => self.on_early_end(&end, now_ns, context),
        }
        self.close(context);
        if !is_hopeless && !context.timeline.has_ended() && self.quota > 0 {
            self.pauses.begin(paused_from_ns);
            self.link = Link::Down { until_ns: now_ns + ns(self.backoff.pause(&mut context.random)) };
        }
        Next::Wait
    }

    /// Counts a connection that ended too early, and its messages in flight.
    fn on_early_end(&mut self, end: &End, now_ns: u64, context: &mut Context<'_>) {
        let Link::Talking(conversation) = &self.link else { return };
        let in_flight = conversation.in_flight();
        let (sent, received) = conversation.bytes();
        let (name, what) = match end {
            End::Failed(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                ("reset by the peer", format!("ended: {error}"))
            }
            End::Failed(error) => ("broken", format!("ended: {error}")),
            _ if conversation.is_closing() => {
                ("closed by the peer", "was closed by the peer before it had returned everything".to_owned())
            }
            _ => ("closed by the peer", "was closed by the peer".to_owned()),
        };
        let number = self.number;
        context.tally.ended_by_peer();
        context.tally.trouble(name, 1, now_ns, || {
            format!("connection {number} {what}: {received} of {sent} bytes had come back, {in_flight} messages had not")
        });
        if context.options.load == Load::Bulk && received < sent && in_flight == 0 {
            context.tally.lost_rest();
        }
        self.abandon(in_flight, now_ns, "a connection ended before they had come back", context);
    }

    /// Counts the last `count` messages of the connection as lost.
    fn abandon(&mut self, count: usize, now_ns: u64, why: &'static str, context: &mut Context<'_>) {
        let Link::Talking(conversation) = &self.link else { return };
        if count == 0 {
            return;
        }
        let (number, lost) = (self.number, count as u64);
        // Messages of the warm-up do not count, unless they are lost.
        if conversation.oldest().is_some_and(|message| !context.timeline.counts(message.due_ns)) {
            context.tally.sent_in_warmup(lost);
        }
        context.tally.lost(lost, now_ns, || format!("connection {number}: {count} messages: {why}"));
    }

    /// Does what is due by the clock. Deadlines are judged by `judging_ns`, up to which all events have been handled.
    pub(in crate::client::flood::worker) fn look_after(
        &mut self,
        now_ns: u64,
        judging_ns: u64,
        context: &mut Context<'_>,
    ) -> Next {
        match &mut self.link {
            Link::Down { .. } if context.timeline.has_ended() || now_ns >= context.timeline.end_ns() => {
                self.link = Link::Done;
            }
            Link::Down { until_ns } if (1..=now_ns).contains(until_ns) => return Next::Open,
            Link::Connecting(connector) => {
                if connector.deadline() <= context.shared.instant(judging_ns) {
                    let error = connector.time_out();
                    return self.on_connect_error(error, context);
                }
                if context.timeline.has_ended() {
                    self.close(context);
                }
            }
            Link::Talking(conversation) => {
                // A queued slot has events to handle first.
                let judging_ns = if self.is_queued { 0 } else { judging_ns };
                if let Some(end) = conversation.on_time(judging_ns) {
                    return self.on_end(end, context);
                }
                if self.give_up_ns(context) <= judging_ns {
                    self.give_up(now_ns, context);
                } else if context.timeline.has_ended() {
                    return self.finish(now_ns, context);
                }
            }
            Link::Down { .. } | Link::Done => {}
        }
        Next::Wait
    }

    /// Returns the next deadline of an open connection.
    pub(in crate::client::flood::worker) fn deadline_ns(&self, context: &Context<'_>) -> u64 {
        let gathers_until_ns = match &self.link {
            Link::Talking(conversation) => conversation.gathers_until_ns(),
            _ => None,
        };
        self.give_up_ns(context).min(gathers_until_ns.unwrap_or(u64::MAX))
    }

    /// Returns when the connection is given up, because a message or the peer's FIN has not come.
    fn give_up_ns(&self, context: &Context<'_>) -> u64 {
        let Link::Talking(conversation) = &self.link else { return u64::MAX };
        match conversation.oldest() {
            Some(message) => (message.sent_ns + 2 * context.timeout_ns).min(context.timeline.give_up_ns()),
            None if conversation.is_closing() && conversation.is_even() => {
                let has_ended = context.timeline.has_ended();
                let since_ns = if has_ended { context.timeline.end_ns() } else { self.dialed_ns };
                since_ns + 2 * context.timeout_ns
            }
            None => u64::MAX,
        }
    }

    /// Gives up a connection whose messages, or whose FIN, have not come back in time.
    fn give_up(&mut self, now_ns: u64, context: &mut Context<'_>) {
        let Link::Talking(conversation) = &self.link else { return };
        let (number, in_flight) = (self.number, conversation.in_flight() as u64);
        let Some(oldest) = conversation.oldest() else {
            context.tally.trouble(NO_FIN, 1, now_ns, || {
                format!("connection {number}: everything came back, but the peer did not close after our FIN")
            });
            return self.close(context);
        };
        let seconds = now_ns.saturating_sub(oldest.sent_ns) as f64 / 1e9;
        let (message, start) = conversation.next_message();
        let (_, received) = conversation.bytes();
        let (returned, size) = (received - start, oldest.end - start);
        if !context.timeline.counts(oldest.due_ns) {
            context.tally.sent_in_warmup(in_flight);
        }
        context.tally.lost(in_flight, now_ns, || {
            format!("message {message} of connection {number}: {returned} of {size} bytes came back within {seconds:.1} s")
        });
        self.close(context);
        if !context.timeline.has_ended() && self.quota > 0 {
            self.pauses.begin(now_ns);
            self.link = Link::Down { until_ns: now_ns.max(1) };
        }
    }

    /// Ends the connection after the end of the flood. Messages in flight are awaited; in an open loop, due messages are still sent.
    pub(in crate::client::flood::worker) fn finish(&mut self, now_ns: u64, context: &mut Context<'_>) -> Next {
        match &mut self.link {
            Link::Talking(conversation) if !conversation.is_closing() => {
                let is_bulk = context.options.load == Load::Bulk;
                if is_bulk {
                    conversation.stop_stream();
                }
                if context.schedule.is_some() && self.issued < self.due && self.quota > 0 {
                    return Next::Wait; // the messages before them have not come back
                }
                if is_bulk && !conversation.is_even() {
                    // The bytes in flight can be late or lost like any message.
                    conversation.await_rest(now_ns);
                }
                if context.options.half_close {
                    conversation.close();
                    return self.advance(context);
                }
                if conversation.is_even() {
                    self.close(context);
                }
            }
            Link::Talking(_) => {}
            Link::Connecting(_) => self.close(context),
            Link::Down { .. } => self.link = Link::Done,
            Link::Done => {}
        }
        Next::Wait
    }

    /// In an open loop: counts the messages that should have been sent before the end of the schedule and were not, and drops them.
    pub(in crate::client::flood::worker) fn drop_backlog(&mut self, context: &mut Context<'_>) {
        let Some(schedule) = &context.schedule else { return };
        let connection = self.connection as u64;
        let unsent = match context.timeline.schedule_end_ns() {
            u64::MAX => self.quota, // a number of messages, and no end by the clock
            end_ns => {
                let due = schedule.count_before(connection, end_ns);
                schedule.count_since(connection, self.issued, due, context.timeline.counting_from_ns()).min(self.quota)
            }
        };
        context.tally.unsent(unsent);
        self.due = self.issued;
        self.quota = 0;
    }
}

/// Returns the cause of corruption, and a description with its place.
#[cold]
fn describe(
    evidence: &Evidence<u64>,
    conversation: &Conversation<OwnedFd>,
    number: u64,
    seed: u64,
    shared: &Shared<'_>,
) -> (&'static str, String) {
    let next = shared.next_number();
    let (sent_bytes, _) = conversation.bytes();
    // The other connections are about as far along; a match far beyond that is a coincidence.
    let end = sent_bytes.saturating_mul(4).max(1 << 20);
    let other = |bytes: &[u8]| {
        let mut others = (next.saturating_sub(SUSPECTS)..next).rev().filter(|&other| other != number);
        others.find_map(|other| Pattern::new(seed, other).find_word(bytes, end).map(|from| (other, from)))
    };
    let is_header = |version: ProxyVersion| evidence.is_of_stream_with(version.signature(), conversation.wire());
    let corruption = match shared.options().send_proxy {
        Some(version) if is_header(version) => Corruption::HeaderEchoed,
        _ => evidence.diagnose(conversation.wire(), sent_bytes, other),
    };
    let (message, start) = conversation.next_message();
    let (position, offset) = (evidence.position(), evidence.position() - start);
    let place = format!("connection {number}, byte {offset} of message {message} (byte {position} of its stream)");
    (corruption.name(), format!("{place}: {corruption}"))
}
