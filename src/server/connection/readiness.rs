//! What is known of a stream's readiness, and what each call adds to that.

use std::io;

use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;

bitflags::bitflags! {
    /// What the kernel has told, and told only once: it is remembered here until a call shows that it is no longer so. The bits
    /// are epoll's own, so that remembering an event costs one instruction; all of these are in the lower half of its word.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Readiness: u16 {
        /// A read may find something.
        const READABLE = EpollFlags::IN.bits() as u16;
        /// A write may find room.
        const WRITABLE = EpollFlags::OUT.bits() as u16;
        /// The peer's FIN has arrived: whatever is still to be read is already here.
        const FIN = EpollFlags::RDHUP.bits() as u16;
        /// A short count does not show that nothing is left: a read stops in front of an urgent byte (tcp(7)), and in front of
        /// an error it does not report. Only `EAGAIN`, the end or the error itself does.
        const READ_ON = EpollFlags::PRI.bits() as u16;
        /// The peer sends more than a read can take: in its last turn it did. This bit is our own; epoll never sets it.
        const PLENTY = 1 << 15;
    }
}

impl Readiness {
    /// Remembers what the kernel has told. A hang-up or an error is no reason to give up what can still be read or written: it makes both
    /// worth a try, and the call says what is the case.
    #[inline]
    pub(super) fn tell(&mut self, flags: EpollFlags) {
        const RARE: EpollFlags = EpollFlags::PRI.union(EpollFlags::RDHUP).union(EpollFlags::ERR).union(EpollFlags::HUP);
        const BROKEN: EpollFlags = EpollFlags::ERR.union(EpollFlags::HUP);

        *self |= Self::from_bits_truncate(flags.bits() as u16);
        if flags.intersects(RARE) {
            *self |= Self::READABLE;
            if flags.intersects(BROKEN) {
                *self |= Self::WRITABLE | Self::READ_ON;
            }
        }
    }

    /// Offers the kernel `bytes`, and gives how many it took.
    #[inline]
    pub(super) fn offer(&mut self, stream: &mut impl Stream, bytes: &[u8]) -> io::Result<usize> {
        self.note_sent(stream.send(bytes), bytes.len())
    }

    /// Notes what became of so many bytes that were offered, and gives how many the kernel took. A short count shows that there is no more
    /// room (epoll(7)); an interrupted call shows nothing.
    #[inline]
    pub(super) fn note_sent(&mut self, result: io::Result<usize>, offered: usize) -> io::Result<usize> {
        match result {
            Ok(count) => {
                if count < offered {
                    self.remove(Self::WRITABLE);
                }
                Ok(count)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.remove(Self::WRITABLE);
                    Ok(0)
                }
                io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            },
        }
    }
}
