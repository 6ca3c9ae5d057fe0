//! The signals of `flood`: the first one asks for the end, a second one ends the program at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edgecho::sys::signal::{self, Signal};

/// Flags that signals raise.
#[derive(Debug)]
pub(super) struct Requests {
    is_ended: Arc<AtomicBool>,
    is_report_wanted: Arc<AtomicBool>,
}

impl Requests {
    /// Installs the signal handlers. SIGINT, SIGTERM and SIGHUP ask for the end; SIGQUIT and SIGUSR1 ask for a report. SIGHUP stays ignored
    /// under nohup(1).
    pub(super) fn listen() -> io::Result<Self> {
        let requests = Self { is_ended: Arc::default(), is_report_wanted: Arc::default() };
        let mut ends = vec![Signal::SIGINT, Signal::SIGTERM];
        if !signal::is_ignored(Signal::SIGHUP)? {
            ends.push(Signal::SIGHUP);
        }
        for &end in &ends {
            // Handlers run in the order of their installation: the first signal finds the flag lowered, and then raises it.
            signal::end_if_raised(end, &requests.is_ended)?;
            signal::raise_flag(end, &requests.is_ended)?;
        }
        for report in [Signal::SIGQUIT, Signal::SIGUSR1] {
            signal::raise_flag(report, &requests.is_report_wanted)?;
        }
        Ok(requests)
    }

    /// Returns whether a signal has asked for the end.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Returns whether a signal has asked for a report since the last call.
    pub(super) fn take_report(&self) -> bool {
        self.is_report_wanted.swap(false, Ordering::Relaxed)
    }
}
