//! Watches a running flood: updates the progress bar, answers signals, and writes the HdrHistogram log.

use std::fs::File;
use std::io::{self, LineWriter};

use edgecho::client::flood::report::{self, HdrLog};
use edgecho::client::flood::{Interval, Observer, Options, Progress};

use super::progress::Bar;
use crate::cli::signals::Requests;
use crate::cli::stderr;

/// The log, line by line: it can be followed while it grows, and a full disk is noticed at once.
pub(super) type Log<'a, 'f> = HdrLog<'a, 'a, LineWriter<&'f File>>;

/// The observer of a flood.
pub(super) struct Watcher<'a, 'f> {
    options: &'a Options,
    signals: Requests,
    bar: Bar,
    log: Option<Log<'a, 'f>>,
    log_error: Option<io::Error>,
}

impl<'a, 'f> Watcher<'a, 'f> {
    pub(super) fn new(options: &'a Options, signals: Requests, bar: Bar, log: Option<Log<'a, 'f>>) -> Self {
        Self { options, signals, bar, log, log_error: None }
    }

    /// Removes the progress bar, and returns the error that ended the log, if any.
    pub(super) fn end(self) -> Option<io::Error> {
        self.bar.end();
        self.log_error
    }
}

impl Observer for Watcher<'_, '_> {
    fn progress(&mut self, progress: &Progress<'_>) -> bool {
        if self.signals.take_report() {
            let mut line = Vec::new();
            if report::write_interim(&mut line, self.options, progress).is_ok() {
                self.bar.suspend(|| stderr::say(String::from_utf8_lossy(&line)));
            }
        }
        self.bar.show(progress);
        !self.signals.is_ended()
    }

    fn interval(&mut self, interval: &Interval<'_>) {
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.write(interval)) {
            self.log = None;
            self.log_error = Some(error);
        }
    }
}
