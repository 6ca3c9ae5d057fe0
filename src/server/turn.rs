//! The buffers of one turn of the loop. Where a turn of a connection begins with a read, as it nearly always does, only the read is done at
//! first, and the input is answered when all of this turn have been read: the kernel's code for the one and for the other takes turns in the
//! CPU's cache once for all of them, and not once for each.

use crate::protocol::SessionId;
use crate::stream::Pipe;

/// The size of the read buffer, of which there is one for the whole loop: it stays in the CPU's cache. Twice as much no longer would.
pub(super) const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Each event allows a connection 64 KiB, and at most one read buffer more. With this, a turn of 8 connections with much to say takes well
/// under a millisecond.
pub(super) const EVENT_BUDGET_BYTES: usize = 64 * 1024;

/// Byte budget per turn shared by all queued connections, before epoll is asked again which are ready. The first in the queue may use all of
/// it: a connection that is served until nothing is left wakes up less often, and its bytes are still in the cache.
pub(super) const QUEUED_BUDGET_BYTES: usize = 512 * 1024;

/// With less room than this in the read buffer, the input in it is answered, so that the buffer is free again.
const MIN_ROOM_BYTES: usize = 4 * 1024;

/// The read buffer, the input in it, and the pipe. All are empty between two turns.
pub(super) struct TurnBuffers {
    read_buffer: Box<ReadBuffer>,
    /// The input of this turn that is not answered yet.
    inputs: Vec<Input>,
    input_bytes: usize,
    /// For zero-copy echo.
    pipe: Option<Pipe>,
}

/// Page-aligned, so that the kernel copies from and to whole cache lines.
#[repr(align(4096))]
struct ReadBuffer([u8; READ_BUFFER_BYTES]);

/// The input of one connection in the read buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) key: SessionId,
    /// Its end in the read buffer. It begins at the end of the input in front of it.
    pub(super) end: u32,
}

impl TurnBuffers {
    /// Returns empty buffers for turns of at most `events` events.
    pub(super) fn new(events: usize, pipe: Option<Pipe>) -> Self {
        let read_buffer = Box::new(ReadBuffer([0; READ_BUFFER_BYTES]));
        Self { read_buffer, inputs: Vec::with_capacity(events), input_bytes: 0, pipe }
    }

    /// Returns the part of the read buffer that is free for the next read.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.read_buffer.0[self.input_bytes..]
    }

    /// Keeps `count` bytes that were read into [`room`](Self::room), to be answered later. Returns whether that has to be now, because the
    /// buffer is nearly full.
    #[inline]
    pub(super) fn push(&mut self, key: SessionId, count: usize) -> bool {
        self.input_bytes += count;
        self.inputs.push(Input { key, end: self.input_bytes as u32 });
        self.input_bytes > READ_BUFFER_BYTES - MIN_ROOM_BYTES
    }

    /// Takes the inputs that are not answered, in the order in which they were read. To be given back to [`clear`](Self::clear).
    #[inline]
    pub(super) fn take(&mut self) -> Vec<Input> {
        std::mem::take(&mut self.inputs)
    }

    /// Returns the bytes of an input that begins at `start`.
    #[inline]
    pub(super) fn bytes(&self, start: usize, input: &Input) -> &[u8] {
        &self.read_buffer.0[start..input.end as usize]
    }

    /// Returns the end of the last input in the read buffer.
    pub(super) fn input_bytes(&self) -> usize {
        self.input_bytes
    }

    /// Forgets the inputs that were [taken](Self::take): all are answered.
    #[inline]
    pub(super) fn clear(&mut self, mut inputs: Vec<Input>) {
        inputs.clear();
        self.inputs = inputs;
        self.input_bytes = 0;
    }

    /// Returns the first `count` bytes of the read buffer, and the pipe, for a turn that reads and answers at once.
    #[inline]
    pub(super) fn whole(&mut self, count: usize) -> (&mut [u8], Option<&mut Pipe>) {
        (&mut self.read_buffer.0[..count], self.pipe.as_mut())
    }
}
