//! A progress bar, shown if stderr is a terminal.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::Instant;

pub struct Progress {
    total: usize,
    done: Cell<usize>,
    start: Instant,
    is_shown: bool,
}

impl Progress {
    pub fn new(total: usize) -> Self {
        Self { total, done: Cell::new(0), start: Instant::now(), is_shown: std::io::stderr().is_terminal() }
    }

    /// Shows which server and which work come next.
    pub fn step(&self, peer: &str, work: &str) {
        let done = self.done.get();
        self.done.set(done + 1);
        if self.is_shown {
            let passed = self.start.elapsed().as_secs();
            let left = if done == 0 { 0 } else { passed * (self.total - done) as u64 / done as u64 };
            let bar = "=".repeat(done * 24 / self.total.max(1));
            eprint!("\r\x1b[K{passed:>4} s [{bar:24}] {left:>4} s left: {work}, {peer}");
            let _ = std::io::stderr().flush();
        }
    }

    /// Clears the line.
    pub fn end(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
