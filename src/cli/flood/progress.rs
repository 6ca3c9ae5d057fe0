//! The progress bar of `edgecho flood`.

use edgecho::client::flood::report::millis;
use edgecho::client::flood::{Load, Options, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on stderr.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    load: Load,
}

impl Bar {
    /// The number of steps from empty to full.
    const STEPS: u64 = 1_000;

    /// Returns a bar, which is visible only if `is_wanted` and stderr is a terminal.
    pub(super) fn new(options: &Options, is_wanted: bool) -> Self {
        let bar = if is_wanted { ProgressBar::new(Self::STEPS) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{elapsed:>4} [{bar:32}] {msg}").expect("the template is a valid constant");
        bar.set_style(style.progress_chars("=> "));
        Self { bar, load: options.load }
    }

    /// Shows the state of the flood: the number of open connections until it measures, then the rate and the 99th percentile.
    pub(super) fn show(&self, progress: &Progress<'_>) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_position((progress.fraction.unwrap_or(0.0) * Self::STEPS as f64) as u64);
        let p99 = if progress.latency.is_empty() {
            "–".to_owned()
        } else {
            millis(progress.latency.value_at_quantile(0.99) as f64)
        };
        self.bar.set_message(match (progress.fraction, self.load) {
            (None, _) => format!("{} connections", progress.opened),
            (_, Load::Bulk) => format!("{:.1} MB/s", progress.rate / 1e6),
            (_, Load::Churn) => format!("{:.0} connections/s, p99 {p99} ms", progress.rate),
            _ => format!("{:.0} messages/s, p99 {p99} ms", progress.rate),
        });
    }

    /// Hides the bar while `print` writes to stderr.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
