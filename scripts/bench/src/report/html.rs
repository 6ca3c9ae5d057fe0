//! A self-contained HTML page, for light and dark, wide and narrow screens.

use std::fmt::Write;

use super::{OWN, Outcome, digits, escape, plot};
use crate::check::{CHECKS, Verdict};
use crate::work::{Better, Metric, SHARES, Shown};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d8dde4; --back: #fff; --best: #0b6e3f; --behind: #b3261e;
  --bar: #9db4d0; --own: #2b6cb0 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a3b3; --line: #343c48; --back: #14181e; --best: #5fce93;
  --behind: #ff8a80; --bar: #44566e; --own: #63a4e8 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto; max-width: 74rem;
  padding: 1rem 1.2rem 4rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p, li { color: var(--soft) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .86rem }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back) }
.best { font-weight: 700; color: var(--best) } .behind { color: var(--behind) } .ratio { color: var(--soft); font-size: .78rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.6rem }
svg { width: 100%; height: auto } svg text { fill: var(--ink); font: 12px system-ui, sans-serif }
svg .bar { fill: var(--bar) } svg .own { fill: var(--own) } svg .soft { fill: var(--soft) }
code { font-size: .9em }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .8rem; margin: .2rem 0 0 }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em }
@media (max-width: 40rem) { th:first-child, td:first-child { white-space: normal; min-width: 8rem; max-width: 8rem; font-size: .78rem } }
figure { margin: 0 } figcaption { font-weight: 600; margin-bottom: .3rem }
";

/// Returns the page.
pub fn html(outcome: &Outcome) -> String {
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>edgecho compared with other servers</title><style>{STYLE}</style>\n<h1>edgecho compared with other servers</h1>\n<p>"
    );
    let _ = writeln!(page, "{} To measure again: <code>scripts/bench.sh</code>.</p>", escape(&outcome.about()));
    write_checks(&mut page, outcome);
    write_table(&mut page, outcome);
    page.push_str("<h2>Plots</h2>\n<div class=\"plots\">\n");
    let rates = plot::rates(outcome).map(|plot| ("64-byte messages, by connections".to_owned(), plot));
    let latency = |share| {
        Some((format!("Latency at {share} % of the best rate, 50 connections, open loop"), plot::latencies(outcome, share)?))
    };
    for (caption, plot) in rates.into_iter().chain(SHARES.into_iter().filter_map(latency)) {
        let _ = writeln!(page, "<figure><figcaption>{caption}</figcaption>{plot}</figure>");
    }
    for (metric, cells) in outcome.rows.iter().filter(|(metric, _)| metric.shown == Shown::Bars) {
        let values: Vec<(&str, f64)> =
            outcome.peers.iter().zip(cells).filter_map(|(peer, cell)| Some((peer.as_str(), cell.median()?))).collect();
        write_bars(&mut page, metric, &values);
    }
    page.push_str("</div>\n");
    for (peer, why) in &outcome.missing {
        let _ = writeln!(page, "<p>{} is missing: {}</p>", escape(peer), escape(why));
    }
    page.push_str("</html>\n");
    page
}

fn write_checks(page: &mut String, outcome: &Outcome) {
    if outcome.checks.is_empty() {
        return;
    }
    page.push_str("<h2>Checks</h2>\n<p>A server that fails a check other than the last is still measured, marked †, and wins nothing.</p>\n<div class=\"scroll\"><table><tr><th>");
    for (name, _) in CHECKS {
        let _ = write!(page, "<th>{name}");
    }
    for (peer, results) in outcome.peers.iter().zip(&outcome.checks) {
        let _ = write!(page, "\n<tr><td>{}", escape(peer));
        for verdict in results {
            match verdict {
                Verdict::Passed => page.push_str("<td>yes"),
                Verdict::NotAsked => page.push_str("<td title=\"not made for this many connections\">–"),
                Verdict::Failed(why) => drop(write!(page, "<td class=\"behind\" title=\"{}\">no", escape(why))),
            }
        }
    }
    page.push_str("\n</table></div>\n<ul>");
    for (peer, results) in outcome.peers.iter().zip(&outcome.checks) {
        for ((name, _), verdict) in CHECKS.iter().zip(results) {
            if let Some(why) = verdict.failure() {
                let _ = write!(page, "<li>{}, {name}: {}", escape(peer), escape(why));
            }
        }
    }
    page.push_str("</ul>\n");
}

fn write_table(page: &mut String, outcome: &Outcome) {
    page.push_str("<h2>Figures</h2>\n<p>In small type: the ratio to edgecho, round by round. Bold: better than all others beyond the noise. No bold: the servers are too close, or the machine too noisy, to tell. Red: edgecho where another server is better.</p>\n<div class=\"scroll\"><table><tr><th>");
    for (place, peer) in outcome.peers.iter().enumerate() {
        let _ = write!(page, "<th>{}{}", escape(peer), if outcome.is_sound(place) { "" } else { " †" });
    }
    let own = outcome.own();
    for (metric, cells) in outcome.listed() {
        let best = outcome.best(metric, cells);
        let is_behind = !outcome.ahead(metric, cells).is_empty();
        let _ = write!(page, "\n<tr><td>{}, {}", escape(metric.name), metric.unit);
        for (place, cell) in cells.iter().enumerate() {
            let Some(median) = cell.median() else {
                let _ = write!(page, "<td title=\"{}\">–", escape(cell.failure.as_deref().unwrap_or("")));
                continue;
            };
            let class = if best == Some(place) {
                "best"
            } else if own == Some(place) && is_behind {
                "behind"
            } else {
                ""
            };
            let _ = write!(page, "<td class=\"{class}\">{}", digits(median));
            if let Some(ratio) = own.filter(|&own| own != place).and_then(|own| cell.ratio(&cells[own])) {
                let _ = write!(page, " <span class=\"ratio\">{ratio:.2}</span>");
            }
        }
    }
    page.push_str("\n</table></div>\n");
}

/// Writes one bar per server, the best on top.
fn write_bars(page: &mut String, metric: &Metric, values: &[(&str, f64)]) {
    const ROW: usize = 22;
    const LEFT: f64 = 170.0;
    const WIDTH: f64 = 190.0;
    let mut values = values.to_vec();
    values.sort_by(
        |one, other| if metric.better == Better::Less { one.1.total_cmp(&other.1) } else { other.1.total_cmp(&one.1) },
    );
    let most = values.iter().map(|&(_, value)| value).fold(f64::MIN_POSITIVE, f64::max);
    let height = 30 + ROW * values.len();
    let direction = if metric.better == Better::Less { "less is better" } else { "more is better" };
    let _ = write!(
        page,
        "<svg viewBox=\"0 0 430 {height}\" role=\"img\"><title>{0}</title><text x=\"0\" y=\"14\">{0} ({1}; {direction})</text>",
        escape(metric.name),
        metric.unit
    );
    for (row, (peer, value)) in values.iter().enumerate() {
        let y = 26 + ROW * row;
        let class = if *peer == OWN { "own" } else { "bar" };
        let length = (value / most * WIDTH).max(1.0);
        let _ = write!(
            page,
            "<text x=\"{0}\" y=\"{1}\" text-anchor=\"end\">{peer}</text><rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" \
             height=\"16\" rx=\"2\"/><text class=\"soft\" x=\"{2:.1}\" y=\"{1}\">{3}</text>",
            LEFT - 6.0,
            y + 13,
            LEFT + length + 5.0,
            digits(*value),
            peer = escape(peer)
        );
    }
    page.push_str("</svg>\n");
}
