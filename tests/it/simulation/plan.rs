//! One schedule: a configuration and a script, both made from a seed.

use std::time::Duration;

use edgecho::server::Config;

pub const LISTENERS: usize = 2;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
pub const HOUR: u64 = 3_600 * SECOND;
pub const DAY: u64 = 24 * HOUR;

/// A step of the script.
#[derive(Debug, Clone)]
pub enum Step {
    /// A client connects to a listener: its send buffer, and whether it acknowledges everything at once.
    Connect {
        listener: usize,
        capacity: u64,
        is_prompt: bool,
    },
    Peer(usize, Act),
    /// Every peer does the same.
    Everyone(Act),
    /// The next accept fails.
    AcceptFails(i32),
    /// epoll_wait(2) returns what is ready.
    Turn,
    /// It also returns connections that have gone.
    Stale,
    /// Time passes while the server waits.
    Sleep(Sleep),
    /// Time passes in the midst of a pause.
    Advance(u64),
    /// The process is stopped before its n-th call from here, and these steps happen meanwhile.
    Stop(u32, Vec<Step>),
    Signal,
}

/// An act of a peer or its kernel.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Send(u64),
    SendUrgent,
    Finish,
    Reset,
    /// The peer acknowledges this many bytes.
    Acknowledge(u64),
    /// A segment comes that brings nothing and acknowledges nothing new: the answer to a keepalive or a zero-window probe.
    Probe,
    /// The next call is interrupted.
    Interrupt,
    /// epoll_wait(2) returns it though nothing has changed.
    Spurious,
}

#[derive(Debug, Clone, Copy)]
pub enum Sleep {
    For(u64),
    Until(u64),
    /// Until the server's next deadline, plus or minus this many nanoseconds.
    ToDeadline(i64),
}

/// The protocol that is served.
#[derive(Debug, Clone)]
pub enum Kind {
    Echo,
    /// Echo, and timers of the connection and of the server: when they come first, and how often.
    Alarms {
        own: Vec<(Duration, Option<Duration>)>,
        server: Vec<(Duration, Option<Duration>)>,
    },
    /// Echo that reads a limited number of bytes between two times of a timer.
    Hoard {
        most_bytes: usize,
        every: Duration,
    },
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub kind: Kind,
    pub config: Config,
    /// The number of listeners that another process has opened: the first ones.
    pub inherited: usize,
    pub script: Vec<Step>,
}

/// A random number generator (splitmix64: Steele, Lea and Flood, 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    pub fn range(&mut self, start: u64, end: u64) -> u64 {
        start + self.below(end - start)
    }

    pub fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
