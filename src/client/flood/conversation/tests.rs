//! Tests of a conversation over a scripted stream.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::client::{Framing, Pattern};

/// A stream that returns what it is sent, in pieces as scripted.
#[derive(Debug, Default)]
struct Loopback {
    wire: VecDeque<u8>,
    /// The number of bytes that the next calls move; 0 stands for `EAGAIN`.
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

/// Continues until the conversation ends, and returns the number of messages that came back.
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
    panic!("no end: {conversation:?}");
}

fn conversation(cuts: Vec<usize>) -> Conversation<Loopback> {
    let stream = Loopback { cuts: cuts.into(), ..Loopback::default() };
    Conversation::new(stream, Wire::new(Pattern::new(1, 1), Framing::Bytes, 1), Readiness::empty())
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
        prop_assert_eq!(evidence.position(), at as u64);
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
        assert_eq!((returned, evidence.position(), evidence.bytes()), (1, u64::from(size), &b"!"[..]));
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
    assert!(conversation.on_time(5 + ns(GATHERING) - 1).is_none());
    let Some(End::Corrupt(evidence)) = conversation.on_time(5 + ns(GATHERING)) else { panic!("no verdict") };
    assert_eq!((evidence.position(), evidence.bytes().len()), (10, 53));
}
