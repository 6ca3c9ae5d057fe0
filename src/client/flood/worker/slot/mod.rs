//! A slot: one connection and its replacements, from connect(2) to the end. This file holds the traffic.

mod ending;
mod opening;

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::context::Context;
use crate::client::connect::{Backoff, Connector, Step};
use crate::client::flood::conversation::Conversation;
use crate::client::flood::options::Load;
use crate::client::flood::pauses::Pauses;
use crate::sys::epoll::EpollFlags;

slotmap::new_key_type! {
    /// The key of a connection.
    pub(super) struct Key;
}

/// The next step of the worker for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Next {
    /// Wait for an event or a deadline.
    Wait,
    /// Continue before the next event.
    Queue,
    /// Open the next connection.
    Open,
}

/// The state of the present connection.
enum Link {
    /// Not open. The next attempt is at this time; 0 if the first attempt has not been made.
    Down {
        until_ns: u64,
    },
    Connecting(Box<Connector<OwnedFd>>),
    Talking(Conversation<OwnedFd>),
    /// Finished, or given up.
    Done,
}

/// One of the connections that are open at the same time. Times are in nanoseconds since the start of the run.
pub(super) struct Slot {
    link: Link,
    key: Key,
    /// The number of this slot among all slots of the flood.
    connection: usize,
    /// The number of the present connection among all connections of the flood, which determines its pattern.
    number: u64,
    /// The number of messages that count and may still be issued.
    quota: u64,
    /// In an open loop: the number of due messages, and the number of issued ones.
    due: u64,
    issued: u64,
    dialed_ns: u64,
    backoff: Backoff,
    pauses: Pauses,
    was_open: bool,
    is_queued: bool,
}

impl Slot {
    pub(super) fn new(connection: usize, quota: u64) -> Self {
        Self {
            link: Link::Down { until_ns: 0 },
            key: Key::default(),
            connection,
            number: 0,
            quota,
            due: 0,
            issued: 0,
            dialed_ns: 0,
            backoff: Backoff::default(),
            pauses: Pauses::default(),
            was_open: false,
            is_queued: false,
        }
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Notes whether the slot is queued. Returns whether that is a change.
    pub(super) fn set_queued(&mut self, is_queued: bool) -> bool {
        std::mem::replace(&mut self.is_queued, is_queued) != is_queued
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.link, Link::Done)
    }

    /// Returns whether the first connection is open, or given up.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.link, Link::Talking(_) | Link::Done)
    }

    /// Returns whether no message is left to send or to come back.
    pub(super) fn is_finished(&self) -> bool {
        match &self.link {
            Link::Done => true,
            Link::Talking(conversation) => self.quota == 0 && conversation.in_flight() == 0,
            Link::Down { .. } | Link::Connecting(_) => false,
        }
    }

    /// Continues after an event.
    #[inline]
    pub(super) fn on_event(&mut self, flags: EpollFlags, context: &mut Context<'_>) -> Next {
        match &mut self.link {
            Link::Talking(conversation) => {
                conversation.on_event(flags);
                self.advance(context)
            }
            Link::Connecting(connector) => match connector.on_event(flags, Instant::now()) {
                Step::Waiting => Next::Wait,
                Step::Connected => self.on_connected(context),
                Step::Failed(error) => self.on_connect_error(error, context),
            },
            Link::Down { .. } | Link::Done => Next::Wait,
        }
    }

    /// In an open loop: issues the message that has become due.
    #[inline]
    pub(super) fn on_due(&mut self, now_ns: u64, context: &mut Context<'_>) -> Next {
        self.due += 1;
        self.issue(now_ns, context);
        self.advance(context)
    }

    /// Reads once, takes the messages that came back, and writes once.
    #[inline]
    pub(super) fn advance(&mut self, context: &mut Context<'_>) -> Next {
        let Link::Talking(conversation) = &mut self.link else { return Next::Wait };
        let (options, shared) = (context.options, context.shared);
        let received = conversation.receive(&mut context.buffer, options.verify, || shared.now_ns());
        let mut is_done = false;
        if !matches!(received, Ok(0)) {
            let now_ns = shared.now_ns();
            if let Ok(count) = received
                && context.timeline.is_measured(now_ns)
            {
                context.tally.measured(count as u64);
            }
            while let Some(message) = conversation.take_returned() {
                if options.load != Load::Bulk && context.timeline.counts(message.due_ns) {
                    context.tally.returned(&message, now_ns, context.timeline.end_ns(), context.timeout_ns);
                }
                is_done = options.load == Load::Churn;
            }
            if is_done && options.half_close && !context.timeline.has_ended() {
                conversation.close();
                is_done = false;
            } else if !is_done && received.is_ok() {
                self.issue(now_ns, context);
            }
        }
        let Link::Talking(conversation) = &mut self.link else { return Next::Wait };
        match received.and_then(|_| conversation.send(&mut context.scratch, options.verify)) {
            Ok(()) if is_done => self.renew(context),
            Ok(()) if conversation.has_more() => Next::Queue,
            Ok(()) => Next::Wait,
            Err(end) => self.on_end(end, context),
        }
    }

    /// Issues messages until the pipeline is full.
    #[inline]
    fn issue(&mut self, now_ns: u64, context: &mut Context<'_>) {
        let Link::Talking(conversation) = &mut self.link else { return };
        if conversation.is_closing() || conversation.is_gathering() {
            return;
        }
        let load = context.options.load;
        let depth = match load {
            Load::Closed { pipeline } | Load::Open { pipeline, .. } => pipeline,
            Load::Churn => 1,
            Load::Bulk => return,
        };
        while conversation.in_flight() < depth {
            let due_ns = match &context.schedule {
                Some(_) if self.issued >= self.due => break,
                Some(schedule) => {
                    let due_ns = schedule.due_ns(self.connection as u64, self.issued);
                    let shifted_ns = self.pauses.shift(due_ns);
                    // A message that was due in the warm-up does not count, however late it is sent.
                    if shifted_ns != due_ns && context.timeline.counts(due_ns) && self.quota > 0 {
                        context.tally.paused_message();
                        shifted_ns
                    } else {
                        due_ns
                    }
                }
                None if now_ns >= context.timeline.end_ns() => break,
                None if load == Load::Churn => self.dialed_ns,
                None => now_ns,
            };
            if context.timeline.counts(due_ns) {
                if self.quota == 0 {
                    break;
                }
                self.quota -= 1;
                context.tally.sent(now_ns);
            }
            self.issued += 1;
            conversation.issue(context.next_size(), due_ns, now_ns);
        }
    }
}
