//! The connection of a ping: it sends payloads, and tells what became of each.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::payload::{Carried, Payloads};
use crate::client::bytes::{Corruption, Evidence, GATHERING, Original};
use crate::client::connect::ProxyVersion;
use crate::stream::{Outbox, Readiness, Stream};
use crate::sys::epoll::EpollFlags;

/// The most bytes that one call of recv(2) moves.
const BUFFER_BYTES: usize = 16 * 1024;

/// A payload whose echo is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    pub(super) sequence: u64,
    pub(super) sent_at: Instant,
    /// The timeout has passed, and that was reported.
    pub(super) is_late: bool,
}

/// A result of a link.
#[derive(Debug)]
pub(super) enum Finding {
    /// A payload came back unchanged, at this time.
    Returned(Awaited, Instant),
    /// A payload came back wrong. The link can be used further only if the bytes after it are in step.
    Corrupt { sequence: u64, offset: u64, corruption: Corruption, is_in_step: bool },
    /// The far end closed the connection.
    Closed,
    /// A system call failed.
    Failed(io::Error),
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Link<S> {
    stream: S,
    readiness: Readiness,
    outbox: Outbox,
    awaited: VecDeque<Awaited>,
    /// The sequence number of the first payload on this connection.
    first: u64,
    sent_bytes: u64,
    received_bytes: u64,
    /// The payload that comes back next, and its sequence number; 0 if it has not been made yet.
    expected: (u64, Vec<u8>),
    evidence: Option<Evidence<Instant>>,
    /// The version of the PROXY header that was sent before the first payload.
    sent_proxy: Option<ProxyVersion>,
}

impl<S: Stream> Link<S> {
    /// Returns a link whose next payload has the sequence number `first`; the others follow one by one. `readiness` holds what epoll
    /// has already reported. A PROXY header of the version `sent_proxy` has been sent.
    pub(super) fn new(stream: S, readiness: Readiness, first: u64, sent_proxy: Option<ProxyVersion>) -> Self {
        Self {
            stream,
            readiness: readiness | Readiness::WRITABLE,
            outbox: Outbox::default(),
            awaited: VecDeque::new(),
            first,
            sent_bytes: 0,
            received_bytes: 0,
            expected: (0, Vec::new()),
            evidence: None,
            sent_proxy,
        }
    }

    /// Returns the payloads whose echo is awaited, the oldest first.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &Awaited> {
        self.awaited.iter()
    }

    /// Returns the oldest payload whose timeout has not passed.
    pub(super) fn first_in_time(&self) -> Option<&Awaited> {
        self.awaited.iter().find(|awaited| !awaited.is_late)
    }

    /// Marks the payloads that were sent at `sent_by` or before as late. Returns the sequence numbers of the newly marked ones.
    pub(super) fn mark_late(&mut self, sent_by: Instant) -> Vec<u64> {
        let is_due = |awaited: &&mut Awaited| !awaited.is_late && awaited.sent_at <= sent_by;
        let mark = |awaited: &mut Awaited| {
            awaited.is_late = true;
            awaited.sequence
        };
        self.awaited.iter_mut().filter(is_due).map(mark).collect()
    }

    /// Stops waiting for a payload.
    pub(super) fn forget(&mut self, sequence: u64) {
        self.awaited.retain(|awaited| awaited.sequence != sequence);
    }

    /// Returns whether a byte was wrong and evidence is being gathered.
    pub(super) fn is_gathering(&self) -> bool {
        self.evidence.is_some()
    }

    /// Returns when the verdict on a wrong byte is due; call [`on_time`](Self::on_time) then.
    pub(super) fn verdict_at(&self) -> Option<Instant> {
        self.evidence.as_ref().map(|evidence| evidence.since() + GATHERING)
    }

    /// Sends a payload. Bytes for which the kernel has no room wait for [`on_event`](Self::on_event).
    pub(super) fn send(&mut self, sequence: u64, payload: &[u8]) -> io::Result<()> {
        self.awaited.push_back(Awaited { sequence, sent_at: Instant::now(), is_late: false });
        self.sent_bytes += payload.len() as u64;
        self.outbox.push(payload);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() && self.readiness.contains(Readiness::WRITABLE) {
            let count = self.readiness.offer(&mut self.stream, self.outbox.pending())?;
            self.outbox.consume(count);
        }
        Ok(())
    }

    /// Continues after an event.
    pub(super) fn on_event(&mut self, flags: EpollFlags, payloads: &Payloads) -> Vec<Finding> {
        self.readiness.tell(flags);
        self.advance(payloads)
    }

    /// Sends what is pending, and reads all that has come.
    pub(super) fn advance(&mut self, payloads: &Payloads) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(error) = self.flush() {
            return vec![Finding::Failed(error)];
        }
        let mut buffer = [0; BUFFER_BYTES];
        while self.readiness.contains(Readiness::READABLE) {
            let end = match self.readiness.note_received(self.stream.recv(&mut buffer), buffer.len()) {
                Ok(None) => continue,
                Ok(Some(0)) => Finding::Closed,
                Ok(Some(count)) => {
                    self.take(&buffer[..count], payloads, &mut findings);
                    continue;
                }
                Err(error) => Finding::Failed(error),
            };
            self.conclude(payloads, &mut findings);
            findings.push(end);
            break;
        }
        findings
    }

    /// Reaches the verdict on a wrong byte if it is due.
    pub(super) fn on_time(&mut self, now: Instant, payloads: &Payloads) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.verdict_at().is_some_and(|at| at <= now) {
            self.conclude(payloads, &mut findings);
        }
        findings
    }

    /// Compares bytes that came with the payloads that are awaited.
    fn take(&mut self, mut bytes: &[u8], payloads: &Payloads, findings: &mut Vec<Finding>) {
        let now = Instant::now();
        let size = payloads.size() as u64;
        while self.evidence.is_none() && !bytes.is_empty() {
            let offset = self.received_bytes % size;
            let expected = match self.awaited.front() {
                Some(front) => {
                    if self.expected.0 != front.sequence {
                        self.expected = (front.sequence, payloads.make(front.sequence));
                    }
                    &self.expected.1[offset as usize..]
                }
                None => &[],
            };
            let same = expected.iter().zip(bytes).take_while(|(expected, byte)| expected == byte).count();
            self.received_bytes += same as u64;
            bytes = &bytes[same..];
            if same == expected.len() && same > 0 {
                findings.extend(self.awaited.pop_front().map(|awaited| Finding::Returned(awaited, now)));
            } else if !bytes.is_empty() {
                self.evidence = Some(Evidence::new(self.received_bytes, now));
            }
        }
        if let Some(evidence) = &mut self.evidence
            && evidence.add(bytes, self.sent_bytes)
        {
            self.conclude(payloads, findings);
        }
    }

    /// Reaches the verdict on a wrong byte, if there is one.
    fn conclude(&mut self, payloads: &Payloads, findings: &mut Vec<Finding>) {
        let Some(evidence) = self.evidence.take() else { return };
        let carried = Carried { payloads, first: self.first };
        let is_header = |version: ProxyVersion| evidence.is_of_stream_with(version.signature(), &carried);
        let corruption = match self.sent_proxy {
            Some(version) if is_header(version) => Corruption::HeaderEchoed,
            _ => evidence.diagnose(&carried, self.sent_bytes, |_| None),
        };
        let (position, bytes) = (evidence.position(), evidence.bytes());
        let size = payloads.size() as u64;
        let (sequence, offset) = (self.first + position / size, position % size);
        // The link is in step if only this payload is wrong, and the next one begins where it should.
        let rest = (size - offset) as usize;
        let is_in_step = bytes.len() >= rest
            && position + bytes.len() as u64 <= self.sent_bytes
            && carried.matches(position + rest as u64, &bytes[rest..]);
        findings.push(Finding::Corrupt { sequence, offset, corruption, is_in_step });
        if is_in_step {
            self.awaited.pop_front();
            self.received_bytes += rest as u64;
            self.take(&bytes[rest..], payloads, findings);
        }
    }
}
