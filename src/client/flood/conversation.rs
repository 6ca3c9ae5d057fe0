//! A connection in use: what it has sent, what has come back, and whether that is what it should be. It is generic over its stream,
//! and knows neither epoll nor the other connections.

use std::collections::VecDeque;
use std::io;

use super::Verify;
use crate::client::Pattern;
use crate::client::wire::Wire;
use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;

/// How long to go on reading after a byte was found to be wrong: what comes next tells what happened to it.
const GATHERING_NS: u64 = 200_000_000;

/// How much is read at that time, at most.
const GATHERED_BYTES: usize = 64 * 1024;

/// How many bytes that nobody looks at are dropped in one call, at most.
const DROPPED_BYTES: usize = 1024 * 1024;

/// How many bytes at either end of a read are looked at when only a sample is.
const SAMPLE_BYTES: usize = 8;

bitflags::bitflags! {
    /// What the kernel has told, as the server's connections remember it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Readiness: u32 {
        const READABLE = EpollFlags::IN.bits();
        const WRITABLE = EpollFlags::OUT.bits();
        /// A short count does not show that nothing is left to be read: the end of the stream, or an error, is.
        const READ_ON = EpollFlags::RDHUP.bits();
    }
}

/// A message that has not come back yet. Times are nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// The position behind its last byte.
    pub(super) end: u64,
    /// When it was to be sent.
    pub(super) due_ns: u64,
    /// When it was.
    pub(super) sent_ns: u64,
}

/// Bytes from the first on that came back wrong.
#[derive(Debug)]
struct Gathered {
    bytes: Vec<u8>,
    since_ns: u64,
}

/// Bytes that came back wrong, as evidence.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Where the first of them stands in the stream.
    pub(super) position: u64,
    /// What came from there on.
    pub(super) bytes: Vec<u8>,
    /// How much had been sent.
    pub(super) sent_bytes: u64,
    /// When the first of them came.
    pub(super) since_ns: u64,
}

/// How a conversation ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides have sent their FIN, and everything has come back.
    InOrder,
    /// The far end sent its FIN before everything had come back, or before we had sent ours.
    ByPeer,
    /// A call failed.
    Failed(io::Error),
    /// Something came back wrong.
    Corrupt(Evidence),
}

/// A connection, and the messages on their way.
#[derive(Debug)]
pub(super) struct Conversation<S> {
    stream: S,
    wire: Wire,
    readiness: Readiness,
    /// The position behind the last message, up to which bytes are to be sent.
    issued_bytes: u64,
    sent_bytes: u64,
    received_bytes: u64,
    in_flight: VecDeque<Message>,
    /// How many messages have come back, and the position behind the last of them.
    returned: u64,
    returned_bytes: u64,
    gathered: Option<Box<Gathered>>,
    /// Our FIN is to follow the last byte, or has followed it.
    is_closing: bool,
    is_shut: bool,
}

impl<S: Stream> Conversation<S> {
    /// A conversation on a stream that is connected. `is_ended` says that the far end has already sent its FIN, or worse.
    pub(super) fn new(stream: S, wire: Wire, is_ended: bool) -> Self {
        let told = if is_ended { Readiness::READABLE | Readiness::READ_ON } else { Readiness::empty() };
        Self {
            stream,
            wire,
            readiness: Readiness::WRITABLE | told,
            issued_bytes: 0,
            sent_bytes: 0,
            received_bytes: 0,
            in_flight: VecDeque::new(),
            returned: 0,
            returned_bytes: 0,
            gathered: None,
            is_closing: false,
            is_shut: false,
        }
    }

    /// How many bytes the kernel has taken, and how many have come back as they should.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.sent_bytes, self.received_bytes)
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// How many messages have not come back.
    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The message that has been on its way for longest.
    pub(super) fn oldest(&self) -> Option<&Message> {
        self.in_flight.front()
    }

    /// Whether everything that was sent has come back.
    pub(super) fn is_even(&self) -> bool {
        self.received_bytes == self.issued_bytes && self.in_flight.is_empty()
    }

    /// Whether a byte was wrong, and what happened to it is still being found out.
    pub(super) fn is_gathering(&self) -> bool {
        self.gathered.is_some()
    }

    /// Remembers what the kernel has told. An error or a hang-up makes everything worth a try: the call says what is the case.
    #[inline]
    pub(super) fn on_event(&mut self, flags: EpollFlags) {
        self.readiness |= Readiness::from_bits_truncate(flags.bits());
        if flags.intersects(EpollFlags::RDHUP | EpollFlags::ERR | EpollFlags::HUP) {
            self.readiness |= Readiness::READABLE | Readiness::WRITABLE | Readiness::READ_ON;
        }
    }

    /// Whether there is something to be done before the kernel tells of a change.
    #[inline]
    pub(super) fn has_more(&self) -> bool {
        self.readiness.contains(Readiness::READABLE)
            || (self.readiness.contains(Readiness::WRITABLE) && self.sent_bytes < self.issued_bytes)
    }

    /// Has a message follow those that were issued before.
    #[inline]
    pub(super) fn issue(&mut self, size: u32, due_ns: u64, now_ns: u64) {
        self.issued_bytes += u64::from(size);
        self.in_flight.push_back(Message { end: self.issued_bytes, due_ns, sent_ns: now_ns });
    }

    /// Has bytes follow without end, or, to stop that, no more than have been taken, and what is
    /// missing of the last message.
    pub(super) fn stream(&mut self, is_on: bool) {
        self.issued_bytes = if is_on { u64::MAX } else { self.wire.message_end(self.sent_bytes) };
    }

    /// Has the bytes of a stream that are still on their way count as one message, sent now.
    pub(super) fn await_rest(&mut self, now_ns: u64) {
        if self.in_flight.is_empty() {
            self.in_flight.push_back(Message { end: self.issued_bytes, due_ns: now_ns, sent_ns: now_ns });
        }
    }

    /// Sends no more than was issued, and then a FIN. To be followed by [`send`](Self::send).
    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Offers the kernel, once, what is to be sent, as much as fits into `scratch`. If it is not going to be looked at, a whole `scratch` of
    /// bytes goes out as it is, unless they have to be framed.
    #[inline]
    pub(super) fn send(&mut self, scratch: &mut [u8], verify: Verify) -> Result<(), End> {
        if self.sent_bytes < self.issued_bytes && self.readiness.contains(Readiness::WRITABLE) {
            let left = usize::try_from(self.issued_bytes - self.sent_bytes).unwrap_or(usize::MAX);
            let length = scratch.len().min(left);
            let is_made = verify == Verify::Off && length == scratch.len() && !self.wire.is_framed();
            let bytes = &mut scratch[..length];
            if !is_made {
                self.wire.fill(self.sent_bytes, bytes);
            }
            match self.stream.send(bytes) {
                Ok(count) => {
                    self.sent_bytes += count as u64;
                    if count < length {
                        self.readiness.remove(Readiness::WRITABLE);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.readiness.remove(Readiness::WRITABLE),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(End::Failed(error)),
                },
            }
        }
        if self.is_closing && !self.is_shut && self.sent_bytes == self.issued_bytes {
            self.is_shut = true;
            self.stream.shutdown_write().map_err(End::Failed)?;
        }
        Ok(())
    }

    /// Reads, once, what is there, and compares it. Gives how many bytes came; their messages are then to be
    /// [taken](Self::take_returned). `now_ns` is asked for the time only when something is wrong.
    #[inline]
    pub(super) fn receive(&mut self, buffer: &mut [u8], verify: Verify, now_ns: impl Fn() -> u64) -> Result<usize, End> {
        if !self.readiness.contains(Readiness::READABLE) {
            return Ok(0);
        }
        let expected = usize::try_from(self.sent_bytes - self.received_bytes).unwrap_or(usize::MAX);
        // Nobody is going to look at it. But no more than was sent, so that what comes unasked for is still seen.
        let is_dropped = verify == Verify::Off && expected >= buffer.len();
        let most = if is_dropped { expected.min(DROPPED_BYTES) } else { buffer.len() };
        match if is_dropped { self.stream.discard(most) } else { self.stream.recv(buffer) } {
            Ok(0) => Err(self.end_of_stream()),
            Ok(count) => {
                if count < most && !self.readiness.contains(Readiness::READ_ON) {
                    self.readiness.remove(Readiness::READABLE);
                }
                if is_dropped || (self.gathered.is_none() && self.is_right(&buffer[..count], verify)) {
                    self.received_bytes += count as u64;
                } else {
                    self.gather(&buffer[..count], now_ns())?;
                }
                Ok(count)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.readiness.remove(Readiness::READABLE | Readiness::READ_ON);
                    Ok(0)
                }
                io::ErrorKind::Interrupted => Ok(0),
                _ => Err(self.conclude().unwrap_or(End::Failed(error))),
            },
        }
    }

    /// A message that has come back whole.
    #[inline]
    pub(super) fn take_returned(&mut self) -> Option<Message> {
        if self.in_flight.front()?.end > self.received_bytes {
            return None;
        }
        let message = self.in_flight.pop_front()?;
        self.returned += 1;
        self.returned_bytes = message.end;
        Some(message)
    }

    /// The number of the message that is to come back next, counted from 0, and where it begins in the stream.
    pub(super) fn next_message(&self) -> (u64, u64) {
        (self.returned, self.returned_bytes)
    }

    /// When to call [`on_time`](Self::on_time), if there is anything to be done by the clock.
    pub(super) fn gathers_until_ns(&self) -> Option<u64> {
        self.gathered.as_ref().map(|gathered| gathered.since_ns + GATHERING_NS)
    }

    /// Comes to an end when a wrong byte has been found, and nothing more comes that would tell what happened to it.
    pub(super) fn on_time(&mut self, now_ns: u64) -> Option<End> {
        if self.gathers_until_ns()? > now_ns {
            return None;
        }
        self.conclude()
    }

    #[inline]
    fn is_right(&self, bytes: &[u8], verify: Verify) -> bool {
        let position = self.received_bytes;
        // What was never sent cannot come back.
        if position + bytes.len() as u64 > self.sent_bytes {
            return false;
        }
        match verify {
            Verify::Full => self.wire.matches(position, bytes),
            Verify::Sample => {
                let sample = SAMPLE_BYTES.min(bytes.len());
                let last = bytes.len() - sample;
                self.wire.matches(position, &bytes[..sample]) && self.wire.matches(position + last as u64, &bytes[last..])
            }
            Verify::Off => true,
        }
    }

    #[cold]
    fn gather(&mut self, mut bytes: &[u8], now_ns: u64) -> Result<(), End> {
        if self.gathered.is_none() {
            let sent = usize::try_from(self.sent_bytes - self.received_bytes).unwrap_or(usize::MAX);
            let right = self.wire.first_difference(self.received_bytes, &bytes[..bytes.len().min(sent)]);
            let right = right.unwrap_or(bytes.len().min(sent));
            self.received_bytes += right as u64;
            bytes = &bytes[right..];
            self.gathered = Some(Box::new(Gathered { bytes: Vec::new(), since_ns: now_ns }));
        }
        if let Some(gathered) = &mut self.gathered {
            gathered.bytes.extend_from_slice(bytes);
            let is_all = self.received_bytes + gathered.bytes.len() as u64 >= self.sent_bytes;
            if is_all || gathered.bytes.len() >= GATHERED_BYTES {
                return self.conclude().map_or(Ok(()), Err);
            }
        }
        Ok(())
    }

    #[cold]
    fn conclude(&mut self) -> Option<End> {
        let Gathered { bytes, since_ns } = *self.gathered.take()?;
        Some(End::Corrupt(Evidence { position: self.received_bytes, bytes, sent_bytes: self.sent_bytes, since_ns }))
    }

    #[cold]
    fn end_of_stream(&mut self) -> End {
        match self.conclude() {
            Some(end) => end,
            None if self.is_shut && self.is_even() => End::InOrder,
            None => End::ByPeer,
        }
    }
}

/// Finds bytes in the streams of other connections.
pub(super) fn find_elsewhere(
    bytes: &[u8],
    seed: u64,
    mut numbers: impl Iterator<Item = u64>,
    end: u64,
) -> Option<(u64, u64)> {
    numbers.find_map(|number| Pattern::new(seed, number).find_word(bytes, end).map(|from| (number, from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Framing;
    use proptest::prelude::*;

    /// A stream that returns what it is sent, cut as a schedule says.
    #[derive(Debug, Default)]
    struct Loopback {
        wire: VecDeque<u8>,
        /// How many bytes the next calls take or give; 0 stands for `EAGAIN`.
        cuts: VecDeque<usize>,
        is_shut: bool,
    }

    impl Loopback {
        fn cut(&mut self, most: usize) -> io::Result<usize> {
            match self.cuts.pop_front().unwrap_or(usize::MAX).min(most) {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        }
    }

    impl Stream for Loopback {
        fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.wire.is_empty() && self.is_shut {
                return Ok(0);
            }
            let count = self.cut(buffer.len().min(self.wire.len()))?;
            for (slot, byte) in buffer.iter_mut().zip(self.wire.drain(..count)) {
                *slot = byte;
            }
            Ok(count)
        }

        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.cut(bytes.len())?;
            self.wire.extend(&bytes[..count]);
            Ok(count)
        }

        fn shutdown_write(&mut self) -> io::Result<()> {
            self.is_shut = true;
            Ok(())
        }

        fn discard(&mut self, most: usize) -> io::Result<usize> {
            self.recv(&mut vec![0; most])
        }
    }

    const ALL: EpollFlags = EpollFlags::IN.union(EpollFlags::OUT).union(EpollFlags::RDHUP);

    /// Goes on until the conversation ends, and gives how many messages came back.
    fn to_the_end(conversation: &mut Conversation<Loopback>, verify: Verify) -> (usize, End) {
        let (mut buffer, mut scratch) = ([0; 100], [0; 70]);
        let mut returned = 0;
        for _ in 0..10_000 {
            conversation.on_event(ALL);
            let received = conversation.receive(&mut buffer, verify, || 0);
            while conversation.take_returned().is_some() {
                returned += 1;
            }
            if let Err(end) = received.and_then(|_| conversation.send(&mut scratch, verify)) {
                return (returned, end);
            }
        }
        panic!("it goes on for ever: {conversation:?}");
    }

    fn conversation(cuts: Vec<usize>) -> Conversation<Loopback> {
        let stream = Loopback { cuts: cuts.into(), ..Loopback::default() };
        Conversation::new(stream, Wire::new(Pattern::new(1, 1), Framing::Bytes, 1), false)
    }

    proptest! {
        #[test]
        fn however_the_kernel_cuts_it_every_message_comes_back_once(
            sizes in prop::collection::vec(1_u32..300, 1..30),
            cuts in prop::collection::vec(0_usize..120, 0..200),
            is_looked_at: bool,
        ) {
            let mut conversation = conversation(cuts);
            for &size in &sizes {
                conversation.issue(size, 0, 0);
            }
            conversation.close();
            let (returned, end) = to_the_end(&mut conversation, if is_looked_at { Verify::Full } else { Verify::Off });
            prop_assert!(matches!(end, End::InOrder), "{end:?}");
            prop_assert_eq!(returned, sizes.len());
            let sent: u32 = sizes.iter().sum();
            prop_assert_eq!(conversation.bytes(), (u64::from(sent), u64::from(sent)));
        }

        #[test]
        fn a_wrong_byte_is_found_wherever_it_is(sizes in prop::collection::vec(1_u32..300, 1..10), at: prop::sample::Index, bit in 0_u32..8) {
            let mut conversation = conversation(vec![]);
            for &size in &sizes {
                conversation.issue(size, 0, 0);
            }
            let total: u32 = sizes.iter().sum();
            let mut scratch = vec![0; total as usize];
            conversation.send(&mut scratch, Verify::Full).expect("there is room");
            let at = at.index(total as usize);
            conversation.stream.wire[at] ^= 1_u8 << bit;
            let (_, end) = to_the_end(&mut conversation, Verify::Full);
            let End::Corrupt(evidence) = end else { panic!("{end:?}") };
            prop_assert_eq!(evidence.position, at as u64);
            let (number, start) = conversation.next_message();
            prop_assert!(start <= at as u64 && (at as u64) < start + u64::from(sizes[number as usize]));
        }
    }

    #[test]
    fn more_than_was_sent_is_wrong_whatever_it_is() {
        for (verify, size) in [(Verify::Full, 50), (Verify::Sample, 50), (Verify::Off, 50), (Verify::Off, 150)] {
            let mut conversation = conversation(vec![]);
            conversation.issue(size, 0, 0);
            conversation.send(&mut [0; 150], Verify::Full).expect("there is room");
            conversation.stream.wire.push_back(b'!');
            let (returned, end) = to_the_end(&mut conversation, verify);
            let End::Corrupt(evidence) = end else { panic!("{end:?}") };
            assert_eq!((returned, evidence.position, &evidence.bytes[..]), (1, u64::from(size), &b"!"[..]));
        }
    }

    #[test]
    fn a_sample_is_both_ends_of_a_read_and_nothing_is_nothing() {
        for (at, verify, is_found) in [
            (0, Verify::Sample, true),
            (SAMPLE_BYTES - 1, Verify::Sample, true),
            (SAMPLE_BYTES, Verify::Sample, false),
            (99 - SAMPLE_BYTES, Verify::Sample, false),
            (100 - SAMPLE_BYTES, Verify::Sample, true),
            (50, Verify::Full, true),
            (0, Verify::Off, false),
        ] {
            let mut conversation = conversation(vec![]);
            conversation.issue(100, 0, 0);
            conversation.close();
            conversation.send(&mut [0; 100], Verify::Full).expect("there is room");
            conversation.stream.wire[at] ^= 1;
            let end = to_the_end(&mut conversation, verify).1;
            assert_eq!(matches!(end, End::Corrupt(_)), is_found, "byte {at}, {verify:?}: {end:?}");
            assert!(is_found || matches!(end, End::InOrder), "byte {at}, {verify:?}: {end:?}");
        }
    }

    #[test]
    fn an_end_before_everything_has_come_back_is_the_peers() {
        let mut conversation = conversation(vec![]);
        conversation.issue(50, 0, 0);
        conversation.close();
        conversation.send(&mut [0; 50], Verify::Full).expect("there is room");
        conversation.stream.wire.truncate(49);
        assert!(matches!(to_the_end(&mut conversation, Verify::Full), (0, End::ByPeer)));
    }

    #[test]
    fn a_byte_that_is_missing_is_waited_for_and_then_missed() {
        let mut conversation = conversation(vec![]);
        conversation.issue(64, 0, 0);
        conversation.send(&mut [0; 64], Verify::Full).expect("there is room");
        conversation.stream.wire.remove(10);
        conversation.on_event(ALL);
        assert!(conversation.receive(&mut [0; 100], Verify::Full, || 5).is_ok(), "the rest may still come");
        assert!(conversation.on_time(5 + GATHERING_NS - 1).is_none());
        let Some(End::Corrupt(evidence)) = conversation.on_time(5 + GATHERING_NS) else { panic!("no verdict") };
        assert_eq!((evidence.position, evidence.bytes.len()), (10, 53));
    }
}
