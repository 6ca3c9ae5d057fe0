//! Line plots, drawn by plotters: rate by connections, and latency by percentile. Text and axes take their colours from the page.

use std::error::Error;

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use super::{OWN, Outcome};
use crate::work::Shown;

const SIZE: (u32, u32) = (480, 330);

/// Placeholders for the colours of the page.
const INK: RGBColor = RGBColor(1, 2, 3);
const LINE: RGBColor = RGBColor(4, 5, 6);

/// One colour per server, readable on light and on dark.
const COLOURS: [RGBColor; 16] = [
    RGBColor(0x2b, 0x7b, 0xd6),
    RGBColor(0xe0, 0x7b, 0x1a),
    RGBColor(0x8a, 0x8a, 0x8a),
    RGBColor(0x2f, 0xa0, 0x4c),
    RGBColor(0xd2, 0x3f, 0x3f),
    RGBColor(0x96, 0x62, 0xc4),
    RGBColor(0x9a, 0x6a, 0x58),
    RGBColor(0xdd, 0x6f, 0xb8),
    RGBColor(0x17, 0xa8, 0xb8),
    RGBColor(0xa8, 0xa8, 0x20),
    RGBColor(0x5b, 0x8f, 0xa8),
    RGBColor(0x00, 0x9e, 0x8e),
    RGBColor(0xc0, 0x90, 0x30),
    RGBColor(0x70, 0x80, 0xe0),
    RGBColor(0xb0, 0x50, 0x80),
    RGBColor(0x60, 0xa0, 0x20),
];

/// The points of one server.
struct Line<'a> {
    place: usize,
    peer: &'a str,
    points: Vec<(f64, f64)>,
}

/// Returns a line per server, of the rows for which `x` returns a position on the x-axis.
fn lines(outcome: &Outcome, x: impl Fn(Shown) -> Option<f64>) -> Vec<Line<'_>> {
    let line = |place: usize| {
        let points = outcome.rows.iter().filter_map(|(metric, cells)| Some((x(metric.shown)?, cells[place].median()?)));
        Line { place, peer: &outcome.peers[place], points: points.collect() }
    };
    (0..outcome.peers.len()).map(line).filter(|line| line.points.len() > 1).collect()
}

/// Plots messages per second by connections, on a logarithmic axis.
pub fn rates(outcome: &Outcome) -> Option<String> {
    let lines =
        lines(outcome, |shown| if let Shown::Rate(connections) = shown { Some(f64::from(connections)) } else { None });
    let most = largest(&lines)?;
    let whole = |value: &f64| format!("{value:.0}");
    let thousands = |value: &f64| format!("{:.0}k", value / 1e3);
    draw(lines, |area, lines| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(28)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d((1.0..10_000.0).log_scale(), 0.0..most * 1.08)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("connections").y_desc("messages/s").x_label_formatter(&whole).y_label_formatter(&thousands);
        style(&mut mesh);
        mesh.draw()?;
        for line in lines {
            chart.draw_series(series(line))?;
        }
        Ok(())
    })
}

/// Plots latency by percentile at a share of the best rate, on logarithmic axes.
pub fn latencies(outcome: &Outcome, share: u32) -> Option<String> {
    let nines = |percentile: f64| -(1.0 - percentile / 100.0).log10();
    let lines = lines(outcome, |shown| match shown {
        Shown::Latency(of, percentile) if of == share => Some(nines(percentile)),
        _ => None,
    });
    let most = largest(&lines)?;
    let least = lines.iter().flat_map(|line| &line.points).map(|&(_, y)| y).fold(f64::MAX, f64::min).max(1e-4);
    let percentile = |&nines: &f64| {
        let text = format!("{:.2}", 100.0 - 100.0 * 10_f64.powf(-nines));
        format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    draw(lines, |area, lines| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(28)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(nines(50.0)..4.0, (least * 0.8..most * 1.3).log_scale())?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("percentile").y_desc("ms").x_labels(5).x_label_formatter(&percentile);
        style(&mut mesh);
        mesh.draw()?;
        for line in lines {
            chart.draw_series(series(line))?;
        }
        Ok(())
    })
}

fn largest(lines: &[Line<'_>]) -> Option<f64> {
    lines.iter().flat_map(|line| &line.points).map(|&(_, y)| y).reduce(f64::max)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a plot, and returns it as an SVG with a legend in HTML. Returns `None` if it cannot be drawn.
fn draw(
    mut lines: Vec<Line<'_>>,
    chart: impl FnOnce(&Area<'_>, &[Line<'_>]) -> std::result::Result<(), Box<dyn Error>>,
) -> Option<String> {
    lines.sort_by_key(|line| std::cmp::Reverse(line.place)); // the first is drawn last, on top of the others
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        chart(&area, &lines).ok()?;
        area.present().ok()?;
    }
    let svg = svg.replace(&hex(INK), "var(--ink)").replace(&hex(LINE), "var(--line)");
    let legend = lines
        .iter()
        .rev()
        .map(|line| format!("<span><i style=\"background:{}\"></i>{}</span>", hex(colour(line.place)), line.peer));
    Some(format!("{svg}<p class=\"legend\">{}</p>", legend.collect::<String>()))
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// Sets the colours of text and axes.
fn style<X, Y>(mesh: &mut MeshStyle<'_, '_, X, Y, SVGBackend<'_>>)
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    mesh.label_style(("sans-serif", 13).into_font().color(&INK));
    mesh.axis_desc_style(("sans-serif", 14).into_font().color(&INK));
    mesh.axis_style(INK).bold_line_style(LINE).light_line_style(TRANSPARENT);
}

/// Returns the line of a server; edgecho's is thicker.
fn series(line: &Line<'_>) -> LineSeries<SVGBackend<'static>, (f64, f64)> {
    let width = if line.peer == OWN { 4 } else { 2 };
    LineSeries::new(line.points.clone(), colour(line.place).stroke_width(width)).point_size(width)
}
