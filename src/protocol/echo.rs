//! The Echo Protocol of RFC 862: what comes in goes back out, unchanged.

use super::{Protocol, Reply};

/// The Echo Protocol of RFC 862, over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Protocol for Echo {
    type Session = ();

    const ONLY_ANSWERS: bool = true;

    fn open(&mut self, _reply: &mut impl Reply) {}

    #[inline]
    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        reply.send(input);
    }
}
