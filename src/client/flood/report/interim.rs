//! The interim figures of a running flood, in one line.

use std::io::{self, Write};

use super::describe::millis;
use crate::client::flood::counts::Counts;
use crate::client::flood::observer::Progress;
use crate::client::flood::options::{Load, Options};

/// Writes the figures so far.
///
/// # Errors
/// The errors of `out`.
pub fn write(out: &mut dyn Write, options: &Options, progress: &Progress<'_>) -> io::Result<()> {
    let (counts, latency) = (progress.counts(), progress.latency_so_far());
    let seconds = progress.elapsed.as_secs_f64();
    let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let mut line = format!("{seconds:.1} s: ");
    line += &match options.load {
        Load::Bulk => {
            let bytes = counts.measured_bytes;
            format!("{bytes} bytes returned, {} corrupt; {:.3} MB/s each way", counts.corrupt, rate(bytes) / 1e6)
        }
        load => {
            let (count, unit) = match load {
                Load::Churn => (counts.cycles, "connections/s"),
                _ => (counts.returned_in_time, "messages/s"),
            };
            let Counts { sent, returned, lost, corrupt, late, .. } = counts;
            format!(
                "{sent} sent, {returned} returned, {lost} lost, {corrupt} corrupt, {late} late; {:.1} {unit}",
                rate(count)
            )
        }
    };
    if !latency.is_empty() {
        let [p50, p99] = [0.5, 0.99].map(|quantile| millis(latency.value_at_quantile(quantile) as f64));
        line += &format!("; p50 {p50} ms, p99 {p99} ms, max {} ms", millis(latency.max() as f64));
    }
    let Counts { opened, failed, ended_by_peer, .. } = counts;
    writeln!(out, "{line}; connections: {opened} opened, {failed} failed, {ended_by_peer} ended by the peer")?;
    out.flush()
}
