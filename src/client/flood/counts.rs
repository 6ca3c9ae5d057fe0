//! The counts of a flood.

use std::ops::AddAssign;

/// The counts of a run. Messages are counted in the measured time, without the warm-up; bytes and connections in the whole run.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that were sent before the end of the measured time.
    pub sent_in_time: u64,
    /// Messages that came back unchanged.
    pub returned: u64,
    /// Messages that came back unchanged before the end of the measured time.
    pub returned_in_time: u64,
    /// Messages that came back unchanged after their timeout.
    pub late: u64,
    /// Messages that did not come back.
    pub lost: u64,
    /// Messages that came back changed.
    pub corrupt: u64,
    /// Messages that were due and never sent, because earlier ones had not come back or no connection was left.
    pub unsent: u64,
    /// Bytes of messages that the kernel took, including the warm-up.
    pub sent_bytes: u64,
    /// Bytes of messages that came back unchanged, including the warm-up.
    pub received_bytes: u64,
    /// Bytes of messages that came back unchanged in the measured time.
    pub measured_bytes: u64,
    /// Bytes of handshakes that were sent and came back.
    pub handshake_bytes: u64,
    /// Bytes of PROXY headers that were sent.
    pub proxy_header_bytes: u64,
    /// Connections that could be used.
    pub opened: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Connections that the far end closed or reset too early.
    pub ended_by_peer: u64,
    /// For [`Load::Churn`](super::Load::Churn): connections that were opened, used and closed in the measured time.
    pub cycles: u64,
    /// Pauses that flood itself made on a connection: to gather evidence of corruption, and before it replaced an ended connection.
    pub pauses: u64,
    /// The sum of all these pauses in nanoseconds.
    pub paused_ns: u64,
    /// In an open loop: messages that waited for such a pause. Their latency excludes it.
    pub paused_messages: u64,
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.sent += other.sent;
        self.sent_in_time += other.sent_in_time;
        self.returned += other.returned;
        self.returned_in_time += other.returned_in_time;
        self.late += other.late;
        self.lost += other.lost;
        self.corrupt += other.corrupt;
        self.unsent += other.unsent;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.measured_bytes += other.measured_bytes;
        self.handshake_bytes += other.handshake_bytes;
        self.proxy_header_bytes += other.proxy_header_bytes;
        self.opened += other.opened;
        self.failed += other.failed;
        self.ended_by_peer += other.ended_by_peer;
        self.cycles += other.cycles;
        self.pauses += other.pauses;
        self.paused_ns += other.paused_ns;
        self.paused_messages += other.paused_messages;
    }
}
