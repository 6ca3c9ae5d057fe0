//! The connection of a ping: it takes payloads, gives back those that have returned, and says what is wrong with those that have not
//! returned as they were.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::payload::{Carried, Payloads};
use crate::client::Corruption;
use crate::client::diagnosis::{Original, diagnose};
use crate::stream::{Outbox, Stream};
use crate::sys::epoll::EpollFlags;

/// How long to go on reading after a byte was found to be wrong: what comes next tells what happened to it.
const GATHERING: Duration = Duration::from_millis(200);

/// How much is read at that time, at most.
const GATHERED_BYTES: usize = 64 * 1024;

/// An echo that is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    pub(super) sequence: u64,
    pub(super) sent_at: Instant,
    /// Its time is up, and that has been said.
    pub(super) is_late: bool,
}

/// What a link has to say.
#[derive(Debug)]
pub(super) enum News {
    /// A payload has come back as it was sent, and when.
    Returned(Awaited, Instant),
    /// A payload has come back wrong; what came behind it can be used if `is_in_step`, and the link cannot otherwise.
    Corrupt { sequence: u64, offset: u64, corruption: Corruption, is_in_step: bool },
    /// The far end has closed the connection.
    Closed,
    /// A call failed.
    Failed(io::Error),
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct Link<S> {
    stream: S,
    outbox: Outbox,
    awaited: VecDeque<Awaited>,
    /// The sequence number of the first payload that was sent on this connection.
    first: u64,
    sent_bytes: u64,
    received_bytes: u64,
    /// The payload that is to come back next, and its sequence number; 0 if it has not been made yet.
    expected: (u64, Vec<u8>),
    /// What has come since a byte was wrong, and since when.
    gathered: Option<(Vec<u8>, Instant)>,
}

impl<S: Stream> Link<S> {
    /// A link whose next payload has the sequence number `first`; those behind it follow one by one.
    pub(super) fn new(stream: S, first: u64) -> Self {
        Self {
            stream,
            outbox: Outbox::default(),
            awaited: VecDeque::new(),
            first,
            sent_bytes: 0,
            received_bytes: 0,
            expected: (0, Vec::new()),
            gathered: None,
        }
    }

    /// Those that have not come back, the oldest first.
    pub(super) fn awaited(&mut self) -> &mut VecDeque<Awaited> {
        &mut self.awaited
    }

    /// When to call [`on_time`](Self::on_time).
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.gathered.as_ref().map(|&(_, since)| since + GATHERING)
    }

    /// Sends a payload, or as much of it as there is room for; the rest waits for [`on_event`](Self::on_event).
    pub(super) fn send(&mut self, sequence: u64, payload: &[u8]) -> io::Result<()> {
        self.awaited.push_back(Awaited { sequence, sent_at: Instant::now(), is_late: false });
        self.sent_bytes += payload.len() as u64;
        self.outbox.push(payload);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.send(self.outbox.pending()) {
                Ok(count) => self.outbox.consume(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes note of what epoll has told.
    pub(super) fn on_event(&mut self, flags: EpollFlags, payloads: &Payloads, news: &mut Vec<News>) {
        if flags.contains(EpollFlags::OUT)
            && let Err(error) = self.flush()
        {
            news.push(News::Failed(error));
            return;
        }
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.recv(&mut buffer) {
                Ok(0) => {
                    self.conclude(payloads, news);
                    news.push(News::Closed);
                    return;
                }
                Ok(count) => self.take(&buffer[..count], payloads, news),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        self.conclude(payloads, news);
                        news.push(News::Failed(error));
                        return;
                    }
                },
            }
        }
    }

    /// Comes to a verdict when what came behind a wrong byte has been waited for long enough.
    pub(super) fn on_time(&mut self, now: Instant, payloads: &Payloads, news: &mut Vec<News>) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.conclude(payloads, news);
        }
    }

    fn take(&mut self, mut bytes: &[u8], payloads: &Payloads, news: &mut Vec<News>) {
        let now = Instant::now();
        let size = payloads.size() as u64;
        while self.gathered.is_none() && !bytes.is_empty() {
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
                news.extend(self.awaited.pop_front().map(|awaited| News::Returned(awaited, now)));
            } else if !bytes.is_empty() {
                self.gathered = Some((Vec::new(), now));
            }
        }
        if let Some((gathered, _)) = &mut self.gathered {
            gathered.extend_from_slice(bytes);
            // There is nothing to wait for when as much has come as was sent.
            let is_all = self.received_bytes + gathered.len() as u64 >= self.sent_bytes;
            if is_all || gathered.len() >= GATHERED_BYTES {
                self.conclude(payloads, news);
            }
        }
    }

    fn conclude(&mut self, payloads: &Payloads, news: &mut Vec<News>) {
        let Some((gathered, _)) = self.gathered.take() else { return };
        let position = self.received_bytes;
        let carried = Carried { payloads, first: self.first };
        let corruption = diagnose(&gathered, &carried, position, self.sent_bytes, |_| None);
        let size = payloads.size() as u64;
        let sequence = self.first + position / size;
        // As long as a payload is all that is wrong, and the next begins where it should, one can go on.
        let rest = (size - position % size) as usize;
        let is_in_step = gathered.len() >= rest && carried.matches(position + rest as u64, &gathered[rest..]) && {
            let end = position + gathered.len() as u64;
            end <= self.sent_bytes
        };
        news.push(News::Corrupt { sequence, offset: position % size, corruption, is_in_step });
        if is_in_step {
            self.awaited.pop_front();
            self.received_bytes += rest as u64;
            self.take(&gathered[rest..], payloads, news);
        }
    }
}
