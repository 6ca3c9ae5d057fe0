//! A histogram of latencies, drawn with characters.

use std::io::{self, Write};

use hdrhistogram::Histogram;

use super::describe::millis;

/// The number of rows, and the width of the longest bar.
const ROWS: u32 = 16;
const WIDTH: f64 = 48.0;

/// Draws a histogram. The bounds of its rows have equal ratios, from the shortest latency to the longest.
pub(super) fn draw(out: &mut dyn Write, times: &Histogram<u64>) -> io::Result<()> {
    let (least, most) = (times.min().max(1) as f64, times.max().max(2) as f64);
    // The rows divide the logarithmic scale evenly.
    let row = |value: u64| {
        let share = (value.max(1) as f64 / least).ln() / (most / least).ln();
        ((share * f64::from(ROWS)).ceil() as usize).clamp(1, ROWS as usize) - 1
    };
    let bound = |row: usize| least * (most / least).powf((row + 1) as f64 / f64::from(ROWS));
    let mut counts = [0; ROWS as usize];
    for step in times.iter_recorded() {
        counts[row(step.value_iterated_to())] += step.count_since_last_iteration();
    }
    let highest = counts.iter().max().copied().unwrap_or(1).max(1);
    for (row, count) in counts.into_iter().enumerate() {
        let length = (count as f64 * WIDTH / highest as f64).round() as usize;
        let bar = if length == 0 && count > 0 { "▏".to_owned() } else { "█".repeat(length) };
        writeln!(out, "{:>9} ms |{bar:width$}| {count}", format!("≤ {}", millis(bound(row))), width = WIDTH as usize)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::latency::latencies;

    fn drawn(values: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
        let mut times = latencies();
        values.into_iter().for_each(|value| times.saturating_record(value));
        let mut out = Vec::new();
        draw(&mut out, &times).expect("memory");
        let text = String::from_utf8(out).expect("text");
        let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        text.lines().map(|line| (line.to_owned(), count(line))).collect()
    }

    #[test]
    fn each_value_is_in_one_row() {
        for values in [vec![1_000], vec![0, 1, 2], (1..50_000).map(|n| n * 700).collect(), vec![5, 90_000_000_000]] {
            let expected = values.len() as u64;
            let rows = drawn(values.clone());
            assert_eq!(rows.iter().map(|(_, count)| count).sum::<u64>(), expected, "{rows:?}");
            assert!(rows.iter().all(|(line, _)| line.chars().count() < 100), "{rows:?}");
        }
    }
}
