//! The buffers of one turn of the loop: read all, then answer.

use crate::protocol::SessionId;

/// The read buffer, one for the whole loop: it stays in the CPU's cache. Twice as much no longer would.
pub(super) const READ_BUFFER_BYTES: usize = 32 * 1024;

/// What one connection may read at an event; it reads at most one buffer more. With this, a turn of 8 that have much to say
/// takes well under a millisecond.
pub(super) const EVENT_BUDGET_BYTES: usize = 64 * 1024;

/// What those for whom that was not enough may then read, all together, before the kernel is asked again who is ready. The first in the
/// queue may have all of it: who is served until nothing is left wakes up less often, and its bytes are still in the cache.
pub(super) const QUEUED_BUDGET_BYTES: usize = 512 * 1024;

/// With less room than this left in the read buffer, what it holds is answered, so that it is free again.
pub(super) const MIN_ROOM_BYTES: usize = 4 * 1024;

/// Page-aligned, so that the kernel copies from and to whole cache lines.
#[repr(align(4096))]
pub(super) struct ReadBuffer(pub(super) [u8; READ_BUFFER_BYTES]);

/// Input that was read in this turn of the loop, and is still to be answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) key: SessionId,
    /// Where it ends in the read buffer. It begins where that in front of it ends.
    pub(super) end: u32,
}
