//! Moments of the simulated time, and what was known at them.

/// A moment: the simulated time in nanoseconds, and how much of that the process did not choose to let pass (it was stopped, or busy).
#[derive(Debug, Clone, Copy, Default)]
pub struct At {
    pub time: u64,
    pub stopped: u64,
}

/// The latest time of something, and the latest one before the last wait collected its events. A batch is numbered by its `epoch`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latest {
    at: At,
    epoch: u64,
    before: At,
}

impl Latest {
    pub fn note(&mut self, at: At, epoch: u64) {
        if self.epoch < epoch {
            self.before = self.at;
            self.epoch = epoch;
        }
        self.at = at;
    }

    pub fn at(&self) -> At {
        self.at
    }

    /// The latest one that had happened when the current batch was collected.
    pub fn known(&self, epoch: u64) -> At {
        if self.epoch < epoch { self.at } else { self.before }
    }
}

/// The state that the server saw when it last asked for acknowledgements, or at its FIN: the time of the latest acknowledgement, and
/// whether bytes were pending.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub epoch: u64,
    pub acknowledged: At,
    pub is_pending: bool,
}
