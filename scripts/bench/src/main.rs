//! Compares edgecho with other servers that do the same work. `scripts/bench.sh` builds and runs it.

mod check;
mod options;
mod peer;
mod process;
mod progress;
mod report;
mod schedule;
mod work;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use check::{CHECKS, Verdict};
use options::Options;
use peer::Peer;
use progress::Progress;
use report::{Cell, Outcome};
use work::{BEST_RATE_OF, Context, Work};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench.sh: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let outcome = match &options.from {
        Some(path) => report::from_json(&std::fs::read_to_string(path)?)?,
        None => measure_all(options)?,
    };
    write(&outcome, options)
}

/// Builds, checks and measures the wanted servers.
fn measure_all(options: &Options) -> Result<Outcome> {
    let works = options.works()?;
    let rounds = options.rounds();
    let mut outcome = Outcome::new(rounds);
    let mut peers: Vec<Peer> = peer::all().into_iter().filter(|peer| options.wants(peer)).collect();
    if peers.is_empty() {
        return Err("no server matches --only; --help lists the names".into());
    }
    peers.retain_mut(|peer| match peer.build() {
        Ok(()) => true,
        Err(error) => {
            outcome.missing.push((peer.name.to_owned(), format!("{error}; {}", peer.needs)));
            false
        }
    });
    outcome.peers = peers.iter().map(|peer| peer.name.to_owned()).collect();
    let mut context = Context { duration: Duration::try_from_secs_f64(options.seconds())?, best_rate: 0.0 };

    let turns = works.iter().map(|work| work.repeat.rounds(rounds)).sum::<usize>() * peers.len();
    let progress = Progress::new(turns + if options.unchecked { 0 } else { peers.len() });
    if !options.unchecked {
        for peer in &peers {
            progress.step(peer.name, "checks");
            outcome.checks.push(CHECKS.iter().map(|check| Verdict::of(peer, check)).collect());
        }
    }
    for work in works {
        let cells = measure(work, &peers, work.repeat.rounds(rounds), &context, &progress);
        outcome.rows.extend(work.metrics.iter().copied().zip(cells));
        if work.name == BEST_RATE_OF {
            context.best_rate = outcome.best_rate();
        }
    }
    progress.end();
    Ok(outcome)
}

/// Measures one piece of work on all servers, in turns: each server once per round, so that a disturbance of the machine affects all of them.
/// Returns a row for each metric, with a cell for each server.
fn measure(work: &Work, peers: &[Peer], rounds: usize, context: &Context, progress: &Progress) -> Vec<Vec<Cell>> {
    let mut cells = vec![vec![Cell::default(); peers.len()]; work.metrics.len()];
    for round in 0..rounds {
        for place in schedule::order(round, peers.len()) {
            let peer = &peers[place];
            progress.step(peer.name, work.name);
            let result = if work.connections > peer.most_connections {
                Err("not made for this many connections".into())
            } else if cells[0][place].failure.is_some() {
                continue; // one failure is enough
            } else {
                (work.measure)(peer, context)
            };
            match result {
                Ok(values) => cells.iter_mut().zip(values).for_each(|(row, value)| row[place].values.push(value)),
                Err(error) => cells.iter_mut().for_each(|row| row[place].failure = Some(error.to_string())),
            }
        }
    }
    cells
}

/// Writes the reports, and prints the table.
fn write(outcome: &Outcome, options: &Options) -> Result<()> {
    let table = report::markdown(outcome);
    let json = report::json(outcome)?;
    let directory = Path::new("target/bench");
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("report.md"), &table)?;
    std::fs::write(directory.join("report.html"), report::html(outcome))?;
    if options.from.is_none() {
        std::fs::write(directory.join("results.json"), &json)?;
    }
    if let Some(path) = &options.json {
        std::fs::write(path, &json)?;
    }
    if let Some(path) = &options.chart {
        std::fs::write(path, report::chart(outcome)?)?;
    }
    if options.update_docs {
        let (summary, chart) = (report::summary(outcome)?, report::chart(outcome)?);
        report::replace_table(Path::new("docs/performance.md"), &table)?;
        report::replace_table(Path::new("README.md"), &summary)?;
        std::fs::write("docs/performance.svg", chart)?;
        std::fs::write("docs/performance.json", &json)?;
    }
    print!("{table}");
    Ok(())
}
