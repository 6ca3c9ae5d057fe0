//! The context that all connections of a thread share.

use std::net::IpAddr;

use super::timeline::Timeline;
use crate::client::bytes::Pattern;
use crate::client::flood::options::Options;
use crate::client::flood::schedule::Schedule;
use crate::client::flood::shared::Shared;
use crate::client::flood::tally::Tally;
use crate::client::latency::ns;

/// The most bytes that one call of recv(2) or send(2) moves. With the server's read buffer of the same size, both stay in the CPU's
/// cache.
const BUFFER_BYTES: usize = 32 * 1024;

/// The state that a slot works with besides its own.
pub(super) struct Context<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) options: &'a Options,
    pub(super) timeline: Timeline,
    pub(super) tally: Tally,
    /// The schedule of an open loop, once it has started.
    pub(super) schedule: Option<Schedule>,
    /// The number of connections in progress.
    pub(super) connecting: usize,
    pub(super) timeout_ns: u64,
    pub(super) random: fastrand::Rng,
    pub(super) buffer: Vec<u8>,
    pub(super) scratch: Vec<u8>,
    messages: u64,
}

impl<'a> Context<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, thread: usize) -> Self {
        let options = shared.options();
        let mut scratch = vec![0; BUFFER_BYTES];
        Pattern::new(options.seed, u64::MAX - thread as u64).fill(0, &mut scratch); // for streams that are not verified
        Self {
            shared,
            options,
            timeline: Timeline::new(options),
            tally: Tally::new(options.load.is_open_loop()),
            schedule: None,
            connecting: 0,
            timeout_ns: ns(options.timeout),
            random: fastrand::Rng::with_seed(options.seed ^ (thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            buffer: vec![0; BUFFER_BYTES],
            scratch,
            messages: 0,
        }
    }

    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Returns the size of the next message on the wire.
    #[inline]
    pub(super) fn next_size(&mut self) -> u32 {
        let size = self.options.sizes.get(self.messages, &mut self.random);
        self.messages += 1;
        size + self.options.framing.overhead() as u32
    }

    /// Returns the source address of a connection.
    pub(super) fn source(&self, connection: usize) -> Option<IpAddr> {
        let sources = &self.options.sources;
        (!sources.is_empty()).then(|| sources[connection % sources.len()])
    }
}
