//! The chart of the README: horizontal bars for some servers, as SVG. Its colours are readable on white and on dark, and it needs no font or
//! style from outside.

use std::fmt::Write;

use super::markdown::own_and_others;
use super::{Outcome, digits, escape};
use crate::Result;
use crate::work::{Better, metric_named};

/// The rows of the two panels, and their captions.
const PANELS: [(&str, &str, &str); 2] = [
    ("64 B, 50 connections: CPU per message", "CPU per message", "64 B, 50 connections"),
    ("bulk, 8 connections", "bulk echo rate", "8 connections"),
];

const WIDTH: usize = 760;
const ROW_HEIGHT: usize = 26;
const TOP: usize = 52;
/// Offset and maximum length of the bars within a panel.
const BARS: (f64, f64) = (92.0, 200.0);

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#6e7a86}.title{font-size:14px;font-weight:600}.name{text-anchor:end}\
    .own{fill:#c65f22}.other{fill:#6e7a86}";

/// Returns the chart.
pub fn chart(outcome: &Outcome) -> Result<String> {
    let (own, others) = own_and_others(outcome)?;
    let places: Vec<(usize, &str)> = std::iter::once((own, super::OWN)).chain(others).collect();
    let height = TOP + ROW_HEIGHT * places.len() + 6;
    let label = format!("CPU per message and bulk echo rate of {} servers", places.len());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{label}\">\n<style>{STYLE}</style>\n"
    );
    for (panel, (row, title, subtitle)) in PANELS.into_iter().enumerate() {
        let cells = outcome.row(row).ok_or_else(|| format!("the chart needs the row '{row}'"))?;
        let metric = metric_named(row).ok_or("the chart has an unknown row")?;
        let values: Vec<(&str, Option<f64>)> = places.iter().map(|&(place, name)| (name, cells[place].median())).collect();
        let most = values.iter().filter_map(|&(_, value)| value).fold(f64::MIN_POSITIVE, f64::max);
        let left = panel as f64 * WIDTH as f64 / 2.0 + BARS.0;
        let direction = if metric.better == Better::Less { "less is better" } else { "more is better" };
        writeln!(
            svg,
            "<text class=\"title\" x=\"{left}\" y=\"20\">{title}</text><text x=\"{left}\" y=\"38\">{subtitle}; {}; {direction}</text>",
            metric.unit
        )?;
        for (place, (name, value)) in values.into_iter().enumerate() {
            let y = TOP + ROW_HEIGHT * place;
            let (text_y, class) = (y + 14, if name == super::OWN { "own" } else { "other" });
            write!(svg, "<text class=\"name\" x=\"{}\" y=\"{text_y}\">{}</text>", left - 8.0, escape(name))?;
            let length = value.map_or(0.0, |value| value / most * BARS.1);
            let figure = value.map_or_else(|| "–".to_owned(), digits);
            writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{left}\" y=\"{y}\" width=\"{length:.1}\" height=\"19\" rx=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{text_y}\">{figure}</text>",
                left + length + 6.0
            )?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn the_largest_value_has_the_longest_bar() {
        let svg = chart(&outcome(3, &PANELS.map(|(row, ..)| row))).expect("a chart");
        assert_eq!(svg.matches("<rect").count(), 4);
        assert!(svg.contains("class=\"own\" x=\"92\" y=\"52\" width=\"200.0\""), "{svg}");
        assert!(svg.contains("class=\"other\" x=\"92\" y=\"78\" width=\"100.0\""), "{svg}");
    }

    #[test]
    fn the_colours_contrast_with_white_and_with_dark() {
        let luminance = |hex: &str| {
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")) / 255.0;
                if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
        };
        let contrast = |one: f64, other: f64| (one.max(other) + 0.05) / (one.min(other) + 0.05);
        for colour in STYLE.split('#').skip(1).map(|rest| &rest[..6]) {
            for background in ["ffffff", "0d1117"] {
                let ratio = contrast(luminance(colour), luminance(background));
                assert!(ratio > 4.1, "#{colour} on #{background}: {ratio:.2}");
            }
        }
    }

    #[test]
    fn a_missing_row_is_named() {
        let error = chart(&outcome(3, &[PANELS[0].0])).expect_err("no bulk row").to_string();
        assert_eq!(error, "the chart needs the row 'bulk, 8 connections'");
    }
}
