//! Everything, as JSON.

use serde::Serialize;

use super::Outcome;
use crate::Result;
use crate::check::{CHECKS, Verdict};
use crate::work::Better;

#[derive(Serialize)]
struct JsonRow<'a> {
    name: &'a str,
    unit: &'a str,
    better: &'a str,
    peers: Vec<JsonCell<'a>>,
}

#[derive(Serialize)]
struct JsonCell<'a> {
    peer: &'a str,
    median: Option<f64>,
    rounds: &'a [f64],
    failure: Option<&'a str>,
}

/// Everything, as JSON.
pub fn json(outcome: &Outcome) -> Result<String> {
    let rows: Vec<JsonRow> = outcome
        .rows
        .iter()
        .map(|(metric, cells)| JsonRow {
            name: metric.name,
            unit: metric.unit,
            better: if metric.better == Better::Less { "less" } else { "more" },
            peers: outcome
                .peers
                .iter()
                .zip(cells)
                .map(|(&peer, cell)| JsonCell {
                    peer,
                    median: cell.median(),
                    rounds: &cell.values,
                    failure: cell.failure.as_deref(),
                })
                .collect(),
        })
        .collect();
    let checks: Vec<_> = outcome
        .peers
        .iter()
        .zip(&outcome.checks)
        .map(|(peer, results)| {
            let named: Vec<_> = CHECKS
                .iter()
                .zip(results)
                .map(|((name, _), verdict)| {
                    let was_asked = !matches!(verdict, Verdict::NotAsked);
                    serde_json::json!({ "name": name, "was_asked": was_asked, "failure": verdict.failure() })
                })
                .collect();
            serde_json::json!({ "peer": peer, "checks": named })
        })
        .collect();
    let missing: Vec<_> =
        outcome.missing.iter().map(|(peer, why)| serde_json::json!({ "peer": peer, "why": why })).collect();
    let machine: serde_json::Map<_, _> =
        outcome.machine.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
    let document = serde_json::json!({ "machine": machine, "rows": rows, "checks": checks, "missing": missing });
    Ok(serde_json::to_string_pretty(&document)?)
}
