//! Draws `--plot`: latency by percentile and rate over time, in one SVG.

use std::io::{self, Write};

use edgecho::client::flood::report::describe;
use edgecho::client::flood::{Load, Options, Outcome};
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 840);
const RED: RGBColor = RGBColor(0xc4, 0x3c, 0x2c);
const BLUE: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
const GREY: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// An error that kept the plot from being drawn.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct PlotError(String);

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for PlotError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result<T> = std::result::Result<T, PlotError>;

/// Writes the SVG to `out`. Without any latency it holds the rate alone.
pub(super) fn write(out: &mut dyn Write, options: &Options, outcome: &Outcome) -> io::Result<()> {
    let text = draw(options, outcome).map_err(io::Error::other)?;
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Returns the SVG.
fn draw(options: &Options, outcome: &Outcome) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let title = format!("edgecho flood {}: {}", outcome.address, describe(options));
        let area = area.titled(&title, ("sans-serif", 17))?;
        if outcome.latency.is_empty() {
            draw_rate(&area, options, outcome)?;
        } else {
            let (upper, lower) = area.split_vertically(420);
            draw_latency(&upper, outcome)?;
            draw_rate(&lower, options, outcome)?;
        }
        area.present()?;
    }
    Ok(text)
}

/// Returns the number of nines of a quantile: 1 for 0.9, 2 for 0.99. It is the x axis of the latency curve.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// Formats a number of nines as a percentile: `99.9` for 3.
fn percentile(nines: f64) -> String {
    let text = format!("{:.6}", 100.0 - 100.0 * 10_f64.powf(-nines));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the points of a latency curve as (nines, milliseconds). The curve ends where a single value makes up what remains, because
/// higher percentiles say nothing.
fn curve(times: &Histogram<u64>) -> Vec<(f64, f64)> {
    let last = nines(1.0 - 1.0 / times.len().max(2) as f64);
    let points = 400;
    (0..=points)
        .map(|point| {
            let nines = last * f64::from(point) / f64::from(points);
            (nines, times.value_at_quantile(1.0 - 10_f64.powf(-nines)) as f64 / 1e6)
        })
        .collect()
}

fn draw_latency(area: &Area<'_>, outcome: &Outcome) -> Result<()> {
    let corrected = curve(&outcome.latency);
    let uncorrected = outcome.uncorrected.as_ref().map(curve);
    let all = corrected.iter().chain(uncorrected.iter().flatten());
    let (least, most) = all.fold((f64::MAX, f64::MIN), |(least, most), &(_, y)| (least.min(y), most.max(y)));
    let (least, most) = ((least * 0.8).max(1e-6), (most * 1.25).max(2e-6));
    let last = corrected.last().map_or(1.0, |&(x, _)| x).max(1.0);
    let mut chart = ChartBuilder::on(area)
        .caption("Latency by percentile", ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..last, (least..most).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile of messages")
        .y_desc("latency (ms)")
        .x_labels(last.ceil() as usize + 1)
        .x_label_formatter(&|&nines| percentile(nines))
        .y_label_formatter(&|&millis| number(millis))
        .light_line_style(WHITE)
        .draw()?;
    let name = if uncorrected.is_some() { "from when a message was due" } else { "from when a message was sent" };
    let mut series = |points, color: RGBColor, name: &str| -> Result<()> {
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        Ok(())
    };
    series(corrected, RED, name)?;
    if let Some(points) = uncorrected {
        series(points, BLUE, "from when it was sent (not corrected for coordinated omission)")?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(GREY)
        .draw()?;
    Ok(())
}

fn draw_rate(area: &Area<'_>, options: &Options, outcome: &Outcome) -> Result<()> {
    let is_bulk = options.load == Load::Bulk;
    let points: Vec<(f64, f64)> = outcome
        .samples
        .iter()
        .filter(|sample| !sample.length.is_zero())
        .map(|sample| {
            let count = if is_bulk { sample.bytes as f64 / 1e6 } else { sample.messages as f64 };
            ((sample.at + sample.length / 2).as_secs_f64(), count / sample.length.as_secs_f64())
        })
        .collect();
    let most = points.iter().fold(1.0_f64, |most, &(_, y)| most.max(y)) * 1.15;
    let end = outcome.samples.last().map_or(1.0, |last| (last.at + last.length).as_secs_f64()).max(0.001);
    let (caption, unit) = if is_bulk { ("Bytes returned", "MB/s") } else { ("Messages returned", "messages/s") };
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{caption} over time"), ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("time (s)")
        .y_desc(unit)
        .x_label_formatter(&|&seconds| number(seconds))
        .y_label_formatter(&|&rate| number(rate))
        .light_line_style(WHITE)
        .draw()?;
    chart
        .draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?
        .label(unit)
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLUE.stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(GREY)
        .draw()?;
    Ok(())
}

/// Formats a number as the label of an axis: `0.05`, `2.5`, `150`, `50 k`.
fn number(value: f64) -> String {
    let text = match value.abs() {
        10_000.0.. => return format!("{} k", number(value / 1_000.0)),
        100.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.6}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_what_they_are_called() {
        for (quantile, text) in [(0.0, "0"), (0.9, "90"), (0.99, "99"), (0.9999, "99.99")] {
            assert_eq!(percentile(nines(quantile)), text);
        }
        assert_eq!([0.05, 2.5, 150.0, 50_000.0].map(number), ["0.05", "2.5", "150", "50 k"]);
    }

    #[test]
    fn a_curve_rises_from_the_least_to_the_most() {
        let mut times = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        (1..=1_000).for_each(|value| times.saturating_record(value * 1_000_000));
        let curve = curve(&times);
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert!((curve[0].1 - 1.0).abs() < 0.01 && curve[400].1 > 990.0, "{curve:?}");
    }
}
