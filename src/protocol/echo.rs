//! The Echo Protocol of RFC 862: what comes in goes back out, unchanged.

use super::{Protocol, Reply};

/// The Echo Protocol of RFC 862, over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Protocol for Echo {
    type Session = ();

    fn open(&self) {}

    #[inline]
    fn receive(&self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        reply.send(input);
    }
}
