//! The results as JSON, written and read back.

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::{Cell, Outcome};
use crate::Result;
use crate::check::{CHECKS, Verdict};
use crate::work::{Better, metric_named};

#[derive(Serialize, Deserialize)]
struct Document {
    machine: Machine,
    rounds: usize,
    peers: Vec<String>,
    rows: Vec<Row>,
    checks: Vec<Checks>,
    missing: Vec<Missing>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    unit: String,
    better: String,
    peers: Vec<RowCell>,
}

#[derive(Serialize, Deserialize)]
struct RowCell {
    peer: String,
    /// For readers; calculated again when the file is read.
    median: Option<f64>,
    /// `null` stands for a figure that is not a number.
    rounds: Vec<Option<f64>>,
    failure: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Checks {
    peer: String,
    checks: Vec<Check>,
}

#[derive(Serialize, Deserialize)]
struct Check {
    name: String,
    was_asked: bool,
    failure: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Missing {
    peer: String,
    why: String,
}

/// Returns the results as JSON.
pub fn json(outcome: &Outcome) -> Result<String> {
    let named = |(peer, cell): (&String, &Cell)| RowCell {
        peer: peer.clone(),
        median: cell.median(),
        rounds: cell.values.iter().copied().map(Some).collect(),
        failure: cell.failure.clone(),
    };
    let document = Document {
        machine: outcome.machine.clone(),
        rounds: outcome.rounds,
        peers: outcome.peers.clone(),
        rows: outcome
            .rows
            .iter()
            .map(|(metric, cells)| Row {
                name: metric.name.to_owned(),
                unit: metric.unit.to_owned(),
                better: if metric.better == Better::Less { "less" } else { "more" }.to_owned(),
                peers: outcome.peers.iter().zip(cells).map(named).collect(),
            })
            .collect(),
        checks: outcome
            .peers
            .iter()
            .zip(&outcome.checks)
            .map(|(peer, verdicts)| Checks {
                peer: peer.clone(),
                checks: CHECKS
                    .iter()
                    .zip(verdicts)
                    .map(|((name, _), verdict)| Check {
                        name: (*name).to_owned(),
                        was_asked: !matches!(verdict, Verdict::NotAsked),
                        failure: verdict.failure().map(str::to_owned),
                    })
                    .collect(),
            })
            .collect(),
        missing: outcome.missing.iter().map(|(peer, why)| Missing { peer: peer.clone(), why: why.clone() }).collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// Reads results that [`json`] wrote.
pub fn from_json(text: &str) -> Result<Outcome> {
    let document: Document = serde_json::from_str(text)?;
    let mut outcome = Outcome::new(document.rounds);
    outcome.machine = document.machine;
    outcome.peers = document.peers;
    outcome.missing = document.missing.into_iter().map(|missing| (missing.peer, missing.why)).collect();
    for row in document.rows {
        let metric = metric_named(&row.name).ok_or_else(|| format!("the results have an unknown row, '{}'", row.name))?;
        if !row.peers.iter().map(|cell| &cell.peer).eq(&outcome.peers) {
            return Err(format!("the row '{}' has other servers than the list", row.name).into());
        }
        let cells = row.peers.into_iter().map(|cell| Cell {
            values: cell.rounds.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect(),
            failure: cell.failure,
        });
        outcome.rows.push((metric, cells.collect()));
    }
    for checks in document.checks {
        if !checks.checks.iter().map(|check| check.name.as_str()).eq(CHECKS.iter().map(|&(name, _)| name)) {
            return Err(format!("the results have other checks of {} than this version", checks.peer).into());
        }
        let verdict = |check: Check| match check.failure {
            Some(reason) => Verdict::Failed(reason),
            None if check.was_asked => Verdict::Passed,
            None => Verdict::NotAsked,
        };
        outcome.checks.push(checks.checks.into_iter().map(verdict).collect());
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{chart, markdown, summary, tests::outcome};

    #[test]
    fn reports_from_json_are_those_of_the_run() {
        let mut run = outcome(3, &super::super::summary_rows());
        run.checks = run.peers.iter().map(|_| CHECKS.iter().map(|_| Verdict::Passed).collect()).collect();
        run.checks[1][3] = Verdict::NotAsked;
        run.checks[1][4] = Verdict::Failed("3 of 4 bytes came back".to_owned());
        run.rows[0].1[1].failure = Some("not made for this many connections".to_owned());
        run.missing.push(("monoio".to_owned(), "no compiler".to_owned()));
        let read = from_json(&json(&run).expect("JSON")).expect("its own JSON");
        assert_eq!(markdown(&read), markdown(&run));
        assert_eq!(summary(&read).expect("all rows"), summary(&run).expect("all rows"));
        assert_eq!(chart(&read).expect("all rows"), chart(&run).expect("all rows"));
        assert_eq!(json(&read).expect("JSON"), json(&run).expect("JSON"));
    }

    #[test]
    fn a_row_of_another_version_is_named() {
        let text = json(&outcome(1, &["bulk, 8 connections"])).expect("JSON").replace("bulk, 8", "bulk, 9");
        let error = from_json(&text).err().expect("an unknown row").to_string();
        assert!(error.contains("bulk, 9 connections"), "{error}");
    }
}
