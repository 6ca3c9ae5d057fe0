//! The readiness of a stream: what epoll has reported, and what each call has shown since.

use std::io;

use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;

bitflags::bitflags! {
    /// The readiness of a stream under edge-triggered epoll. The kernel reports each change once (epoll(7)), so a flag stays set
    /// until a call shows that it no longer holds. The bits are epoll's own, all in the lower half of its word: remembering an
    /// event takes one instruction.
    ///
    /// ```
    /// use edgecho::stream::Readiness;
    /// use edgecho::sys::epoll::EpollFlags;
    ///
    /// let mut readiness = Readiness::empty();
    /// readiness.tell(EpollFlags::IN);
    /// assert_eq!(readiness.note_received(Ok(3), 16).ok(), Some(Some(3)));
    /// assert!(!readiness.contains(Readiness::READABLE), "a short count: the socket is empty");
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Readiness: u16 {
        /// A read may return bytes.
        const READABLE = EpollFlags::IN.bits() as u16;
        /// A write may find room.
        const WRITABLE = EpollFlags::OUT.bits() as u16;
        /// The peer's FIN has arrived, so every byte that is still to be read has arrived too.
        const FIN = EpollFlags::RDHUP.bits() as u16;
        /// A short count does not show that the socket is empty. A read stops in front of an urgent byte (tcp(7)), and in front of
        /// an error that it does not report. Only `EAGAIN`, the end of the stream or the error itself clears this flag.
        const READ_ON = EpollFlags::PRI.bits() as u16;
        /// The last read filled its buffer, so the peer sends more than one read takes. The owner of the stream sets and clears
        /// this flag; epoll has no such bit.
        const PLENTY = 1 << 15;
    }
}

impl Readiness {
    /// Remembers an event. After a hang-up or an error, bytes may still be readable and writable: both are worth a try, and the
    /// call reports the error.
    #[inline]
    pub fn tell(&mut self, flags: EpollFlags) {
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

    /// Offers `bytes` to the kernel and returns how many it took; 0 if it had no room or a signal interrupted the call.
    ///
    /// # Errors
    /// The errors of send(2), except `EAGAIN` and `EINTR`.
    #[inline]
    pub fn offer(&mut self, stream: &mut impl Stream, bytes: &[u8]) -> io::Result<usize> {
        self.note_sent(stream.send(bytes), bytes.len())
    }

    /// Notes the result of a write of `offered` bytes and returns how many the kernel took. A short count shows that there is no
    /// more room (epoll(7)); an interrupted call shows nothing.
    ///
    /// # Errors
    /// The error of `result`, except `EAGAIN` and `EINTR`.
    #[inline]
    pub fn note_sent(&mut self, result: io::Result<usize>, offered: usize) -> io::Result<usize> {
        match result {
            // The usual case comes first, and costs one comparison.
            Ok(count) if count == offered => Ok(count),
            Ok(count) => {
                self.remove(Self::WRITABLE);
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

    /// Notes the result of a read into `room` bytes and returns how many bytes came: 0 at the end of the stream, `None` if nothing
    /// came this time. A short count shows that the socket is empty (epoll(7)), unless the end of the stream or an error is still
    /// to be read.
    ///
    /// # Errors
    /// The error of `result`, except `EAGAIN` and `EINTR`.
    #[inline]
    pub fn note_received(&mut self, result: io::Result<usize>, room: usize) -> io::Result<Option<usize>> {
        match result {
            Ok(count) => {
                if count < room && !self.intersects(Self::FIN.union(Self::READ_ON)) {
                    self.remove(Self::READABLE);
                }
                Ok(Some(count))
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.remove(Self::READABLE.union(Self::READ_ON));
                    Ok(None)
                }
                io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKED: io::ErrorKind = io::ErrorKind::WouldBlock;

    #[test]
    fn a_short_count_shows_an_empty_socket_unless_the_end_is_still_to_be_read() {
        for (told, stays) in [
            (EpollFlags::IN, false),
            (EpollFlags::IN | EpollFlags::RDHUP, true),
            (EpollFlags::IN | EpollFlags::ERR, true),
            (EpollFlags::IN | EpollFlags::HUP, true),
            (EpollFlags::IN | EpollFlags::PRI, true),
        ] {
            let mut readiness = Readiness::empty();
            readiness.tell(told);
            assert_eq!(readiness.note_received(Ok(16), 16).ok(), Some(Some(16)));
            assert!(readiness.contains(Readiness::READABLE), "{told:?}: a full buffer shows nothing");
            assert_eq!(readiness.note_received(Err(io::ErrorKind::Interrupted.into()), 16).ok(), Some(None));
            assert!(readiness.contains(Readiness::READABLE), "{told:?}: neither does a signal");
            assert_eq!(readiness.note_received(Ok(3), 16).ok(), Some(Some(3)));
            assert_eq!(readiness.contains(Readiness::READABLE), stays, "{told:?}");
            assert_eq!(readiness.note_received(Err(BLOCKED.into()), 16).ok(), Some(None));
            assert!(!readiness.contains(Readiness::READABLE), "{told:?}: EAGAIN shows it in any case");
        }
    }

    #[test]
    fn a_short_write_shows_a_full_socket() {
        let mut readiness = Readiness::WRITABLE;
        assert_eq!(readiness.note_sent(Err(io::ErrorKind::Interrupted.into()), 9).ok(), Some(0));
        assert_eq!(readiness.note_sent(Ok(9), 9).ok(), Some(9));
        assert_eq!(readiness, Readiness::WRITABLE);
        assert_eq!(readiness.note_sent(Ok(5), 9).ok(), Some(5));
        assert_eq!(readiness, Readiness::empty());
        assert!(readiness.note_sent(Err(io::ErrorKind::BrokenPipe.into()), 4).is_err());
        readiness.tell(EpollFlags::HUP);
        assert!(readiness.contains(Readiness::READABLE | Readiness::WRITABLE | Readiness::READ_ON));
    }
}
